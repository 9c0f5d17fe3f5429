"""No search for garbage within a block, and as before after it."""

import gc

import pytest

from napari_nucleiseg.core.garbage import without_searches


def fail():
    """Look whether searches are made, and fail."""
    assert not gc.isenabled()
    raise OSError("no")


@pytest.mark.parametrize("was_on", [True, False])
def test_there_is_none_within_and_it_is_as_before_afterwards(was_on):
    before = gc.isenabled()
    (gc.enable if was_on else gc.disable)()
    try:
        with pytest.raises(OSError, match="no"), without_searches():
            fail()
        assert gc.isenabled() == was_on
    finally:
        (gc.enable if before else gc.disable)()

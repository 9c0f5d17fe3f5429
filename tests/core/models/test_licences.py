"""Which licences leave commercial use free: only those that are known to."""

import pytest

from napari_nucleiseg.core.models.licences import allows_commercial_use, is_single


@pytest.mark.parametrize("licence", ["MIT", "CC-BY-4.0 AND CC0-1.0", "Apache-2.0"])
def test_free_ones(licence):
    assert allows_commercial_use(licence)


@pytest.mark.parametrize("licence", ["CC-BY-NC-4.0", "MIT AND CC-BY-NC-SA-4.0", "unknown", "", "MIT OR mine", "free"])
def test_all_others_are_asked_for(licence):
    assert not allows_commercial_use(licence)


def test_one_identifier_is_told_from_an_expression():
    assert is_single("MIT")
    assert is_single("CC-BY-NC-SA-4.0")
    assert not is_single("MIT AND CC0-1.0")

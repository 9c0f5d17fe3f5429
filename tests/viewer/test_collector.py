"""What is there for good is left out of searches for garbage, until nobody wants that any more."""

import gc
import weakref

import pytest

from napari_nucleiseg.viewer.collector import left_out_of_searches, search_again


class Node:
    """Unreachable once nobody holds it, and yet in a cycle."""

    def __init__(self):
        self.me = self


class Holder:
    """Somebody who wants it."""


@pytest.fixture(autouse=True)
def _searched():
    """Nothing is left out before; what other tests left out is so again afterwards."""
    frozen = gc.get_freeze_count()
    gc.unfreeze()
    yield
    if frozen:
        gc.freeze()


def test_what_is_there_is_not_searched_and_what_comes_later_is():
    holder, kept = Holder(), Node()
    with left_out_of_searches(holder):
        assert not gc.isenabled()
    assert gc.isenabled()
    there, later = weakref.ref(kept), weakref.ref(Node())
    del kept
    gc.collect()
    assert there() is not None
    assert later() is None
    search_again(holder)
    gc.collect()
    assert there() is None


def test_it_lasts_until_the_last_wants_it_no_more():
    first, second, stranger = Holder(), Holder(), Holder()
    for holder in (first, second, first):
        with left_out_of_searches(holder):
            pass
    for holder in (stranger, first, first):
        search_again(holder)
        assert gc.get_freeze_count()
    search_again(second)
    assert not gc.get_freeze_count()


def test_an_error_goes_on_and_searches_go_on():
    def fail(holder):
        with left_out_of_searches(holder):
            raise OSError("no")

    holder = Holder()
    with pytest.raises(OSError, match="no"):
        fail(holder)
    assert gc.isenabled()
    search_again(holder)


def test_who_makes_no_searches_still_makes_none():
    holder = Holder()
    gc.disable()
    try:
        with left_out_of_searches(holder):
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
    search_again(holder)

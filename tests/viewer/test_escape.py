"""Escape is lent and given back, in whatever order those who hold it let go."""

import itertools

import pytest
from napari.components import ViewerModel
from napari.utils.key_bindings import coerce_keybinding

from napari_nucleiseg.viewer.escape import ESCAPE, EscapeKey


@pytest.fixture
def viewer():
    return ViewerModel()


@pytest.fixture
def press(viewer):
    def act():
        bound = viewer.keymap.get(coerce_keybinding(ESCAPE))
        if bound is not None:
            bound(viewer)

    return act


def test_it_does_what_it_did_before_once_it_is_given_back(viewer, press):
    done = []
    viewer.bind_key(ESCAPE, lambda _viewer: done.append("theirs"))
    key = EscapeKey(viewer, lambda: done.append("ours"))
    key.release()
    press()
    key.take()
    key.take()
    press()
    key.release()
    key.release()
    press()
    assert done == ["theirs", "ours", "theirs"]


@pytest.mark.parametrize("order", list(itertools.permutations("abc")))
def test_several_hold_it_and_let_go_in_any_order(viewer, press, order):
    done = []
    keys = {name: EscapeKey(viewer, lambda name=name: done.append(name)) for name in "abc"}
    for key in keys.values():
        key.take()
    held = ["a", "b", "c"]
    for name in order:
        press()
        assert done.pop() == held[-1]
        keys[name].release()
        held.remove(name)
    press()
    assert not done
    assert coerce_keybinding(ESCAPE) not in viewer.keymap
    for key in reversed(keys.values()):
        key.take()
    press()
    assert done == ["a"]

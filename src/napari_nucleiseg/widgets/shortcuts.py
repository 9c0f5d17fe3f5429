"""Keys of the panel, bound while it is open; chosen so that they take none of napari's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from napari.utils.key_bindings import coerce_keybinding


@dataclass(frozen=True, slots=True)
class Shortcut:
    """A key and what it does."""

    key: str
    title: str

    @property
    def text(self) -> str:
        """The key as people write it."""
        return self.key.replace("-", "+")


FOLLOW = Shortcut("Shift-F", "follow the view")
VIEW = Shortcut("Shift-N", "segment the view")
SHAPE = Shortcut("Shift-S", "segment the selected shape")
SLIDE = Shortcut("Shift-W", "segment the whole slide")
STOP = Shortcut("Shift-Q", "stop")
OUTLINES = Shortcut("N", "show or hide the nuclei")
CORRECT = Shortcut("Shift-E", "correct nuclei")
UNDO = Shortcut("Control-Z", "undo")
REDO = Shortcut("Control-Shift-Z", "do again")
NEXT = Shortcut("U", "go to the next nucleus that nobody has approved")
PROPOSE = Shortcut("Shift-R", "go to the next region that is worth correcting")
PLOTS = Shortcut("Shift-M", "plot what is measured of nuclei")
BATCH = Shortcut("Shift-B", "work through many slides")
HEATMAP = Shortcut("H", "show or hide the heatmap")
LIKE = Shortcut("Shift-K", "mark what is like")
UNLIKE = Shortcut("Shift-U", "mark what is not like")
CHOOSE = Shortcut("Shift-C", "choose among what is proposed as like")
ACCEPT_LIKE = Shortcut("Shift-Y", "accept what is proposed as like")
PAINT_ATTENTION = Shortcut("Shift-H", "paint attention")


class Keys:
    """Keys bound to a viewer until `release`.

    Parameters
    ----------
    viewer : napari.Viewer
        To bind them to.
    actions : mapping of Shortcut to callable
        What to do.
    """

    def __init__(self, viewer: Any, actions: Mapping[Shortcut, Callable[[], None]]) -> None:
        self._viewer = viewer
        before = dict(viewer.keymap)
        self._before = {shortcut.key: before.get(coerce_keybinding(shortcut.key)) for shortcut in actions}
        for shortcut, action in actions.items():
            viewer.bind_key(shortcut.key, _ignoring_viewer(action), overwrite=True)

    def release(self) -> None:
        """Unbind them, and bind again what was bound to them before."""
        for key, action in self._before.items():
            self._viewer.bind_key(key, None)
            if action is not None:
                self._viewer.bind_key(key, action)
        self._before = {}


def _ignoring_viewer(action: Callable[[], None]) -> Callable[[Any], None]:
    def press(_viewer: Any) -> None:
        action()

    return press

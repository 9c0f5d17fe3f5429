"""The key Escape, lent to whoever has a click in hand, and given back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

ESCAPE = "Escape"


class EscapeKey:
    """Lets Escape do one thing for a while; then it does what it did before.

    Several may hold the key at once and let go of it in any order: the last one who took it has it.

    Parameters
    ----------
    viewer : napari.Viewer
        Whose key it is.
    action : callable
        Done when it is pressed meanwhile.
    """

    def __init__(self, viewer: Any, action: Callable[[], None]) -> None:
        self._viewer, self._action = viewer, action
        self._is_held = False
        self.before: Any = None
        """What the key did before it was taken; None for nothing."""

    def take(self) -> None:
        """Have the key from now on."""
        if not self._is_held:
            self._is_held, self.before = True, self._bound()
            self._viewer.bind_key(ESCAPE, self._on_pressed, overwrite=True)

    def release(self) -> None:
        """Give it back; who has taken it since keeps it, and gives it back past this one."""
        if not self._is_held:
            return
        self._is_held = False
        bound = self._bound()
        if bound == self._on_pressed:
            self._viewer.bind_key(ESCAPE, None)
            if self.before is not None:
                self._viewer.bind_key(ESCAPE, self.before)
            return
        while isinstance(holder := getattr(bound, "__self__", None), EscapeKey):
            bound = holder.before
            if bound == self._on_pressed:
                holder.before = self.before
                return

    def _bound(self) -> Any:
        from napari.utils.key_bindings import coerce_keybinding

        return self._viewer.keymap.get(coerce_keybinding(ESCAPE))

    def _on_pressed(self, _viewer: Any) -> None:
        self._action()

"""Signals that are listened to for a while."""

from __future__ import annotations

from typing import Any


class Connections:
    """Slots that are told of signals from `open` to `close`.

    Parameters
    ----------
    *pairs : tuple
        Signal (psygnal's or napari's) and slot of each.
    """

    def __init__(self, *pairs: tuple[Any, Any]) -> None:
        self._pairs = pairs
        self.is_open = False

    def open(self) -> None:
        """Begin to listen; nothing changes if that has begun."""
        if not self.is_open:
            self.is_open = True
            for signal, slot in self._pairs:
                signal.connect(slot)

    def close(self) -> None:
        """Cease to listen; nothing changes if nobody does."""
        if self.is_open:
            self.is_open = False
            for signal, slot in self._pairs:
                signal.disconnect(slot)

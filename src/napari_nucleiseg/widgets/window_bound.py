"""Panels that end with the window or the dock they are in: neither tells what is docked when it closes."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import QEvent, QObject
from qtpy.QtWidgets import QWidget


class WindowBound(QWidget):
    """A panel that shuts down when its dock or its window is closed."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._window: QWidget | None = None
        self._closed = False

    @property
    def has_ended(self) -> bool:
        """Whether it has shut down."""
        return self._closed

    def shutdown(self) -> None:
        """Stop all work and let go of the viewer, once; also called when dock or window are closed."""
        if self._closed:
            return
        self._closed = True
        if self._window is not None:
            self._window.removeEventFilter(self)
            self._window = None
        self.end()

    def end(self) -> None:
        """Stop all work and let go of the viewer; called once."""

    def may_close(self) -> bool:
        """Tell whether the window may be closed now; whoever has unfinished work asks the user."""
        return True

    def showEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        """Watch the window that the panel is docked in: it closes without telling its docks."""
        super().showEvent(event)
        if not self._closed:
            self._watch(self.window())

    def _watch(self, window: QWidget) -> None:
        if window is not self._window:
            if self._window is not None:
                self._window.removeEventFilter(self)
            self._window = window
            window.installEventFilter(self)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:  # noqa: N802 - Qt's name
        """Shut down when the window does: all of its panels, once each of them lets it."""
        if event.type() == QEvent.Type.Close and watched is self._window:
            panels = [panel for panel in self._window.findChildren(WindowBound) if panel._window is watched]  # noqa: SLF001 - of this class
            # Who is asked last might say no, so that none may have ended before.
            if not all(panel.may_close() for panel in panels):
                event.ignore()
                return True
            for panel in panels:
                panel.shutdown()
        return False

    def event(self, event: QEvent) -> bool:
        """Shut down when the dock is closed: napari then takes the panel out of it."""
        if event.type() == QEvent.Type.ParentChange and self.parent() is None and self._window is not None:
            self.shutdown()
        return bool(super().event(event))

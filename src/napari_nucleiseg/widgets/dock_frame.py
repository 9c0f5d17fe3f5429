"""What stands between a dock and its panel, so that a small screen holds the window with the dock."""

from __future__ import annotations

from qtpy.QtCore import QEvent, QSize, Qt, Signal
from qtpy.QtWidgets import QScrollArea, QWidget

# With napari's layer list above it, a dock of this height still leaves the window lower than the screen of a laptop.
_LEAST_WIDTH, _LEAST_HEIGHT = 300, 100


class DockFrame(QScrollArea):
    """A panel in a dock: as large as it likes, and scrolled where it cannot be, so that the window need not grow.

    Parameters
    ----------
    panel : QWidget
        What is shown.

    Signals
    -------
    left
        The dock is closed: napari takes out what it holds.
    """

    left = Signal()

    def __init__(self, panel: QWidget) -> None:
        super().__init__()
        self._panel = panel
        self.setFrameShape(QScrollArea.Shape.NoFrame)
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)  # its controls take keys, it does not
        self.setWidgetResizable(True)
        self.setWidget(panel)

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Return the size that the panel likes."""
        return self._panel.sizeHint()

    def minimumSizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Return what can be used still, if the panel needs more."""
        return self._panel.minimumSizeHint().boundedTo(QSize(_LEAST_WIDTH, _LEAST_HEIGHT))

    def event(self, event: QEvent) -> bool:
        """Tell when the dock is closed."""
        if event.type() == QEvent.Type.ParentChange and self.parent() is None:
            self.left.emit()
        return bool(super().event(event))

"""What stands between a dock and its panel, so that a small screen holds the window with the dock."""

from __future__ import annotations

from qtpy.QtCore import QEvent, QSize, Qt, Signal
from qtpy.QtWidgets import QScrollArea, QWidget

_LEAST_WIDTH, _LEAST_HEIGHT = 300, 100
# What a window needs above and below a dock: napari's menus, layer controls, layer list and status, and the title bar.
_ELSEWHERE_PX = 640


class DockFrame(QScrollArea):
    """A panel in a dock: as large as it likes, and scrolled where the screen is too small for that.

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
        """Return what the panel needs, or less where the screen is too low for it and the rest of the window."""
        height = max(_LEAST_HEIGHT, self.screen().availableGeometry().height() - _ELSEWHERE_PX)
        return self._panel.minimumSizeHint().boundedTo(QSize(_LEAST_WIDTH, height))

    def event(self, event: QEvent) -> bool:
        """Tell when the dock is closed."""
        if event.type() == QEvent.Type.ParentChange and self.parent() is None:
            self.left.emit()
        return bool(super().event(event))

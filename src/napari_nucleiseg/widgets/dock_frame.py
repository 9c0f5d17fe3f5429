"""What stands between a dock and its panel, so that a small screen holds the window with the dock."""

from __future__ import annotations

from qtpy.QtCore import QEvent, QObject, QSize, Qt, Signal
from qtpy.QtGui import QResizeEvent
from qtpy.QtWidgets import QScrollArea, QWidget

_LEAST_WIDTH, _LEAST_HEIGHT = 300, 100
# What a window needs besides a dock: title bar, menus, layer controls, layer list, the tabs of docks and status.
_ELSEWHERE_PX = 665


class DockFrame(QScrollArea):
    """A panel in a dock: as large as it likes, and scrolled where the screen is too small for that.

    Parameters
    ----------
    panel : QWidget
        What is shown.

    Attributes
    ----------
    panel : QWidget
        The same.

    Signals
    -------
    left
        The dock is closed: napari takes out what it holds.
    """

    left = Signal()

    def __init__(self, panel: QWidget) -> None:
        super().__init__()
        self.panel = panel
        self.setFrameShape(QScrollArea.Shape.NoFrame)
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)  # its controls take keys, it does not
        self.setWidget(panel)

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Return the size that the panel likes."""
        return self.panel.sizeHint().grownBy(self.contentsMargins())

    def minimumSizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Return what the panel needs, or less where the screen is too low for it and the rest of the window."""
        height = max(_LEAST_HEIGHT, self.screen().availableGeometry().height() - _ELSEWHERE_PX)
        # A line around it, as napari's style draws one, takes room from the panel.
        return self._needed().grownBy(self.contentsMargins()).boundedTo(QSize(_LEAST_WIDTH, height))

    def resizeEvent(self, event: QResizeEvent) -> None:  # noqa: N802 - Qt's name
        """Give the panel all there is."""
        super().resizeEvent(event)
        self._fit()

    def _needed(self) -> QSize:
        return self.panel.minimumSizeHint().expandedTo(self.panel.minimumSize())

    def _fit(self) -> None:
        # What Qt would do itself with a panel of wrapped words is to scroll it before they have to move together.
        self.panel.resize(self.viewport().size().expandedTo(self._needed()))

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:  # noqa: N802 - Qt's name
        """Pass on that the panel needs another size; of itself a scroll area does not."""
        if watched is self.panel and event.type() == QEvent.Type.LayoutRequest:
            self.updateGeometry()
            self._fit()
        return bool(super().eventFilter(watched, event))

    def event(self, event: QEvent) -> bool:
        """Tell when the dock is closed."""
        if event.type() == QEvent.Type.ParentChange and self.parent() is None:
            self.left.emit()
        return bool(super().event(event))

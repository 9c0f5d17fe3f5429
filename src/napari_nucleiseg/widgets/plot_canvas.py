"""What all drawn plots have: axes with round numbers, a way to come nearer, and a fence that the mouse draws."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QPointF, QRectF, QSize, Qt, Signal
from qtpy.QtGui import (
    QColor,
    QImage,
    QKeyEvent,
    QMouseEvent,
    QPainter,
    QPaintEvent,
    QPen,
    QPolygonF,
    QResizeEvent,
    QWheelEvent,
)
from qtpy.QtWidgets import QSizePolicy, QWidget

from napari_nucleiseg.state import LASSO, RECTANGLE
from napari_nucleiseg.viewer.plot_data import LESS, MORE, NEW, ticks
from napari_nucleiseg.viewer.plot_raster import Pixels

# A third of a fence: from left to right, whatever the height.
SPAN = "span"
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 22, 40
TICK_PX, LINE_PX = 4, 16
# Screen pixels from one number to the next, at least.
APART_X, APART_Y = 70, 32
# So many screen pixels are still a click.
STILL_PX = 4
CORNER_PX = 2
STEP = 1.2
# The same yellow as the marks on the slide.
MARK = QColor("#ffd400")
PLAIN = {"dark": QColor("#56b4e9"), "light": QColor("#1f77b4")}
RIM = QColor("#1b1b1b")
# What is not selected steps back.
FADED = 0.35
CONTROL, ALT, SHIFT = (
    Qt.KeyboardModifier.ControlModifier,
    Qt.KeyboardModifier.AltModifier,
    Qt.KeyboardModifier.ShiftModifier,
)


@dataclass(frozen=True, slots=True)
class Window:
    """What part of a plot is seen, in the units of its axes."""

    left: float = 0.0
    right: float = 1.0
    low: float = 0.0
    high: float = 1.0


class PlotCanvas(QWidget):
    """An empty plot; what is in it is drawn by those that derive from it."""

    fenced = Signal(object, str)
    """Corners ``(across, up)`` of what was drawn, in the units of the axes, shape (n, 2); and how to select."""
    clicked = Signal(float, float, str)
    """A place ``(x, y)`` of this widget, screen pixels, and how to select."""
    key_pressed = Signal(str)
    """``Escape``, or a letter or digit that acts on the selection."""
    window_changed = Signal()
    """Another part of the plot is seen."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.setObjectName(name)
        self.setMinimumSize(QSize(260, 150))
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setCursor(Qt.CursorShape.CrossCursor)
        self.shape = LASSO
        """`LASSO`, `RECTANGLE` or `SPAN`: what the mouse draws."""
        self.all = Window()
        """All that there is to see."""
        self.empty = ""
        """Said instead of a plot; empty where there is one."""
        self.titles = ("", "")
        """Of the axes, across and up."""
        self._window: Window | None = None
        self._trace: list[QPointF] = []
        self._how = NEW
        self._panned_from: QPointF | None = None

    # ------------------------------------------------------------------ places

    @property
    def window_seen(self) -> Window:
        """What part is seen."""
        return self._window or self.all

    @property
    def is_near(self) -> bool:
        """Whether a part is seen only."""
        return self._window is not None

    def show_all(self) -> None:
        """See all of the plot."""
        self.look(None)

    def look(self, window: Window | None) -> None:
        """See a part of the plot; None is all."""
        if window != self._window:
            self._window = window
            self.forget()
            self.window_changed.emit()

    def area(self) -> QRectF:
        """Return where values are drawn, screen pixels of this widget."""
        return QRectF(self.rect()).adjusted(LEFT, TOP, -RIGHT, -BOTTOM)

    def pixels(self, across: NDArray[Any], up: NDArray[Any]) -> tuple[NDArray[np.float64], ...]:
        """Return where values lie, ``(x, y)`` in screen pixels of this widget."""
        area, seen = self.area(), self.window_seen
        x = area.left() + (across.astype(np.float64) - seen.left) / (seen.right - seen.left) * area.width()
        y = area.bottom() - (up.astype(np.float64) - seen.low) / (seen.high - seen.low) * area.height()
        return x, y

    def values(self, spot: QPointF) -> tuple[float, float]:
        """Return the values ``(across, up)`` at a place of this widget."""
        area, seen = self.area(), self.window_seen
        across = seen.left + (spot.x() - area.left()) / max(area.width(), 1) * (seen.right - seen.left)
        up = seen.low + (area.bottom() - spot.y()) / max(area.height(), 1) * (seen.high - seen.low)
        return across, up

    # ------------------------------------------------------------------ drawing

    def forget(self) -> None:
        """Draw all anew, what is kept as a picture included."""
        self.update()

    def colour(self) -> QColor:
        """Return the colour of nuclei without a class, which is seen on the present theme."""
        return PLAIN["dark" if self.palette().windowText().color().lightness() > 127 else "light"]

    def paintEvent(self, _event: QPaintEvent) -> None:  # noqa: N802 - Qt's name
        """Draw axes, what is in the plot, and the fence."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        ink = self.palette().windowText().color()
        if self.empty:
            painter.setPen(ink)
            wrapped = int(Qt.AlignmentFlag.AlignCenter) | int(Qt.TextFlag.TextWordWrap)
            painter.drawText(self.rect().adjusted(24, 8, -24, -8), wrapped, self.empty)
            return
        self._draw_axes(painter, ink)
        painter.save()
        painter.setClipRect(self.area().adjusted(-1, -1, 1, 1))
        self.draw(painter)
        self._draw_fence(painter, ink)
        painter.restore()
        painter.setPen(ink)
        self.draw_key(painter)

    def draw(self, painter: QPainter) -> None:
        """Draw what is in the plot."""

    def draw_key(self, painter: QPainter) -> None:
        """Draw what the colours mean, in the line above the plot."""

    def _draw_axes(self, painter: QPainter, ink: QColor) -> None:
        area, seen = self.area(), self.window_seen
        faint = QColor(ink)
        faint.setAlpha(36)
        xs = ticks(seen.left, seen.right, max(2, int(area.width() // APART_X)))
        ys = ticks(seen.low, seen.high, max(2, int(area.height() // APART_Y)))
        places_x, places_y = self.pixels(xs, np.full(len(xs), seen.low))[0], self.pixels(ys, ys)[1]
        painter.setPen(QPen(faint, 1))
        for x in places_x:
            painter.drawLine(QPointF(x, area.top()), QPointF(x, area.bottom() + TICK_PX))
        for y in places_y:
            painter.drawLine(QPointF(area.left() - TICK_PX, y), QPointF(area.right(), y))
        painter.setPen(ink)
        centre = int(Qt.AlignmentFlag.AlignHCenter) | int(Qt.AlignmentFlag.AlignTop)
        right = int(Qt.AlignmentFlag.AlignRight) | int(Qt.AlignmentFlag.AlignVCenter)
        for x, text in zip(places_x, _numbers(xs), strict=True):
            painter.drawText(QRectF(x - APART_X / 2, area.bottom() + TICK_PX, APART_X, LINE_PX), centre, text)
        for y, text in zip(places_y, _numbers(ys), strict=True):
            box = QRectF(LINE_PX, y - LINE_PX / 2, LEFT - LINE_PX - TICK_PX - 2, LINE_PX)
            painter.drawText(box, right, text)
        below = QRectF(area.left(), area.bottom() + TICK_PX + LINE_PX, area.width(), LINE_PX + 4)
        painter.drawText(below, centre, self._cut(painter, self.titles[0], area.width()))
        painter.save()
        painter.translate(0, area.bottom())
        painter.rotate(-90)
        beside = QRectF(0, 0, area.height(), LINE_PX)
        painter.drawText(beside, centre, self._cut(painter, self.titles[1], area.height()))
        painter.restore()

    @staticmethod
    def _cut(painter: QPainter, text: str, width: float) -> str:
        return painter.fontMetrics().elidedText(text, Qt.TextElideMode.ElideRight, int(width))

    def _draw_fence(self, painter: QPainter, ink: QColor) -> None:
        corners = self._corners()
        if len(corners) > 1:
            fill = QColor(ink)
            fill.setAlpha(30)
            painter.setBrush(fill)
            painter.setPen(QPen(ink, 1.2, Qt.PenStyle.DashLine))
            painter.drawPolygon(QPolygonF(corners))
            painter.setBrush(Qt.BrushStyle.NoBrush)

    def _corners(self) -> list[QPointF]:
        """Return the corners of what is being drawn, screen pixels."""
        if self.shape == LASSO or len(self._trace) < 2:
            return list(self._trace)
        one, other, area = self._trace[0], self._trace[-1], self.area()
        low, high = (one.y(), other.y()) if self.shape == RECTANGLE else (area.top(), area.bottom())
        return [QPointF(x, y) for x, y in ((one.x(), low), (other.x(), low), (other.x(), high), (one.x(), high))]

    def image(self, pixels: Pixels) -> QImage:
        """Return pixels (0xAARRGGBB, multiplied by their opacity) as a picture of the screen's own pixels."""
        kept = np.ascontiguousarray(pixels)
        height, width = kept.shape
        made = QImage(kept.data, width, height, 4 * width, QImage.Format.Format_ARGB32_Premultiplied).copy()
        made.setDevicePixelRatio(self.devicePixelRatioF())
        return made

    def resizeEvent(self, event: QResizeEvent) -> None:  # noqa: N802 - Qt's name
        """Draw anew."""
        super().resizeEvent(event)
        self.forget()

    # ------------------------------------------------------------------ mouse and keys

    def mousePressEvent(self, event: QMouseEvent) -> None:  # noqa: N802 - Qt's name
        """Begin a fence, or to move the plot."""
        if self.empty or not self.area().contains(event.position()):
            return
        if event.button() == Qt.MouseButton.LeftButton:
            self._how = MORE if event.modifiers() & SHIFT else LESS if event.modifiers() & (ALT | CONTROL) else NEW
            self._trace = [event.position()]
        elif event.button() in {Qt.MouseButton.RightButton, Qt.MouseButton.MiddleButton}:
            self._panned_from = event.position()

    def mouseMoveEvent(self, event: QMouseEvent) -> None:  # noqa: N802 - Qt's name
        """Go on with it."""
        if self._panned_from is not None:
            self._pan(event.position())
        elif self._trace and (event.position() - self._trace[-1]).manhattanLength() >= CORNER_PX:
            self._trace.append(self._held(event.position()))
            self.update()

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:  # noqa: N802 - Qt's name
        """Select what lies in the fence; without a fence it was a click."""
        self._panned_from = None
        if not self._trace or event.button() != Qt.MouseButton.LeftButton:
            return
        start = self._trace[0]
        far = max((spot - start).manhattanLength() for spot in (*self._trace, event.position()))
        if far > STILL_PX:
            self._trace.append(self._held(event.position()))
            corners = np.array([self.values(corner) for corner in self._corners()])
            self.fenced.emit(corners, self._how)
        else:
            self.clicked.emit(start.x(), start.y(), self._how)
        self._trace = []
        self.update()

    def _held(self, spot: QPointF) -> QPointF:
        """Return a place inside the plot: who draws beyond its rim means the rim."""
        area = self.area()
        return QPointF(min(max(spot.x(), area.left()), area.right()), min(max(spot.y(), area.top()), area.bottom()))

    def mouseDoubleClickEvent(self, _event: QMouseEvent) -> None:  # noqa: N802 - Qt's name
        """See all."""
        self._trace = []
        self.show_all()

    def wheelEvent(self, event: QWheelEvent) -> None:  # noqa: N802 - Qt's name
        """Come nearer to what is under the mouse, or go back."""
        if self.empty or not event.angleDelta().y():
            return
        seen, (x, y) = self.window_seen, self.values(self._held(event.position()))
        factor = STEP ** (-event.angleDelta().y() / 120)
        low, high = (seen.low, seen.high) if self.shape == SPAN else _around(seen.low, seen.high, y, factor)
        left, right = _around(seen.left, seen.right, x, factor)
        window, whole = Window(left, right, low, high), self.all
        is_all = right - left >= whole.right - whole.left and high - low >= whole.high - whole.low
        self.look(None if is_all else window)
        event.accept()

    def _pan(self, spot: QPointF) -> None:
        start = self.values(self._panned_from or spot)
        stop, seen = self.values(spot), self.window_seen
        across, up = start[0] - stop[0], 0.0 if self.shape == SPAN else start[1] - stop[1]
        self._panned_from = spot
        self.look(Window(seen.left + across, seen.right + across, seen.low + up, seen.high + up))

    def keyPressEvent(self, event: QKeyEvent) -> None:  # noqa: N802 - Qt's name
        """Drop the fence or the selection, or act on it; other keys are the viewer's."""
        text = event.text().upper()
        if event.key() == Qt.Key.Key_Escape:
            if not self._trace:
                self.key_pressed.emit("Escape")
            self._trace = []
            self.update()
        elif event.key() == Qt.Key.Key_A and event.modifiers() & CONTROL:
            self.key_pressed.emit("A")
        elif (text in {"Y", "R"} or text.isdecimal()) and not event.modifiers() & (CONTROL | ALT | SHIFT):
            self.key_pressed.emit(text)
        else:
            event.ignore()


def _around(low: float, high: float, middle: float, factor: float) -> tuple[float, float]:
    return middle - (middle - low) * factor, middle + (high - middle) * factor


def _numbers(values: NDArray[np.float64]) -> list[str]:
    """Write the numbers of an axis with as many digits as tell one from the next."""
    step = float(values[1] - values[0]) if len(values) > 1 else abs(float(values[0])) or 1.0
    digits = max(0, int(-np.floor(np.log10(step) + 1e-9)))
    if digits > 4 or (len(values) and np.abs(values).max() >= 1e6):
        return [f"{value:.3g}" for value in values]
    return [f"{value + 0.0:,.{digits}f}" for value in values]

"""Small pictures of what every head looks at: a click shows it on the slide, and the pointer is seen in all of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QEvent, QRect, QSize, Qt, Signal
from qtpy.QtGui import QColor, QImage, QMouseEvent, QPainter, QPaintEvent, QPen, QPixmap
from qtpy.QtWidgets import QSizePolicy, QWidget

if TYPE_CHECKING:
    from napari_nucleiseg.core.attention.shown import ShownMap

GAP, CAPTION, LEAST_PX = 8, 16, 36
EMPTY = "Look at the view: every head then has its picture here."
BACKGROUND = QColor("#000000")
PICKED = QColor("#ffd400")
CROSS = QColor("#ffffff")


class HeadGallery(QWidget):
    """Draws maps as large as there is room, each with its caption."""

    picked = Signal(str)
    """The name of the map that was clicked."""
    hovered = Signal(object)
    """Where the pointer is in a map, ``(y, x)`` in 0..1; None when it leaves."""

    def __init__(self, empty: str = EMPTY) -> None:
        super().__init__()
        self.setObjectName("nucleiseg head gallery")
        self.setMouseTracking(True)
        self.setMinimumSize(QSize(220, 120))
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self.empty = empty
        self.titles: dict[str, str] = {}
        self._pictures: dict[str, QPixmap] = {}
        self._name = ""
        self._cross: tuple[float, float] | None = None

    def show_maps(self, maps: Mapping[str, ShownMap], titles: Mapping[str, str], colours: Any) -> None:
        """Show maps by name, in their order.

        Parameters
        ----------
        maps : mapping of str to ShownMap
            What to show.
        titles : mapping of str to str
            Their captions.
        colours : napari Colormap
            From 0..1 to RGBA.
        """
        self.titles = dict(titles)
        self._pictures = {name: _pixmap(shown, colours) for name, shown in maps.items()}
        self.update()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the maps that are shown."""
        return tuple(self._pictures)

    def clear(self) -> None:
        """Show none."""
        self._pictures.clear()
        self.update()

    def mark(self, name: str) -> None:
        """Frame the map that is shown on the slide."""
        self._name = name
        self.update()

    def cross(self, place: tuple[float, float] | None) -> None:
        """Show in every map where the pointer is on the slide, ``(y, x)`` in 0..1; None takes the cross away."""
        if place != self._cross:
            self._cross = place
            self.update()

    def frames(self) -> dict[str, QRect]:
        """Return where each map is drawn."""
        if not self._pictures:
            return {}
        first = next(iter(self._pictures.values()))
        ratio = first.width() / max(first.height(), 1)
        count, width, height = len(self._pictures), self.width(), self.height()
        columns = max(range(1, count + 1), key=lambda number: _side(number, count, width, height, ratio))
        tall = max(_side(columns, count, width, height, ratio), LEAST_PX)
        wide = round(tall * ratio)
        return {
            name: QRect(
                (place % columns) * (wide + GAP), (place // columns) * (round(tall) + CAPTION + GAP) + CAPTION,
                wide, round(tall),
            )
            for place, name in enumerate(self._pictures)
        }  # fmt: skip

    def paintEvent(self, _event: QPaintEvent) -> None:  # noqa: N802 - Qt's name
        """Draw all of them, or say what comes."""
        painter = QPainter(self)
        ink = self.palette().windowText().color()
        painter.setPen(ink)
        frames = self.frames()
        if not frames:
            wrapped = int(Qt.AlignmentFlag.AlignCenter) | int(Qt.TextFlag.TextWordWrap)
            painter.drawText(self.rect().adjusted(12, 0, -12, 0), wrapped, self.empty)
            return
        for name, frame in frames.items():
            painter.fillRect(frame, BACKGROUND)
            painter.drawPixmap(frame, self._pictures[name])
            painter.setPen(ink)
            font = painter.font()
            font.setBold(name == self._name)
            painter.setFont(font)
            above = QRect(frame.left(), frame.top() - CAPTION, frame.width() + GAP, CAPTION)
            painter.drawText(above, Qt.AlignmentFlag.AlignVCenter, self.titles.get(name, name))
            if name == self._name:
                painter.setPen(QPen(PICKED, 2))
                painter.drawRect(frame.adjusted(0, 0, -1, -1))
            self._draw_cross(painter, frame)

    def _draw_cross(self, painter: QPainter, frame: QRect) -> None:
        if self._cross is None:
            return
        y, x = frame.top() + self._cross[0] * frame.height(), frame.left() + self._cross[1] * frame.width()
        for colour, width in ((BACKGROUND, 3), (CROSS, 1)):
            painter.setPen(QPen(colour, width))
            painter.drawLine(round(x) - 5, round(y), round(x) + 5, round(y))
            painter.drawLine(round(x), round(y) - 5, round(x), round(y) + 5)

    # ------------------------------------------------------------------ the mouse

    def mousePressEvent(self, event: QMouseEvent) -> None:  # noqa: N802 - Qt's name
        """Pick the map under the pointer."""
        for name, frame in self.frames().items():
            if frame.contains(event.position().toPoint()):
                self.picked.emit(name)

    def mouseMoveEvent(self, event: QMouseEvent) -> None:  # noqa: N802 - Qt's name
        """Say where in a map the pointer is."""
        point = event.position()
        for frame in self.frames().values():
            if frame.contains(point.toPoint()):
                self.hovered.emit(
                    ((point.y() - frame.top()) / frame.height(), (point.x() - frame.left()) / frame.width())
                )
                return
        self.hovered.emit(None)

    def leaveEvent(self, event: QEvent) -> None:  # noqa: N802 - Qt's name
        """Say that it is in none."""
        super().leaveEvent(event)
        self.hovered.emit(None)


def _side(columns: int, count: int, width: int, height: int, ratio: float) -> float:
    """Return the height of each of `count` pictures where so many stand side by side."""
    rows = math.ceil(count / columns)
    return min((width / columns - GAP) / ratio, height / rows - CAPTION - GAP)


def _pixmap(shown: ShownMap, colours: Any) -> QPixmap:
    low, high = shown.limits
    values = np.clip((shown.values - low) / max(high - low, 1e-9), 0, 1)
    known = ~np.isnan(values)
    rgba = np.asarray(colours.map(np.nan_to_num(values).ravel().astype(np.float32)), np.float32)
    # On black, as far as they are see-through.
    rgb = (rgba[:, :3] * rgba[:, 3:] * known.ravel()[:, None] * 255).astype(np.uint8)
    pixels: NDArray[np.uint8] = np.ascontiguousarray(rgb.reshape(*values.shape, 3))
    height, width = values.shape
    return QPixmap.fromImage(QImage(pixels.tobytes(), width, height, 3 * width, QImage.Format.Format_RGB888))

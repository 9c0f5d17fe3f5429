"""How many nuclei have which value: bars, stacked by class, with what is selected in yellow."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QEvent, QLineF, QPointF, QRectF, Qt
from qtpy.QtGui import QColor, QHelpEvent, QPainter, QPen
from qtpy.QtWidgets import QToolTip

from napari_nucleiseg.viewer.plot_data import (
    Cloud,
    Histogram,
    Ids,
    histogram_of,
    limits_of,
    summary_of,
)
from napari_nucleiseg.widgets.plot_canvas import FADED, MARK, RIM, SPAN, PlotCanvas, Window
from napari_nucleiseg.widgets.plot_key import Names, class_colour, draw_key, key_of

# Of the height, so much is left free above the highest bar.
AIR = 0.06
NUCLEI = "Nuclei"


class HistogramCanvas(PlotCanvas):
    """Draws one quantity of a `Cloud`."""

    def __init__(self) -> None:
        super().__init__("nucleiseg histogram")
        self.shape = SPAN
        self._cloud = Cloud()
        self._name = ""
        self._classes: Names = {}
        self._selected = np.zeros(0, np.int64)
        self._marked: NDArray[np.int64] | None = None
        self._lines: tuple[float, ...] = ()
        self.histogram: Histogram | None = None
        """What is drawn; None where there is no value."""

    def show_cloud(self, cloud: Cloud, name: str, classes: Names) -> None:
        """Draw the values of one quantity; `classes` are name and colour by number."""
        if name != self._name:
            self.show_all()
        self._cloud, self._name, self._classes = cloud, name, dict(classes)
        summary = summary_of(cloud.of(name))
        self._lines = () if summary is None else (summary.low, summary.median, summary.high)
        limits = limits_of(cloud.of(name))
        if limits is not None:
            self.all = Window(*limits)
        self.forget()

    def select(self, ids: Ids) -> None:
        """Mark nuclei (ascending ids), and no others."""
        self._selected = self._cloud.rows_of(ids)
        self._marked = None
        self.update()

    def forget(self) -> None:
        """Count anew in what is seen: from near, bins are finer."""
        seen, values = self.window_seen, self._cloud.of(self._name)
        limits = (seen.left, seen.right) if self.is_near else None
        self.histogram, self._marked = histogram_of(values, self._cloud.classes, limits), None
        most = 1 if self.histogram is None else int(self.histogram.counts.sum(axis=0).max(initial=1))
        high = most * (1 + AIR)
        self.all = Window(self.all.left, self.all.right, 0.0, high)
        if self._window is not None:
            self._window = Window(seen.left, seen.right, 0.0, high)
        super().forget()

    # ------------------------------------------------------------------ drawing

    def draw(self, painter: QPainter) -> None:
        """Draw bars, what is selected of them, and the quartiles."""
        found = self.histogram
        if found is None:
            return
        if self._marked is None:
            places = found.bins_of(self._cloud.of(self._name)[self._selected])
            self._marked = np.bincount(places[places >= 0], minlength=len(found.edges) - 1)
        below = np.zeros(len(found.edges) - 1, np.int64)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing, on=False)
        for row, number in enumerate(found.numbers):
            colour = QColor(class_colour(number, self._classes, self.colour()))
            colour.setAlphaF(FADED if len(self._selected) else 0.9)
            self._bars(painter, below, found.counts[row], colour)
            below += found.counts[row]
        if len(self._selected):
            painter.setPen(QPen(RIM, 1))
            self._bars(painter, np.zeros_like(below), self._marked, MARK)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        self._draw_lines(painter)

    def _bars(self, painter: QPainter, below: NDArray[np.int64], counts: NDArray[np.int64], colour: QColor) -> None:
        found = self.histogram
        if found is None:
            return
        x = self.pixels(found.edges, found.edges)[0]
        bottom, top = self.pixels(below, below)[1], self.pixels(below + counts, below + counts)[1]
        for place in np.flatnonzero(counts):
            gap = 1.0 if x[place + 1] - x[place] > 4 else 0.0
            width = x[place + 1] - x[place] - gap
            painter.fillRect(QRectF(x[place], top[place], width, bottom[place] - top[place]), colour)

    def _draw_lines(self, painter: QPainter) -> None:
        """The median and the quartiles, as lines from top to bottom."""
        area, ink = self.area(), self.palette().windowText().color()
        for value, style in zip(
            self._lines, (Qt.PenStyle.DotLine, Qt.PenStyle.DashLine, Qt.PenStyle.DotLine), strict=False
        ):
            x = float(self.pixels(np.array([value]), np.array([0.0]))[0][0])
            painter.setPen(QPen(ink, 1.2, style))
            painter.drawLine(QLineF(QPointF(x, area.top()), QPointF(x, area.bottom())))

    def draw_key(self, painter: QPainter) -> None:
        """Name the classes that are there."""
        draw_key(painter, self.area(), self.key())

    def key(self) -> list[tuple[str, QColor]]:
        """Return name and colour of each class that occurs; empty where no nucleus has one."""
        numbers = () if self.histogram is None else self.histogram.numbers
        return key_of(numbers, self._classes, self.colour())

    # ------------------------------------------------------------------ mouse

    def bin_at(self, x: float) -> int | None:
        """Return the bin at a place of this widget, screen pixels from its left; None beside all of them."""
        if self.histogram is None:
            return None
        value = self.values(QPointF(x, self.area().center().y()))[0]
        place = int(np.searchsorted(self.histogram.edges, value, side="right")) - 1
        return place if 0 <= place < len(self.histogram.edges) - 1 else None

    def event(self, event: QEvent) -> bool:
        """Say what a bar stands for where the mouse rests."""
        if event.type() == QEvent.Type.ToolTip and isinstance(event, QHelpEvent) and not self.empty:
            place = self.bin_at(event.pos().x())
            QToolTip.showText(event.globalPos(), "" if place is None else self.told(place), self)
            return True
        return super().event(event)

    def told(self, place: int) -> str:
        """Return what a bar stands for."""
        found = self.histogram
        if found is None:
            return ""
        counts = found.counts[:, place]
        low, high = found.edges[place : place + 2]
        lines = [f"{low:.4g} to {high:.4g}: {int(counts.sum()):,} nuclei"]
        if any(found.numbers):
            names = {number: self._classes.get(number, ("No class", ""))[0] for number in found.numbers}
            lines += [
                f"{names[number]}: {count:,}" for number, count in zip(found.numbers, counts, strict=True) if count
            ]
        return "\n".join([*lines, "Click to select them, or drag a range"])

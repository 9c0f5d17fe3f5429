"""One quantity of nuclei over another: each a dot in the colour of its class, or, of very many, their density."""

from __future__ import annotations

import numpy as np
from qtpy.QtCore import QEvent
from qtpy.QtGui import QColor, QHelpEvent, QImage, QPainter
from qtpy.QtWidgets import QToolTip

from napari_nucleiseg.viewer.plot_data import Cloud, Ids, limits_of
from napari_nucleiseg.viewer.plot_raster import MOST_DOTS, Pixels, argb, density, dots, nearest
from napari_nucleiseg.widgets.plot_canvas import FADED, MARK, RIM, PlotCanvas, Window
from napari_nucleiseg.widgets.plot_key import Names, class_colour, draw_key, key_of

# Screen pixels.
RADIUS, MARK_RADIUS, RIM_PX = 2.2, 2.6, 1.0
CLICK_PX = 8.0
# Where all nuclei are shown by their density, more selected ones than this are, too.
MOST_MARKS = 2_000


class ScatterCanvas(PlotCanvas):
    """Draws a `Cloud` over two of its quantities."""

    def __init__(self) -> None:
        super().__init__("nucleiseg scatter")
        self._cloud = Cloud()
        self._across = self._up = ""
        self._selected = np.zeros(0, np.int64)
        self._classes: Names = {}
        self._picture: QImage | None = None
        self._marks: QImage | None = None

    def show_cloud(self, cloud: Cloud, across: str, up: str, classes: Names) -> None:
        """Draw nuclei.

        Parameters
        ----------
        cloud : Cloud
            What is drawn.
        across, up : str
            Names of the two quantities.
        classes : mapping of int to tuple of str
            Name and colour of each class.
        """
        if (across, up) != (self._across, self._up):
            self.show_all()
        self._cloud, self._across, self._up, self._classes = cloud, across, up, dict(classes)
        known = np.isfinite(cloud.of(across)) & np.isfinite(cloud.of(up))
        x, y = limits_of(cloud.of(across)[known]), limits_of(cloud.of(up)[known])
        if x is not None and y is not None:
            self.all = Window(*x, *y)
        self.forget()

    def select(self, ids: Ids) -> None:
        """Mark nuclei (ascending ids), and no others."""
        rows = self._cloud.rows_of(ids)
        if (len(rows) > 0) != (len(self._selected) > 0):
            self._picture = None
        self._selected, self._marks = rows, None
        self.update()

    def forget(self) -> None:
        """Draw all anew."""
        self._picture = self._marks = None
        super().forget()

    # ------------------------------------------------------------------ drawing

    def draw(self, painter: QPainter) -> None:
        """Draw all nuclei, and the selected ones above them."""
        if self._picture is None:
            self._picture = self.image(self._all_pixels())
        if self._marks is None:
            self._marks = self.image(self._marked_pixels())
        corner = self.area().topLeft()
        painter.setOpacity(FADED if len(self._selected) else 1.0)
        painter.drawImage(corner, self._picture)
        painter.setOpacity(1.0)
        painter.drawImage(corner, self._marks)

    def _places(self, rows: np.ndarray | slice) -> tuple[np.ndarray, np.ndarray]:
        """Return the screen's own pixels of nuclei in the plot; those without a value lie beside it."""
        x, y = self.pixels(self._cloud.of(self._across)[rows], self._cloud.of(self._up)[rows])
        area, ratio = self.area(), self.devicePixelRatioF()
        found = np.stack([(x - area.left()) * ratio, (y - area.top()) * ratio])
        found = np.clip(np.where(np.isfinite(found), found, -1e6), -1e6, 1e6)
        return np.floor(found[0]).astype(np.int64), np.floor(found[1]).astype(np.int64)

    def _shape(self) -> tuple[int, int]:
        area, ratio = self.area(), self.devicePixelRatioF()
        return max(1, round(area.height() * ratio)), max(1, round(area.width() * ratio))

    def _all_pixels(self) -> Pixels:
        x, y = self._places(slice(None))
        numbers = np.unique(self._cloud.classes)
        groups = np.searchsorted(numbers, self._cloud.classes).astype(np.int64)
        colours = [_rgb(class_colour(int(number), self._classes, self.colour())) for number in numbers]
        if len(x) > MOST_DOTS:
            return density(x, y, groups, colours, self._shape())
        palette = np.array([argb(colour, 0.85) for colour in colours], np.uint32)
        return dots(x, y, palette[groups], self._shape(), RADIUS * self.devicePixelRatioF())

    def _marked_pixels(self) -> Pixels:
        x, y = self._places(self._selected)
        ratio, shape = self.devicePixelRatioF(), self._shape()
        if len(x) > (MOST_DOTS if len(self._cloud) <= MOST_DOTS else MOST_MARKS):
            return density(x, y, np.zeros(len(x), np.int64), [_rgb(MARK)], shape)
        rim = dots(x, y, np.full(len(x), argb(_rgb(RIM)), np.uint32), shape, (MARK_RADIUS + RIM_PX) * ratio)
        inner = dots(x, y, np.full(len(x), argb(_rgb(MARK)), np.uint32), shape, MARK_RADIUS * ratio)
        return np.where(inner > 0, inner, rim)

    def draw_key(self, painter: QPainter) -> None:
        """Name the classes that are there."""
        draw_key(painter, self.area(), self.key())

    def key(self) -> list[tuple[str, QColor]]:
        """Return name and colour of each class that occurs; empty where there is but one."""
        return key_of(np.unique(self._cloud.classes).tolist(), self._classes, self.colour())

    # ------------------------------------------------------------------ mouse

    def row_at(self, x: float, y: float) -> int | None:
        """Return the row of the nucleus at a place of this widget, screen pixels; None where there is none."""
        across, up = self.pixels(self._cloud.of(self._across), self._cloud.of(self._up))
        return nearest(across, up, (x, y), CLICK_PX)

    def event(self, event: QEvent) -> bool:
        """Say which nucleus it is where the mouse rests."""
        if event.type() == QEvent.Type.ToolTip and isinstance(event, QHelpEvent) and not self.empty:
            row = self.row_at(event.pos().x(), event.pos().y())
            QToolTip.showText(event.globalPos(), "" if row is None else self.told(row), self)
            return True
        return super().event(event)

    def told(self, row: int) -> str:
        """Return what is known of the nucleus of a row."""
        cloud = self._cloud
        name = self._classes.get(int(cloud.classes[row]), ("", ""))[0]
        lines = [f"Nucleus {int(cloud.ids[row])}{f', {name}' if name else ''}"]
        for title, quantity in zip(self.titles, (self._across, self._up), strict=True):
            lines.append(f"{title}: {float(cloud.of(quantity)[row]):.4g}")
        return "\n".join([*lines, "Click to go there"])


def _rgb(colour: QColor) -> tuple[int, int, int]:
    return colour.red(), colour.green(), colour.blue()

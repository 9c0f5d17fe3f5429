"""What the colours of a plot mean: classes of nuclei."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from qtpy.QtCore import QPointF, QRectF
from qtpy.QtGui import QColor, QPainter

SWATCH_PX, GAP_PX, TOP_PX = 10, 5, 4
# Name and colour of a class, by its number.
Names = Mapping[int, tuple[str, str]]
NO_CLASS = "No class"


def class_colour(number: int, classes: Names, plain: QColor) -> QColor:
    """Return the colour of a class; of none, or of one without a colour, a plain one."""
    colour = QColor(classes.get(number, ("", ""))[1])
    return colour if number and colour.isValid() else plain


def key_of(numbers: Sequence[int], classes: Names, plain: QColor) -> list[tuple[str, QColor]]:
    """Return name and colour of classes by number, 0 last; empty where no nucleus has a class."""
    if not any(numbers):
        return []
    named = [number for number in numbers if number]
    found = [
        (classes.get(number, (f"Class {number}", ""))[0], class_colour(number, classes, plain)) for number in named
    ]
    return found if len(named) == len(numbers) else [*found, (NO_CLASS, plain)]


def draw_key(painter: QPainter, area: QRectF, key: Sequence[tuple[str, QColor]]) -> None:
    """Draw squares of colours with their names above a plot, as many as there is room for."""
    x, pen, metrics = area.left(), painter.pen(), painter.fontMetrics()
    for name, colour in key:
        width = SWATCH_PX + GAP_PX + metrics.horizontalAdvance(name)
        if x + width > area.right():
            painter.drawText(QPointF(x, TOP_PX + SWATCH_PX), "…")
            return
        painter.fillRect(QRectF(x, TOP_PX, SWATCH_PX, SWATCH_PX), colour)
        painter.setPen(pen)
        painter.drawText(QPointF(x + SWATCH_PX + GAP_PX, TOP_PX + SWATCH_PX), name)
        x += width + 3 * GAP_PX

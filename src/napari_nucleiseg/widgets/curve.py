"""A small drawn curve: how good the model in the making is on nuclei that it has not seen, step by step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from qtpy.QtCore import QPointF, QRectF, QSize, Qt
from qtpy.QtGui import QColor, QPainter, QPaintEvent, QPen, QPolygonF
from qtpy.QtWidgets import QSizePolicy, QWidget

MARGIN_LEFT, MARGIN_RIGHT, MARGIN_TOP, MARGIN_BOTTOM = 44, 14, 26, 30
NEW, LOSS = QColor("#2ca58d"), QColor("#8a8f98")
# Of the height, so much is left free above and below the lines.
AIR = 0.15
LEAST_SPAN = 0.04
SMOOTHED_OVER = 8
KEY_PX = 18


@dataclass
class Points:
    """One run: measured scores and losses by step, and the score of the former model there."""

    name: str
    former: float | None = None
    scores: list[tuple[int, float]] = field(default_factory=list)
    losses: list[tuple[int, float]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class CurveWording:
    """What the lines of a curve are called.

    Parameters
    ----------
    score : str
        What is measured.
    former : str
        What it is compared with; empty for nothing.
    empty : str
        Said as long as there is nothing to draw.
    begins_at_former : bool
        Whether the curve starts where the former one is.
    """

    score: str = "on nuclei it has not seen"
    former: str = "former model"
    empty: str = "The curve appears here while the model learns"
    begins_at_former: bool = True


class CurveView(QWidget):
    """Draws the run that goes on: the score on what is held out, that of the former model, and the loss.

    Parameters
    ----------
    wording : CurveWording, optional
        What the lines are called.
    """

    def __init__(self, wording: CurveWording | None = None) -> None:
        super().__init__()
        self.setObjectName("nucleiseg teaching curve")
        self.wording = wording or CurveWording()
        self.setMinimumSize(QSize(260, 150))
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self._runs: list[Points] = []
        self._total = 1

    def clear(self) -> None:
        """Begin anew."""
        self._runs, self._total = [], 1
        self.update()

    def begin(self, total: int, former: float | None) -> None:
        """Set the number of steps of all runs, and how good the former model is."""
        self._runs, self._total = [Points("", former)], max(total, 1)
        self.update()

    def go_on(self, total: int) -> None:
        """Set another number of steps; what was drawn stays."""
        self._total = max(total, 1)
        self.update()

    def recall(self, scores: Sequence[tuple[int, float]]) -> None:
        """Show what was measured before a run was stopped that now goes on."""
        self._runs[-1].scores += scores
        self.update()

    def add(self, run: str, step: int, loss: float, score: float | None, former: float | None) -> None:
        """Add a step: its loss, and the score and the former model's where it was measured."""
        if not self._runs or self._runs[-1].name != run:
            self._runs.append(Points(run, former))
        points = self._runs[-1]
        points.losses.append((step, loss))
        if score is not None:
            points.scores.append((step, score))
            points.former = former if former is not None else points.former
        self.update()

    @property
    def runs(self) -> tuple[Points, ...]:
        """What is drawn."""
        return tuple(self._runs)

    # ------------------------------------------------------------------ drawing

    def paintEvent(self, _event: QPaintEvent) -> None:  # noqa: N802 - Qt's name
        """Draw axes, lines and the key."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        text = self.palette().windowText().color()
        faint = QColor(text)
        faint.setAlpha(70)
        area = QRectF(self.rect()).adjusted(MARGIN_LEFT, MARGIN_TOP, -MARGIN_RIGHT, -MARGIN_BOTTOM)
        if not any(run.losses or run.scores for run in self._runs):
            painter.setPen(text)
            wrapped = int(Qt.AlignmentFlag.AlignCenter) | int(Qt.TextFlag.TextWordWrap)
            painter.drawText(self.rect().adjusted(12, 0, -12, 0), wrapped, self.wording.empty)
            return
        low, high = self._bounds()
        painter.setPen(QPen(faint, 1))
        painter.drawLine(area.bottomLeft(), area.bottomRight())
        painter.drawLine(area.bottomLeft(), area.topLeft())
        painter.setPen(text)
        for value in (low, (low + high) / 2, high):
            y = area.bottom() - (value - low) / (high - low) * area.height()
            box = QRectF(0, y - 9, MARGIN_LEFT - 6, 18)
            painter.drawText(box, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter, f"{value:.2f}")
        below = QRectF(area.left(), area.bottom() + 4, area.width(), 20)
        painter.drawText(below, Qt.AlignmentFlag.AlignLeft, "0")
        painter.drawText(below, Qt.AlignmentFlag.AlignHCenter, "step")
        painter.drawText(below, Qt.AlignmentFlag.AlignRight, f"{self._total}")
        for run in self._runs:
            self._draw_loss(painter, area, run)
        for run in self._runs:
            self._draw_scores(painter, area, run, (low, high), text)
        self._draw_key(painter, text)

    def _bounds(self) -> tuple[float, float]:
        values = [score for run in self._runs for _, score in run.scores]
        values += [run.former for run in self._runs if run.former is not None]
        low, high = (min(values), max(values)) if values else (0.0, 1.0)
        span = max(high - low, LEAST_SPAN)
        middle = (low + high) / 2
        return max(0.0, middle - span * (0.5 + AIR)), min(1.0, middle + span * (0.5 + AIR))

    def _x(self, area: QRectF, step: int) -> float:
        return area.left() + step / self._total * area.width()

    def _draw_loss(self, painter: QPainter, area: QRectF, run: Points) -> None:
        """The loss has no scale of its own: whether it falls is what it tells."""
        losses = [loss for other in self._runs for _, loss in other.losses]
        if len(run.losses) < SMOOTHED_OVER:
            return
        top = max(losses)
        line = QPolygonF()
        for place in range(SMOOTHED_OVER - 1, len(run.losses)):
            some = [loss for _, loss in run.losses[place - SMOOTHED_OVER + 1 : place + 1]]
            y = area.bottom() - sum(some) / len(some) / top * area.height() * 0.9
            line.append(QPointF(self._x(area, run.losses[place][0]), y))
        painter.setPen(QPen(LOSS, 1))
        painter.drawPolyline(line)

    def _draw_scores(
        self, painter: QPainter, area: QRectF, run: Points, bounds: tuple[float, float], text: QColor
    ) -> None:
        low, high = bounds

        def y(value: float) -> float:
            return area.bottom() - (value - low) / (high - low) * area.height()

        steps = [step for step, _ in run.losses]
        seen = [*(step - 1 for step in steps[:1]), *steps[-1:], *(step for step, _ in run.scores)]
        if run.former is not None and seen:
            painter.setPen(QPen(text, 1, Qt.PenStyle.DashLine))
            ends = (QPointF(self._x(area, step), y(run.former)) for step in (min(seen), max(seen)))
            painter.drawLine(*ends)
        points = [QPointF(self._x(area, step), y(score)) for step, score in run.scores]
        if run.former is not None and points and steps and self.wording.begins_at_former:
            points.insert(0, QPointF(self._x(area, steps[0] - 1), y(run.former)))
        painter.setPen(QPen(NEW, 2))
        painter.drawPolyline(QPolygonF(points))
        painter.setBrush(NEW)
        for step, score in run.scores:
            painter.drawEllipse(QPointF(self._x(area, step), y(score)), 3, 3)
        painter.setBrush(Qt.BrushStyle.NoBrush)

    def _draw_key(self, painter: QPainter, text: QColor) -> None:
        x = float(MARGIN_LEFT)
        for title, pen in (
            (self.wording.score, QPen(NEW, 2)),
            (self.wording.former, QPen(text, 1, Qt.PenStyle.DashLine)),
            ("loss", QPen(LOSS, 1)),
        ):
            if not title:
                continue
            painter.setPen(pen)
            painter.drawLine(QPointF(x, 12), QPointF(x + KEY_PX, 12))
            painter.setPen(text)
            width = painter.fontMetrics().horizontalAdvance(title)
            painter.drawText(QRectF(x + KEY_PX + 4, 2, width + 4, 20), Qt.AlignmentFlag.AlignVCenter, title)
            x += KEY_PX + width + 18

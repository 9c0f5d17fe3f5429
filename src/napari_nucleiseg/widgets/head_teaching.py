"""The part of the dock "Attention heads" with which one head is taught to look where people painted."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from qtpy.QtCore import QPointF, QRectF, QSize, Qt
from qtpy.QtGui import QColor, QPainter, QPaintEvent, QPen, QPolygonF
from qtpy.QtWidgets import QHBoxLayout, QLabel, QProgressBar, QPushButton, QSizePolicy, QVBoxLayout, QWidget

from napari_nucleiseg.state import Session
from napari_nucleiseg.viewer.heads_teaching import HeadsTeaching, HeadTaught
from napari_nucleiseg.viewer.messages import Progress

if TYPE_CHECKING:
    from napari_nucleiseg.core.teaching.heads.teach import HeadStep

ABOUT = (
    "Choose a head that looks nearly right. Paint green where it should look and black where it should not, in several "
    "places; then teach. It is used only if it looks better where it was not taught, and if what the encoder says of "
    "tissue stays what it was."
)
LOOK, AVOID, GRID = QColor("#009e73"), QColor("#d55e00"), QColor("#888888")
MARGIN = 34


class HeadTeachingTab(QWidget):
    """Paint, one button, the curve on held-out paint, the verdict.

    Parameters
    ----------
    teaching : HeadsTeaching
        What is shown and asked for.
    session : Session
        Says whether attention is painted.
    """

    def __init__(self, teaching: HeadsTeaching, session: Session) -> None:
        super().__init__()
        self._teaching, self._session = teaching, session
        self.paint_button = QPushButton("Paint attention")
        self.paint_button.setCheckable(True)
        self.paint_button.setToolTip("Show on the slide where this head should look, and where it should not")
        self.teach_button = QPushButton("Teach this head")
        self.teach_button.setMinimumHeight(30)
        self.teach_button.setToolTip("Move this head's attention to what is painted on the open slides")
        self.stop_button = QPushButton("Stop")
        self.stop_button.setToolTip("Stop after this step; the head stays as it was")
        self.take_button = QPushButton("Use it anyway")
        self.take_button.setToolTip("Use the taught encoder although it was refused")
        self.back_button = QPushButton("Go back")
        self.back_button.setToolTip("Use the encoder again that was in hand before")
        self.bar = QProgressBar()
        self.text = QLabel(ABOUT)
        self.text.setWordWrap(True)
        self.text.setAlignment(Qt.AlignmentFlag.AlignTop)
        self.text.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.curve = HeadCurve()
        buttons = QHBoxLayout()
        buttons.addWidget(self.paint_button, 1)
        buttons.addWidget(self.teach_button, 1)
        after = QHBoxLayout()
        after.addWidget(self.bar, 1)
        for button in (self.stop_button, self.take_button, self.back_button):
            after.addWidget(button)
        left = QVBoxLayout()
        left.setSpacing(4)
        left.addLayout(buttons)
        left.addLayout(after)
        left.addWidget(self.text, 1)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 4, 0, 0)
        row.addLayout(left, 3)
        row.addWidget(self.curve, 3)
        self.paint_button.toggled.connect(self._on_paint_toggled)
        self.teach_button.clicked.connect(teaching.teach)
        self.stop_button.clicked.connect(teaching.stop)
        self.take_button.clicked.connect(teaching.take)
        self.back_button.clicked.connect(teaching.go_back)
        teaching.stepped.connect(self._on_stepped)
        teaching.progress_changed.connect(self._on_progress)
        teaching.running_changed.connect(self._on_running)
        teaching.ended.connect(self._on_ended)
        teaching.used_changed.connect(self._on_used_changed)
        session.events.painting.connect(self._on_painting)
        self._on_painting(session.painting)
        self._on_running(teaching.is_running)
        self._show_buttons()

    def _on_paint_toggled(self, on: bool) -> None:
        self._session.painting = on

    def _on_painting(self, on: bool) -> None:
        self.paint_button.setChecked(on)
        self.paint_button.setText("Painting attention" if on else "Paint attention")

    def _on_running(self, on: bool) -> None:
        self.bar.setVisible(on)
        self.stop_button.setVisible(on)
        self.teach_button.setEnabled(not on)
        if on:
            self.curve.clear()
            self.text.setText("")
            self.take_button.hide()
            self.back_button.hide()

    def _on_progress(self, progress: Progress | None) -> None:
        if progress is not None:
            self.bar.setRange(0, progress.total)
            self.bar.setValue(progress.done)
            self.bar.setFormat(f"{progress.title} %v of %m" if progress.total else progress.title)

    def _on_stepped(self, step: HeadStep) -> None:
        if step.note:
            self.text.setText(step.note)
        if step.measured is not None:
            self.curve.add(step.step, step.total, step.measured.look, step.measured.avoid)

    def _on_ended(self, taught: HeadTaught | None) -> None:
        if taught is None:
            if not self.text.text():
                self.text.setText(ABOUT)
        else:
            self._show_verdict(taught)
        self._show_buttons()

    def _show_verdict(self, taught: HeadTaught) -> None:
        outcome, is_taken = taught.outcome, self._teaching.is_taken
        verdict = f"In use: {taught.version.name}." if outcome.adopted or is_taken else "Not taken."
        drift = f"Features turned by {outcome.drift.cosine:.4f} and changed by {outcome.drift.change:.1%}."
        self.text.setText(f"<b>{verdict}</b> {outcome.reason}<br>{drift}<br>{outcome.told}")

    def _on_used_changed(self, name: str) -> None:
        if not self._teaching.former:
            self.text.setText(f"<b>In use: {name}.</b> What was taught is still in the list of transformers.")
        elif self._teaching.is_taken and self._teaching.last is not None:
            self._show_verdict(self._teaching.last)
        self._show_buttons()

    def _show_buttons(self) -> None:
        self.take_button.setVisible(self._teaching.can_take)
        self.back_button.setVisible(bool(self._teaching.former))


class HeadCurve(QWidget):
    """Attention on what is held out and painted "look here" (green) and "do not look" (orange), over the steps."""

    def __init__(self) -> None:
        super().__init__()
        self.setMinimumSize(QSize(160, 90))
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self.setToolTip(
            "Share of the head's attention on held-out paint: green is “look here” and should rise, orange is “do not "
            "look” and should fall"
        )
        self._total = 1
        self._points: list[tuple[int, float, float]] = []

    def clear(self) -> None:
        """Begin anew."""
        self._points.clear()
        self.update()

    def add(self, step: int, total: int, look: float, avoid: float) -> None:
        """Add what was measured after a step, shares 0..1; NaN where nothing is painted so."""
        self._total = max(total, 1)
        self._points.append((step, look, avoid))
        self.update()

    def paintEvent(self, _event: QPaintEvent) -> None:  # noqa: N802 - Qt's name
        """Draw both curves."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        ink = self.palette().windowText().color()
        painter.setPen(ink)
        if not self._points:
            wrapped = int(Qt.AlignmentFlag.AlignCenter) | int(Qt.TextFlag.TextWordWrap)
            painter.drawText(self.rect(), wrapped, "How much the head looks at held-out paint is drawn here.")
            return
        known = [value for _, *pair in self._points for value in pair if not math.isnan(value)]
        high = min(1.0, 1.15 * max(known, default=1.0)) or 1.0
        wide, tall = self.width() - MARGIN - 8, self.height() - 26
        right = int(Qt.AlignmentFlag.AlignRight) | int(Qt.AlignmentFlag.AlignVCenter)
        for part in (0.0, 0.5, 1.0):
            y = 8 + tall * (1 - part)
            painter.setPen(QPen(GRID, 1, Qt.PenStyle.DotLine))
            painter.drawLine(QPointF(MARGIN, y), QPointF(MARGIN + wide, y))
            painter.setPen(ink)
            painter.drawText(QRectF(0, y - 8, MARGIN - 4, 16), right, f"{high * part:.0%}")
        painter.drawText(QRectF(MARGIN, self.height() - 16, wide, 16), int(Qt.AlignmentFlag.AlignCenter), "step")
        for place, colour in ((1, LOOK), (2, AVOID)):
            line = [
                QPointF(MARGIN + wide * point[0] / self._total, 8 + tall * (1 - min(point[place] / high, 1)))
                for point in self._points
                if not math.isnan(point[place])
            ]
            painter.setPen(QPen(colour, 2))
            painter.drawPolyline(QPolygonF(line))
            for dot in line:
                painter.drawEllipse(dot, 2, 2)

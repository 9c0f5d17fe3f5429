"""The dock "Teach": what was corrected, one button, the curve, what the new model sees, and whether it is better."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QSize, Qt
from qtpy.QtGui import QHideEvent, QImage, QPixmap, QShowEvent
from qtpy.QtWidgets import (
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QScrollArea,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from napari_nucleiseg.viewer.comparing import Comparing
from napari_nucleiseg.viewer.messages import Hint, Progress
from napari_nucleiseg.viewer.next_region import NextRegion
from napari_nucleiseg.viewer.teaching import NO_RESULTS, Taught, Teaching
from napari_nucleiseg.widgets.comparison_bar import ComparisonBar
from napari_nucleiseg.widgets.curve import CurveView
from napari_nucleiseg.widgets.next_region_bar import NextRegionBar
from napari_nucleiseg.widgets.parts import show_progress
from napari_nucleiseg.widgets.wording import SCORES

if TYPE_CHECKING:
    from napari_nucleiseg.core.teaching.advice import Advice
    from napari_nucleiseg.core.teaching.examiner import Preview
    from napari_nucleiseg.core.teaching.examples import Example
    from napari_nucleiseg.core.teaching.finetune import Step

SIZE = QSize(1000, 310)
PREVIEW_PX = 220
# Model pixels of a held-out region that the preview shows at most.
SEEN_PX = 128
# Outlines of the preview, RGB.
TRUTH, FORMER, NOW = (255, 255, 255), (240, 150, 40), (60, 220, 180)
KEY = (
    "□ yours &nbsp; <span style='color: rgb(240, 150, 40)'>■</span> former &nbsp; "
    "<span style='color: rgb(60, 200, 160)'>■</span> new"
)
LOOK = "Where you are not sure, look: white is what you outlined, orange the former model, green the new one."


class TeachPanel(QWidget):
    """Advice, the button, progress, curve, preview and verdict.

    Parameters
    ----------
    teaching : Teaching
        What is shown and asked for.
    comparing : Comparing
        Compares the former with the new model.
    next_region : NextRegion
        Proposes where to correct.
    """

    def __init__(self, teaching: Teaching, comparing: Comparing, next_region: NextRegion) -> None:
        super().__init__()
        self.setObjectName("nucleiseg teach")
        self.teaching, self._comparing = teaching, comparing
        row = QHBoxLayout()
        row.setSpacing(14)
        row.addLayout(self._make_left(next_region), 3)
        self.curve = CurveView()
        row.addWidget(self.curve, 4)
        row.addLayout(self._make_right(), 4)
        rows = QVBoxLayout(self)
        rows.setContentsMargins(8, 6, 8, 6)
        rows.addLayout(row, 1)
        rows.addWidget(ComparisonBar(comparing))
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Expanding)
        self.setMinimumHeight(230)
        self._connect()
        self._show_running(teaching.is_running)
        self._on_advised(None)

    def _make_left(self, next_region: NextRegion) -> QVBoxLayout:
        self.advice = QLabel()
        self.advice.setWordWrap(True)
        self.advice.setAlignment(Qt.AlignmentFlag.AlignTop)
        self.advice.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.teach_button = QPushButton("Teach")
        self.teach_button.setToolTip(
            "Make a better model of what you corrected on the open slides. It is used only if it is better on nuclei "
            "that it has not seen."
        )
        self.trust_button = QPushButton("They are right, teach")
        self.trust_button.setToolTip("Teach with all regions as they are")
        self.trust_button.hide()
        self.versions_button = QPushButton("Versions…")
        self.versions_button.setToolTip("All models that were taught, how good they are, and which is in use")
        self.stop_button = QPushButton("Stop")
        self.stop_button.setToolTip("Stop after this step; the model in use stays as it is")
        self.bar = QProgressBar()
        buttons = QHBoxLayout()
        for widget in (self.teach_button, self.trust_button, self.bar):
            buttons.addWidget(widget, 1)
        buttons.addWidget(self.stop_button)
        buttons.addWidget(self.versions_button)
        for button in (self.teach_button, self.trust_button, self.stop_button, self.versions_button):
            button.setMinimumHeight(34)
        column = QVBoxLayout()
        column.addLayout(buttons)  # above all else: seen also where the dock is low, and scrolled
        column.addWidget(self.advice, 1)
        column.addWidget(NextRegionBar(next_region))
        return column

    def _make_right(self) -> QGridLayout:
        self.verdict = QLabel()
        self.verdict.setWordWrap(True)
        self.verdict.setAlignment(Qt.AlignmentFlag.AlignTop)
        self.verdict.setToolTip(SCORES)
        self.preview = QLabel()
        self.preview.setAlignment(Qt.AlignmentFlag.AlignTop)
        self.preview.setToolTip(LOOK)
        self.take_button = QPushButton("Use it anyway")
        self.back_button = QPushButton("Back to the former model")
        self.back_button.setToolTip("Use the model that was in use before; the new one is kept as a version")
        self.compare_button = QPushButton("Compare in view")
        self.compare_button.setToolTip("Outline on the slide what the former and the new model find in the view")
        grid = QGridLayout()
        self.key = QLabel(KEY)
        self.key.hide()
        seen = QVBoxLayout()
        seen.addWidget(self.preview)
        seen.addWidget(self.key)
        seen.addStretch(1)
        grid.addLayout(seen, 0, 0, 4, 1)
        scroll = QScrollArea()
        scroll.setWidgetResizable(True)
        scroll.setFrameShape(QScrollArea.Shape.NoFrame)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        scroll.setWidget(self.verdict)
        grid.addWidget(scroll, 0, 1)
        grid.addWidget(self.compare_button, 1, 1)
        grid.addWidget(self.take_button, 2, 1)
        grid.addWidget(self.back_button, 3, 1)
        grid.setRowStretch(0, 1)
        grid.setColumnStretch(1, 1)
        for button in (self.compare_button, self.take_button, self.back_button):
            button.hide()
        return grid

    def _connect(self) -> None:
        teaching = self.teaching
        teaching.advised.connect(self._on_advised)
        teaching.stepped.connect(self._on_step)
        teaching.running_changed.connect(self._show_running)
        teaching.progress_changed.connect(self._on_progress)
        teaching.ended.connect(self._on_ended)
        teaching.used_changed.connect(self._show_verdict)
        teaching.doubted.connect(self._on_doubted)
        teaching.said.connect(self._on_said)
        self.teach_button.clicked.connect(self._on_teach_clicked)
        self.trust_button.clicked.connect(lambda: teaching.teach(trust=True))
        self.stop_button.clicked.connect(teaching.cancel)
        self.take_button.clicked.connect(self._on_take_clicked)
        self.compare_button.clicked.connect(self._on_compare_clicked)
        self.back_button.clicked.connect(teaching.go_back)

    # ------------------------------------------------------------------ what is said

    def _on_advised(self, advice: Advice | None) -> None:
        if self.teaching.is_running:
            return
        self.advice.setText(NO_RESULTS if advice is None else "\n".join(advice.sentences))
        self.teach_button.setEnabled(advice is not None and advice.ready)

    def _on_said(self, hint: Hint) -> None:
        self.advice.setText(hint.text)

    def _on_doubted(self, sentence: str) -> None:
        self.advice.setText(sentence)
        self.trust_button.show()

    def _show_running(self, running: bool) -> None:
        for widget in (self.bar, self.stop_button):
            widget.setVisible(running)
        self.teach_button.setVisible(not running)
        if running:
            for button in (self.trust_button, self.compare_button, self.take_button, self.back_button):
                button.hide()
            self.verdict.clear()
            self.preview.clear()
            self.key.hide()
            self.curve.clear()

    def _on_progress(self, progress: Progress | None) -> None:
        if progress is not None:
            show_progress(self.bar, progress)

    # ------------------------------------------------------------------ what is learnt

    def _on_step(self, step: Step) -> None:
        if step.note:
            self.advice.setText(step.note)
        if step.step == 0:
            self.curve.begin(step.total, None if step.measured is None else step.measured.choice)
        elif step.run:
            score = None if step.measured is None else step.measured.choice
            self.curve.add(step.run, step.step, step.loss, score, step.former)
        if step.preview is not None:
            self.preview.setPixmap(pixmap_of(step.preview))
            self.key.show()

    def _on_ended(self, taught: Taught | None) -> None:
        if taught is None:
            return
        self._show_verdict()
        self.compare_button.show()
        self.teaching.advise()

    def _show_verdict(self) -> None:
        """Say what came of it, and whether it is in use now."""
        taught, is_used = self.teaching.last, self.teaching.is_in_use
        if taught is None or self.teaching.is_running:
            return
        outcome = taught.outcome
        unused = "The new model is not in use" if outcome.adopted else "The former model stays"
        title = "The new model is in use" if is_used else unused
        self.verdict.setText(f"<b>{title}</b><br>{outcome.reason}<br><br>{outcome.told}")
        self.take_button.setText("Use it" if outcome.adopted else "Use it anyway")
        self.take_button.setVisible(not is_used)
        self.back_button.setVisible(is_used and self.teaching.can_go_back)

    def _on_teach_clicked(self) -> None:
        self.teaching.teach()

    def _on_compare_clicked(self) -> None:
        if self.teaching.last is not None:
            self._comparing.begin(self.teaching.last.version)

    def _on_take_clicked(self) -> None:
        if self.teaching.last is not None:
            self.teaching.take(self.teaching.last.version)

    # ------------------------------------------------------------------ Qt

    def showEvent(self, event: QShowEvent) -> None:  # noqa: N802 - Qt's name
        """Keep the advice up to date while somebody reads it."""
        super().showEvent(event)
        self.teaching.watch(on=True)

    def hideEvent(self, event: QHideEvent) -> None:  # noqa: N802 - Qt's name
        """Nobody reads it."""
        super().hideEvent(event)
        self.teaching.watch(on=False)

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Return how large it is at first."""
        return SIZE


def picture_of(preview: Preview) -> NDArray[np.uint8]:
    """Return the picture of a held-out region with three outlines, uint8 (y, x, 3)."""
    example = preview.example
    inside = _fullest(example)
    truth, former, now, known = (
        plane[inside] for plane in (np.maximum(example.labels, 0), preview.former, preview.now, example.known)
    )
    height, width = truth.shape
    scale = max(2, round(2 * PREVIEW_PX / max(height, width)))
    picture = cv2.resize(example.image[inside], (width * scale, height * scale), interpolation=cv2.INTER_LINEAR)
    unseen = cv2.resize(known.astype(np.uint8), (width * scale, height * scale)) == 0
    picture = np.where(unseen[..., None], picture // 2 + 64, picture)
    for labels, colour in ((truth, TRUTH), (former, FORMER), (now, NOW)):
        large = cv2.resize(labels.astype(np.float32), (width * scale, height * scale), interpolation=cv2.INTER_NEAREST)
        edge = (large != np.roll(large, 1, 0)) | (large != np.roll(large, 1, 1))
        picture[cv2.dilate(edge.astype(np.uint8), np.ones((2, 2), np.uint8)) > 0] = colour
    return np.ascontiguousarray(picture, dtype=np.uint8)


def _fullest(example: Example) -> tuple[slice, slice]:
    """Return the part of what is known that shows most of the nuclei, no larger than can be seen well."""
    bounds = []
    for axis in (0, 1):
        there = np.flatnonzero(example.known.any(axis=1 - axis))
        bounds.append((int(there[0]), int(there[-1]) + 1) if len(there) else (0, example.labels.shape[axis]))
    (top, bottom), (left, right) = bounds
    height, width = min(SEEN_PX, bottom - top), min(SEEN_PX, right - left)
    total = cv2.integral((example.labels[top:bottom, left:right] > 0).astype(np.uint8))
    shown = total[height:, width:] - total[:-height, width:] - total[height:, :-width] + total[:-height, :-width]
    # Of equals the one nearest to the middle.
    most = np.argwhere(shown == shown.max())
    y, x = most[np.abs(most - (np.array(shown.shape) - 1) / 2).sum(axis=1).argmin()].tolist()
    return slice(top + y, top + y + height), slice(left + x, left + x + width)


def pixmap_of(preview: Preview) -> QPixmap:
    """Return the same for Qt, at most `PREVIEW_PX` wide and high."""
    picture = picture_of(preview)
    height, width = picture.shape[:2]
    image = QImage(picture.tobytes(), width, height, 3 * width, QImage.Format.Format_RGB888)
    return QPixmap.fromImage(image).scaled(
        PREVIEW_PX, PREVIEW_PX, Qt.AspectRatioMode.KeepAspectRatio, Qt.TransformationMode.SmoothTransformation
    )

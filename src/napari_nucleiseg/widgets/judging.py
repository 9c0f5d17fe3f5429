"""The dock "Against a reference": what is wrong and how much, colours, scores by region and class."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING

from qtpy.QtCore import QSize, Qt
from qtpy.QtWidgets import (
    QAbstractItemView,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QProgressBar,
    QPushButton,
    QSizePolicy,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_nucleiseg.viewer.comparison_layers import FORMER_COLOUR, KINDS
from napari_nucleiseg.viewer.judging import COVERED, Judging
from napari_nucleiseg.viewer.messages import Hint, Progress
from napari_nucleiseg.viewer.regions import Regions
from napari_nucleiseg.widgets.judging_dialog import ask_comparison, ask_mistakes_file
from napari_nucleiseg.widgets.wording import progress_text

if TYPE_CHECKING:
    from napari_nucleiseg.core.evaluation.scores import ImageScores
    from napari_nucleiseg.core.evaluation.slide_report import SlideReport, Verdicts

SIZE = QSize(1000, 240)
ROW_PX = 22
EMPTY = "Compare the nuclei of this slide with a reference: which were missed, added, split or merged, and all scores."
# Title, field of the scores, and what it says.
COLUMNS = (
    ("F1", "f1", "Nuclei found with an overlap (IoU) of at least a half, against those missed and added; 1 is best"),
    ("PQ", "pq", "Panoptic quality: as F1, times how exactly the found ones are outlined; 1 is best"),
    ("AJI", "aji", "Aggregated Jaccard index: pixels right, of all pixels that belong to either; 1 is best"),
    ("AJI+", "aji_plus", "The same with every nucleus used once only; 1 is best"),
    ("Dice", "dice", "Overlap of all nuclei as one area; 1 is best"),
    ("AHD px", "ahd", "Mean distance of outlines, in pixels of full resolution; 0 is best"),
    ("Reference", "truth_count", "Nuclei that the reference has"),
    ("Found", "pred_count", "Nuclei that were found"),
)
VERDICTS = ("correct", "missed", "added", "split", "merged")
VERDICT_TIPS = {
    "correct": "Nuclei of the reference that were found",
    "missed": "Nuclei of the reference that were not found",
    "added": "Nuclei that were found where the reference has none",
    "split": "Nuclei of the reference that were found as several",
    "merged": "Nuclei that were found where the reference has several",
}


class JudgingPanel(QWidget):
    """Shows what came of a comparison, and asks for the next.

    Parameters
    ----------
    judging : Judging
        What is shown and asked for.
    regions : Regions
        Of the slide in hand.
    """

    def __init__(self, judging: Judging, regions: Regions) -> None:
        super().__init__()
        self.setObjectName("nucleiseg judging")
        self._judging, self._regions = judging, regions
        self._report: SlideReport | None = None
        self.text = QLabel(EMPTY)
        self.text.setWordWrap(True)
        self.text.setTextFormat(Qt.TextFormat.RichText)
        self.text.setAlignment(Qt.AlignmentFlag.AlignTop)
        self.text.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.hint = QLabel()
        self.hint.setWordWrap(True)
        self.bar = QProgressBar()
        self._make_buttons()
        self._make_table()
        left = QVBoxLayout()
        for part in (self.text, self.hint, self.bar):
            left.addWidget(part)
        left.addStretch(1)
        buttons = QHBoxLayout()
        for button in (self.compare_button, self.again_button, self.write_button, self.stop_button):
            buttons.addWidget(button)
        buttons.addStretch(1)
        left.addLayout(buttons)
        row = QHBoxLayout(self)
        row.setContentsMargins(8, 6, 8, 6)
        row.setSpacing(14)
        row.addLayout(left, 2)
        row.addWidget(self.table, 3)
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Expanding)
        self.setMinimumHeight(170)
        judging.progress_changed.connect(self._on_progress_changed)
        judging.shown.connect(self._on_shown)
        judging.said.connect(self._on_said)
        self._show_state()

    def _make_buttons(self) -> None:
        self.compare_button = QPushButton("Compare…")
        self.compare_button.setToolTip("Choose a reference, and where the nuclei of this slide are compared with it")
        self.compare_button.clicked.connect(self.ask)
        self.again_button = QPushButton("Again")
        self.again_button.setToolTip("Compare with the same reference, after you have corrected nuclei")
        self.again_button.clicked.connect(self._judging.again)
        self.write_button = QPushButton("Write mistakes…")
        self.write_button.setToolTip("Write the nuclei that are wrong for QuPath; what is wrong is their class")
        self.write_button.clicked.connect(self._on_write_clicked)
        self.stop_button = QPushButton("Stop")
        self.stop_button.clicked.connect(self._judging.stop)

    def _make_table(self) -> None:
        titles = ["", *(title for title, _, _ in COLUMNS), *(word.capitalize() for word in VERDICTS)]
        tips = ["", *(tip for _, _, tip in COLUMNS), *VERDICT_TIPS.values()]
        self.table = QTableWidget(0, len(titles))
        self.table.setHorizontalHeaderLabels(titles)
        for place, tip in enumerate(tips):
            item = self.table.horizontalHeaderItem(place)
            if item is not None:
                item.setToolTip(tip)
        self.table.verticalHeader().hide()
        self.table.verticalHeader().setDefaultSectionSize(ROW_PX)
        self.table.setShowGrid(False)
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.table.horizontalHeader().setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)

    def ask(self) -> None:
        """Ask for a reference and compare with it."""
        wish = ask_comparison(self, self._regions.regions, self._judging.wish)
        if wish is not None:
            self._judging.begin(wish)

    def _on_write_clicked(self) -> None:
        path = ask_mistakes_file(self, self._judging.wish)
        if path:
            self._judging.write_mistakes(path)

    # ------------------------------------------------------------------ what is said

    def _on_progress_changed(self, progress: Progress | None) -> None:
        if progress is not None:
            self.bar.setRange(0, progress.total)
            self.bar.setValue(progress.done)
            self.bar.setFormat(f"{progress.title}  {progress_text(progress)}" if progress.total else progress.title)
        self._show_state()

    def _on_shown(self, report: SlideReport | None) -> None:
        self._report = report
        self.text.setText(EMPTY if report is None else self._text(report))
        self.table.setRowCount(0)
        if report is not None:
            self._fill(report)
        self._show_state()

    def _on_said(self, hint: Hint) -> None:
        self.hint.setText(hint.text)
        self._show_state()

    def _show_state(self) -> None:
        running, shown = self._judging.is_running, self._judging.is_shown
        self.bar.setVisible(running)
        self.hint.setVisible(bool(self.hint.text()) and not running)
        self.compare_button.setEnabled(not running)
        self.again_button.setVisible(self._judging.wish is not None and not running)
        self.write_button.setVisible(shown and not running)
        self.stop_button.setVisible(running or shown)
        self.stop_button.setText("Stop" if running else "Take away")
        self.stop_button.setToolTip("Stop comparing" if running else "Take outlines and colours off the slide again")
        self.table.setVisible(shown)

    def _text(self, report: SlideReport) -> str:
        counts = report.total.verdicts
        wrong = " &nbsp; ".join(
            f"{_swatch(colour)} {getattr(counts, word):,} {word}"
            for word, colour in (KINDS[name] for name in ("MISSED", "ADDED", "SPLIT", "MERGED"))
        )
        where = _where(report, self._judging.wish.place if self._judging.wish else COVERED)
        right = f"{counts.correct:,} of {report.total.scores.truth_count:,} nuclei of the reference are right"
        lines = [
            f"<b>{right}</b> {where}",
            wrong,
            f"{_swatch(FORMER_COLOUR)} reference: {escape(report.reference)}",
        ]
        agreement = None if report.confusion is None else report.confusion.agreement
        if report.are_classes_compared and agreement is not None:
            lines.append(f"{100 * agreement:.1f}% of those found have the class of the reference.")
        lines.extend(escape(note) for note in report.notes)
        return "<br>".join(lines)

    def _fill(self, report: SlideReport) -> None:
        for region in report.regions:
            self._add(region.name, region.scores, region.verdicts)
        if len(report.regions) != 1:
            self._add("All regions" if report.regions else "Whole slide", report.total.scores, report.total.verdicts)
        for found in report.classes:
            self._add(f"Class {found.name}", found.scores, None)

    def _add(self, name: str, scores: ImageScores, verdicts: Verdicts | None) -> None:
        cells = [name, *(_number(getattr(scores, field)) for _, field, _ in COLUMNS)]
        cells += ["" if verdicts is None else _number(getattr(verdicts, word)) for word in VERDICTS]
        row = self.table.rowCount()
        self.table.insertRow(row)
        for place, cell in enumerate(cells):
            item = QTableWidgetItem(cell)
            if place:
                item.setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
            self.table.setItem(row, place, item)
        first = self.table.item(row, 0)
        if first is not None and verdicts is None:
            first.setToolTip("Nuclei of this class on both sides" if self._are_classes_compared else BORROWED)

    @property
    def _are_classes_compared(self) -> bool:
        return self._report is not None and self._report.are_classes_compared

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Return how large it is at first."""
        return SIZE


BORROWED = "What was found has no classes: each nucleus counts for the class of the reference that it lies on"


def _where(report: SlideReport, place: str) -> str:
    if not report.regions:
        return "on the whole slide"
    if place == "view":
        return "in the view"
    return "in one region" if len(report.regions) == 1 else f"in {len(report.regions)} regions"


def _number(value: float) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return "–" if math.isnan(value) else f"{value:.3f}"


def _swatch(colour: str) -> str:
    return f'<span style="color:{colour}">■</span>'

"""Which heads look at nuclei: a table to sort, a plot of all layers, and what can be done with nuclei and heads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QPointF, QRectF, QSize, Qt, Signal
from qtpy.QtGui import QColor, QPainter, QPaintEvent, QPen
from qtpy.QtWidgets import (
    QAbstractItemView,
    QHBoxLayout,
    QHeaderView,
    QSizePolicy,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_nucleiseg.viewer.heads_nuclei import HeadsNuclei
from napari_nucleiseg.widgets.parts import tipped_button

if TYPE_CHECKING:
    from napari_nucleiseg.core.attention.ranking import HeadScore

COLUMNS = (
    ("Layer", "Layer of the transformer, the first one is 1"),
    ("Head", "Head in that layer"),
    (
        "AUROC",
        "Chance that a token of nuclei is attended to more than another one; 0.5 is chance, below it avoids them",
    ),
    ("AP", "Average precision over the tokens of nuclei; chance is their share of the tokens"),
    ("Nuclei", "Share of its attention that lies on nuclei"),
    ("Tissue", "Share of its attention that lies on other tissue"),
    ("Glass", "Share of its attention that lies on glass"),
    ("Gain", "How many times as much lies on nuclei as if it looked everywhere alike"),
)
SORTED_BY = 2
MARGIN, DOT = 30, 3.5
DOTS, BEST, LINE = QColor("#56b4e9"), QColor("#ffd400"), QColor("#888888")
RANK_TIP = (
    "Compare every head of every layer with the nuclei in what was looked at (or, of regions, with their density)"
)


class HeadRanking(QWidget):
    """Shows the scores of `HeadsNuclei`."""

    def __init__(self, nuclei: HeadsNuclei) -> None:
        super().__init__()
        self._nuclei = nuclei
        self._scores: tuple[HeadScore, ...] = ()
        self.rank_button = tipped_button("Rank heads", RANK_TIP)
        self.colour_button = tipped_button(
            "Colour nuclei", "Colour each nucleus by how much the map that is shown lies on it"
        )
        self.colour_button.setCheckable(True)
        self.most_button = tipped_button(
            "Most attended", "Go to the nucleus on which the map lies most, then to the next one"
        )
        self.least_button = tipped_button(
            "Least attended", "Go to the nucleus on which the map lies least, then to the next one"
        )
        self.seed_button = tipped_button("Seeds", "Put a point where the map is highest: a prior for nuclei")
        self.table = QTableWidget(0, len(COLUMNS))
        self.table.setHorizontalHeaderLabels([title for title, _ in COLUMNS])
        for place, (_, tip) in enumerate(COLUMNS):
            item = self.table.horizontalHeaderItem(place)
            if item is not None:
                item.setToolTip(tip)
        self.table.verticalHeader().hide()
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.table.setShowGrid(False)
        # A number that is cut off is another number.
        self.table.horizontalHeader().setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        self.table.verticalHeader().setDefaultSectionSize(20)
        self.plot = RankingPlot()
        buttons = QHBoxLayout()
        for button in (self.rank_button, self.colour_button, self.most_button, self.least_button, self.seed_button):
            buttons.addWidget(button)
        buttons.addStretch(1)
        row = QHBoxLayout()
        row.addWidget(self.table, 5)
        row.addWidget(self.plot, 3)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 4, 0, 0)
        column.setSpacing(4)
        column.addLayout(buttons)
        column.addLayout(row, 1)
        self.rank_button.clicked.connect(nuclei.rank)
        self.colour_button.toggled.connect(self._on_coloured)
        self.most_button.clicked.connect(lambda: nuclei.go(most=True))
        self.least_button.clicked.connect(lambda: nuclei.go(most=False))
        self.seed_button.clicked.connect(nuclei.seed)
        self.table.itemSelectionChanged.connect(self._on_selected)
        self.plot.picked.connect(self._on_picked)
        nuclei.ranked.connect(self.show_scores)
        self.show_scores(nuclei.scores)

    def show_scores(self, scores: tuple[HeadScore, ...]) -> None:
        """List the heads, best first."""
        self._scores = scores
        table = self.table
        table.setSortingEnabled(False)
        table.clearSelection()
        table.setRowCount(len(scores))
        for row, score in enumerate(scores):
            share = score.attention
            cells = (
                (score.layer + 1, "d"), (score.head + 1, "d"), (score.auroc, ".3f"), (score.average_precision, ".3f"),
                (share.nuclei, ".1%"), (share.other_tissue, ".1%"), (share.glass, ".1%"), (score.gain, ".2f"),
            )  # fmt: skip
            for place, (value, form) in enumerate(cells):
                table.setItem(row, place, _Number(value, format(value, form), row))
        table.setSortingEnabled(True)
        table.sortByColumn(SORTED_BY, Qt.SortOrder.DescendingOrder)
        self.plot.show_scores(scores)

    def _on_selected(self) -> None:
        items = self.table.selectedItems()
        if items:
            self._show(int(items[0].data(Qt.ItemDataRole.UserRole)))

    def _on_picked(self, place: int) -> None:
        for row in range(self.table.rowCount()):
            item = self.table.item(row, 0)
            if item is not None and item.data(Qt.ItemDataRole.UserRole) == place:
                self.table.selectRow(row)
                self.table.scrollToItem(item)

    def _show(self, place: int) -> None:
        if place < len(self._scores):
            self.plot.mark(place)
            self._nuclei.show(self._scores[place])

    def _on_coloured(self, on: bool) -> None:
        self._nuclei.colour(on=on)


class RankingPlot(QWidget):
    """AUROC of every head over the layers; a click picks the nearest."""

    picked = Signal(int)

    def __init__(self) -> None:
        super().__init__()
        self.setMinimumSize(QSize(150, 90))
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self.setToolTip("Each dot is a head: how well it tells nuclei from the rest (AUROC), by layer. Click one.")
        self._scores: tuple[HeadScore, ...] = ()
        self._marked = -1

    def show_scores(self, scores: tuple[HeadScore, ...]) -> None:
        """Plot these."""
        self._scores, self._marked = scores, -1
        self.update()

    def mark(self, place: int) -> None:
        """Mark one of them."""
        self._marked = place
        self.update()

    def _points(self) -> list[QPointF]:
        layers = max((score.layer for score in self._scores), default=0) + 1
        low, high = self._range()
        wide, tall = self.width() - MARGIN - 10, self.height() - MARGIN - 10
        return [
            QPointF(MARGIN + wide * (score.layer + 0.5) / layers, 10 + tall * (1 - (score.auroc - low) / (high - low)))
            for score in self._scores
        ]

    def _range(self) -> tuple[float, float]:
        """Return both ends of the scale: a little more than there is, but nothing that cannot be."""
        values = [0.4, 0.6, *(score.auroc for score in self._scores)]
        return max(0.0, min(values) - 0.02), min(1.0, max(values) + 0.02)

    def paintEvent(self, _event: QPaintEvent) -> None:  # noqa: N802 - Qt's name
        """Draw dots, the line of chance and the scale."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        ink = self.palette().windowText().color()
        painter.setPen(ink)
        if not self._scores:
            wrapped = int(Qt.AlignmentFlag.AlignCenter) | int(Qt.TextFlag.TextWordWrap)
            painter.drawText(self.rect(), wrapped, "Rank the heads: each becomes a dot here.")
            return
        low, high = self._range()
        wide, tall = self.width() - MARGIN - 10, self.height() - MARGIN - 10
        chance = 10 + tall * (1 - (0.5 - low) / (high - low))
        painter.setPen(QPen(LINE, 1, Qt.PenStyle.DashLine))
        painter.drawLine(QPointF(MARGIN, chance), QPointF(MARGIN + wide, chance))
        painter.setPen(ink)
        right = int(Qt.AlignmentFlag.AlignRight) | int(Qt.AlignmentFlag.AlignVCenter)
        for value, y in ((0.5, chance), (high, 10.0), (low, 10.0 + tall)):
            painter.drawText(QRectF(0, y - 8, MARGIN - 4, 16), right, f"{value:.2f}")
        layers = max(score.layer for score in self._scores) + 1
        for layer in range(layers):
            box = QRectF(MARGIN + wide * layer / layers, self.height() - MARGIN + 4, wide / layers, 16)
            painter.drawText(box, int(Qt.AlignmentFlag.AlignCenter), str(layer + 1))
        painter.drawText(QRectF(MARGIN, self.height() - 15, wide, 15), int(Qt.AlignmentFlag.AlignCenter), "layer")
        for place, point in enumerate(self._points()):
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(BEST if place == self._marked else DOTS)
            side = DOT * (1.7 if place == self._marked else 1)
            painter.drawEllipse(point, side, side)

    def mousePressEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        """Pick the nearest dot."""
        points = self._points()
        if points:
            at = event.position()
            self.picked.emit(min(range(len(points)), key=lambda place: (points[place] - at).manhattanLength()))


class _Number(QTableWidgetItem):
    """A cell that sorts by its number."""

    def __init__(self, value: float, text: str, place: int) -> None:
        super().__init__(text)
        self.value = value
        self.setData(Qt.ItemDataRole.UserRole, place)
        self.setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)

    def __lt__(self, other: QTableWidgetItem) -> bool:
        return self.value < other.value if isinstance(other, _Number) else bool(super().__lt__(other))

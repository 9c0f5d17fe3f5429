"""The list of the model browser: models with weights above, networks to train below; searched and filtered."""

from __future__ import annotations

from collections.abc import Callable

from qtpy.QtCore import QSize, Qt, Signal
from qtpy.QtGui import QResizeEvent
from qtpy.QtWidgets import QAbstractItemView, QTreeWidget, QTreeWidgetItem, QWidget
from superqt.utils import signals_blocked

from napari_nucleiseg.viewer.model_rows import Row
from napari_nucleiseg.widgets.model_card import millions_text, score_text, short_title, speed_text, state_text

NAME, TITLE, STATE, PARAMETERS, SPEED, AJI, PQ = range(7)
TITLES = ("Name", "What it is", "State", "Parameters", "MP/s", "AJI, short", "PQ, short")
TIPS = (
    "What it is called, in commands too",
    "Title",
    "Whether it can be used now, or what it needs",
    "Of its network; empty where that cannot be built here",
    "Megapixels a second of the network's forward pass on one core; – if not measured",
    "Agreement of outlines (AJI) after the same short training as all others: how soon it learns; – if not measured",
    "Panoptic quality after the same short training; – if not measured",
)
WIDTHS = {NAME: 158, TITLE: 150, STATE: 122, PARAMETERS: 78, SPEED: 48, AJI: 70, PQ: 70}
NUMBERS = (PARAMETERS, SPEED, AJI, PQ)
READY, TO_TRAIN = "Can be used now", "Networks to train"
ROW_PX = 22


class ModelList(QTreeWidget):
    """A tree of two branches whose titles take the room that the other columns leave."""

    chosen = Signal()
    """Another row is selected, or none."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._rows: dict[str, Row] = {}
        self.wanted = ""
        """Key of the row to select once it is shown."""
        self.setHeaderLabels(TITLES)
        for column, tip in enumerate(TIPS):
            self.headerItem().setToolTip(column, tip)
        for column in NUMBERS:
            self.headerItem().setTextAlignment(column, Qt.AlignmentFlag.AlignRight)
        for column, width in WIDTHS.items():
            self.setColumnWidth(column, width)
        self.header().setStretchLastSection(False)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setUniformRowHeights(True)
        self.setIndentation(12)
        self.setMinimumWidth(320)
        self.itemSelectionChanged.connect(self._on_selection_changed)

    # ------------------------------------------------------------------ what is shown

    def show_rows(
        self, rows: tuple[Row, ...], parameters: dict[str, int | str], is_in_use: Callable[[Row], bool]
    ) -> None:
        """Show these rows; `wanted` is selected, or what was before, or the one in use, or the first: who is there."""
        before = "" if self.selected is None else self.selected.key
        self._rows = {row.key: row for row in rows}
        in_turn = (self.wanted, before, *(row.key for row in rows if is_in_use(row)), *self._rows)
        now = next((key for key in in_turn if key in self._rows), "")
        if now == self.wanted:
            self.wanted = ""
        with signals_blocked(self):
            self.clear()
            for title, part in ((READY, True), (TO_TRAIN, False)):
                items = [
                    self._item(row, parameters, in_use=is_in_use(row)) for row in rows if (row.card is not None) is part
                ]
                if items:
                    self._add_branch(title, items)
            self.expandAll()
        if now:
            self.select(now)
        else:
            self.chosen.emit()

    def _add_branch(self, title: str, items: list[QTreeWidgetItem]) -> None:
        branch = QTreeWidgetItem([f"{title} ({len(items)})"])
        branch.setFlags(Qt.ItemFlag.ItemIsEnabled)
        font = branch.font(NAME)
        font.setBold(True)
        branch.setFont(NAME, font)
        branch.setSizeHint(NAME, QSize(0, ROW_PX))
        self.addTopLevelItem(branch)
        branch.setFirstColumnSpanned(True)
        branch.addChildren(items)

    def _item(self, row: Row, parameters: dict[str, int | str], *, in_use: bool) -> QTreeWidgetItem:
        count = None if row.entry is None else parameters.get(row.entry.spec.name)
        texts = {
            NAME: row.name,
            TITLE: short_title(row),
            STATE: state_text(row, in_use=in_use),
            PARAMETERS: millions_text(count),
            SPEED: speed_text(row.entry),
            AJI: score_text(row.entry, "aji"),
            PQ: score_text(row.entry, "pq"),
        }
        item = QTreeWidgetItem([texts[column] for column in range(len(TITLES))])
        for column in (NAME, TITLE, STATE):
            item.setToolTip(column, texts[column])
        for column in NUMBERS:
            item.setTextAlignment(column, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        item.setSizeHint(NAME, QSize(0, ROW_PX))
        item.setData(NAME, Qt.ItemDataRole.UserRole, row.key)
        if in_use:
            font = item.font(NAME)
            font.setBold(True)
            for column in (NAME, STATE):
                item.setFont(column, font)
        return item

    def show_parameters(self, network: str, parameters: int | str) -> None:
        """Show how many parameters a network has, in the rows that are of it."""
        for item in self._items():
            row = self._row_of(item)
            if row is not None and row.entry is not None and row.entry.spec.name == network:
                item.setText(PARAMETERS, millions_text(parameters))

    # ------------------------------------------------------------------ what is selected

    @property
    def shown(self) -> tuple[Row, ...]:
        """The rows that are shown, from top to bottom."""
        return tuple(row for row in map(self._row_of, self._items()) if row is not None)

    @property
    def selected(self) -> Row | None:
        """The row that is selected."""
        items = self.selectedItems()
        return None if not items else self._row_of(items[0])

    def select(self, key: str) -> None:
        """Select the row of this key; nothing changes if it is not shown."""
        for item in self._items():
            if item.data(NAME, Qt.ItemDataRole.UserRole) == key:
                with signals_blocked(self):
                    self.setCurrentItem(item)
                self.scrollToItem(item)
                self.chosen.emit()

    def _items(self) -> list[QTreeWidgetItem]:
        found: list[QTreeWidgetItem] = []
        for branch in map(self.topLevelItem, range(self.topLevelItemCount())):
            if branch is not None:
                found += filter(None, map(branch.child, range(branch.childCount())))
        return found

    def _row_of(self, item: QTreeWidgetItem) -> Row | None:
        return self._rows.get(item.data(NAME, Qt.ItemDataRole.UserRole))

    def _on_selection_changed(self) -> None:
        self.chosen.emit()

    # ------------------------------------------------------------------ Qt

    def resizeEvent(self, event: QResizeEvent) -> None:  # noqa: N802 - Qt's name
        """Use all of the width."""
        super().resizeEvent(event)
        others = sum(self.columnWidth(column) for column in WIDTHS if column != TITLE)
        self.setColumnWidth(TITLE, max(WIDTHS[TITLE], self.viewport().width() - others))

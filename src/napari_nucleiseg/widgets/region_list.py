"""The dock "Regions": where everything is corrected, what it is for, and how far it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from qtpy.QtCore import QSize, Qt
from qtpy.QtWidgets import (
    QAbstractItemView,
    QComboBox,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QPushButton,
    QSizePolicy,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)
from superqt.utils import signals_blocked

from napari_nucleiseg.core.store.regions import HOLD_OUT, REFERENCE, TEACH, AnnotatedRegion
from napari_nucleiseg.viewer.messages import Hint
from napari_nucleiseg.viewer.region_layer import COLOURS
from napari_nucleiseg.viewer.regions import Regions, Share
from napari_nucleiseg.widgets.correct import swatch
from napari_nucleiseg.widgets.form import needs_click

ROLE_TITLES = {
    TEACH: ("Teach", "A model is taught with what is corrected here"),
    HOLD_OUT: ("Hold out", "A model is measured here and never taught: how good it is on what it has not seen"),
    REFERENCE: ("Reference", "Neither taught nor measured: a place to come back to"),
}
COMPLETE_TITLES = {
    True: ("Everything", "Every nucleus inside is corrected: what is not outlined is no nucleus"),
    False: ("Approved only", "Only approved nuclei count; the rest of the region says nothing"),
}
NAME, FOR, COUNTS, DONE, SHARE = range(5)
TITLES = ("Region", "For", "What counts", "Done", "Approved")
TIPS = (
    "Click to go there, double-click to rename",
    "What the region is for",
    "Whether everything inside is corrected, or only approved nuclei count",
    "Tick when work on it has ended",
    "Nuclei inside that a person has approved or drawn, of all",
)
EMPTY = "No regions yet. Draw one around a place where you correct every nucleus, so that a model can learn from it."
NOT_CORRECTING = "Switch on “Correct nuclei” to change regions."
ROW_PX = 28
NUMBER = Qt.ItemDataRole.UserRole
SIZE = QSize(700, 240)


class RegionList(QWidget):
    """Regions as a list, and the buttons that draw and remove them.

    Parameters
    ----------
    regions : Regions
        What is shown and changed.
    """

    def __init__(self, regions: Regions) -> None:
        super().__init__()
        self.setObjectName("nucleiseg regions")
        self._regions = regions
        self._shown: tuple[tuple[AnnotatedRegion, ...], bool] | None = None
        self._chosen: int | None = None
        self._chosen_of: object = None
        self.table = QTableWidget(0, len(TITLES))
        self.table.setHorizontalHeaderLabels(TITLES)
        for column, tip in enumerate(TIPS):
            item = self.table.horizontalHeaderItem(column)
            if item is not None:
                item.setToolTip(tip)
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.table.setEditTriggers(QAbstractItemView.EditTrigger.DoubleClicked)
        self.table.setShowGrid(False)
        self.table.verticalHeader().hide()
        self.table.verticalHeader().setDefaultSectionSize(ROW_PX)
        header = self.table.horizontalHeader()
        header.setHighlightSections(False)
        header.setDefaultAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
        for column, width in ((FOR, 130), (COUNTS, 140), (DONE, 60), (SHARE, 150)):
            self.table.setColumnWidth(column, width)
        header.setSectionResizeMode(NAME, QHeaderView.ResizeMode.Stretch)
        self.nothing = QLabel(EMPTY)
        self.nothing.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.nothing.setWordWrap(True)
        column_ = QVBoxLayout(self)
        column_.setContentsMargins(8, 6, 8, 6)
        column_.setSpacing(6)
        column_.addWidget(self.table, 1)
        column_.addWidget(self.nothing, 1)
        column_.addLayout(self._make_buttons())
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Expanding)
        self.setMinimumHeight(150)
        self._connect()
        self._on_changed()

    def _make_buttons(self) -> QHBoxLayout:
        self.rectangle_button = QPushButton("New rectangle")
        self.rectangle_button.setToolTip("Drag a rectangle on the slide")
        self.polygon_button = QPushButton("New polygon")
        self.polygon_button.setToolTip("Click the corners on the slide; double-click the last one")
        self.go_button = QPushButton("Go there")
        self.go_button.setToolTip("Show all of the selected region")
        self.delete_button = QPushButton("Delete")
        self.delete_button.setToolTip("Delete the selected region; its nuclei stay")
        self.hint = QLabel()
        row = QHBoxLayout()
        for button in (self.rectangle_button, self.polygon_button):
            row.addWidget(button)
        row.addWidget(self.hint, 1)
        for button in (self.go_button, self.delete_button):
            row.addWidget(button)
        return row

    def _connect(self) -> None:
        self._regions.changed.connect(self._on_changed)
        self._regions.said.connect(self._on_said)
        self.table.itemChanged.connect(self._on_item_changed)
        self.table.itemSelectionChanged.connect(self._on_selection_changed)
        self.table.cellClicked.connect(self._on_cell_clicked)
        self.rectangle_button.clicked.connect(lambda: self._regions.draw("rectangle"))
        self.polygon_button.clicked.connect(lambda: self._regions.draw("polygon"))
        self.go_button.clicked.connect(self._on_go_clicked)
        self.delete_button.clicked.connect(self._on_delete_clicked)

    @property
    def selected(self) -> AnnotatedRegion | None:
        """The region whose row is selected."""
        row = self.table.currentRow()
        chosen = bool(self.table.selectedItems()) and 0 <= row < len(self._regions.regions)
        return self._regions.regions[row] if chosen else None

    # ------------------------------------------------------------------ what there is

    def _on_changed(self) -> None:
        regions, can_change = self._regions.regions, self._regions.can_change
        if self._regions.project is not self._chosen_of:
            # Another slide has the same numbers.
            self._shown, self._chosen, self._chosen_of = None, None, self._regions.project
        if (regions, can_change) != self._shown:
            before, self._shown = self._shown or ((), False), (regions, can_change)
            number = self._chosen
            with signals_blocked(self.table):
                kept = before[0] if before[1] == can_change else ()
                self._arrange([region.number for region in before[0]], [region.number for region in regions])
                for place, region in enumerate(regions):
                    if region not in kept:
                        self._fill(place, region, can_change=can_change)
                self.table.clearSelection()
                row = next((place for place, region in enumerate(regions) if region.number == number), None)
                if row is not None:
                    self.table.selectRow(row)
        with signals_blocked(self.table):
            for place, region in enumerate(regions):
                self.table.setItem(place, SHARE, _fixed(_share_text(self._regions.shares.get(region.number))))
        self.table.setVisible(bool(regions))
        self.nothing.setVisible(not regions)
        self._on_selection_changed()

    def _arrange(self, before: list[int], numbers: list[int]) -> None:
        """Make a row for each region (by number); those that were there go on in theirs, with a name half typed."""
        rows = [number for number in before if number in numbers]
        if rows != [number for number in numbers if number in before]:
            rows = []
        for row in reversed(range(self.table.rowCount())):
            if row >= len(before) or before[row] not in rows:
                self.table.removeRow(row)
        for row, number in enumerate(numbers):
            if number not in rows:
                self.table.insertRow(row)

    def _fill(self, row: int, region: AnnotatedRegion, *, can_change: bool) -> None:
        name = QTableWidgetItem(swatch(COLOURS[region.role]), region.name)
        flags = name.flags()
        name.setFlags(flags if can_change else flags & ~Qt.ItemFlag.ItemIsEditable)
        name.setData(NUMBER, region.number)
        name.setToolTip(f"Last changed by {region.person}" if region.person else "")
        self.table.setItem(row, NAME, name)
        done = QTableWidgetItem()
        done.setData(NUMBER, region.number)
        kept = Qt.ItemFlag.ItemIsSelectable | Qt.ItemFlag.ItemIsEnabled
        done.setFlags(kept | Qt.ItemFlag.ItemIsUserCheckable if can_change else kept)
        done.setCheckState(Qt.CheckState.Checked if region.done else Qt.CheckState.Unchecked)
        self.table.setItem(row, DONE, done)
        for column, field, choice in (
            (FOR, "role", _choice(ROLE_TITLES, region.role)),
            (COUNTS, "complete", _choice(COMPLETE_TITLES, region.complete)),
        ):
            choice.setEnabled(can_change)
            choice.activated.connect(
                lambda _place, choice=choice, number=region.number, field=field: self._change(
                    number, **{field: choice.currentData()}
                )
            )
            self.table.setCellWidget(row, column, choice)

    def _on_said(self, hint: Hint) -> None:
        self.hint.setText(hint.text)

    def _on_selection_changed(self) -> None:
        chosen, can_change = self.selected is not None, self._regions.can_change
        self._chosen = None if self.selected is None else self.selected.number
        self.go_button.setEnabled(chosen)
        self.delete_button.setEnabled(chosen and can_change)
        if self._regions.regions and not can_change:
            self.hint.setText(NOT_CORRECTING)
        elif self.hint.text() == NOT_CORRECTING:
            self.hint.clear()

    # ------------------------------------------------------------------ what the user does

    def _on_item_changed(self, item: QTableWidgetItem) -> None:
        number = item.data(NUMBER)
        if item.column() == NAME:
            self._change(number, name=item.text())
        elif item.column() == DONE:
            self._change(number, done=item.checkState() == Qt.CheckState.Checked)

    def _change(self, number: int, **fields: object) -> None:
        region = next((region for region in self._regions.regions if region.number == number), None)
        if region is not None:
            self._regions.put(replace(region, **fields))  # type: ignore[arg-type]

    def _on_cell_clicked(self, _row: int, column: int) -> None:
        if column in {NAME, SHARE}:
            self._on_go_clicked()

    def _on_go_clicked(self) -> None:
        if self.selected is not None:
            self._regions.go_to(self.selected)

    def _on_delete_clicked(self) -> None:
        if self.selected is not None:
            self._regions.remove(self.selected)

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Return how large it is at first."""
        return SIZE


def _choice(titles: Mapping[Any, tuple[str, str]], value: object) -> QComboBox:
    choice = QComboBox()
    for key, (title, tip) in titles.items():
        choice.addItem(title, key)
        choice.setItemData(choice.count() - 1, tip, Qt.ItemDataRole.ToolTipRole)
    choice.setCurrentIndex(list(titles).index(value))
    choice.setToolTip(titles[value][1])
    needs_click(choice)
    return choice


def _fixed(text: str) -> QTableWidgetItem:
    item = QTableWidgetItem(text)
    item.setFlags(Qt.ItemFlag.ItemIsSelectable | Qt.ItemFlag.ItemIsEnabled)
    return item


def _share_text(share: Share | None) -> str:
    if share is None:
        return "…"
    return f"{share.approved:,} of {share.nuclei:,}" if share.nuclei else "no nuclei"

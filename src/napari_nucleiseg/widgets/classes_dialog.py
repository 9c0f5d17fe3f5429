"""The dialog in which classes of nuclei are named, coloured, added and removed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from qtpy.QtCore import QSize, Qt
from qtpy.QtGui import QColor
from qtpy.QtWidgets import (
    QAbstractItemView,
    QColorDialog,
    QDialog,
    QDialogButtonBox,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QMessageBox,
    QPushButton,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_nucleiseg.core.errors import StoreError
from napari_nucleiseg.core.store.classes import NucleusClass, check_classes
from napari_nucleiseg.widgets.correct import swatch

KEY, NAME, NUCLEI = range(3)
TITLES = ("Key", "Name", "Nuclei")
MOST = 99
# Colours for new classes, told apart from those that there are and from haematoxylin and eosin.
FRESH = ("#00d5ff", "#ff66ff", "#b8ff3c", "#9b5de5", "#00a878", "#ff5c8a", "#c0c000", "#8d5a2b", "#ffffff")


class ClassesDialog(QDialog):
    """Classes as a list that can be changed; nothing happens before it is accepted.

    Parameters
    ----------
    classes : sequence of NucleusClass
        As they are.
    counts : mapping of int to int
        Nuclei of each.
    parent : QWidget
        For the theme.
    """

    def __init__(self, classes: Sequence[NucleusClass], counts: Mapping[int, int], parent: QWidget) -> None:
        super().__init__(parent)
        self.setWindowTitle("Classes of nuclei")
        self._counts = counts
        self.table = QTableWidget(0, len(TITLES))
        self.table.setHorizontalHeaderLabels(TITLES)
        self.table.verticalHeader().hide()
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.table.setShowGrid(False)
        self.table.setIconSize(QSize(14, 14))
        self.table.setColumnWidth(KEY, 44)
        self.table.setColumnWidth(NUCLEI, 80)
        self.table.horizontalHeader().setSectionResizeMode(NAME, QHeaderView.ResizeMode.Stretch)
        for entry in classes:
            self._add(entry)
        self.add_button = QPushButton("Add")
        self.remove_button = QPushButton("Remove")
        self.colour_button = QPushButton("Colour…")
        self.problem = QLabel()
        self.problem.setWordWrap(True)
        self.buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Ok | QDialogButtonBox.StandardButton.Cancel)
        row = QHBoxLayout()
        for button in (self.add_button, self.colour_button, self.remove_button):
            button.setAutoDefault(False)
            row.addWidget(button)
        row.addStretch(1)
        column = QVBoxLayout(self)
        column.addWidget(
            QLabel("Double-click a name to change it. The key gives the class to the nucleus under the mouse.")
        )
        column.addWidget(self.table, 1)
        column.addLayout(row)
        column.addWidget(self.problem)
        column.addWidget(self.buttons)
        self.resize(520, 420)
        self._connect()
        self._on_changed()

    def _connect(self) -> None:
        self.buttons.accepted.connect(self.accept)
        self.buttons.rejected.connect(self.reject)
        self.add_button.clicked.connect(self._on_add_clicked)
        self.remove_button.clicked.connect(self._on_remove_clicked)
        self.colour_button.clicked.connect(self._on_colour_clicked)
        self.table.itemChanged.connect(self._on_changed)
        self.table.itemSelectionChanged.connect(self._on_changed)

    @property
    def classes(self) -> list[NucleusClass]:
        """The classes as they stand in the list."""
        found = []
        for row in range(self.table.rowCount()):
            key, name = self.table.item(row, KEY), self.table.item(row, NAME)
            if key is not None and name is not None:
                number, colour = key.data(Qt.ItemDataRole.UserRole)
                found.append(NucleusClass(number, name.text().strip(), colour))
        return found

    def _add(self, entry: NucleusClass) -> None:
        row = self.table.rowCount()
        self.table.insertRow(row)
        fixed = Qt.ItemFlag.ItemIsSelectable | Qt.ItemFlag.ItemIsEnabled
        key, nuclei = QTableWidgetItem(), QTableWidgetItem(f"{self._counts.get(entry.number, 0):,}")
        for item in (key, nuclei):
            item.setFlags(fixed)
        nuclei.setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        self.table.setItem(row, NUCLEI, nuclei)
        self.table.setItem(row, NAME, QTableWidgetItem(swatch(entry.colour), entry.name))
        key.setText(str(entry.number) if entry.number < 10 else "")
        key.setData(Qt.ItemDataRole.UserRole, (entry.number, entry.colour))
        self.table.setItem(row, KEY, key)

    # ------------------------------------------------------------------ what the user does

    def _on_changed(self) -> None:
        try:
            check_classes(self.classes)
        except StoreError as error:
            problem = str(error)
        else:
            problem = ""
        self.problem.setText(problem)
        self.buttons.button(QDialogButtonBox.StandardButton.Ok).setEnabled(not problem)
        chosen = bool(self.table.selectedItems())
        self.remove_button.setEnabled(chosen)
        self.colour_button.setEnabled(chosen)
        self.add_button.setEnabled(self.table.rowCount() < MOST)

    def _on_add_clicked(self) -> None:
        taken = {entry.number for entry in self.classes}
        number = next(number for number in range(1, MOST + 1) if number not in taken)
        used = {entry.colour for entry in self.classes}
        colour = next((colour for colour in FRESH if colour not in used), FRESH[0])
        self._add(NucleusClass(number, f"Class {number}", colour))
        row = self.table.rowCount() - 1
        self.table.selectRow(row)
        item = self.table.item(row, NAME)
        if item is not None:
            self.table.editItem(item)

    def _on_remove_clicked(self) -> None:
        row = self.table.currentRow()
        entry = self.classes[row]
        count = self._counts.get(entry.number, 0)
        if not count or self._may_remove(entry, count):
            self.table.removeRow(row)
            self._on_changed()

    def _may_remove(self, entry: NucleusClass, count: int) -> bool:
        box = QMessageBox(self)
        box.setWindowTitle("Remove a class")
        box.setText(f"{count:,} {'nucleus is' if count == 1 else 'nuclei are'} of the class {entry.name}.")
        box.setInformativeText("Without it they have no class. This can be undone.")
        box.setStandardButtons(QMessageBox.StandardButton.Yes | QMessageBox.StandardButton.Cancel)
        box.button(QMessageBox.StandardButton.Yes).setText("Remove the class")
        box.setDefaultButton(QMessageBox.StandardButton.Cancel)
        wanted = bool(box.exec() == QMessageBox.StandardButton.Yes)
        box.deleteLater()
        return wanted

    def _on_colour_clicked(self) -> None:
        row = self.table.currentRow()
        entry = self.classes[row]
        colour = QColorDialog.getColor(QColor(entry.colour), self, f"Colour of {entry.name}")
        if colour.isValid():
            self.set_colour(row, colour.name())

    def set_colour(self, row: int, colour: str) -> None:
        """Give the class of a row a colour, ``#rrggbb``."""
        key, name = self.table.item(row, KEY), self.table.item(row, NAME)
        if key is not None and name is not None:
            number, _former = key.data(Qt.ItemDataRole.UserRole)
            key.setData(Qt.ItemDataRole.UserRole, (number, colour))
            name.setIcon(swatch(colour))


def ask_classes(
    classes: Sequence[NucleusClass], counts: Mapping[int, int], parent: QWidget
) -> list[NucleusClass] | None:
    """Let the user change classes; None if nothing is to be changed."""
    dialog = ClassesDialog(classes, counts, parent)
    wanted = dialog.classes if dialog.exec() == QDialog.DialogCode.Accepted else None
    dialog.deleteLater()
    return None if wanted == list(classes) else wanted

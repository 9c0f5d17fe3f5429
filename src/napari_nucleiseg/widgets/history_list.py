"""The dock "History": what was done, where, when and by whom; one click goes there, two go back to that state."""

from __future__ import annotations

import time
from typing import Any

from qtpy.QtCore import QAbstractTableModel, QModelIndex, QPersistentModelIndex, QSize, Qt
from qtpy.QtGui import QColor, QFont, QHideEvent, QShowEvent
from qtpy.QtWidgets import (
    QAbstractItemView,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QPushButton,
    QSizePolicy,
    QTableView,
    QVBoxLayout,
    QWidget,
)

from napari_nucleiseg.core.store.journal import Step
from napari_nucleiseg.viewer.history import History
from napari_nucleiseg.widgets.wording import step_text, when_text

Index = QModelIndex | QPersistentModelIndex
NO_INDEX = QModelIndex()
WHAT, WHERE, WHEN, WHO = range(4)
TITLES = ("What", "Where (x, y)", "When", "Who")
WIDTHS = {WHERE: 170, WHEN: 140, WHO: 140}
EMPTY = "Nothing was changed on this slide yet."
NOT_CORRECTING = "Switch on “Correct nuclei” to go back and forth."
# Seen, but behind the others, on a light theme and on a dark one.
UNDONE_COLOUR = "#858585"
ROW_PX = 22
SIZE = QSize(700, 240)


class HistoryModel(QAbstractTableModel):
    """Steps as a table that grows as one scrolls.

    Parameters
    ----------
    history : History
        What is shown.
    """

    def __init__(self, history: History) -> None:
        super().__init__()
        self._history = history
        self._rows = 0

    def renew(self, *, only_added: bool) -> None:
        """Show the steps as they are now."""
        count = len(self._history.steps)
        if only_added and count > self._rows:
            self.beginInsertRows(NO_INDEX, self._rows, count - 1)
            self._rows = count
            self.endInsertRows()
            return
        self.beginResetModel()
        self._rows = count
        self.endResetModel()

    def rowCount(self, parent: Index = NO_INDEX) -> int:  # noqa: N802 - Qt's name
        """Return how many steps are known."""
        return 0 if parent.isValid() else self._rows

    def columnCount(self, parent: Index = NO_INDEX) -> int:  # noqa: N802 - Qt's name
        """Return how many columns there are."""
        return 0 if parent.isValid() else len(TITLES)

    def canFetchMore(self, parent: Index) -> bool:  # noqa: N802 - Qt's name
        """Tell whether there are older steps."""
        return not parent.isValid() and self._history.has_more

    def fetchMore(self, parent: Index) -> None:  # noqa: N802 - Qt's name
        """Read older steps; they come later."""
        if not parent.isValid():
            self._history.more()

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = 0) -> Any:  # noqa: N802 - Qt's name
        """Return the titles of columns."""
        if orientation == Qt.Orientation.Horizontal and role == Qt.ItemDataRole.DisplayRole:
            return TITLES[section]
        return None

    def flags(self, index: Index) -> Qt.ItemFlag:
        """Return what can be done with a row: undone ones are grey, but can be chosen."""
        return Qt.ItemFlag.ItemIsSelectable | Qt.ItemFlag.ItemIsEnabled if index.isValid() else Qt.ItemFlag.NoItemFlags

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Return what a cell shows."""
        if index.row() >= len(self._history.steps):
            return None
        step = self._history.steps[index.row()]
        if role == Qt.ItemDataRole.DisplayRole:
            return self._text(step, index.column())
        if role == Qt.ItemDataRole.FontRole and step.number == self._history.now:
            font = QFont()
            font.setBold(True)
            return font
        if role == Qt.ItemDataRole.ForegroundRole and step.undone:
            return QColor(UNDONE_COLOUR)
        if role == Qt.ItemDataRole.ToolTipRole:
            return "Undone; double-click to do it again" if step.undone else "Double-click to go back to this state"
        return None

    def _text(self, step: Step, column: int) -> str:
        if column == WHAT:
            return f"{step_text(step)}  (undone)" if step.undone else step_text(step)
        if column == WHEN:
            return when_text(step.at, time.time())
        if column == WHO:
            return step.person
        project = self._history.project
        if step.region is None or project is None:
            return ""
        y, x = step.region.centre
        return f"{x * project.mpp_um.x:,.0f}, {y * project.mpp_um.y:,.0f} µm"


class HistoryList(QWidget):
    """The history with the button that goes back to a state.

    Parameters
    ----------
    history : History
        What is shown; it is followed as long as this is seen.
    """

    def __init__(self, history: History) -> None:
        super().__init__()
        self.setObjectName("nucleiseg history")
        self._history = history
        self._chosen: int | None = None
        self._chosen_of: object = None
        self.model = HistoryModel(history)
        self.view = QTableView()
        self.view.setModel(self.model)
        self.view.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.view.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.view.setShowGrid(False)
        self.view.setWordWrap(False)
        self.view.verticalHeader().hide()
        self.view.verticalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        self.view.verticalHeader().setDefaultSectionSize(ROW_PX)
        header = self.view.horizontalHeader()
        header.setHighlightSections(False)
        header.setDefaultAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
        for column, width in WIDTHS.items():
            self.view.setColumnWidth(column, width)
        header.setSectionResizeMode(WHAT, QHeaderView.ResizeMode.Stretch)
        self.nothing = QLabel(EMPTY)
        self.nothing.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.hint = QLabel()
        self.jump_button = QPushButton("Go to this state")
        self.jump_button.setToolTip("Undo what came later, or do again what is undone up to here. Nothing is lost.")
        column_ = QVBoxLayout(self)
        column_.setContentsMargins(8, 6, 8, 6)
        column_.setSpacing(6)
        column_.addWidget(self.view, 1)
        column_.addWidget(self.nothing, 1)
        row = QHBoxLayout()
        row.addWidget(self.hint, 1)
        row.addWidget(self.jump_button)
        column_.addLayout(row)
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Expanding)
        self.setMinimumHeight(150)
        history.read.connect(self._on_read)
        self.view.clicked.connect(self._on_clicked)
        self.view.doubleClicked.connect(self._on_double_clicked)
        self.jump_button.clicked.connect(self._on_jump_clicked)
        self.view.selectionModel().selectionChanged.connect(self._on_selection_changed)
        self._on_read(False)

    @property
    def selected(self) -> Step | None:
        """The step whose row is selected."""
        rows = self.view.selectionModel().selectedRows()
        return self._history.steps[rows[0].row()] if rows and rows[0].row() < len(self._history.steps) else None

    def _on_read(self, only_added: bool) -> None:
        # By its number: the row may be another step's by now, and another slide has the same numbers.
        number = self._chosen if self._history.project is self._chosen_of else None
        self._chosen_of = self._history.project
        scrolled = self.view.verticalScrollBar().value()
        self.model.renew(only_added=only_added)
        steps = self._history.steps
        row = next((row for row, step in enumerate(steps) if step.number == number), None)
        if row is not None and not only_added:
            self.view.selectRow(row)
        self.view.verticalScrollBar().setValue(scrolled)
        self.view.setVisible(bool(steps))
        self.nothing.setVisible(not steps)
        self._on_selection_changed()

    def _on_selection_changed(self) -> None:
        can_change = self._history.can_change
        self._chosen = None if self.selected is None else self.selected.number
        self.jump_button.setEnabled(can_change and self.selected is not None)
        self.hint.setText("" if can_change or not self._history.steps else NOT_CORRECTING)

    def _on_clicked(self, index: QModelIndex) -> None:
        self._history.go_to(self._history.steps[index.row()])

    def _on_double_clicked(self, index: QModelIndex) -> None:
        if self._history.can_change:
            self._history.jump(self._history.steps[index.row()])

    def _on_jump_clicked(self) -> None:
        if self.selected is not None:
            self._history.jump(self.selected)

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Return how large it is at first."""
        return SIZE

    def showEvent(self, event: QShowEvent) -> None:  # noqa: N802 - Qt's name
        """Begin to follow."""
        super().showEvent(event)
        self._history.open()

    def hideEvent(self, event: QHideEvent) -> None:  # noqa: N802 - Qt's name
        """Cease to follow."""
        super().hideEvent(event)
        self._history.close()

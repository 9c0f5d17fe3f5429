"""The dock "Nuclei table": every nucleus of the slide, sorted and filtered, tied to the slide both ways."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QItemSelection, QItemSelectionModel, QSize, Qt, Signal
from qtpy.QtGui import QHideEvent, QKeyEvent, QShowEvent
from qtpy.QtWidgets import (
    QAbstractItemView,
    QApplication,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QMenu,
    QSizePolicy,
    QTableView,
    QVBoxLayout,
    QWidget,
)

from napari_nucleiseg.core.store.listing import Ids
from napari_nucleiseg.viewer.measured_nuclei import ATTENTION
from napari_nucleiseg.viewer.messages import Hint
from napari_nucleiseg.viewer.nuclei_list import NucleiList
from napari_nucleiseg.widgets.correct import swatch
from napari_nucleiseg.widgets.nuclei_filter import NucleiFilter
from napari_nucleiseg.widgets.nuclei_model import ATTENTION_PLACES, COLUMNS, NucleiModel
from napari_nucleiseg.widgets.parts import tipped_button

WIDTHS = {"id": 104, "class": 130, "area": 92, "score": 74, "approved": 92, "x": 92, "y": 92, ATTENTION: 92}
SIZE = QSize(900, 240)
ROW_PX = 22
# Of the button whose title stands beside an arrow.
CLASS_PX = 76
# Of so many selected nuclei the selection is kept when the list is made anew.
KEPT = 5000
NO_PROJECT = "No nuclei yet: segment the slide, or draw some."
NONE_FOUND = "No nucleus is like that. “Show all” lists every one."
NOT_CORRECTING = "Switch on “Correct nuclei” to change them."
SELECT = QItemSelectionModel.SelectionFlag
Rows = NDArray[np.int64]


class NucleiTable(QWidget):
    """The table with what filters it and what is done to the selected rows.

    Parameters
    ----------
    nuclei : NucleiList
        What is shown; it works as long as this is seen.
    """

    def __init__(self, nuclei: NucleiList) -> None:
        super().__init__()
        self.setObjectName("nucleiseg table")
        self.nuclei = nuclei
        """What is shown."""
        self._selected_ids: list[int] = []
        self._selected_of: object = None
        self._advance_to: int | None = None
        self.filter = NucleiFilter()
        self.model = NucleiModel(nuclei)
        self.view = _View()
        self.view.setModel(self.model)
        for place, column in enumerate(COLUMNS):
            if column.order in WIDTHS:
                self.view.setColumnWidth(place, WIDTHS[column.order])
            else:
                self.view.horizontalHeader().setSectionResizeMode(place, QHeaderView.ResizeMode.Stretch)
        self.view.horizontalHeader().setSortIndicator(0, Qt.SortOrder.AscendingOrder)
        self.view.setSortingEnabled(True)
        self.nothing = QLabel(NO_PROJECT)
        self.nothing.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self._make_actions()
        column_ = QVBoxLayout(self)
        column_.setContentsMargins(8, 6, 8, 6)
        column_.setSpacing(6)
        column_.addWidget(self.filter)
        column_.addWidget(self.view, 1)
        column_.addWidget(self.nothing, 1)
        column_.addWidget(self._actions)
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Expanding)
        self.setMinimumHeight(150)
        self._connect()
        self._on_listed()

    def _make_actions(self) -> None:
        self.selected = QLabel()
        self.approve_button = tipped_button("Approve", "These are right: no model touches them any more  (Y)")
        self.open_button = tipped_button("Not approved", "Take an approval back")
        self.reject_button = tipped_button("Reject", "Take these away for good: no model brings them back  (R)")
        self.delete_button = tipped_button("Delete", "Take these away  (D)")
        self.class_button = tipped_button("Class", "Give these a class  (1–9, 0 for none)")
        self.class_button.setMinimumWidth(CLASS_PX)
        self.class_menu = QMenu(self.class_button)
        self.class_button.setMenu(self.class_menu)
        self._buttons = (
            self.approve_button,
            self.open_button,
            self.reject_button,
            self.delete_button,
            self.class_button,
        )
        self._actions = QWidget()
        row = QHBoxLayout(self._actions)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.selected)
        row.addStretch(1)
        for button in self._buttons:
            row.addWidget(button)

    def _connect(self) -> None:
        nuclei, view = self.nuclei, self.view
        nuclei.listed.connect(self._on_listed)
        nuclei.pointed.connect(self._on_pointed)
        nuclei.given_anew.connect(self._on_given_anew)
        nuclei.attention_changed.connect(self._show_attention)
        nuclei.said.connect(self._on_said)
        self.filter.changed.connect(self._on_filter_changed)
        view.selectionModel().selectionChanged.connect(self._on_selection_changed)
        view.selectionModel().selectionChanged.connect(self._on_rows_chosen)
        view.went.connect(self._on_went)
        view.key_pressed.connect(self._on_key_pressed)
        self.approve_button.clicked.connect(lambda: self.approve(approved=True))
        self.open_button.clicked.connect(lambda: self.approve(approved=False))
        self.reject_button.clicked.connect(lambda: self.delete("reject"))
        self.delete_button.clicked.connect(lambda: self.delete("delete"))
        self.class_menu.aboutToShow.connect(self._on_class_menu_opened)

    # ------------------------------------------------------------------ what the user does

    def rows(self) -> Rows:
        """Return the selected rows, ascending; quick for a million."""
        selection: Any = self.view.selectionModel().selection()
        parts = [np.arange(part.top(), part.bottom() + 1) for part in selection]
        rows = np.sort(np.concatenate([np.zeros(0, np.int64), *parts]))
        # numpy's own `unique` takes a second for a million.
        return np.asarray(rows[np.diff(rows, prepend=-1) > 0])

    def approve(self, *, approved: bool) -> None:
        """Approve what is selected, or take that back."""
        self._change(lambda rows: self.nuclei.approve(rows, approved=approved))

    def delete(self, kind: str) -> None:
        """Delete or reject what is selected."""
        self._change(lambda rows: self.nuclei.delete(rows, kind=kind))

    def classify(self, number: int) -> None:
        """Give what is selected a class; 0 takes it."""
        self._change(lambda rows: self.nuclei.classify(rows, number))

    def _change(self, change: Callable[[list[int]], None]) -> None:
        rows = self.rows()
        if len(rows) and self.nuclei.can_change:
            # Whoever goes through a list one by one sees the next when this one leaves it.
            self._advance_to = int(rows[0]) if len(rows) == len(self.nuclei.meant(rows)) == 1 else None
            change(rows.tolist())

    def _on_filter_changed(self) -> None:
        self._advance_to = None
        if self.nuclei.only is not None and not self.filter.only.isChecked():
            self.nuclei.show_only(None)
        self.nuclei.ask(self.filter.query(self.nuclei.query), in_view=self.filter.in_view.isChecked())

    def _on_went(self, row: int) -> None:
        self.nuclei.go_to(row)

    def _on_key_pressed(self, key: str) -> None:
        if key.isdecimal():
            self.classify(int(key))
        elif key == "Y":
            self.approve(approved=True)
        else:
            self.delete("reject" if key == "R" else "delete")

    def _on_class_menu_opened(self) -> None:
        self.class_menu.clear()
        for number, name, colour in [*self.nuclei.classes(), (0, "No class", "transparent")]:
            action = self.class_menu.addAction(swatch(colour), f"{name}\t{number}" if number < 10 else name)
            action.triggered.connect(lambda _on=False, number=number: self.classify(number))

    # ------------------------------------------------------------------ what the list says

    def _on_listed(self) -> None:
        listing = self.nuclei.listing
        if self.nuclei.project is not self._selected_of:
            # The same ids are other nuclei there.
            self._selected_of, self._selected_ids, self._advance_to = self.nuclei.project, [], None
        self.filter.offer(self.nuclei.classes(), listing.origins)
        self.filter.show_only(on=self.nuclei.only is not None)
        self.filter.show_count(len(listing), self.nuclei.total)
        scrolled, kept = self.view.verticalScrollBar().value(), self._selected_ids
        self._show_attention()
        self.view.is_told = True
        self.model.renew()
        self.view.verticalScrollBar().setValue(scrolled)
        rows = listing.rows_of(kept) if kept else np.zeros(0, np.int64)
        self.view.select(rows)
        self.view.is_told = False
        self.nothing.setText(NONE_FOUND if self.filter.is_set and self.nuclei.total else NO_PROJECT)
        self.nothing.setVisible(not len(listing))
        self.view.setVisible(bool(len(listing)))
        self._on_selection_changed()
        self._advance(len(rows))

    def _show_attention(self) -> None:
        """Show the columns of attention where any is known, and sort by none that is not seen."""
        is_known = self.nuclei.has_attention
        for place in ATTENTION_PLACES:
            self.view.setColumnHidden(place, not is_known)
        if not is_known and self.view.horizontalHeader().sortIndicatorSection() in ATTENTION_PLACES:
            self.view.sortByColumn(0, Qt.SortOrder.AscendingOrder)

    def _advance(self, kept: int) -> None:
        row, self._advance_to = self._advance_to, None
        if row is not None and not kept and row < self.model.rowCount():
            self.view.select(np.array([row]))
            self.view.scrollTo(self.model.index(row, 0))
            self.nuclei.go_to(row)

    def _on_pointed(self, row: int) -> None:
        self.view.is_told = True
        self.view.select(np.array([row]))
        self.view.scrollTo(self.model.index(row, 0), QAbstractItemView.ScrollHint.PositionAtCenter)
        self.view.is_told = False
        self._on_selection_changed()

    def _on_given_anew(self, ids: Ids) -> None:
        """Keep nothing selected that may be another nucleus now."""
        rows = self.rows()
        kept = rows[~np.isin(self.nuclei.listing.ids[rows], ids)]
        if len(kept) < len(rows):
            self.view.is_told = True
            self.view.select(kept)
            self.view.is_told = False
            self._on_selection_changed()

    def _on_said(self, hint: Hint) -> None:
        self.selected.setText(hint.text)

    def _on_selection_changed(self) -> None:
        rows = self.rows()
        if not self.view.is_told:
            self._selected_ids = self.nuclei.meant(rows).tolist() if len(rows) <= KEPT else []
        can_change = self.nuclei.can_change
        for button in self._buttons:
            button.setEnabled(can_change and bool(len(rows)))
        count = f"{len(rows):,} selected. " if len(rows) else "Click a row to go there. "
        self.selected.setText(count if can_change else f"{count}{NOT_CORRECTING}")

    def _on_rows_chosen(self) -> None:
        rows = np.zeros(0, np.int64) if self.view.is_told else self.rows()
        if len(rows):
            self.nuclei.choose(rows)

    # ------------------------------------------------------------------ when it is seen

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Return how large it is at first: a dozen rows."""
        return SIZE

    def showEvent(self, event: QShowEvent) -> None:  # noqa: N802 - Qt's name
        """Begin to list."""
        super().showEvent(event)
        self.nuclei.open()

    def hideEvent(self, event: QHideEvent) -> None:  # noqa: N802 - Qt's name
        """Cease to list."""
        super().hideEvent(event)
        self.nuclei.close()


class _View(QTableView):
    """A view of many equal rows, whose keys are those of the slide."""

    went = Signal(int)
    """The user went to this row, by mouse or keys."""
    key_pressed = Signal(str)
    """One of the keys with which nuclei are judged."""

    def __init__(self) -> None:
        super().__init__()
        self.is_told = False
        """Whether rows are being selected by the program, not by the user."""
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setShowGrid(False)
        self.setWordWrap(False)
        self.setCornerButtonEnabled(False)
        self.verticalHeader().hide()
        self.verticalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        self.verticalHeader().setDefaultSectionSize(ROW_PX)
        self.horizontalHeader().setHighlightSections(False)
        self.clicked.connect(lambda index: self._go(index.row()))

    def select(self, rows: Rows) -> None:
        """Select rows (ascending), in as few ranges as they form; the first becomes the current one."""
        model, chosen = self.model(), QItemSelection()
        last = model.columnCount() - 1
        for run in np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1):
            if len(run):
                chosen.select(model.index(int(run[0]), 0), model.index(int(run[-1]), last))
        if len(rows):
            self.selectionModel().setCurrentIndex(model.index(int(rows[0]), 0), SELECT.NoUpdate)
        self.selectionModel().select(chosen, SELECT.ClearAndSelect)

    def keyboardSearch(self, search: str) -> None:  # noqa: N802 - Qt's name
        """Look for no text: a million rows would be read for it."""

    def keyPressEvent(self, event: QKeyEvent) -> None:  # noqa: N802 - Qt's name
        """Judge nuclei by letters, leave other letters to the viewer, and move by the rest."""
        text = event.text().upper()
        plain = not event.modifiers() & (Qt.KeyboardModifier.ControlModifier | Qt.KeyboardModifier.AltModifier)
        if plain and (text in {"Y", "R", "D"} or text.isdecimal() or event.key() == Qt.Key.Key_Delete):
            self.key_pressed.emit(text if text.isalnum() else "D")
        elif plain and text.strip() and text.isprintable():
            event.ignore()
        else:
            before = self.currentIndex().row()
            super().keyPressEvent(event)
            if self.currentIndex().row() != before:
                self._go(self.currentIndex().row())

    def _go(self, row: int) -> None:
        several = Qt.KeyboardModifier.ShiftModifier | Qt.KeyboardModifier.ControlModifier
        if row >= 0 and not QApplication.keyboardModifiers() & several:
            self.went.emit(row)

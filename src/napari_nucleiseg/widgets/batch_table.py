"""The queue of an unattended run as a table, with a bar where a slide is worked on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qtpy.QtCore import (
    QAbstractTableModel,
    QModelIndex,
    QPersistentModelIndex,
    QRect,
    QSortFilterProxyModel,
    Qt,
    Signal,
)
from qtpy.QtGui import QColor, QKeyEvent, QPainter
from qtpy.QtWidgets import (
    QAbstractItemView,
    QHeaderView,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QTableView,
)

from napari_nucleiseg.core.batch.unattended.database import DONE, FAILED, RUNNING, STOPPED, WAITING
from napari_nucleiseg.core.errors import MissingPixelSizeError
from napari_nucleiseg.viewer.batch_queue import PREPARING, Queue, Row
from napari_nucleiseg.widgets.wording import WARNING_COLOURS

Index = QModelIndex | QPersistentModelIndex
ROLE = Qt.ItemDataRole
NO_INDEX = QModelIndex()
SLIDE, STATE, NUCLEI = range(3)
TITLES = ("Slide", "State", "Nuclei")
TIPS = (
    "Name of the file. Double-click a slide that is done to see its nuclei; Delete takes it off the list",
    "What becomes of it; select a slide to read all of it below",
    "How many were found",
)
WIDTHS = {STATE: 116, NUCLEI: 66}
ROW_PX = 24
STATES = {WAITING: "Waiting", RUNNING: "At work", DONE: "Done", FAILED: "Failed", STOPPED: "Begun"}
# What a narrow column has room for.
SHORT_STAGES = {PREPARING: "Looking at it"}
HOW_LARGE = "Say it under “More settings”, Pixel size, and press Start again."
STOPPED_TIP = "Begun in an earlier run; Start goes on from there."
# What is sorted upwards comes in this order.
ORDER = (FAILED, RUNNING, STOPPED, WAITING, DONE)
BAR, TRACK = QColor(44, 165, 141, 150), QColor(128, 128, 128, 60)


def state_text(row: Row) -> str:
    """Return what stands in the column of states."""
    if row.state == RUNNING and row.stage:
        stage = SHORT_STAGES.get(row.stage, row.stage[0].upper() + row.stage[1:])
        return f"{stage} {row.part / row.parts:.0%}" if row.parts > 1 else stage
    if row.state == DONE and (row.tiles_skipped or row.notes):
        return f"{STATES[DONE]}, with notes"
    return STATES.get(row.state, row.state)


def row_text(row: Row) -> str:
    """Return all that is known of a slide, as paragraphs."""
    facts = "; ".join(f"{name}: {said}" for name, said in row.entry.facts.items())
    skipped = f"{row.tiles_skipped:,} of {row.tiles:,} tiles could not be computed." if row.tiles_skipped else ""
    advice = STOPPED_TIP if row.state == STOPPED else ""
    if row.kind == MissingPixelSizeError.__name__:
        advice = HOW_LARGE
    said = [f"{row.name}: {state_text(row).lower()}", row.sentence, advice, skipped, *row.notes, facts]
    if row.path not in row.sentence:
        said.append(row.path)
    if row.state == DONE:
        said[0] = f"{row.name}: done, {row.nuclei:,} nuclei"
    return "\n".join(part for part in said if part)


class BatchModel(QAbstractTableModel):
    """The queue, row by row.

    Parameters
    ----------
    queue : Queue
        What is shown.
    """

    def __init__(self, queue: Queue) -> None:
        super().__init__()
        self._queue = queue
        self._rows: list[Row] = []
        self._places: dict[str, int] = {}
        self.warning_colour = WARNING_COLOURS["dark"]
        """Colour of what has failed."""

    def renew(self) -> None:
        """Show the queue as it is now."""
        self.beginResetModel()
        self._rows = list(self._queue)
        self._places = {row.path: place for place, row in enumerate(self._rows)}
        self.endResetModel()

    def show_row(self, path: str) -> None:
        """Show one row as it is now."""
        place = self._places.get(path)
        if place is not None and path in self._queue:
            self._rows[place] = self._queue[path]
            self.dataChanged.emit(self.index(place, 0), self.index(place, NUCLEI))

    def row(self, place: int) -> Row:
        """Return a row."""
        return self._rows[place]

    def rowCount(self, parent: Index = NO_INDEX) -> int:  # noqa: N802 - Qt's name
        """Return how many slides there are."""
        return 0 if parent.isValid() else len(self._rows)

    def columnCount(self, parent: Index = NO_INDEX) -> int:  # noqa: N802 - Qt's name
        """Return how many columns there are."""
        return 0 if parent.isValid() else len(TITLES)

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = ROLE.DisplayRole) -> Any:  # noqa: N802
        """Return the titles of columns."""
        if orientation != Qt.Orientation.Horizontal:
            return None
        if role == ROLE.TextAlignmentRole and section == NUCLEI:
            return Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
        return {ROLE.DisplayRole: TITLES, ROLE.ToolTipRole: TIPS}.get(ROLE(role), (None,) * 3)[section]

    def data(self, index: Index, role: int = ROLE.DisplayRole) -> Any:
        """Return what a cell shows; `UserRole`: by what it is sorted."""
        row, column = self._rows[index.row()], index.column()
        if role == ROLE.DisplayRole:
            return self._text(row, column)
        if role == ROLE.ToolTipRole:
            return row_text(row)
        if role == ROLE.TextAlignmentRole:
            side = Qt.AlignmentFlag.AlignRight if column == NUCLEI else Qt.AlignmentFlag.AlignLeft
            return side | Qt.AlignmentFlag.AlignVCenter
        if role == ROLE.ForegroundRole and row.state == FAILED and column == STATE:
            return QColor(self.warning_colour)
        if role == ROLE.UserRole:
            return (row.name.lower(), ORDER.index(row.state) if row.state in ORDER else len(ORDER), row.nuclei)[column]
        return None

    def _text(self, row: Row, column: int) -> str:
        if column == SLIDE:
            return row.name
        if column == STATE:
            return state_text(row)
        return f"{row.nuclei:,}" if row.nuclei or row.state == DONE else ""


class _Bars(QStyledItemDelegate):
    """Draws how far a slide is behind the words that say so."""

    def __init__(self, view: BatchTable) -> None:
        super().__init__(view)
        self._view = view

    def paint(self, painter: QPainter, option: QStyleOptionViewItem, index: Index) -> None:
        """Draw a cell."""
        row = self._view.row_at(index)
        if row.state == RUNNING:
            area = QRect(option.rect).adjusted(3, 4, -3, -4)
            painter.save()
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(TRACK)
            painter.drawRect(area)
            area.setWidth(round(area.width() * row.part / max(1, row.parts)))
            painter.setBrush(BAR)
            painter.drawRect(area)
            painter.restore()
        super().paint(painter, option, index)


class BatchTable(QTableView):
    """The table; files can be dropped on it.

    Parameters
    ----------
    queue : Queue
        What is shown.
    """

    went = Signal(str)
    """The result of the slide of this path is wanted."""
    removed = Signal()
    """The selected slides are to be taken off the list."""
    chosen = Signal()
    """Another slide is selected, or none."""

    def __init__(self, queue: Queue) -> None:
        super().__init__()
        self.slides = BatchModel(queue)
        self._sorted = QSortFilterProxyModel(self)
        self._sorted.setSourceModel(self.slides)
        self._sorted.setSortRole(ROLE.UserRole)
        # Rows stay where they are while they are worked on.
        self._sorted.setDynamicSortFilter(False)
        self.setModel(self._sorted)
        self.setAccessibleName("Slides of the batch")
        self.setItemDelegateForColumn(STATE, _Bars(self))
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self.setShowGrid(False)
        self.setWordWrap(False)
        # Names of a cohort differ at their beginning: they end with what the scanner adds.
        self.setTextElideMode(Qt.TextElideMode.ElideRight)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setTabKeyNavigation(False)
        self.setMinimumHeight(110)
        self.setDragDropMode(QAbstractItemView.DragDropMode.NoDragDrop)
        self.verticalHeader().hide()
        self.verticalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        self.verticalHeader().setDefaultSectionSize(ROW_PX)
        header = self.horizontalHeader()
        header.setHighlightSections(False)
        header.setDefaultAlignment(Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter)
        header.setSortIndicator(-1, Qt.SortOrder.AscendingOrder)
        # A third click brings the order back in which slides are worked through.
        header.setSortIndicatorClearable(True)
        self.setSortingEnabled(True)
        for column, width in WIDTHS.items():
            self.setColumnWidth(column, width)
        header.setSectionResizeMode(SLIDE, QHeaderView.ResizeMode.Stretch)
        self.doubleClicked.connect(self._on_double_clicked)
        self.selectionModel().selectionChanged.connect(self._on_selection_changed)

    def row_at(self, index: Index) -> Row:
        """Return the slide of a cell as it is shown."""
        return self.slides.row(self._sorted.mapToSource(index).row())

    @property
    def selected(self) -> tuple[Row, ...]:
        """The selected slides."""
        return tuple(self.row_at(index) for index in self.selectionModel().selectedRows())

    def renew(self) -> None:
        """Show the queue as it is now; what was selected stays so, and it stays scrolled."""
        kept, scrolled = {row.path for row in self.selected}, self.verticalScrollBar().value()
        self.slides.renew()
        header = self.horizontalHeader()
        self._sorted.sort(header.sortIndicatorSection(), header.sortIndicatorOrder())
        model, select = self.selectionModel(), self.selectionModel().SelectionFlag
        for place in range(self._sorted.rowCount() if kept else 0):
            index = self._sorted.index(place, 0)
            if self.row_at(index).path in kept:
                model.select(index, select.Select | select.Rows)
        self.verticalScrollBar().setValue(scrolled)
        self.chosen.emit()

    def set_warning_colour(self, colour: str) -> None:
        """Show what has failed in this colour."""
        self.slides.warning_colour = colour
        self.viewport().update()

    def keyPressEvent(self, event: QKeyEvent) -> None:  # noqa: N802 - Qt's name
        """Delete takes slides off, Return shows a result; letters are left to the viewer's keys."""
        if event.key() in {Qt.Key.Key_Delete, Qt.Key.Key_Backspace}:
            self.removed.emit()
        elif event.key() in {Qt.Key.Key_Return, Qt.Key.Key_Enter} and len(self.selected) == 1:
            self.went.emit(self.selected[0].path)
        elif event.text().strip():
            event.ignore()
        else:
            super().keyPressEvent(event)

    def _on_double_clicked(self, index: QModelIndex) -> None:
        self.went.emit(self.row_at(index).path)

    def _on_selection_changed(self) -> None:
        self.chosen.emit()


def paths_of(urls: list[Any]) -> list[str]:
    """Return the files and folders among the addresses that were dropped."""
    return [str(Path(url.toLocalFile())) for url in urls if url.isLocalFile()]

"""Rows of nuclei as Qt's views take them: a window onto a list whose values come when they are needed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from qtpy.QtCore import QAbstractTableModel, QModelIndex, QPersistentModelIndex, Qt
from qtpy.QtGui import QColor

from napari_nucleiseg.core.geometry import YX
from napari_nucleiseg.core.store.listing import Entry
from napari_nucleiseg.viewer.measured_nuclei import ATTENTION
from napari_nucleiseg.viewer.nuclei_list import NucleiList
from napari_nucleiseg.widgets.wording import origin_title

Index = QModelIndex | QPersistentModelIndex
ROLE = Qt.ItemDataRole
NO_INDEX = QModelIndex()
NOT_READ = "…"
PERCENTILE = "Percentile"
LEFT = Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter
RIGHT = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
STATUS_TITLES = {"open": "", "approved": "Approved", "rejected": "Rejected"}


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its order in the store, title, tip, and text of an entry; numbers stand right."""

    order: str
    title: str
    tip: str
    text: Callable[[Entry, YX], str]
    is_number: bool = True


COLUMNS = (
    Column("id", "Nucleus", "Its number, the same in the image and in exports", lambda entry, _mpp: str(entry.id)),
    Column("class", "Class", "Its class", lambda _entry, _mpp: "", is_number=False),
    Column("area", "Area µm²", "Its area", lambda entry, _mpp: f"{entry.area_um2:,.1f}"),
    Column(
        "score",
        "Score",
        "How sure the model is, 0 to 1; empty for what a person has drawn",
        lambda entry, _mpp: "" if entry.score is None else f"{entry.score:.3f}",
    ),
    Column(
        "origin",
        "From",
        "The model or person that it comes from",
        lambda entry, _mpp: origin_title(entry.origin),
        is_number=False,
    ),
    Column(
        "approved",
        "Review",
        "Whether a person has approved or rejected it",
        lambda entry, _mpp: STATUS_TITLES[entry.status],
        is_number=False,
    ),
    Column("x", "x µm", "Its centre, from the slide's left", lambda entry, mpp: f"{entry.centroid.x * mpp.x:,.1f}"),
    Column("y", "y µm", "Its centre, from the slide's top", lambda entry, mpp: f"{entry.centroid.y * mpp.y:,.1f}"),
    Column(
        ATTENTION,
        "Attention",
        "How much the map of the attention head that is shown lies on it; empty where nothing was measured",
        lambda _entry, _mpp: "",
    ),
    Column(
        ATTENTION,
        PERCENTILE,
        "Of 100 nuclei that were measured, so many get no more attention than it does",
        lambda _entry, _mpp: "",
    ),
)
ATTENTION_PLACES = tuple(place for place, column in enumerate(COLUMNS) if column.order == ATTENTION)


class NucleiModel(QAbstractTableModel):
    """The list as a table.

    Parameters
    ----------
    nuclei : NucleiList
        What is shown.
    """

    def __init__(self, nuclei: NucleiList) -> None:
        super().__init__()
        self._nuclei = nuclei
        self._rows = 0
        self._mpp_um = YX(1.0, 1.0)
        self._classes: dict[int, tuple[str, QColor]] = {}
        nuclei.read.connect(self._on_read)
        nuclei.attention_changed.connect(self._on_attention_changed)

    def renew(self) -> None:
        """Show the list as it is now."""
        self.beginResetModel()
        self._rows = len(self._nuclei.listing)
        project = self._nuclei.project
        if project is not None:
            self._mpp_um = project.mpp_um
        self._classes = {number: (name, QColor(colour)) for number, name, colour in self._nuclei.classes()}
        self.endResetModel()

    def rowCount(self, parent: Index = NO_INDEX) -> int:  # noqa: N802 - Qt's name
        """Return how many nuclei there are."""
        return 0 if parent.isValid() else self._rows

    def columnCount(self, parent: Index = NO_INDEX) -> int:  # noqa: N802 - Qt's name
        """Return how many columns there are."""
        return 0 if parent.isValid() else len(COLUMNS)

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = ROLE.DisplayRole) -> Any:  # noqa: N802
        """Return the titles of columns."""
        if orientation != Qt.Orientation.Horizontal:
            return None
        if role == ROLE.DisplayRole:
            return COLUMNS[section].title
        if role == ROLE.ToolTipRole:
            return f"{COLUMNS[section].tip}. Click to sort by it."
        # Over numbers it stays in the middle, where the sign of sorting is not upon it.
        is_text = role == ROLE.TextAlignmentRole and not COLUMNS[section].is_number
        return LEFT if is_text else None

    def data(self, index: Index, role: int = ROLE.DisplayRole) -> Any:
        """Return what a cell shows."""
        column = COLUMNS[index.column()]
        if role == ROLE.TextAlignmentRole:
            return RIGHT if column.is_number else LEFT
        if role not in {ROLE.DisplayRole, ROLE.DecorationRole, ROLE.ToolTipRole} or index.row() >= self._rows:
            return None
        entry = self._nuclei.entry(index.row())
        if entry is None or column.order in {"id", ATTENTION}:
            return self._unread(index) if role == ROLE.DisplayRole else None
        if column.order == "class":
            name, colour = self._classes.get(entry.class_number, ("", None))
            return colour if role == ROLE.DecorationRole else name
        if role == ROLE.ToolTipRole and column.order == "origin":
            return entry.origin
        return column.text(entry, self._mpp_um) if role == ROLE.DisplayRole else None

    def _unread(self, index: Index) -> str:
        """Return what is known before a row was read."""
        nucleus_id, column = int(self._nuclei.listing.ids[index.row()]), COLUMNS[index.column()]
        if column.order == "id":
            return str(nucleus_id)
        return self._attention(nucleus_id, column) if column.order == ATTENTION else NOT_READ

    def _attention(self, nucleus_id: int, column: Column) -> str:
        if column.title == PERCENTILE:
            rank = self._nuclei.percentile_of(nucleus_id)
            return "" if rank is None else f"{100 * rank:.0f}"
        value = self._nuclei.attention_of(nucleus_id)
        return "" if value is None else f"{value:#.3g}"

    def sort(self, column: int, order: Qt.SortOrder = Qt.SortOrder.AscendingOrder) -> None:
        """List in another order."""
        if column < 0:
            return
        descending = order == Qt.SortOrder.DescendingOrder
        query = replace(self._nuclei.query, order=COLUMNS[column].order, descending=descending)
        self._nuclei.ask(query, in_view=self._nuclei.in_view)

    def _on_read(self, first: int, stop: int) -> None:
        """Show values that have come; an empty range: of all that is seen, they have changed."""
        last = min(stop, self._rows) if stop > first else self._rows
        if last > first:
            self.dataChanged.emit(self.index(first, 0), self.index(last - 1, len(COLUMNS) - 1))

    def _on_attention_changed(self) -> None:
        self._on_read(0, 0)

"""The picker of clusters: colour, share of the area and haematoxylin of each, and a box to tick."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

from napari.utils.theme import get_theme
from qtpy.QtCore import QEvent, QModelIndex, QPersistentModelIndex, QRect, QSize, Qt, Signal
from qtpy.QtGui import QPainter
from qtpy.QtWidgets import QAbstractItemView, QStyledItemDelegate, QStyleOptionViewItem, QTreeWidget, QTreeWidgetItem
from superqt.utils import signals_blocked

from napari_nucleiseg.widgets.correct import swatch

if TYPE_CHECKING:
    from napari_nucleiseg.core.training.clustering.choice import RankedCluster

NAME, SHARE, STAIN = range(3)
# Numbers that end where the next column begins would run into its own.
APART = "\N{EM SPACE}"
HEADERS = ("Cluster", f"Area{APART}", "Haematoxylin")
TIPS = (
    "Tick those that are nuclei; colours are those on the slide",
    "Part of the view that belongs to the cluster",
    "How much haematoxylin there is on average (optical density). The clusters richest in it are ticked at first.",
)
WIDTHS = {NAME: 120, SHARE: 70, STAIN: 150}
ROW_PX = 22
CLUSTER = int(Qt.ItemDataRole.UserRole)
BAR_WIDTH_PX, BAR_HEIGHT_PX = 72, 8


class ClusterList(QTreeWidget):
    """A row for each cluster, richest in haematoxylin first."""

    ticked = Signal(int, bool)
    """The box of a cluster was clicked."""
    pointed = Signal(object)
    """The mouse, or else the selected row, points at this cluster, or at none (None)."""

    def __init__(self) -> None:
        super().__init__()
        self.setHeaderLabels(list(HEADERS))
        for column, tip in enumerate(TIPS):
            self.headerItem().setToolTip(column, tip)
        for column, width in WIDTHS.items():
            self.setColumnWidth(column, width)
        self.headerItem().setTextAlignment(SHARE, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        self.header().setStretchLastSection(True)
        self.setRootIsDecorated(False)
        self.setUniformRowHeights(True)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setMouseTracking(True)
        self.setMinimumWidth(sum(WIDTHS.values()) + 24)
        self.setItemDelegateForColumn(STAIN, _Bar(self))
        self.itemChanged.connect(self._on_item_changed)
        self.itemEntered.connect(self._on_item_entered)
        self.itemSelectionChanged.connect(self._on_selection_changed)

    def set_theme(self, name: str) -> None:
        """Show the boxes as napari shows its own, which leaves those in lists alone."""
        theme = get_theme(name)
        self.setStyleSheet(
            f"QTreeView::indicator {{ width: 14px; height: 14px; background-color: {theme.primary.as_hex()}; }}"
            f'QTreeView::indicator:checked {{ image: url("theme_{theme.id}:/check.svg"); }}'
        )

    def show_clusters(
        self, ranked: Sequence[RankedCluster], colours: Mapping[int, str], ticked: Collection[int]
    ) -> None:
        """Show these clusters."""
        richest = max((item.haematoxylin for item in ranked), default=0.0)
        with signals_blocked(self):
            self.clear()
            for place, cluster in enumerate(ranked, start=1):
                item = QTreeWidgetItem([f"{place}", f"{_share(cluster.share)}{APART}", f"{cluster.haematoxylin:.2f}"])
                item.setData(NAME, CLUSTER, cluster.cluster)
                item.setData(STAIN, CLUSTER, max(0.0, cluster.haematoxylin) / max(richest, 1e-6))
                item.setIcon(NAME, swatch(colours[cluster.cluster]))
                item.setTextAlignment(SHARE, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
                item.setCheckState(NAME, _state(cluster.cluster in ticked))
                item.setSizeHint(NAME, QSize(0, ROW_PX))
                item.setToolTip(NAME, "Point here to see the cluster on the slide; tick it if it shows nuclei")
                self.addTopLevelItem(item)

    def show_ticked(self, ticked: Collection[int]) -> None:
        """Tick these clusters."""
        with signals_blocked(self):
            for item in self.items():
                item.setCheckState(NAME, _state(item.data(NAME, CLUSTER) in ticked))

    def items(self) -> list[QTreeWidgetItem]:
        """Return all rows."""
        found = (self.topLevelItem(place) for place in range(self.topLevelItemCount()))
        return [item for item in found if item is not None]

    def _on_item_changed(self, item: QTreeWidgetItem, column: int) -> None:
        if column == NAME:
            self.ticked.emit(item.data(NAME, CLUSTER), item.checkState(NAME) == Qt.CheckState.Checked)

    def _on_item_entered(self, item: QTreeWidgetItem, _column: int) -> None:
        self.pointed.emit(item.data(NAME, CLUSTER))

    def _on_selection_changed(self) -> None:
        selected = self.selectedItems()
        self.pointed.emit(selected[0].data(NAME, CLUSTER) if selected else None)

    def leaveEvent(self, event: QEvent) -> None:  # noqa: N802 - Qt's name
        """Point at nothing any more."""
        super().leaveEvent(event)
        self.clearSelection()
        self.pointed.emit(None)


class _Bar(QStyledItemDelegate):
    """Draws a number with a bar beside it."""

    def paint(
        self, painter: QPainter, option: QStyleOptionViewItem, index: QModelIndex | QPersistentModelIndex
    ) -> None:
        """Draw the row's number and, behind it, how long it is compared with the largest."""
        super().paint(painter, option, index)
        share = index.data(CLUSTER)
        if share is None:
            return
        left = option.rect.left() + 46
        room = max(0, min(BAR_WIDTH_PX, option.rect.right() - left - 6))
        top = option.rect.center().y() - BAR_HEIGHT_PX // 2 + 1
        painter.save()
        painter.setOpacity(0.7)
        painter.fillRect(QRect(left, top, max(1, round(room * float(share))), BAR_HEIGHT_PX), option.palette.text())
        painter.restore()


def _state(on: bool) -> Qt.CheckState:
    return Qt.CheckState.Checked if on else Qt.CheckState.Unchecked


def _share(share: float) -> str:
    return f"{share:.0%}" if share >= 0.01 else "<1%"

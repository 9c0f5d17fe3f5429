"""The dock "Versions": which models there are, what was taught from what, how good each is, and which is in use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import QSize, Qt
from qtpy.QtGui import QHideEvent, QResizeEvent, QShowEvent
from qtpy.QtWidgets import (
    QAbstractItemView,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QScrollArea,
    QSizePolicy,
    QSplitter,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)
from superqt.utils import signals_blocked

from napari_nucleiseg.viewer.comparing import Comparing
from napari_nucleiseg.viewer.messages import Hint
from napari_nucleiseg.viewer.versions import Versions
from napari_nucleiseg.widgets.comparison_bar import ComparisonBar
from napari_nucleiseg.widgets.version_dialogs import ask_delete, ask_export, ask_use_refused
from napari_nucleiseg.widgets.version_text import details_text, kind_text, learnt_text, made_text, score_text
from napari_nucleiseg.widgets.wording import licence_text, model_title

if TYPE_CHECKING:
    from napari_nucleiseg.core.teaching.versions import Version

TITLE, KIND, MADE, LEARNT, AJI, PQ, LICENCE = range(7)
TITLES = ("Version", "Kind", "Made", "Learnt from", "AJI, held out", "PQ, held out", "Licence")
TIPS = (
    "Each below the one that it was taught from; double-click to rename",
    "Shipped with the program, taught and adopted, refused because it was not better, or trained elsewhere",
    "When it was made",
    "Corrected nuclei, regions and slides that it was taught with",
    "Agreement of outlines (aggregated Jaccard index) on what was held out, before → after",
    "Panoptic quality on what was held out, before → after",
    "Licence of the weights, which is that of what they were trained on",
)
WIDTHS = {TITLE: 180, KIND: 112, MADE: 104, LEARNT: 182, AJI: 106, PQ: 106, LICENCE: 110}
NOTHING_TAUGHT = (
    "Nothing was taught yet. Correct some regions and press “Teach”: every model that comes of it is kept here, "
    "whether it is used or not, and none is ever overwritten."
)
NOTHING_CHOSEN = "Choose a version to read how it was made."
SHIPPED_TIP = "It comes with the program and stays as it is"
COMPARE_TIP = "Outline on the slide what the version in use and the selected one find in the view, and what differs"
IN_USE_TIP = "It is in use. Use another one first"
ROW_PX = 24
SIZE = QSize(1000, 300)


class _Tree(QTreeWidget):
    """A tree whose first column takes the room that the others leave."""

    def resizeEvent(self, event: QResizeEvent) -> None:  # noqa: N802 - Qt's name
        """Use all of the width."""
        super().resizeEvent(event)
        others = sum(self.columnWidth(column) for column in WIDTHS if column != TITLE)
        self.setColumnWidth(TITLE, max(WIDTHS[TITLE], self.viewport().width() - others))


class VersionList(QWidget):
    """The tree of versions, the card of the selected one, and buttons.

    Parameters
    ----------
    versions : Versions
        What is shown and changed; it is followed as long as this is seen.
    comparing : Comparing
        Compares the selected version with the one in use.
    """

    def __init__(self, versions: Versions, comparing: Comparing) -> None:
        super().__init__()
        self.setObjectName("nucleiseg versions")
        self.versions, self._comparing = versions, comparing
        self._make_tree()
        self.details = QLabel(NOTHING_CHOSEN)
        self.details.setWordWrap(True)
        self.details.setAlignment(Qt.AlignmentFlag.AlignTop)
        self.details.setMargin(8)
        # As wide as there is room, and never wider: nothing scrolls sideways.
        self.details.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        self.details.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        scroll = QScrollArea()
        scroll.setWidgetResizable(True)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        scroll.setWidget(self.details)
        self.nothing = QLabel(NOTHING_TAUGHT)
        self.nothing.setWordWrap(True)
        parts = QSplitter()
        parts.addWidget(self.tree)
        parts.addWidget(scroll)
        parts.setStretchFactor(0, 3)
        parts.setStretchFactor(1, 1)
        parts.setSizes([750, 250])
        parts.setChildrenCollapsible(False)
        column = QVBoxLayout(self)
        column.setContentsMargins(8, 6, 8, 6)
        column.setSpacing(6)
        column.addWidget(parts, 1)
        column.addWidget(self.nothing)
        column.addWidget(ComparisonBar(comparing))
        column.addLayout(self._make_buttons())
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Expanding)
        self.setMinimumHeight(190)
        self._connect()
        self._on_listed()

    def _make_tree(self) -> None:
        self.tree = _Tree()
        self.tree.setHeaderLabels(TITLES)
        for column, tip in enumerate(TIPS):
            self.tree.headerItem().setToolTip(column, tip)
        for column, width in WIDTHS.items():
            self.tree.setColumnWidth(column, width)
        self.tree.header().setStretchLastSection(False)
        self.tree.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.tree.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.tree.setUniformRowHeights(True)
        self.tree.setMinimumWidth(320)

    def _make_buttons(self) -> QHBoxLayout:
        self.use_button = QPushButton("Use")
        self.compare_button = QPushButton("Compare in view…")
        self.rename_button = QPushButton("Rename")
        self.export_button = QPushButton("Export…")
        self.export_button.setToolTip("Copy the selected version to a file, with its card inside")
        self.delete_button = QPushButton("Delete…")
        self.hint = QLabel()
        self.hint.setWordWrap(True)
        row = QHBoxLayout()
        for button in (self.use_button, self.compare_button, self.rename_button, self.export_button):
            row.addWidget(button)
        row.addWidget(self.hint, 1)
        row.addWidget(self.delete_button)
        return row

    def _connect(self) -> None:
        self.versions.listed.connect(self._on_listed)
        self.versions.said.connect(self._on_said)
        self.tree.itemSelectionChanged.connect(self._on_selection_changed)
        self.tree.itemDoubleClicked.connect(self._on_double_clicked)
        self.tree.itemChanged.connect(self._on_item_changed)
        self.use_button.clicked.connect(self._on_use_clicked)
        self.compare_button.clicked.connect(self._on_compare_clicked)
        self.rename_button.clicked.connect(self._on_rename_clicked)
        self.export_button.clicked.connect(self._on_export_clicked)
        self.delete_button.clicked.connect(self._on_delete_clicked)

    # ------------------------------------------------------------------ what there is

    @property
    def selected(self) -> Version | None:
        """The version whose row is selected."""
        items = self.tree.selectedItems()
        return None if not items else self._version_of(items[0])

    def _version_of(self, item: QTreeWidgetItem) -> Version | None:
        path = item.data(TITLE, Qt.ItemDataRole.UserRole)
        found = (branch.version for branch in self.versions.branches if str(branch.version.path) == path)
        return next(found, None)

    def _typed(self) -> dict[str, str]:
        """Return the title that is being typed, by the path of its version."""
        every = Qt.MatchFlag.MatchContains | Qt.MatchFlag.MatchRecursive
        editors = [(item, self.tree.itemWidget(item, TITLE)) for item in self.tree.findItems("", every, TITLE)]
        return {
            item.data(TITLE, Qt.ItemDataRole.UserRole): editor.text()
            for item, editor in editors
            if isinstance(editor, QLineEdit)
        }

    def _type_on(self, item: QTreeWidgetItem, text: str) -> None:
        self.tree.editItem(item, TITLE)
        editor = self.tree.itemWidget(item, TITLE)
        if isinstance(editor, QLineEdit):
            editor.setText(text)

    def _on_listed(self) -> None:
        """Show the tree anew; the same version stays selected, at first the one in use, and goes on to be renamed."""
        before, typed = self.selected or self.versions.in_use, self._typed()
        renamed: list[tuple[QTreeWidgetItem, str]] = []
        above: list[QTreeWidgetItem] = []
        with signals_blocked(self.tree):
            self.tree.clear()
            for branch in self.versions.branches:
                del above[branch.depth :]
                item = self._item(branch.version, branch.missing)
                if above:
                    above[-1].addChild(item)
                else:
                    self.tree.addTopLevelItem(item)
                above.append(item)
                path = str(branch.version.path)
                if path in typed:
                    renamed.append((item, typed[path]))
                if before is not None and branch.version.card.version == before.card.version:
                    item.setSelected(True)
                    self.tree.setCurrentItem(item)
            self.tree.expandAll()
        taught = any(branch.version.card.parent for branch in self.versions.branches)
        self.nothing.setVisible(self.versions.was_read and not taught)
        self._on_selection_changed()
        for item, text in renamed:
            self._type_on(item, text)

    def _item(self, version: Version, missing: str) -> QTreeWidgetItem:
        card, in_use = version.card, self.versions.is_in_use(version)
        texts = {
            TITLE: model_title(version.title) if version.kind == "shipped" else version.title,
            KIND: kind_text(version, in_use=in_use),
            MADE: made_text(card),
            LEARNT: learnt_text(card),
            AJI: score_text(card, "aji"),
            PQ: score_text(card, "pq"),
            LICENCE: licence_text(card.licence),
        }
        item = QTreeWidgetItem([texts[column] for column in range(len(TITLES))])
        for column, text in texts.items():
            item.setToolTip(column, text)
        item.setToolTip(TITLE, f"{version.title} ({version.name})")
        if missing:
            item.setToolTip(
                TITLE, f"{version.title} ({version.name}); taught from {missing}, which is not there any more"
            )
        item.setSizeHint(TITLE, QSize(0, ROW_PX))
        item.setData(TITLE, Qt.ItemDataRole.UserRole, str(version.path))
        if version.kind != "shipped":
            item.setFlags(item.flags() | Qt.ItemFlag.ItemIsEditable)
        if in_use:
            font = item.font(TITLE)
            font.setBold(True)
            for column in (TITLE, KIND):
                item.setFont(column, font)
        return item

    def _on_selection_changed(self) -> None:
        version = self.selected
        in_use = version is not None and self.versions.is_in_use(version)
        shipped = version is not None and version.kind == "shipped"
        self.use_button.setEnabled(version is not None and not in_use)
        self.use_button.setToolTip("It is in use already" if in_use else "Find nuclei with this version from now on")
        can_compare = version is not None and not in_use and self.versions.in_use is not None
        self.compare_button.setEnabled(can_compare)
        self.compare_button.setToolTip(COMPARE_TIP if can_compare else "Select another version than the one in use")
        self.rename_button.setEnabled(version is not None and not shipped)
        self.rename_button.setToolTip(SHIPPED_TIP if shipped else "Give the selected version another title")
        self.export_button.setEnabled(version is not None)
        self.delete_button.setEnabled(version is not None and not shipped and not in_use)
        kept = SHIPPED_TIP if shipped else IN_USE_TIP
        self.delete_button.setToolTip(kept if shipped or in_use else "Delete the selected version for good")
        told = NOTHING_CHOSEN if version is None else details_text(version, self.versions.parent(version))
        self.details.setText(told)

    def _on_said(self, hint: Hint) -> None:
        self.hint.setText(hint.text)

    # ------------------------------------------------------------------ what the user does

    def _on_use_clicked(self) -> None:
        version = self.selected
        if version is not None and (version.kind != "refused" or ask_use_refused(version, self)):
            self.versions.use(version)

    def _on_compare_clicked(self) -> None:
        version, in_use = self.selected, self.versions.in_use
        if version is not None and in_use is not None:
            # The one that was made first is the former one, whichever is in use.
            is_newer = version.card.created >= in_use.card.created
            self._comparing.begin(*((version, in_use) if is_newer else (in_use, version)))

    def _on_rename_clicked(self) -> None:
        items = self.tree.selectedItems()
        if items:
            self.tree.editItem(items[0], TITLE)

    def _on_double_clicked(self, item: QTreeWidgetItem, column: int) -> None:
        if column == TITLE and item.flags() & Qt.ItemFlag.ItemIsEditable:
            self.tree.editItem(item, TITLE)

    def _on_item_changed(self, item: QTreeWidgetItem, column: int) -> None:
        version = self._version_of(item)
        if column == TITLE and version is not None and item.text(TITLE) != version.title:
            self.versions.rename(version, item.text(TITLE))

    def _on_export_clicked(self) -> None:
        version = self.selected
        path = "" if version is None else ask_export(version, self)
        if version is not None and path:
            self.versions.export(version, path)

    def _on_delete_clicked(self) -> None:
        version = self.selected
        if version is not None and ask_delete(version, self.versions.children(version), self):
            self.versions.delete(version)

    # ------------------------------------------------------------------ Qt

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Return how large it is at first."""
        return SIZE

    def showEvent(self, event: QShowEvent) -> None:  # noqa: N802 - Qt's name
        """Begin to follow."""
        super().showEvent(event)
        self.versions.open()

    def hideEvent(self, event: QHideEvent) -> None:  # noqa: N802 - Qt's name
        """Cease to follow."""
        super().hideEvent(event)
        self.versions.close()

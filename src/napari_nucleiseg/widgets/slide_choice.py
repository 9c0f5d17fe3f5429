"""Which slides to learn from: the open ones with check boxes, and files that are added."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QFileDialog, QListWidget, QListWidgetItem, QMenu, QPushButton, QVBoxLayout, QWidget
from superqt.utils import signals_blocked

from napari_nucleiseg.viewer.slide_sources import SlideSources
from napari_nucleiseg.widgets.dialogs import ask_slides


class SlideChoice(QWidget):
    """The list and the button below it.

    Parameters
    ----------
    sources : SlideSources
        What is shown and asked for.
    """

    def __init__(self, sources: SlideSources) -> None:
        super().__init__()
        self._sources = sources
        self.list = QListWidget()
        self.list.setAccessibleName("Slides to learn from")
        self.list.setMinimumHeight(60)
        self.list.setSelectionMode(QListWidget.SelectionMode.NoSelection)
        self.list.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.list.setTextElideMode(Qt.TextElideMode.ElideMiddle)
        self.add_button = QPushButton("Add slides…")
        self.add_button.setToolTip("Learn from files or a folder of them besides; they need not be open")
        menu = QMenu(self)
        menu.addAction("Files…", self.ask_files)
        menu.addAction("A folder…", self.ask_folder)
        self.add_button.setMenu(menu)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.list, 1)
        column.addWidget(self.add_button)
        self.list.itemChanged.connect(self._on_item_changed)
        sources.changed.connect(self.show_offered)
        self.show_offered()

    def show_offered(self) -> None:
        """Show what there is to learn from."""
        with signals_blocked(self.list):
            self.list.clear()
            for one in self._sources.offered:
                item = QListWidgetItem(f"{one.title} ({one.note})" if one.note else one.title)
                item.setFlags(Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsUserCheckable)
                item.setCheckState(Qt.CheckState.Checked if one.is_ticked else Qt.CheckState.Unchecked)
                item.setData(Qt.ItemDataRole.UserRole, one.key)
                item.setToolTip(one.key if one.is_file else one.title)
                self.list.addItem(item)

    def _on_item_changed(self, item: QListWidgetItem) -> None:
        on = item.checkState() == Qt.CheckState.Checked
        self._sources.tick(item.data(Qt.ItemDataRole.UserRole), on=on)

    def ask_files(self) -> None:
        """Ask for slides and pictures."""
        paths = ask_slides(self)
        if paths:
            self._sources.add(paths)

    def ask_folder(self) -> None:
        """Ask for a folder of slides."""
        path = QFileDialog.getExistingDirectory(self, "A folder of slides", str(Path.home()))
        if path:
            self._sources.add([str(path)])

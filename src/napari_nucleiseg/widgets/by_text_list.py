"""The list of "By text": words with their colour on the slide, how many nuclei are like them, which class they get."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTreeWidget, QTreeWidgetItem
from superqt.utils import signals_blocked

from napari_nucleiseg.viewer.by_text import Row
from napari_nucleiseg.viewer.by_text_accept import NEW_CLASS, NO_CLASS
from napari_nucleiseg.widgets.by_text_words import NEW_TITLE, NO_CLASS_TITLE
from napari_nucleiseg.widgets.correct import swatch
from napari_nucleiseg.widgets.form import ElidedList

WORDS, NUCLEI, CLASS = range(3)
# Numbers that end where the next column begins would run into its own.
APART = "\N{EM SPACE}"
HEADERS = ("Words", f"Nuclei{APART}", "Get the class")
TIPS = (
    "Colours are those on the slide",
    "How many nuclei are most like these words, with a score that is high enough",
    "Which class they get when you accept",
)
NUCLEI_PX, CLASS_PX = 80, 170
ROW_PX = 28


class ByTextList(QTreeWidget):
    """A row for each class of words."""

    wanted = Signal(str, int)
    """Nuclei that are like these words are to get this class."""

    def __init__(self) -> None:
        super().__init__()
        self.setHeaderLabels(list(HEADERS))
        for column, tip in enumerate(TIPS):
            self.headerItem().setToolTip(column, tip)
        self.headerItem().setTextAlignment(NUCLEI, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
        header = self.header()
        header.setStretchLastSection(False)
        header.setSectionResizeMode(WORDS, QHeaderView.ResizeMode.Stretch)
        for column, width in ((NUCLEI, NUCLEI_PX), (CLASS, CLASS_PX)):
            header.setSectionResizeMode(column, QHeaderView.ResizeMode.Fixed)
            header.resizeSection(column, width)
        self.setRootIsDecorated(False)
        self.setUniformRowHeights(True)
        self.setSelectionMode(QAbstractItemView.SelectionMode.NoSelection)
        self.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self._shown: tuple[object, ...] = ()
        self.choices: dict[str, ElidedList] = {}
        self._items: dict[str, QTreeWidgetItem] = {}

    def show_rows(
        self, rows: Sequence[Row], classes: Sequence[tuple[int, str, str]], wanted: Mapping[str, int]
    ) -> None:
        """Show these rows; lists that somebody may have open are kept while the words and classes are the same."""
        names = tuple((row.name, row.colour) for row in rows)
        if (names, tuple(classes)) != self._shown:
            self._shown = names, tuple(classes)
            self._fill(rows, classes)
        for row in rows:
            self._items[row.name].setText(NUCLEI, f"{row.nuclei:,}{APART}")
            choice = self.choices[row.name]
            with signals_blocked(choice):
                choice.setCurrentIndex(choice.findData(wanted.get(row.name, NO_CLASS)))

    def _fill(self, rows: Sequence[Row], classes: Sequence[tuple[int, str, str]]) -> None:
        self.clear()
        self.choices.clear()
        self._items.clear()
        for row in rows:
            item = self._items[row.name] = QTreeWidgetItem([row.name, "", ""])
            item.setIcon(WORDS, swatch(row.colour))
            item.setToolTip(WORDS, row.name)
            item.setTextAlignment(NUCLEI, Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
            self.addTopLevelItem(item)
            choice = self.choices[row.name] = self._choice(row, classes)
            self.setItemWidget(item, CLASS, choice)

    def _choice(self, row: Row, classes: Sequence[tuple[int, str, str]]) -> ElidedList:
        choice = ElidedList()
        choice.setMinimumHeight(ROW_PX)
        choice.setAccessibleName(f"Class of {row.name}")
        choice.addItem(NO_CLASS_TITLE, NO_CLASS)
        for number, name, colour in classes:
            choice.addItem(swatch(colour), name, number)
        if row.name.casefold() not in {name.casefold() for _number, name, _colour in classes}:
            choice.addItem(swatch(row.colour), NEW_TITLE, NEW_CLASS)
        choice.activated.connect(lambda _place, name=row.name: self.wanted.emit(name, choice.currentData()))
        return choice

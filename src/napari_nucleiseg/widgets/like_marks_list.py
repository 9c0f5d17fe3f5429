"""The list of what was marked: like or unlike, with a button that takes each away."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from qtpy.QtCore import QSize, Qt, Signal
from qtpy.QtGui import QKeyEvent
from qtpy.QtWidgets import QAbstractItemView, QLabel, QListWidget, QListWidgetItem, QToolButton, QWidget
from qtpy.QtWidgets import QHBoxLayout as Row

from napari_nucleiseg.viewer.like_layers import LIKE_COLOUR, UNLIKE_COLOUR
from napari_nucleiseg.widgets.correct import SWATCH_PX, swatch
from napari_nucleiseg.widgets.like_words import mark_text

if TYPE_CHECKING:
    from napari_nucleiseg.viewer.like_marks import SlideMark

ROW_PX = 26
NUMBER = int(Qt.ItemDataRole.UserRole)
TIP = "Double-click to count it for the other side; Delete, or the cross, takes it away"


class LikeMarksList(QListWidget):
    """A row for each mark, oldest first."""

    removed = Signal(int)
    """The user wants this mark gone."""
    turned = Signal(int)
    """The user wants this mark on the other side."""

    def __init__(self) -> None:
        super().__init__()
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setToolTip(TIP)
        self.setAccessibleName("Marks")
        self.setMinimumWidth(190)
        self.itemDoubleClicked.connect(lambda item: self.turned.emit(item.data(NUMBER)))

    def show_marks(self, marks: Sequence[SlideMark]) -> None:
        """Show these marks."""
        self.clear()
        for place, mark in enumerate(marks, start=1):
            item = QListWidgetItem()
            item.setData(NUMBER, mark.number)
            item.setSizeHint(QSize(0, ROW_PX))
            self.addItem(item)
            self.setItemWidget(item, self._row(place, mark))

    def _row(self, place: int, mark: SlideMark) -> QWidget:
        row = QWidget()
        # The list's own colour, and that of what is selected, is seen through it.
        row.setStyleSheet(".QWidget, QToolButton { background: transparent; }")
        # A double click on the text is one on the row.
        layout = Row(row)
        layout.setContentsMargins(6, 0, 4, 0)
        icon, text, cross = QLabel(), QLabel(), QToolButton()
        icon.setPixmap(swatch(LIKE_COLOUR if mark.is_like else UNLIKE_COLOUR).pixmap(SWATCH_PX, SWATCH_PX))
        text.setText(mark_text(place, is_point=mark.is_point, is_like=mark.is_like))
        cross.setText("✕")
        cross.setAutoRaise(True)
        cross.setToolTip("Take this mark away")
        cross.setAccessibleName(f"Remove mark {place}")
        cross.clicked.connect(lambda _on=False, number=mark.number: self.removed.emit(number))
        for label in (icon, text):
            label.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        layout.addWidget(icon)
        layout.addWidget(text, 1)
        layout.addWidget(cross)
        return row

    def crosses(self) -> list[QToolButton]:
        """Return the buttons that take marks away, in the order of the rows."""
        rows = (self.itemWidget(self.item(place)) for place in range(self.count()))
        return [button for row in rows if row is not None for button in row.findChildren(QToolButton)]

    def keyPressEvent(self, event: QKeyEvent) -> None:  # noqa: N802 - Qt's name
        """Take the selected mark away; letters are the viewer's."""
        item = self.currentItem()
        if event.key() in {Qt.Key.Key_Delete, Qt.Key.Key_Backspace} and item is not None:
            self.removed.emit(item.data(NUMBER))
        elif event.text().strip():
            event.ignore()
        else:
            super().keyPressEvent(event)

"""From a field of the session to a control on the screen, tied to each other both ways."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from html import escape
from typing import Any

from qtpy.QtCore import QEvent, QObject, Qt
from qtpy.QtGui import QFocusEvent, QHelpEvent, QKeyEvent, QPaintEvent
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QHBoxLayout,
    QLineEdit,
    QSlider,
    QSpinBox,
    QStyle,
    QStyleOptionComboBox,
    QStylePainter,
    QToolTip,
    QWidget,
)
from superqt.utils import signals_blocked

from napari_nucleiseg.state import HeadWishes, PlotWishes, Session, UnlabelledWishes
from napari_nucleiseg.viewer.batch_wishes import BatchWishes
from napari_nucleiseg.viewer.by_text_wishes import ByTextWishes
from napari_nucleiseg.viewer.like_wishes import LikeWishes

Wishes = Session | UnlabelledWishes | HeadWishes | PlotWishes | BatchWishes | LikeWishes | ByTextWishes

CHOICE_TITLES = {
    "auto": "Automatic",
    "cuda": "Graphics card (CUDA)",
    "mps": "Graphics card (Apple)",
    "cpu": "Processor",
}
# Of a list that is opened: beside its longest title, and at most.
LIST_MARGIN_PX, WIDEST_LIST_PX = 24, 600
# What napari's style leaves free within the field of a list.
ROOM_BESIDE_PX = 8
# Between an icon there and the title.
ICON_GAP_PX = 4
LEVEL_TITLES = {"slide": "This slide's", "model": "The model's own"}


def about(name: str, owner: type[Wishes] = Session) -> Mapping[str, Any]:
    """Return what the field `name` of the session, or of other wishes, says of itself: title, tip, limits."""
    return next(item.metadata for item in fields(owner) if item.name == name)


def _tie(session: Wishes, name: str, show: Callable[[Any], None]) -> None:
    getattr(session.events, name).connect(show)
    show(getattr(session, name))


class _WheelScrolls(QObject):
    """Lets the wheel scroll the panel instead of turning a control that the pointer happens to pass."""

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:  # noqa: N802 - Qt's name
        """Pass the wheel on, unless the control was clicked before."""
        if event.type() == QEvent.Type.Wheel and isinstance(watched, QWidget) and not watched.hasFocus():
            event.ignore()
            return True
        return False


def needs_click(control: QWidget) -> None:
    """Let the wheel turn a control only after it was clicked."""
    control.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
    control.installEventFilter(_WheelScrolls(control))


class NumberSlider(QWidget):
    """A slider with a box to type into.

    Parameters
    ----------
    session : Session
        Holds the value.
    name : str
        Of its field, which carries minimum, maximum, step, decimals and suffix.
    """

    def __init__(self, session: Wishes, name: str) -> None:
        super().__init__()
        self._session, self._name = session, name
        told = about(name, type(session))
        self._minimum, self._step = told["minimum"], told["step"]
        # The slider counts steps: whole numbers, so that its keys work as everywhere.
        self.slider = QSlider(Qt.Orientation.Horizontal)
        self.slider.setRange(0, round((told["maximum"] - self._minimum) / self._step))
        self.slider.setPageStep(5)
        self.box = QDoubleSpinBox()
        self.box.setRange(self._minimum, told["maximum"])
        self.box.setSingleStep(self._step)
        for control in (self.slider, self.box):
            control.setToolTip(told["tip"])
            control.setAccessibleName(told["title"])
            needs_click(control)
        self.box.setDecimals(told["decimals"])
        self.box.setSuffix(told.get("suffix", ""))
        self.box.setKeyboardTracking(False)
        self.box.setFixedWidth(84)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.slider, 1)
        row.addWidget(self.box)
        self.slider.valueChanged.connect(self._on_slid)
        self.box.valueChanged.connect(self._on_typed)
        _tie(session, name, self._show)

    def _on_slid(self, steps: int) -> None:
        setattr(self._session, self._name, round(self._minimum + steps * self._step, self.box.decimals()))

    def _on_typed(self, value: float) -> None:
        setattr(self._session, self._name, round(value, self.box.decimals()))

    def _show(self, value: float) -> None:
        with signals_blocked(self.slider), signals_blocked(self.box):
            self.slider.setValue(round((value - self._minimum) / self._step))
            self.box.setValue(value)


class Switch(QCheckBox):
    """A check box for a field that is true or false."""

    def __init__(self, session: Wishes, name: str) -> None:
        super().__init__(about(name, type(session))["title"])
        self._session, self._name = session, name
        self.setToolTip(about(name, type(session))["tip"])
        self.toggled.connect(self._on_toggled)
        _tie(session, name, self._show)

    def _on_toggled(self, on: bool) -> None:
        setattr(self._session, self._name, on)

    def _show(self, on: bool) -> None:
        with signals_blocked(self):
            self.setChecked(on)


class ElidedList(QComboBox):
    """A list to choose from that says by an ellipsis that a title is longer than its room, and opens wide enough.

    Parameters
    ----------
    left_out : Qt.TextElideMode
        Which part of a title is left out where there is no room for all of it.
    """

    def __init__(self, left_out: Qt.TextElideMode = Qt.TextElideMode.ElideRight) -> None:
        super().__init__()
        self._left_out = left_out
        self.view().setTextElideMode(left_out)
        # Long titles are cut off rather than widening the panel.
        self.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        needs_click(self)

    @property
    def shown_text(self) -> str:
        """What is seen of the title."""
        return str(self._option().currentText)

    def _option(self) -> QStyleOptionComboBox:
        shown = QStyleOptionComboBox()
        self.initStyleOption(shown)
        room = self.style().subControlRect(
            QStyle.ComplexControl.CC_ComboBox, shown, QStyle.SubControl.SC_ComboBoxEditField, self
        )
        icon = 0 if shown.currentIcon.isNull() else shown.iconSize.width() + ICON_GAP_PX
        width = room.width() - ROOM_BESIDE_PX - icon
        shown.currentText = self.fontMetrics().elidedText(shown.currentText, self._left_out, width)
        return shown

    def paintEvent(self, _event: QPaintEvent) -> None:  # noqa: N802 - Qt's name
        """Draw it, as much of a long title as there is room for."""
        shown = self._option()
        painter = QStylePainter(self)
        painter.drawComplexControl(QStyle.ComplexControl.CC_ComboBox, shown)
        painter.drawControl(QStyle.ControlElement.CE_ComboBoxLabel, shown)

    def event(self, event: QEvent) -> bool:
        """Tell all of a title that is cut off, before what the field is for."""
        if isinstance(event, QHelpEvent) and event.type() == QEvent.Type.ToolTip:
            whole, tip = self.currentText(), self.toolTip()
            if self.shown_text != whole and whole not in tip:
                QToolTip.showText(event.globalPos(), f"{whole}\n{tip}".strip(), self)
                return True
        return bool(super().event(event))

    def showPopup(self) -> None:  # noqa: N802 - Qt's name
        """Show the list wide enough for the longest title; of one that is longer still a tooltip tells all."""
        for place in range(self.count()):
            if self.itemText(place) not in str(self.itemData(place, Qt.ItemDataRole.ToolTipRole)):
                self.setItemData(place, self.itemText(place), Qt.ItemDataRole.ToolTipRole)
        listed = self.view()
        listed.setMinimumWidth(min(listed.sizeHintForColumn(0) + LIST_MARGIN_PX, WIDEST_LIST_PX))
        super().showPopup()

    def keyPressEvent(self, event: QKeyEvent) -> None:  # noqa: N802 - Qt's name
        """Leave letters to the viewer's keys: Qt would choose an entry that begins with one."""
        if event.text().strip():
            event.ignore()
        else:
            super().keyPressEvent(event)


class Choice(ElidedList):
    """A list to choose a field's value from; the values offered may change.

    Parameters
    ----------
    session : Session or other wishes
        Holds the value.
    name : str
        Of its field.
    titles : mapping
        From each value that is offered to what is shown of it.
    left_out : Qt.TextElideMode
        Which part of a title is left out where there is no room for all of it.
    """

    def __init__(
        self,
        session: Wishes,
        name: str,
        titles: Mapping[str, str],
        left_out: Qt.TextElideMode = Qt.TextElideMode.ElideRight,
    ) -> None:
        super().__init__(left_out)
        self._session, self._name = session, name
        self.setToolTip(about(name, type(session))["tip"])
        self.setAccessibleName(about(name, type(session))["title"])
        self.setMinimumContentsLength(8)
        self.offer(titles)
        self.activated.connect(self._on_chosen)
        getattr(session.events, name).connect(self._show)

    def offer(self, titles: Mapping[str, str]) -> None:
        """Offer these values, each with its title."""
        if dict(titles) == {self.itemData(place): self.itemText(place) for place in range(self.count())}:
            return
        with signals_blocked(self):
            self.clear()
            for value, title in titles.items():
                self.addItem(title, value)
        self._show(getattr(self._session, self._name))

    def _on_chosen(self, place: int) -> None:
        setattr(self._session, self._name, self.itemData(place))

    def _show(self, value: str) -> None:
        with signals_blocked(self):
            self.setCurrentIndex(self.findData(value))


class NumberBox(QSpinBox):
    """A box to type a whole number into."""

    def __init__(self, session: Wishes, name: str) -> None:
        super().__init__()
        self._session, self._name = session, name
        told = about(name, type(session))
        self.setRange(told["minimum"], told["maximum"])
        self.setSingleStep(told.get("step", 1))
        self.setSuffix(told.get("suffix", ""))
        self.setGroupSeparatorShown(True)
        self.setKeyboardTracking(False)
        self.setToolTip(told["tip"])
        self.setAccessibleName(told["title"])
        needs_click(self)
        self.valueChanged.connect(self._on_typed)
        _tie(session, name, self._show)

    def _on_typed(self, value: int) -> None:
        setattr(self._session, self._name, value)

    def _show(self, value: int) -> None:
        with signals_blocked(self):
            self.setValue(value)


class TextBox(QLineEdit):
    """A line of text, which shows its beginning while nobody writes in it, and all of it in its tooltip."""

    def __init__(self, session: Wishes, name: str, placeholder: str = "") -> None:
        super().__init__()
        self._session, self._name = session, name
        told = about(name, type(session))
        self.setPlaceholderText(placeholder)
        self._tip = told["tip"]
        self.setAccessibleName(told["title"])
        self.textEdited.connect(self._on_typed)
        self.textChanged.connect(self._tell_all)
        self._tell_all(self.text())
        _tie(session, name, self._show)

    def _on_typed(self, text: str) -> None:
        setattr(self._session, self._name, text.strip())

    def _show(self, text: str) -> None:
        if text != self.text().strip():
            self.setText(text)
            if not self.hasFocus():
                self.setCursorPosition(0)

    def _tell_all(self, text: str) -> None:
        # Rich text, so that a long line is wrapped.
        self.setToolTip(f"<p>{escape(text)}</p><p>{escape(self._tip)}</p>" if text.strip() else self._tip)

    def focusOutEvent(self, event: QFocusEvent) -> None:  # noqa: N802 - Qt's name
        """Show the beginning again, unless a menu or another window only comes between."""
        super().focusOutEvent(event)
        if event.reason() not in {Qt.FocusReason.PopupFocusReason, Qt.FocusReason.ActiveWindowFocusReason}:
            self.setCursorPosition(0)

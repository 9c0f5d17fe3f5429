"""The line above the table of nuclei: which of them are listed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from qtpy.QtCore import Signal
from qtpy.QtGui import QValidator
from qtpy.QtWidgets import QCheckBox, QComboBox, QDoubleSpinBox, QHBoxLayout, QLabel, QPushButton, QWidget
from superqt.utils import signals_blocked

from napari_nucleiseg.core.store.listing import NO_ORIGIN, Query
from napari_nucleiseg.widgets.form import needs_click
from napari_nucleiseg.widgets.wording import origin_title

ANY = None
STATUSES = {"shown": "All nuclei", "open": "Not approved", "approved": "Approved", "rejected": "Rejected"}
LARGEST_UM2 = 99_999.0
ANY_AREA = "any"


class NucleiFilter(QWidget):
    """Choices of class, review, origin, area and place; tells when one is made."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.status = _choice("Which nuclei, by what people said of them", STATUSES)
        self.class_number = _choice("Only nuclei of this class", {ANY: "Any class"})
        self.origin = _choice("Only nuclei of this model or person", {NO_ORIGIN: "From anybody"})
        self.least = _Area("From this area on, µm²", 0.0)
        self.most = _Area("Up to this area, µm²", LARGEST_UM2)
        self.in_view = QCheckBox("In view")
        self.in_view.setToolTip("Only nuclei that you see; follows the view")
        self.only = QCheckBox("From the plot")
        self.only.setToolTip("Only nuclei that were selected in the plot of measurements")
        self.only.hide()
        self.clear = QPushButton("Show all")
        self.clear.setToolTip("List every nucleus of the slide")
        self.count = QLabel()
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        for part in (self.status, self.class_number, self.origin):
            row.addWidget(part)
            part.activated.connect(self._on_chosen)
        row.addWidget(QLabel("Area"))
        row.addWidget(self.least)
        row.addWidget(QLabel("–"))
        row.addWidget(self.most)
        row.addWidget(QLabel("µm²"))
        for box in (self.least, self.most):
            box.valueChanged.connect(self._on_chosen)
        row.addWidget(self.in_view)
        row.addWidget(self.only)
        row.addWidget(self.clear)
        row.addStretch(1)
        row.addWidget(self.count)
        self.in_view.toggled.connect(self._on_chosen)
        self.only.toggled.connect(self._on_chosen)
        self.clear.clicked.connect(self._on_cleared)
        self._show_clear()

    def query(self, former: Query) -> Query:
        """Return what is chosen, in the order of a former query."""
        return replace(
            former,
            status=self.status.currentData(),
            class_number=self.class_number.currentData(),
            origin=self.origin.currentData(),
            least_um2=self.least.value() or None,
            most_um2=None if self.most.value() == LARGEST_UM2 else self.most.value(),
        )

    @property
    def is_set(self) -> bool:
        """Whether anything is left out."""
        return self.query(Query()) != Query() or self.in_view.isChecked() or self.only.isChecked()

    def offer(self, classes: Sequence[tuple[int, str, str]], origins: Sequence[str]) -> None:
        """Offer these classes (number, name, colour) and origins."""
        _offer(
            self.class_number,
            {ANY: "Any class", 0: "No class", **{number: name for number, name, _colour in classes}},
        )
        _offer(self.origin, {NO_ORIGIN: "From anybody", **{origin: origin_title(origin) for origin in origins}})

    def show_only(self, *, on: bool) -> None:
        """Say whether only nuclei that were selected in the plot are listed, and offer to list others."""
        with signals_blocked(self.only):
            self.only.setChecked(on)
        self.only.setVisible(on)
        self._show_clear()

    def show_count(self, listed: int, total: int) -> None:
        """Say how many are listed of how many."""
        self.count.setText(f"{listed:,} of {total:,} nuclei" if self.is_set else f"{total:,} nuclei")

    def _on_chosen(self, _value: object = None) -> None:
        self._show_clear()
        self.changed.emit()

    def _on_cleared(self) -> None:
        for choice in (self.status, self.class_number, self.origin):
            choice.setCurrentIndex(0)
        with signals_blocked(self.least), signals_blocked(self.most):
            self.least.setValue(0.0)
            self.most.setValue(LARGEST_UM2)
        for box in (self.in_view, self.only):
            with signals_blocked(box):
                box.setChecked(False)
        self._on_chosen()

    def _show_clear(self) -> None:
        self.clear.setEnabled(self.is_set)


def _choice(tip: str, titles: Mapping[Any, str]) -> QComboBox:
    choice = QComboBox()
    choice.setToolTip(tip)
    choice.setAccessibleName(tip)
    choice.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToContents)
    needs_click(choice)
    _offer(choice, titles)
    return choice


def _offer(choice: QComboBox, titles: Mapping[Any, str]) -> None:
    """Offer values with their titles, and keep what is chosen as long as it is among them."""
    if [(choice.itemData(place), choice.itemText(place)) for place in range(choice.count())] == list(titles.items()):
        return
    chosen = choice.currentData()
    with signals_blocked(choice):
        choice.clear()
        for value, title in titles.items():
            choice.addItem(title, value)
        choice.setCurrentIndex(list(titles).index(chosen) if chosen in titles else 0)


class _Area(QDoubleSpinBox):
    """Square micrometres; the least and the largest value are no limit, and say so."""

    def __init__(self, tip: str, value: float) -> None:
        super().__init__()
        self.setRange(0.0, LARGEST_UM2)
        self.setDecimals(0)
        self.setSingleStep(5.0)
        self.setValue(value)
        self.setKeyboardTracking(False)
        self.setToolTip(tip)
        self.setAccessibleName(tip)
        self.setFixedWidth(84)
        needs_click(self)

    def textFromValue(self, value: float) -> str:  # noqa: N802 - Qt's name
        """Return what the box shows."""
        return ANY_AREA if value in {0.0, LARGEST_UM2} else f"{value:.0f}"

    def valueFromText(self, text: str) -> float:  # noqa: N802 - Qt's name
        """Return what was typed."""
        return self.value() if text == ANY_AREA else float(text or 0)

    def validate(self, text: str, place: int) -> tuple[QValidator.State, str, int]:
        """Let the word for no limit stand."""
        return (QValidator.State.Acceptable, text, place) if text == ANY_AREA else super().validate(text, place)

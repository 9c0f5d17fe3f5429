"""What is plotted, and how: the controls beside a plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QButtonGroup, QFormLayout, QHBoxLayout, QProgressBar, QPushButton, QWidget
from superqt.utils import signals_blocked

from napari_nucleiseg.core.exchange.source import Column
from napari_nucleiseg.state import HISTOGRAM, IN_VIEW, LASSO, RECTANGLE, SCATTER, WHOLE_SLIDE, PlotWishes
from napari_nucleiseg.viewer.messages import Progress
from napari_nucleiseg.widgets.form import Choice, Switch, about

WIDTH_PX = 250
SOURCES = {IN_VIEW: "In view", WHOLE_SLIDE: "Whole slide"}
KINDS = {
    HISTOGRAM: ("Histogram", "How many nuclei have which value"),
    SCATTER: ("Scatter", "One quantity over another, a dot for each nucleus"),
}
SHAPES = {
    LASSO: ("Lasso", "Draw around points to select them"),
    RECTANGLE: ("Rectangle", "Drag a rectangle over points to select them"),
}


class PlotForm(QWidget):
    """Shows and sets `PlotWishes`.

    Parameters
    ----------
    wishes : PlotWishes
        What the controls show and set.
    columns : sequence of Column
        What can be plotted.
    """

    def __init__(self, wishes: PlotWishes, columns: Sequence[Column]) -> None:
        super().__init__()
        self._wishes = wishes
        titles = {column.name: column.title for column in columns}
        self.source = Choice(wishes, "source", SOURCES)
        self.across, self.up = Choice(wishes, "across", titles), Choice(wishes, "up", titles)
        for choice in (self.across, self.up):
            for place, column in enumerate(columns):
                choice.setItemData(place, column.about, Qt.ItemDataRole.ToolTipRole)
            choice.setMaxVisibleItems(len(columns))
        self.coloured = Switch(wishes, "coloured")
        self.kinds, self.shapes = self._pair("plot", KINDS), self._pair("fence", SHAPES)
        self.all_button = QPushButton("Whole plot")
        self.all_button.setToolTip("See all of the plot again  (double-click; the wheel comes nearer)")
        self.bar = QProgressBar()
        self.stop_button = QPushButton("Stop")
        self.stop_button.setToolTip("End it; what is measured so far is kept")
        self._progress = _row(self.bar, self.stop_button)
        self._shapes = _row(*self.shapes.values())
        self._make_rows()
        self.show_progress(None)
        wishes.events.plot.connect(self._on_changed)
        wishes.events.fence.connect(self._on_changed)
        self._on_changed()

    def _make_rows(self) -> None:
        self.setFixedWidth(WIDTH_PX)
        self._form = QFormLayout(self)
        self._form.setContentsMargins(0, 0, 0, 0)
        self._form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        for name, part in (
            ("source", self.source), ("plot", _row(*self.kinds.values())), ("across", self.across), ("up", self.up),
        ):  # fmt: skip
            self._form.addRow(about(name, PlotWishes)["title"], part)
        self._form.addRow("Draw", self._shapes)
        self._form.addRow(_row(self.coloured, self.all_button))
        self._form.addRow(self._progress)

    def _pair(self, name: str, choices: Mapping[str, tuple[str, str]]) -> dict[str, QPushButton]:
        """Return buttons of which one is down, for the values of a wish."""
        group, found = QButtonGroup(self), {}
        for value, (title, tip) in choices.items():
            button = QPushButton(title)
            button.setToolTip(tip)
            button.setCheckable(True)
            button.clicked.connect(lambda _on=True, value=value: setattr(self._wishes, name, value))
            group.addButton(button)
            found[value] = button
        return found

    def offer(self, regions: Mapping[str, str]) -> None:
        """Offer annotated regions (number and name) beside view and slide."""
        self.source.offer({**SOURCES, **regions})

    def show_progress(self, progress: Progress | None) -> None:
        """Show how far the work is; None where there is none."""
        self._progress.setVisible(progress is not None)
        if progress is not None:
            self.bar.setRange(0, progress.total)
            self.bar.setValue(progress.done)
            self.bar.setFormat(f"{progress.title.split()[0]} %p%")

    def _on_changed(self, _value: str = "") -> None:
        for buttons, value in ((self.kinds, self._wishes.plot), (self.shapes, self._wishes.fence)):
            with signals_blocked(buttons[value]):
                buttons[value].setChecked(True)
        for part in (self.up, self._shapes):
            self._form.setRowVisible(part, self._wishes.plot == SCATTER)


def _row(*parts: QWidget) -> QWidget:
    """Return widgets side by side."""
    row = QWidget()
    line = QHBoxLayout(row)
    line.setContentsMargins(0, 0, 0, 0)
    line.setSpacing(4)
    for part in parts:
        line.addWidget(part, 1)
    return row

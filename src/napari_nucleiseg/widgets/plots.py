"""The dock "Measurements": nuclei in a plot, tied to the slide and to the table both ways."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from qtpy.QtCore import QSize, Qt
from qtpy.QtGui import QHideEvent, QShowEvent
from qtpy.QtWidgets import (
    QFileDialog,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QMenu,
    QSizePolicy,
    QStackedWidget,
    QVBoxLayout,
    QWidget,
)

from napari_nucleiseg.state import IN_VIEW, SCATTER
from napari_nucleiseg.viewer.messages import Hint, Progress
from napari_nucleiseg.viewer.plot_acts import PlotActs
from napari_nucleiseg.viewer.plot_data import NEW, summary_of
from napari_nucleiseg.viewer.plot_layers import PlotLayers
from napari_nucleiseg.viewer.plots import Plots
from napari_nucleiseg.viewer.project_view import class_list
from napari_nucleiseg.widgets.correct import swatch
from napari_nucleiseg.widgets.parts import tipped_button
from napari_nucleiseg.widgets.plot_canvas import PlotCanvas
from napari_nucleiseg.widgets.plot_form import PlotForm
from napari_nucleiseg.widgets.plot_histogram import NUCLEI, HistogramCanvas
from napari_nucleiseg.widgets.plot_scatter import ScatterCanvas
from napari_nucleiseg.widgets.plot_words import number_text, selected_text, summary_text
from napari_nucleiseg.widgets.wording import warning_colour

SIZE = QSize(1000, 300)
SIDE_PX = 290
NO_NUCLEI = "No nuclei here yet: segment the slide, or draw some. Their measurements are plotted here."
NOTHING_IN_VIEW = "No nuclei in view. Move the view, or plot those of the whole slide."
NO_VALUES = "This was not measured of any nucleus here."
MEASURING = "Measuring…"
NOT_CORRECTING = "To change nuclei, switch on “Correct nuclei”."
HOW_SCATTER = "Draw around points, or click one to go there. Shift adds, Alt or Ctrl takes away, Esc clears."
HOW_HISTOGRAM = "Drag a range, or click a bar. Shift adds, Alt or Ctrl takes away, Esc clears."

LINES = (
    "Middle half: a quarter of the nuclei has less, and a quarter more. In a histogram the dashed line is the median; "
    "the middle half lies between the dotted ones. After ± stands the standard deviation."
)


class PlotsPanel(QWidget):
    """Shows `Plots`.

    Parameters
    ----------
    plots : Plots
        What is plotted; it works as long as this is seen.
    theme : str
        Of napari, when it is made.
    """

    def __init__(self, plots: Plots, theme: str) -> None:
        super().__init__()
        self.setObjectName("nucleiseg plots")
        self.plots, self.acts, self.layers = plots, PlotActs(plots), PlotLayers(plots)
        self._titles = {column.name: column.title for column in plots.engine.columns()}
        self._warning_colour = warning_colour(theme)
        row = QHBoxLayout(self)
        row.setContentsMargins(8, 6, 8, 6)
        row.setSpacing(12)
        self.form = PlotForm(plots.wishes, plots.engine.columns())
        row.addWidget(self.form)
        row.addWidget(self._make_canvases(), 1)
        row.addWidget(self._make_side())
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Expanding)
        self.setMinimumHeight(240)
        self._connect()
        self._on_said(Hint())
        self._on_coloured(None)
        self._on_sources_changed()
        self._on_plot_changed()

    # ------------------------------------------------------------------ what it is made of

    def _make_canvases(self) -> QWidget:
        self.histogram, self.scatter = HistogramCanvas(), ScatterCanvas()
        self._canvases = QStackedWidget()
        for canvas in (self.histogram, self.scatter):
            self._canvases.addWidget(canvas)
        return self._canvases

    def _make_side(self) -> QWidget:
        self.words, self.scale, self.hint, self.selected = QLabel(), QLabel(), QLabel(), QLabel()
        for label in (self.words, self.scale, self.hint, self.selected):
            label.setWordWrap(True)
            label.setAlignment(Qt.AlignmentFlag.AlignTop)
        self.words.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.words.setToolTip(LINES)
        self.list_button = tipped_button("Show in table", "List the selected nuclei in the table, and no others")
        self.export_button = tipped_button("Export…", "Write the selected nuclei with all their measurements (CSV)")
        self.approve_button = tipped_button("Approve", "These are right: no model touches them any more  (Y)")
        self.reject_button = tipped_button("Reject", "Take these away for good: no model brings them back  (R)")
        self.class_button = tipped_button("Class", "Give these a class  (1–9, 0 for none)")
        self.clear_button = tipped_button("Clear", "Select nothing  (Esc)")
        self.class_menu = QMenu(self.class_button)
        self.class_button.setMenu(self.class_menu)
        grid = QGridLayout()
        grid.setSpacing(4)
        buttons = (
            self.list_button, self.export_button, self.clear_button,
            self.approve_button, self.reject_button, self.class_button,
        )  # fmt: skip
        for place, button in enumerate(buttons):
            grid.addWidget(button, place // 3, place % 3)
        part = QWidget()
        part.setFixedWidth(SIDE_PX)
        column = QVBoxLayout(part)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(6)
        column.addWidget(self.words)
        column.addStretch(1)
        for label in (self.scale, self.hint, self.selected):
            column.addWidget(label)
        column.addLayout(grid)
        return part

    def _connect(self) -> None:
        plots, wishes, acts = self.plots, self.plots.wishes.events, self.acts
        for wish in (wishes.plot, wishes.across, wishes.up, wishes.fence):
            wish.connect(self._on_plot_changed)
        plots.measured.connect(self._on_measured)
        plots.selection_changed.connect(self._on_selection_changed)
        plots.said.connect(self._on_said)
        plots.long_work.changed.connect(self._on_progress_changed)
        acts.long_work.changed.connect(self._on_progress_changed)
        plots.regions.changed.connect(self._on_sources_changed)
        plots.editing.edited.connect(self._on_selection_changed)
        plots.editing.session.events.editing.connect(self._on_selection_changed)
        self.layers.coloured.connect(self._on_coloured)
        for canvas in (self.histogram, self.scatter):
            canvas.key_pressed.connect(self._on_key_pressed)
            canvas.window_changed.connect(self._on_window_changed)
            self.form.all_button.clicked.connect(canvas.show_all)
        self.histogram.fenced.connect(self._on_range_drawn)
        self.histogram.clicked.connect(self._on_bar_clicked)
        self.scatter.fenced.connect(self._on_fence_drawn)
        self.scatter.clicked.connect(self._on_point_clicked)
        self.form.stop_button.clicked.connect(self._on_stop_clicked)
        self.list_button.clicked.connect(acts.show_in_list)
        self.export_button.clicked.connect(self._on_export_clicked)
        self.approve_button.clicked.connect(acts.approve)
        self.reject_button.clicked.connect(acts.reject)
        self.clear_button.clicked.connect(plots.clear)
        self.class_menu.aboutToShow.connect(self._on_class_menu_opened)

    def set_theme(self, theme: str) -> None:
        """Take the colours of another theme."""
        self._warning_colour = warning_colour(theme)
        for canvas in (self.histogram, self.scatter):
            canvas.forget()

    @property
    def canvas(self) -> PlotCanvas:
        """The plot that is seen."""
        return self.scatter if self.plots.wishes.plot == SCATTER else self.histogram

    # ------------------------------------------------------------------ what is shown

    def _on_sources_changed(self) -> None:
        self.form.offer({str(region.number): region.name for region in self.plots.regions.regions})

    def _on_plot_changed(self, _value: str = "") -> None:
        wishes = self.plots.wishes
        self.scatter.shape = wishes.fence
        self._canvases.setCurrentWidget(self.canvas)
        self._on_measured()

    def _on_measured(self) -> None:
        """Draw what there is, in the plot that is seen."""
        plots, wishes = self.plots, self.plots.wishes
        classes = {number: (name, colour) for number, name, colour in class_list(plots.project)}
        across = self._titles[wishes.across]
        canvas, names = self.canvas, [wishes.across]
        if canvas is self.scatter:
            names.append(wishes.up)
            self.scatter.titles = across, self._titles[wishes.up]
            self.scatter.show_cloud(plots.cloud, wishes.across, wishes.up, classes)
        else:
            self.histogram.titles = across, NUCLEI
            self.histogram.show_cloud(plots.cloud, wishes.across, classes)
        known = np.ones(len(plots.cloud), np.bool_)
        for name in names:
            known &= np.isfinite(plots.cloud.of(name))
        canvas.empty = self._nothing() if not len(plots.cloud) else "" if known.any() else NO_VALUES
        self._on_selection_changed()

    def _nothing(self) -> str:
        if self.plots.is_measuring:
            return MEASURING
        opened = self.plots.opened
        has_any = opened is not None and opened.project is not None and opened.project.census.total() > 0
        return NOTHING_IN_VIEW if has_any and self.plots.wishes.source == IN_VIEW else NO_NUCLEI

    def _on_selection_changed(self, _value: object = None) -> None:
        plots, wishes = self.plots, self.plots.wishes
        self.canvas.select(plots.selected)  # type: ignore[attr-defined]
        rows = plots.cloud.rows_of(plots.selected)
        names = [wishes.across, *([wishes.up] if wishes.plot == SCATTER else [])]
        values = [plots.cloud.of(name)[rows] if len(rows) else plots.cloud.of(name) for name in names]
        told = [summary_text(self._titles[name], summary_of(part)) for name, part in zip(names, values, strict=True)]
        self.words.setText("<br>".join(told) if len(plots.cloud) else "")
        self._show_selected(len(plots.selected), len(rows))

    def _show_selected(self, selected: int, plotted: int) -> None:
        is_scatter = self.plots.wishes.plot == SCATTER
        how = (HOW_SCATTER if is_scatter else HOW_HISTOGRAM) if len(self.plots.cloud) else ""
        is_correcting = self.plots.editing.project is not None
        sentence = selected_text(selected, plotted)
        self.selected.setText(f"{sentence} {'' if is_correcting else NOT_CORRECTING}" if selected else how)
        for button in (self.list_button, self.export_button, self.clear_button):
            button.setEnabled(selected > 0)
        for button in (self.approve_button, self.reject_button, self.class_button):
            button.setEnabled(selected > 0 and is_correcting)
        self._on_window_changed()

    def _on_window_changed(self) -> None:
        self.form.all_button.setEnabled(self.canvas.is_near)

    def _on_coloured(self, limits: tuple[float, float] | None) -> None:
        title = self._titles[self.plots.wishes.across]
        self.scale.setVisible(limits is not None)
        if limits is not None:
            self.scale.setText(f"{title}: from blue, {number_text(limits[0])}, to red, {number_text(limits[1])}.")

    def _on_said(self, hint: Hint) -> None:
        self.hint.setText(hint.text)
        self.hint.setVisible(bool(hint.text))
        self.hint.setStyleSheet(f"color: {self._warning_colour};" if hint.is_warning else "")

    def _on_progress_changed(self, progress: Progress | None) -> None:
        self.form.show_progress(progress)
        if not len(self.plots.cloud):
            self.canvas.empty = self._nothing()
            self.canvas.update()

    # ------------------------------------------------------------------ what the user does

    def _on_range_drawn(self, corners: np.ndarray, how: str) -> None:
        low, high = float(corners[:, 0].min()), float(corners[:, 0].max())
        self.plots.range(self.plots.wishes.across, low, high, how)

    def _on_bar_clicked(self, x: float, _y: float, how: str) -> None:
        place, found = self.histogram.bin_at(x), self.histogram.histogram
        if place is None or found is None:
            return
        # The last bin holds its right edge too.
        self.plots.bar(self.plots.wishes.across, found, place, how)

    def _on_fence_drawn(self, corners: np.ndarray, how: str) -> None:
        self.plots.fence(self.plots.wishes.across, self.plots.wishes.up, corners, how)

    def _on_point_clicked(self, x: float, y: float, how: str) -> None:
        row = self.scatter.row_at(x, y)
        if row is None:
            return
        if how == NEW:
            self.plots.go_to(row)
        else:
            self.plots.select_rows(np.array([row]), how)

    def _on_key_pressed(self, key: str) -> None:
        if key == "Escape":
            self.plots.clear()
        elif key == "A":
            self.plots.select_all()
        elif key == "Y":
            self.acts.approve()
        elif key == "R":
            self.acts.reject()
        else:
            self.acts.classify(int(key))

    def _on_stop_clicked(self) -> None:
        self.plots.stop()
        self.acts.long_work.stop()

    def _on_export_clicked(self) -> None:
        opened = self.plots.opened
        if opened is None:
            return
        path = Path(opened.slide.path)
        folder = path.parent if opened.slide.path and path.parent.is_dir() else Path.home()
        suggested = folder / f"{path.stem or 'slide'} selected.csv"
        chosen = str(QFileDialog.getSaveFileName(self, "Export selected nuclei", str(suggested), "Table (*.csv)")[0])
        if chosen:
            self.acts.export(chosen if chosen.lower().endswith(".csv") else f"{chosen}.csv")

    def _on_class_menu_opened(self) -> None:
        self.class_menu.clear()
        for number, name, colour in [*class_list(self.plots.project), (0, "No class", "transparent")]:
            action = self.class_menu.addAction(swatch(colour), f"{name}\t{number}" if number < 10 else name)
            action.triggered.connect(lambda _on=False, number=number: self.acts.classify(number))

    # ------------------------------------------------------------------ when it is seen

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Return how large it is at first."""
        return SIZE

    def showEvent(self, event: QShowEvent) -> None:  # noqa: N802 - Qt's name
        """Begin to measure."""
        super().showEvent(event)
        self.plots.open()
        self.layers.open()

    def hideEvent(self, event: QHideEvent) -> None:  # noqa: N802 - Qt's name
        """Cease to, and take what it shows on the slide away."""
        super().hideEvent(event)
        self.layers.close()
        self.plots.close()

"""The settings of an unattended run: where to, with which model, what is written; folded away, what few people turn."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QDoubleSpinBox,
    QGridLayout,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QToolButton,
    QVBoxLayout,
    QWidget,
)
from superqt.utils import signals_blocked

from napari_nucleiseg.core.batch.unattended.job import DASK, LOCAL
from napari_nucleiseg.core.exchange.formats import FORMATS
from napari_nucleiseg.viewer.batch import Batch
from napari_nucleiseg.viewer.batch_engine import Encoders
from napari_nucleiseg.viewer.batch_wishes import NO_ENCODER, NOT_GIVEN, BatchWishes
from napari_nucleiseg.widgets.facts import ElidedLabel
from napari_nucleiseg.widgets.form import Choice, NumberBox, NumberSlider, Switch, TextBox, about, needs_click
from napari_nucleiseg.widgets.parts import plain_form
from napari_nucleiseg.widgets.wording import model_title, model_titles, use_text

# The titles of formats are long; here they are told by their tooltips.
SHORT = {
    "zarr": "OME-Zarr",
    "zarr-0.4": "OME-Zarr 0.4",
    "tif": "Label TIFF",
    "geojson": "GeoJSON",
    "csv": "CSV",
    "parquet": "Parquet",
    "coco": "COCO",
    "anndata": "AnnData",
    "h5ad": "AnnData",
    "spatialdata": "SpatialData",
}
COLUMNS = 3
ENGINE_TITLES = {LOCAL: "This machine", DASK: "dask.distributed"}
NO_FOLDER = "not chosen"


class FormatChoice(QWidget):
    """A check box for each format that can be written.

    Parameters
    ----------
    wishes : BatchWishes
        Hold the formats.
    """

    def __init__(self, wishes: BatchWishes) -> None:
        super().__init__()
        self._wishes = wishes
        self.boxes: dict[str, QCheckBox] = {}
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setSpacing(4)
        for place, (name, form) in enumerate(FORMATS.items()):
            box = self.boxes[name] = QCheckBox(SHORT.get(name, form.title))
            measured = ", with all measurements" if form.measures else ""
            box.setToolTip(f"{form.title}{measured}: NAME{form.ending} of each slide")
            box.toggled.connect(self._on_toggled)
            grid.addWidget(box, place // COLUMNS, place % COLUMNS)
        wishes.events.formats.connect(self._show)
        self._show(wishes.formats)

    def _on_toggled(self) -> None:
        self._wishes.formats = tuple(name for name, box in self.boxes.items() if box.isChecked())

    def _show(self, formats: tuple[str, ...]) -> None:
        for name, box in self.boxes.items():
            with signals_blocked(box):
                box.setChecked(name in formats)


class PixelSizeBox(QDoubleSpinBox):
    """Micrometres per pixel, or that nobody knows.

    Parameters
    ----------
    wishes : BatchWishes
        Hold the value.
    """

    def __init__(self, wishes: BatchWishes) -> None:
        super().__init__()
        self._wishes = wishes
        told = about("mpp_um", BatchWishes)
        self.setDecimals(told["decimals"])
        self.setRange(told["minimum"], told["maximum"])
        self.setSingleStep(told["step"])
        self.setSuffix(told["suffix"])
        self.setSpecialValueText("as files say")
        self.setKeyboardTracking(False)
        self.setToolTip(told["tip"])
        self.setAccessibleName(told["title"])
        needs_click(self)
        self.valueChanged.connect(self._on_typed)
        wishes.events.mpp_um.connect(self._show)
        self._show(wishes.mpp_um)

    def _on_typed(self, value: float) -> None:
        self._wishes.mpp_um = round(value, self.decimals())

    def _show(self, value: float) -> None:
        with signals_blocked(self):
            self.setValue(value if value > 0 else NOT_GIVEN)


class BatchForm(QWidget):
    """All settings of a batch.

    Parameters
    ----------
    batch : Batch
        Whose wishes are shown and set.
    """

    folder_wanted = Signal()
    """Another folder for the results is to be asked for."""

    def __init__(self, batch: Batch) -> None:
        super().__init__()
        self._batch = batch
        wishes = self._wishes = batch.wishes
        self.folder = ElidedLabel()
        self.folder_button = QPushButton("Choose…")
        self.folder_button.setToolTip(f"{about('folder', BatchWishes)['tip']}. One used before shows what is in it.")
        self.folder_button.clicked.connect(lambda _on=False: self.folder_wanted.emit())
        self.model = Choice(wishes, "model", {wishes.model: wishes.model}, Qt.TextElideMode.ElideMiddle)
        self.formats = FormatChoice(wishes)
        self.measure = Switch(wishes, "measure")
        self.more_button = QToolButton()
        self.more_button.setText("More settings")
        self.more_button.setCheckable(True)
        self.more_button.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self.more_button.setToolTip("Threshold, smallest nucleus, workers, encoders, pixel size")
        self.more_button.toggled.connect(self._on_more_toggled)
        self._make_more()
        folder = QHBoxLayout()
        folder.addWidget(self.folder, 1)
        folder.addWidget(self.folder_button)
        form = plain_form()
        form.addRow(about("folder", BatchWishes)["title"], folder)
        form.addRow("Model", self.model)
        form.addRow(QLabel("Write beside the project of each slide"))
        form.addRow(self.formats)
        last = QHBoxLayout()
        last.addWidget(self.measure)
        last.addStretch(1)
        last.addWidget(self.more_button)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(6)
        column.addLayout(form)
        column.addLayout(last)
        column.addWidget(self.more)
        self._on_more_toggled(False)
        self._connect()

    def _make_more(self) -> None:
        wishes = self._wishes
        self.threshold, self.min_area = NumberSlider(wishes, "threshold"), NumberSlider(wishes, "min_area_um2")
        self.workers, self.threads = NumberBox(wishes, "workers"), NumberBox(wishes, "threads")
        self.workers.setSpecialValueText("automatic")
        self.engine = Choice(wishes, "engine", ENGINE_TITLES)
        self.scheduler = TextBox(wishes, "scheduler", "started on this machine")
        self.encoder = Choice(wishes, "encoder", {NO_ENCODER: "None"})
        self.region_encoder = Choice(wishes, "region_encoder", {NO_ENCODER: "None"})
        self.attention_maps = Switch(wishes, "attention_maps")
        self.mpp_um = PixelSizeBox(wishes)
        self.more = QWidget()
        form = plain_form(self.more)
        pair = QHBoxLayout()
        pair.addWidget(self.workers, 3)  # it has a word to show
        pair.addWidget(QLabel(about("threads", BatchWishes)["title"]))
        pair.addWidget(self.threads, 2)
        fields: dict[str, Any] = {
            "threshold": self.threshold,
            "min_area_um2": self.min_area,
            "mpp_um": self.mpp_um,
            "engine": self.engine,
            "workers": pair,
            "scheduler": self.scheduler,
            "encoder": self.encoder,
            "region_encoder": self.region_encoder,
        }
        for name, field in fields.items():
            form.addRow(about(name, BatchWishes)["title"], field)
        form.addRow("", self.attention_maps)

    def _connect(self) -> None:
        batch, wishes = self._batch, self._wishes.events
        batch.models_changed.connect(self._show_models)
        batch.encoders_changed.connect(self._show_encoders)
        for event in (wishes.encoder, wishes.engine):
            event.connect(self._show_open)
        wishes.encoder.connect(self._show_regions)
        wishes.folder.connect(self._show_folder)
        wishes.model.connect(self._show_licence)
        self._show_folder(self._wishes.folder)
        self._show_models()
        self._show_encoders()

    def _on_more_toggled(self, on: bool) -> None:
        self.more.setVisible(on)
        self.more_button.setArrowType(Qt.ArrowType.DownArrow if on else Qt.ArrowType.RightArrow)

    def _show_folder(self, folder: str) -> None:
        self.folder.set_whole(folder or NO_FOLDER)
        self.folder.setToolTip(folder or "No folder was chosen yet")

    def _show_models(self) -> None:
        cards = self._batch.models
        if cards:
            taught = {name for name, card in cards.items() if card.parent}
            self.model.offer(model_titles({name: card.title or name for name, card in cards.items()}, taught))
        self._show_licence(self._wishes.model)

    def _show_licence(self, name: str) -> None:
        card = self._batch.models.get(name)
        tip = about("model", BatchWishes)["tip"]
        said = "" if card is None else f"\n{use_text(card.licence, commercial_use=card.commercial_use)}"
        self.model.setToolTip(f"{tip}{said}")

    def _show_encoders(self) -> None:
        encoders: Encoders = self._batch.encoders
        titles = {name: model_title(title) for name, title in encoders.titles.items()}
        self.encoder.offer({NO_ENCODER: "None", **titles})
        self._show_regions()

    def _show_regions(self) -> None:
        fitting = self._batch.encoders.regions.get(self._wishes.encoder, {})
        if self._wishes.region_encoder not in fitting:
            self._wishes.region_encoder = NO_ENCODER
        titles = {name: model_title(title) for name, title in fitting.items()}
        self.region_encoder.offer({NO_ENCODER: "None", **titles})
        self._show_open()

    def _show_open(self) -> None:
        """Let be turned what has an effect."""
        has_encoder = self._wishes.encoder != NO_ENCODER
        self.region_encoder.setEnabled(has_encoder and self.region_encoder.count() > 1)
        self.attention_maps.setEnabled(has_encoder)
        self.scheduler.setEnabled(self._wishes.engine == DASK)

    def set_open(self, *, on: bool) -> None:
        """Let settings be turned, or not: a run that goes on keeps its own."""
        for field in (self.folder_button, self.model, self.formats, self.measure, self.more):
            field.setEnabled(on)

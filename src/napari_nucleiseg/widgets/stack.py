"""The dock "Nuclei in a stack": stack, model, size of voxels; find, stop, save, bring back; and below it, teach."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QSize, Qt
from qtpy.QtWidgets import (
    QDoubleSpinBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QScrollArea,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)
from superqt.utils import signals_blocked

from napari_nucleiseg.core.geometry import ZYX
from napari_nucleiseg.viewer.messages import Hint, Progress
from napari_nucleiseg.viewer.stack_layers import voxel_of
from napari_nucleiseg.viewer.stack_teaching import StackTeaching
from napari_nucleiseg.viewer.stacks import Stacks, StackWish
from napari_nucleiseg.widgets.dialogs import ask_licence
from napari_nucleiseg.widgets.form import ElidedList, needs_click
from napari_nucleiseg.widgets.parts import show_progress
from napari_nucleiseg.widgets.stack_guard import StackGuard, guard_of
from napari_nucleiseg.widgets.stack_teaching import StackTeachPart
from napari_nucleiseg.widgets.window_bound import WindowBound
from napari_nucleiseg.widgets.wording import model_title, warning_colour

if TYPE_CHECKING:
    import napari

    from napari_nucleiseg.core.models.weights import ModelCard
    from napari_nucleiseg.core.teaching.versions import Version

ABOUT = "Finds the nuclei of a z-stack in three dimensions. The result is a labels layer that you can correct."
NO_STACK = "Open a stack first: a TIFF, OME-TIFF or OME-Zarr with planes along z. One channel is one layer."
NO_MODEL = (
    "There is no model for stacks yet: none comes with the program. Draw the nuclei of a few planes and learn a first "
    "one below; or train one on annotated stacks with “napari-nucleiseg train --network unet-3d”, and choose its file."
)
WIDTH_PX = 370
NO_VOXEL = "Say how large a voxel is: the file does not."


class StackWidget(WindowBound):
    """Shows a `Stacks`.

    Parameters
    ----------
    viewer : napari.Viewer
        The window it is docked in.
    stacks : Stacks, optional
        Default a new one.
    """

    def __init__(self, viewer: napari.viewer.Viewer, stacks: Stacks | None = None) -> None:
        super().__init__()
        self.setObjectName("nucleiseg stack")
        self._viewer = viewer
        self._cards: list[ModelCard] = []
        self._names: list[str] = []
        self._listed: dict[str, ModelCard] = {}
        self._files: dict[str, ModelCard] = {}
        self._wanted = ""
        self._hint = Hint()
        self._layer: Any = None
        self._guard: StackGuard | None = None
        self.stacks = stacks or Stacks(viewer)
        self.teaching = StackTeaching(self.stacks)
        self._make_controls()
        self._lay_out()
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Expanding)
        self.setMinimumWidth(300)
        self._connect()
        self.stacks.list_models()
        self._on_offered()

    def _make_controls(self) -> None:
        self.layer = ElidedList()
        self.layer.setToolTip("Image layer that shows the stack: one channel, nuclei bright; or colours, nuclei dark")
        self.model = ElidedList()
        self.model.setToolTip("Model for stacks: its weights, and the network they belong to")
        self.file_button = QPushButton("File…")
        self.file_button.setToolTip("Choose a weight file that was trained on stacks (best.safetensors)")
        self.voxel = tuple(_number(0, 100, 0.05, 3, f"Size of a voxel along {axis}, micrometres") for axis in "zyx")
        for box in self.voxel:
            box.setSpecialValueText("?")
            box.setSuffix(" µm")
        self.threshold = _number(0.01, 0.99, 0.05, 2, "Voxels that are more probably nucleus than this belong to one")
        self.threshold.setValue(0.5)
        self.area = _number(0, 1000, 1, 1, "Nuclei whose section is smaller than this are dropped, square micrometres")
        self.area.setValue(8)
        self.area.setSuffix(" µm²")
        for control in (*self.voxel, self.threshold, self.area):
            needs_click(control)
        self.start_button = QPushButton("Find nuclei")
        self.start_button.setMinimumHeight(30)
        self.start_button.setToolTip("Find the nuclei of the whole stack, block by block")
        self.stop_button = QPushButton("Stop")
        self.stop_button.setToolTip("End after the block in work; what was found stays")
        self.save_button = QPushButton("Save nuclei…")
        self.save_button.setToolTip("Write the nuclei as they are now as a label TIFF with the voxel size")
        self.back_button = QPushButton("Bring back")
        self.back_button.setToolTip("Show again the nuclei that were taken from the list of layers last")
        self.bar = QProgressBar()
        self.hint = QLabel()
        self.hint.setWordWrap(True)
        self.hint.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.teach = StackTeachPart(self.stacks, self.teaching)

    def _lay_out(self) -> None:
        about = QLabel(ABOUT)
        about.setWordWrap(True)
        for combo in (self.layer, self.model):  # long names do not widen the dock
            combo.setMinimumContentsLength(3)
        form = QFormLayout()
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        form.addRow("Stack", self.layer)
        form.addRow("Model", _row(self.model, self.file_button))
        for axis, box in zip("zyx", self.voxel, strict=True):
            form.addRow(f"Voxel {axis}", box)
        form.addRow("Threshold", self.threshold)
        form.addRow("Smallest nucleus", self.area)
        part = QWidget()
        column = QVBoxLayout(part)
        column.setContentsMargins(8, 6, 8, 6)
        column.setSpacing(8)
        column.addWidget(about)
        column.addLayout(form)
        column.addWidget(_row(self.start_button, self.stop_button))
        column.addWidget(self.bar)
        column.addWidget(self.hint)
        column.addWidget(self.save_button)
        column.addWidget(self.back_button)
        column.addWidget(self.teach)
        column.addStretch(1)
        self._scroll = QScrollArea()
        self._scroll.setWidgetResizable(True)
        self._scroll.setFrameShape(QScrollArea.Shape.NoFrame)
        self._scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self._scroll.setWidget(part)
        whole = QVBoxLayout(self)
        whole.setContentsMargins(0, 0, 0, 0)
        whole.addWidget(self._scroll)

    def _connect(self) -> None:
        stacks = self.stacks
        stacks.offered.connect(self._on_offered)
        stacks.listed.connect(self._on_listed)
        stacks.added.connect(self._on_added)
        stacks.progress_changed.connect(self._on_progress_changed)
        stacks.said.connect(self._on_said)
        stacks.licence_asked.connect(self._on_licence_asked)
        self.teaching.progress_changed.connect(self._show_state)
        self.teaching.used.connect(self._on_used)
        self.layer.currentIndexChanged.connect(self._on_layer_chosen)
        self.model.currentIndexChanged.connect(self._on_model_chosen)
        self.file_button.clicked.connect(self._on_file_clicked)
        self.start_button.clicked.connect(self._on_start_clicked)
        self.stop_button.clicked.connect(stacks.stop)
        self.save_button.clicked.connect(self._on_save_clicked)
        self.back_button.clicked.connect(self._on_back_clicked)
        for box in self.voxel:
            box.valueChanged.connect(self._show_state)
        self._viewer.events.theme.connect(self._show_state)

    # ------------------------------------------------------------------ what the user does

    def _on_start_clicked(self) -> None:
        voxel = self._voxel_um
        if voxel is not None:
            self.stacks.begin(StackWish(self._layer, self._model, voxel, self.threshold.value(), self.area.value()))

    def _on_file_clicked(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Weights for stacks", "", "Weights (*.safetensors)")
        if path:
            self.stacks.add_model(path)

    def _on_save_clicked(self) -> None:
        layer = self.stacks.result
        if layer is None:
            return
        path, _ = QFileDialog.getSaveFileName(self, "Save nuclei", f"{layer.name}.ome.tif", "TIFF (*.tif *.tiff)")
        if path:
            self.stacks.save(layer, path if Path(path).suffix else f"{path}.ome.tif")

    def _on_back_clicked(self) -> None:
        if self.stacks.keeping is not None:
            self.stacks.keeping.bring_back()

    def _on_layer_chosen(self, place: int) -> None:
        layers = self.stacks.layers
        self._layer = layers[place] if 0 <= place < len(layers) else None
        voxel = None if self._layer is None else voxel_of(self._layer)
        for box, side in zip(self.voxel, voxel or (0, 0, 0), strict=True):
            box.setValue(side)
        self._show_state()

    def _on_model_chosen(self, place: int) -> None:
        if 0 <= place < len(self._cards):
            self.threshold.setValue(self._cards[place].threshold)
            self.area.setValue(self._cards[place].min_area_um2)
        self._show_state()

    # ------------------------------------------------------------------ what there is

    def _on_offered(self) -> None:
        layers = self.stacks.layers
        former = self._layer
        with signals_blocked(self.layer):
            self.layer.clear()
            self.layer.addItems([layer.name for layer in layers])
        active = self._viewer.layers.selection.active
        # Who clicks another layer than a stack goes on with the same stack.
        meant = former if former in layers and active not in layers else next(iter(layers), None)
        place = layers.index(meant) if meant in layers else -1
        with signals_blocked(self.layer):
            self.layer.setCurrentIndex(place)
        if meant is not former or meant is None:
            self._on_layer_chosen(place)
        self._show_state()

    def _on_listed(self, cards: tuple[ModelCard, ...]) -> None:
        self._listed = {card.name: card for card in cards}
        self._offer(self._wanted or self._model)

    def _on_added(self, path: str, card: ModelCard) -> None:
        self._files = {**{name: one for name, one in self._files.items() if name != path}, path: card}
        self._hint = Hint()
        self._offer(path)

    def _on_used(self, version: Version) -> None:
        self._wanted = version.name
        self.stacks.list_models()

    def _offer(self, chosen: str) -> None:
        """Offer all models, and choose one, or else the first."""
        models = {**self._listed, **self._files}
        self._names, self._cards, self._wanted = list(models), list(models.values()), ""
        with signals_blocked(self.model):
            self.model.clear()
            for name, card in models.items():
                title = f"{Path(name).stem}: {model_title(card.title)}" if card.title else Path(name).stem
                self.model.addItem(title)
                self.model.setItemData(self.model.count() - 1, f"{title}\n{name}", Qt.ItemDataRole.ToolTipRole)
            place = self._names.index(chosen) if chosen in models else 0
            self.model.setCurrentIndex(place if models else -1)
        self._on_model_chosen(self.model.currentIndex())

    def _on_progress_changed(self, progress: Progress | None) -> None:
        if progress is not None:
            show_progress(self.bar, progress)
        self._show_state()

    def _on_said(self, hint: Hint) -> None:
        self._hint = hint
        self._show_state()
        if hint.is_warning:
            self._scroll.ensureWidgetVisible(self.hint)

    def _on_licence_asked(self, card: ModelCard, again: Callable[[], None]) -> None:
        self._show_state()
        if ask_licence(card, self):
            self.stacks.accept(card, again)

    @property
    def _model(self) -> str:
        """Name or file of the model that is chosen; empty for none."""
        place = self.model.currentIndex()
        return self._names[place] if 0 <= place < len(self._names) else ""

    @property
    def _voxel_um(self) -> ZYX | None:
        z, y, x = (box.value() for box in self.voxel)
        return ZYX(z, y, x) if min(z, y, x) > 0 else None

    def _show_state(self, _value: object = None) -> None:
        running = self.stacks.is_running
        missing = self._missing()
        is_free = not running and not self.teaching.is_running
        self.start_button.setEnabled(is_free and not missing)
        self.stop_button.setEnabled(running)
        self.bar.setVisible(running)
        self.save_button.setVisible(not running and self.stacks.result is not None)
        keeping = self.stacks.keeping
        self.back_button.setVisible(not running and keeping is not None and keeping.can_bring_back)
        for control in (self.layer, self.model, self.file_button, *self.voxel):
            control.setEnabled(is_free)
        self.teach.offer(self._layer, self._model, self._voxel_um)
        text = self._hint.text or missing
        self.hint.setText(text)
        self.hint.setVisible(bool(text))
        colour = warning_colour(self._viewer.theme) if self._hint.is_warning else ""
        self.hint.setStyleSheet(f"color: {colour}" if colour else "")

    def _missing(self) -> str:
        """Return what is needed before it can begin; empty if nothing is."""
        if self._layer is None:
            return NO_STACK
        if not self._cards:
            return NO_MODEL
        return NO_VOXEL if self._voxel_um is None else ""

    # ------------------------------------------------------------------ the beginning and the end

    def showEvent(self, event: Any) -> None:  # noqa: N802 - Qt's name
        """Have the labels kept as long as the window is open: only now it is known which that is."""
        super().showEvent(event)
        if self.stacks.keeping is None:
            guard = guard_of(self.window(), self._viewer)
            self.stacks.keep_with(guard.keeping)
            guard.keeping.away_changed.connect(self._show_state)
            guard.is_alone = False
            self._guard = guard
            self._show_state()

    def sizeHint(self) -> QSize:  # noqa: N802 - Qt's name
        """Return how large it is at first."""
        return QSize(WIDTH_PX, super().sizeHint().height())

    def end(self) -> None:
        """Stop all work and let go of the viewer; what is painted from now on is kept still."""
        if self._guard is not None:
            self._guard.is_alone = True
            self._guard.keeping.away_changed.disconnect(self._show_state)
        self._viewer.events.theme.disconnect(self._show_state)
        self.stacks.close()
        self.teaching.close()


def _number(least: float, most: float, step: float, decimals: int, tip: str) -> QDoubleSpinBox:
    box = QDoubleSpinBox()
    box.setRange(least, most)
    box.setSingleStep(step)
    box.setDecimals(decimals)
    box.setToolTip(tip)
    box.setAccessibleName(tip)
    box.setKeyboardTracking(False)
    return box


def _row(*widgets: QWidget) -> QWidget:
    holder = QWidget()
    row = QHBoxLayout(holder)
    row.setContentsMargins(0, 0, 0, 0)
    for place, widget in enumerate(widgets):
        row.addWidget(widget, 0 if place and isinstance(widget, QPushButton) else 1)
    return holder

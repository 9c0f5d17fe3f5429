"""The dock "Nuclei in a stack": which stack, which model, how large its voxels are; start, stop, save, bring back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QComboBox,
    QDoubleSpinBox,
    QFileDialog,
    QFormLayout,
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)
from superqt.utils import signals_blocked

from napari_nucleiseg.core.geometry import ZYX
from napari_nucleiseg.viewer.messages import Hint, Progress
from napari_nucleiseg.viewer.stack_layers import voxel_of
from napari_nucleiseg.viewer.stacks import Stacks, StackWish
from napari_nucleiseg.widgets.dialogs import ask_licence
from napari_nucleiseg.widgets.form import needs_click
from napari_nucleiseg.widgets.parts import show_progress
from napari_nucleiseg.widgets.stack_guard import StackGuard, guard_of
from napari_nucleiseg.widgets.window_bound import WindowBound
from napari_nucleiseg.widgets.wording import model_title, warning_colour

if TYPE_CHECKING:
    import napari

    from napari_nucleiseg.core.models.weights import ModelCard

ABOUT = "Finds the nuclei of a z-stack in three dimensions. The result is a labels layer that you can correct."
NO_STACK = "Open a stack first: a TIFF, OME-TIFF or OME-Zarr with planes along z. One channel is one layer."
NO_MODEL = (
    "There is no model for stacks yet: none comes with the program. Train one on annotated stacks with "
    "“napari-nucleiseg train --network unet-3d”, then choose its weight file."
)
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
        self._hint = Hint()
        self._layer: Any = None
        self._guard: StackGuard | None = None
        self.stacks = stacks or Stacks(viewer)
        self._make_controls()
        self._lay_out()
        self.setSizePolicy(QSizePolicy.Policy.Preferred, QSizePolicy.Policy.Expanding)
        self.setMinimumWidth(300)
        self._connect()
        self.stacks.list_models()
        self._on_offered()

    def _make_controls(self) -> None:
        self.layer = QComboBox()
        self.layer.setToolTip("Image layer that shows the stack: one channel, nuclei bright; or colours, nuclei dark")
        self.model = QComboBox()
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
        for control in (*self.voxel, self.threshold, self.area, self.layer, self.model):
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

    def _lay_out(self) -> None:
        about = QLabel(ABOUT)
        about.setWordWrap(True)
        for combo in (self.layer, self.model):  # long names do not widen the dock
            combo.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
            combo.setMinimumContentsLength(12)
        form = QFormLayout()
        form.setFieldGrowthPolicy(QFormLayout.FieldGrowthPolicy.AllNonFixedFieldsGrow)
        form.addRow("Stack", self.layer)
        form.addRow("Model", _row(self.model, self.file_button))
        for axis, box in zip("zyx", self.voxel, strict=True):
            form.addRow(f"Voxel {axis}", box)
        form.addRow("Threshold", self.threshold)
        form.addRow("Smallest nucleus", self.area)
        column = QVBoxLayout(self)
        column.setContentsMargins(8, 6, 8, 6)
        column.setSpacing(8)
        column.addWidget(about)
        column.addLayout(form)
        column.addWidget(_row(self.start_button, self.stop_button))
        column.addWidget(self.bar)
        column.addWidget(self.hint)
        column.addWidget(self.save_button)
        column.addWidget(self.back_button)
        column.addStretch(1)

    def _connect(self) -> None:
        stacks = self.stacks
        stacks.offered.connect(self._on_offered)
        stacks.listed.connect(self._on_listed)
        stacks.added.connect(self._on_added)
        stacks.progress_changed.connect(self._on_progress_changed)
        stacks.said.connect(self._on_said)
        stacks.licence_asked.connect(self._on_licence_asked)
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
        z, y, x = (box.value() for box in self.voxel)
        name = self._names[self.model.currentIndex()]
        self.stacks.begin(StackWish(self._layer, name, ZYX(z, y, x), self.threshold.value(), self.area.value()))

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
        self._offer({card.name: card for card in cards}, 0)

    def _on_added(self, path: str, card: ModelCard) -> None:
        known = {name: one for name, one in zip(self._names, self._cards, strict=True) if name != path}
        self._hint = Hint()
        self._offer({**known, path: card}, len(known))

    def _offer(self, models: Mapping[str, ModelCard], chosen: int) -> None:
        self._names, self._cards = list(models), list(models.values())
        with signals_blocked(self.model):
            self.model.clear()
            for name, card in models.items():
                self.model.addItem(f"{Path(name).stem}: {model_title(card.title)}" if card.title else Path(name).stem)
                self.model.setItemData(self.model.count() - 1, name, Qt.ItemDataRole.ToolTipRole)
            self.model.setCurrentIndex(chosen if models else -1)
        self._on_model_chosen(self.model.currentIndex())

    def _on_progress_changed(self, progress: Progress | None) -> None:
        if progress is not None:
            show_progress(self.bar, progress)
        self._show_state()

    def _on_said(self, hint: Hint) -> None:
        self._hint = hint
        self._show_state()

    def _on_licence_asked(self, card: ModelCard, wish: StackWish) -> None:
        self._show_state()
        if ask_licence(card, self):
            self.stacks.accept(card, wish)

    def _show_state(self, _value: object = None) -> None:
        running = self.stacks.is_running
        missing = self._missing()
        self.start_button.setEnabled(not running and not missing)
        self.stop_button.setEnabled(running)
        self.bar.setVisible(running)
        self.save_button.setVisible(not running and self.stacks.result is not None)
        keeping = self.stacks.keeping
        self.back_button.setVisible(not running and keeping is not None and keeping.can_bring_back)
        for control in (self.layer, self.model, self.file_button):
            control.setEnabled(not running)
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
        return "" if all(box.value() > 0 for box in self.voxel) else NO_VOXEL

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

    def end(self) -> None:
        """Stop all work and let go of the viewer; what is painted from now on is kept still."""
        if self._guard is not None:
            self._guard.is_alone = True
            self._guard.keeping.away_changed.disconnect(self._show_state)
        self._viewer.events.theme.disconnect(self._show_state)
        self.stacks.close()


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

"""The settings of a clustering: a preset, a seed and what matters most; the rest can be unfolded."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QComboBox, QDoubleSpinBox, QGridLayout, QLabel, QPushButton, QSpinBox, QWidget
from superqt.utils import signals_blocked

from napari_nucleiseg.core.training.clustering.config import PRESETS, ClusterConfig, preset
from napari_nucleiseg.widgets.form import needs_click

TITLES = {"default": "For nuclei", "published": "As published"}
PRESET_TIP = (
    "For nuclei: chosen for haematoxylin and eosin; the fitted network can be used for the whole slide.\n"
    "As published: S3-Net as it was published for lesions on skin. It belongs to the one view."
)


@dataclass(frozen=True, slots=True)
class Setting:
    """A number of `ClusterConfig` and how it is shown; with decimals it is no whole number."""

    name: str
    title: str
    tip: str
    minimum: float
    maximum: float
    step: float = 1.0
    decimals: int = 0


FIRST = (
    Setting("seed", "Seed", "The same seed gives the same clusters; try another one where they do not suit", 0, 99_999),
    Setting("min_clusters", "Clusters left", "It ends when no more than this many are left; fewer are coarser", 2, 64),
    Setting("iterations", "Steps at most", "It ends after this many steps, however many clusters are left", 1, 1000),
)
MORE = (
    Setting("width", "Clusters at first", "How many there can be; with fewer each step takes less time", 2, 128),
    Setting("fit_side", "Fitted at once", "Side of the square that is learned from, in pixels of 0.5 µm; larger views "
            "are learned from in part and labelled whole. Takes time and memory with its area.", 64, 1024, 64),
    Setting("learning_rate", "Learning rate", "How large a step is", 0.01, 2.0, 0.05, 2),
    Setting("least_share", "Smallest share", "Smaller clusters are not counted", 0.0, 0.2, 0.001, 3),
    Setting("pseudo_label_weight", "Decidedness", "How much each pixel is to belong to one cluster", 0.0, 20.0, 0.5, 1),
    Setting("spatial_weight", "Smoothness", "How much neighbours are to belong together", 0.0, 20.0, 0.5, 1),
    Setting("affine_weight", "Turned alike", "How much a turned view is to be clustered alike", 0.0, 20.0, 0.1, 1),
    Setting("boundary_weight", "Coarseness", "How much fine detail is to be left out", 0.0, 20.0, 0.5, 1),
)  # fmt: skip
SIDE = "fit_side"


class ClusterForm(QWidget):
    """Controls of the settings; `config` is what they say."""

    def __init__(self) -> None:
        super().__init__()
        self.preset = QComboBox()
        for name, title in TITLES.items():
            self.preset.addItem(title, name)
        self.preset.setToolTip(PRESET_TIP)
        self.preset.setAccessibleName("Preset")
        needs_click(self.preset)
        self.boxes: dict[str, QSpinBox | QDoubleSpinBox] = {}
        self.more_button = QPushButton("More")
        self.more_button.setCheckable(True)
        self.more_button.setToolTip("Show all settings")
        self.more = QWidget()
        grid = QGridLayout(self)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setVerticalSpacing(4)
        grid.addWidget(QLabel("Preset"), 0, 0)
        grid.addWidget(self.preset, 0, 1)
        self._add(grid, FIRST, 1)
        grid.addWidget(self.more_button, len(FIRST) + 1, 1)
        grid.setColumnStretch(1, 1)
        grid.setRowStretch(len(FIRST) + 2, 1)
        unfolded = QGridLayout(self.more)
        unfolded.setContentsMargins(0, 0, 0, 0)
        unfolded.setVerticalSpacing(2)
        self._add(unfolded, MORE, 0)
        unfolded.setRowStretch(len(MORE), 1)
        self.more.hide()
        self.more_button.toggled.connect(self._on_more_toggled)
        self.preset.activated.connect(self._on_preset_chosen)
        self._show(preset("default"))

    def _add(self, grid: QGridLayout, settings: tuple[Setting, ...], row: int) -> None:
        for place, setting in enumerate(settings, start=row):
            box = self.boxes[setting.name] = _box(setting)
            label = QLabel(setting.title)
            label.setToolTip(setting.tip)
            grid.addWidget(label, place, 0)
            grid.addWidget(box, place, 1)

    @property
    def config(self) -> ClusterConfig:
        """What is set; the rest is that of the preset."""
        values: dict[str, Any] = {name: box.value() for name, box in self.boxes.items()}
        side = values.pop(SIDE)
        for name in ("learning_rate", "least_share"):
            values[name] = round(values[name], 4)
        return replace(PRESETS[self.preset.currentData()], fit_px=side * side, **values)

    def _on_preset_chosen(self, _place: int) -> None:
        self._show(preset(self.preset.currentData()))

    def _show(self, config: ClusterConfig) -> None:
        """Show the settings of a preset; the seed stays."""
        for name, box in self.boxes.items():
            if name != "seed":
                with signals_blocked(box):
                    box.setValue(round(config.fit_px**0.5) if name == SIDE else getattr(config, name))

    def _on_more_toggled(self, on: bool) -> None:
        self.more.setVisible(on)
        self.more_button.setText("Less" if on else "More")


def _box(setting: Setting) -> QSpinBox | QDoubleSpinBox:
    """Return a control for a number."""
    if setting.decimals:
        real = QDoubleSpinBox()
        real.setDecimals(setting.decimals)
        real.setRange(setting.minimum, setting.maximum)
        real.setSingleStep(setting.step)
    box = real if setting.decimals else QSpinBox()
    if isinstance(box, QSpinBox):
        box.setRange(int(setting.minimum), int(setting.maximum))
        box.setSingleStep(int(setting.step))
        box.setSuffix(" px" if setting.name == SIDE else "")
    box.setToolTip(setting.tip)
    box.setAccessibleName(setting.title)
    box.setAlignment(Qt.AlignmentFlag.AlignRight)
    box.setMinimumWidth(84)
    needs_click(box)
    return box

"""Every parameter of a run in which a network learns from nuclei that were found by their shape, declared once."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from napari_nucleiseg.core.training.config import AugmentConfig
from napari_nucleiseg.core.training.fields import COUNT, Ranges, load_fields
from napari_nucleiseg.core.training.scales.config import UnlabelledConfig


@dataclass(frozen=True, slots=True)
class ByShapeConfig(UnlabelledConfig):
    """One run in which a network of nuclei learns from what has their shape in haematoxylin.

    Parameters
    ----------
    out : str
        Folder for the labelled windows, checkpoints, the log and the resulting weights.
    network : str
        Registry name of a network that gives nuclei.
    tissue : float
        Least share of a window that is tissue.
    windows : int
        Windows of each slide at most, of 512 pixels a side; none of them overlap. Of more than 20 slides fewer, so that
        they fit into memory: 480 in all.
    hold_out : float
        Share of the slides that is kept for measuring where `validate` is empty; of a single slide, of its windows.
    measured : int
        Windows that are measured on at most.
    batch_size, steps : int
        Crops a step, optimisation steps.
    crop_px : int
        Side of a crop in pixels of the network.
    learning_rate, weight_decay : float
        Of AdamW, with a linear warm-up and a cosine.
    validate_every : int
        Steps between measurements.
    initial : str
        Weight file of the same network to start from; may be empty.
    augment : AugmentConfig
        How far crops are changed.
    """

    ranges: ClassVar[Ranges] = {
        **UnlabelledConfig.ranges,
        "windows": COUNT,
        "measured": COUNT,
        "crop_px": (32, math.inf),
        "validate_every": COUNT,
    }

    network: str = "nuclei"
    hold_out: float = 0.2
    batch_size: int = 8
    steps: int = 700
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    windows: int = 24
    measured: int = 8
    crop_px: int = 256
    validate_every: int = 50
    augment: AugmentConfig = field(default_factory=AugmentConfig)

    def _own_error(self) -> str | None:
        return self.augment.validation_error()


def load_by_shape_config(path: str) -> ByShapeConfig:
    """Read a configuration from a JSON file; relative paths are taken from its folder.

    Raises
    ------
    DataError
        If the file cannot be read, or a field is unknown or of another type.
    """
    return load_fields(ByShapeConfig, path, "a run that learns from shapes").seen_from(Path(path).parent)

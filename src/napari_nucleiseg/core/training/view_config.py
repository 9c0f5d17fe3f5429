"""What self-distillation, warm starts and masked autoencoders are told alike: they learn from views of patches."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from napari_nucleiseg.core.training.fields import ANY, COUNT, SHARE, Ranges
from napari_nucleiseg.core.training.scales.config import UnlabelledConfig


@dataclass(frozen=True, slots=True)
class ViewConfig(UnlabelledConfig):
    """A run that learns from views; each recipe has its own defaults, and further fields.

    Parameters
    ----------
    patches : int
        Patches that are read at the start and kept in memory, 3 bytes a pixel.
    flip : float
        Share of views that are mirrored left to right.
    turns : bool
        Whether views are turned by quarters, too, since tissue has no up and down.
    learning_rate, last_learning_rate : float
        Of AdamW after the warm-up, and at the end of the cosine.
    warmup : float
        Share of the run in which the learning rate rises.
    clip : float
        Largest norm of all gradients; 0 for no limit.
    measure_every, measured : int
        Steps between measurements on what was held out, and patches to measure on.
    checkpoint_seconds : float
        Between checkpoints.
    """

    ranges: ClassVar[Ranges] = {
        **UnlabelledConfig.ranges,
        "patches": COUNT,
        "flip": SHARE,
        "last_learning_rate": ANY,
        "warmup": SHARE,
        "clip": ANY,
        "measure_every": COUNT,
        "measured": (2, math.inf),
        "checkpoint_seconds": ANY,
    }

    patches: int = 4096
    flip: float = 0.5
    turns: bool = True
    last_learning_rate: float = 0.0
    warmup: float = 0.05
    clip: float = 0.0
    measure_every: int = 200
    measured: int = 256
    checkpoint_seconds: float = 60.0

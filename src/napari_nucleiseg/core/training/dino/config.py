"""Every parameter of self-distillation without labels, declared once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from napari_nucleiseg.core.training.fields import ANY, COUNT, SHARE, Ranges, length_problem, load_fields, scale_problem
from napari_nucleiseg.core.training.view_config import ViewConfig

# Fields that hold a least and a most, strengths of the jitter, and shares of views that are blurred.
_LENGTHS = {"global_scale": 2, "local_scale": 2, "jitter": 4, "blur": 3, "blur_px": 2}
PUBLISHED = {1: "hipt-256", 2: "hipt-4k"}
"""Encoder that each stage teaches where none is named."""


@dataclass(frozen=True, slots=True)
class DinoConfig(ViewConfig):
    """One run of self-distillation; the defaults are DINO's (Caron et al., ICCV 2021) as HIPT used them.

    Parameters
    ----------
    stage : int
        1 teaches an encoder of patches from pixels, 2 one of regions from the features of their patches.
    network : str
        Registry name of the encoder; empty for the published one of the stage: hipt-256, hipt-4k.
    params : mapping
        Parameters of the encoder's build function. Left out, ``grid`` is that of a global crop, and what the second
        stage must know of the patches comes from their encoder.
    patch_encoder : str
        Of the second stage: name or weight file of the encoder of patches.
    tissue : float
        Least share of a patch or region that is tissue.
    patches : int
        Of the first stage: patches that are read at the start and kept in memory, 3 bytes a pixel.
    regions, region_cells : int
        Of the second stage: regions whose features are kept, and most rows and columns of patches in one. Of smaller
        slides the regions are smaller, and crops of them in proportion.
    global_crops, local_crops : int
        Views of each patch or region: the teacher sees the global ones, the student all.
    global_px, local_px : int
        Of the first stage: sides of the crops after resizing.
    global_scale, local_scale : tuple of float
        Of the first stage: least and most of a patch's area that a crop covers.
    global_cells, local_cells : int
        Of the second stage: rows and columns of crops of a region with `region_cells` rows and columns.
    flip : float
        Share of crops that are mirrored left to right.
    turns : bool
        Whether crops are turned by quarters, too, since tissue has no up and down; published is no.
    jitter : tuple of float
        Largest changes of brightness, contrast, saturation and hue.
    jitter_share, grey, solarise : float
        Share of crops with changed colours, in grey, and (second view only) with bright pixels turned negative.
    blur : tuple of float
        Share of crops that are blurred: of the first view, of the other global ones, of local ones.
    blur_px : tuple of float
        Least and most standard deviation of the blur, pixels.
    head_hidden, head_bottleneck, prototypes : int
        Widths of the head: its hidden layers, its last but one, and its output.
    drop_path : float
        Share of the student's branches that are skipped (stochastic depth).
    student_temperature, teacher_temperature : float
        By which outputs are divided.
    first_teacher_temperature, temperature_warmup : float
        Where the teacher's temperature begins, and share of the run after which it has reached its value; 0 for none.
    centre_momentum : float
        Of the running mean of the teacher's outputs that is taken from them.
    batch_size, steps : int
        Patches or regions a step, in all processes together; optimisation steps. Published are 256, and 400,000 for
        the first and 200,000 for the second stage.
    learning_rate, last_learning_rate : float
        Of AdamW for a batch of 256 (others in proportion) after the warm-up, and at the end of the cosine.
    weight_decay, last_weight_decay : float
        At the start and at the end of the cosine; of matrices only.
    clip : float
        Largest norm of the gradient of each tensor; 0 for no limit.
    freeze_last : float
        Share of the run in which the prototypes stay as they are; published is one of a hundred epochs.
    ema, last_ema : float
        Share of the teacher that stays at each step, at the start and at the end of the cosine.
    measure_every, measured : int
        Steps between measurements on what was held out, and patches or regions to measure on.
    seed : int
        Seeds weights, patches and crops.
    initial : str
        Weight file of an encoder to start from; may be empty.
    """

    ranges: ClassVar[Ranges] = {
        **ViewConfig.ranges,
        "stage": (1, 2),
        "regions": COUNT,
        "region_cells": (2, math.inf),
        "global_crops": (2, math.inf),
        "local_crops": ANY,
        "global_px": (16, math.inf),
        "local_px": (16, math.inf),
        "global_cells": (2, math.inf),
        "local_cells": COUNT,
        "jitter_share": SHARE,
        "grey": SHARE,
        "solarise": SHARE,
        "head_hidden": COUNT,
        "head_bottleneck": COUNT,
        "prototypes": (2, math.inf),
        "drop_path": (0.0, 0.9),
        "student_temperature": (1e-3, 10.0),
        "teacher_temperature": (1e-3, 10.0),
        "first_teacher_temperature": (1e-3, 10.0),
        "temperature_warmup": SHARE,
        "centre_momentum": SHARE,
        "last_weight_decay": ANY,
        "freeze_last": SHARE,
        "ema": SHARE,
        "last_ema": SHARE,
    }

    stage: int = 1
    patch_encoder: str = ""
    patches: int = 2048
    regions: int = 256
    region_cells: int = 16
    global_crops: int = 2
    local_crops: int = 8
    global_px: int = 224
    local_px: int = 96
    global_scale: tuple[float, ...] = (0.4, 1.0)
    local_scale: tuple[float, ...] = (0.05, 0.4)
    global_cells: int = 14
    local_cells: int = 6
    turns: bool = False
    jitter: tuple[float, ...] = (0.4, 0.4, 0.2, 0.1)
    jitter_share: float = 0.8
    grey: float = 0.2
    solarise: float = 0.2
    blur: tuple[float, ...] = (1.0, 0.1, 0.5)
    blur_px: tuple[float, ...] = (0.1, 2.0)
    head_hidden: int = 2048
    head_bottleneck: int = 256
    prototypes: int = 65_536
    drop_path: float = 0.1
    student_temperature: float = 0.1
    teacher_temperature: float = 0.04
    first_teacher_temperature: float = 0.04
    temperature_warmup: float = 0.0
    centre_momentum: float = 0.9
    steps: int = 400_000
    learning_rate: float = 5e-4
    last_learning_rate: float = 1e-6
    warmup: float = 0.1
    weight_decay: float = 0.04
    last_weight_decay: float = 0.4
    clip: float = 3.0
    freeze_last: float = 0.01
    ema: float = 0.996
    last_ema: float = 1.0
    measured: int = 64

    @property
    def encoder_name(self) -> str:
        """Registry name of the encoder that learns."""
        return self.network or PUBLISHED[self.stage]

    @property
    def views(self) -> int:
        """Crops of each patch or region."""
        return self.global_crops + self.local_crops

    def _own_error(self) -> str | None:
        """Return what is wrong with crops and stage."""
        return length_problem(self, _LENGTHS) or self._crop_error() or self._stage_error()

    def _files(self) -> tuple[str, ...]:
        # An encoder that is called by its name has no path.
        return ("initial", "patch_encoder") if self.patch_encoder.endswith(".safetensors") else ("initial",)

    def _crop_error(self) -> str | None:
        """Return what is wrong with the crops."""
        if problem := scale_problem(self, ("global_scale", "local_scale"), "0.4 and 1"):
            return problem
        if not 0 < self.blur_px[0] <= self.blur_px[1]:
            return "blur_px must be a least and a most above 0, such as 0.1 and 2"
        if max(self.blur) > 1 or max(self.jitter[:3]) > 1 or self.jitter[3] > 0.5:
            return "blur and jitter must lie between 0 and 1, the hue (the last of jitter) between 0 and 0.5"
        if max(self.global_cells, self.local_cells) > self.region_cells:
            return (
                f"crops of {max(self.global_cells, self.local_cells)} cells are larger than regions of "
                f"{self.region_cells}; choose smaller crops "
                "(global_cells, local_cells) or larger regions (region_cells)"
            )
        return None

    def _stage_error(self) -> str | None:
        """Return what does not fit the stage."""
        if self.stage == 2 and not self.patch_encoder:
            return "the second stage needs the encoder of patches that the first has made (patch_encoder)"
        if self.stage == 1 and self.patch_encoder:
            return "an encoder of patches is for the second stage; choose stage 2 or leave patch_encoder out"
        return None


def load_dino_config(path: str) -> DinoConfig:
    """Read a configuration from a JSON file; relative paths are taken from its folder.

    Raises
    ------
    DataError
        If the file cannot be read, or a field is unknown or of another type.
    """
    return load_fields(DinoConfig, path, "a run of self-distillation").seen_from(Path(path).parent)

"""Every parameter of pretraining by scale classification, declared once."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Self

from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.slides.pixelsize import LARGEST_MPP_UM, SMALLEST_MPP_UM, is_plausible
from napari_nucleiseg.core.training.config import resolved
from napari_nucleiseg.core.training.fields import ANY, COUNT, SHARE, Ranges, load_fields, settings_problem

_REGION = re.compile(r"-?\d+:-?\d+:\d+:\d+")
LOSS_NAMES = ("scale", "smoothness", "equivariance", "scale_equivariance", "haematoxylin", "self_training", "shape")
"""Terms of the loss: the first four are the paper's, the last three are ours."""
SHAPED = MappingProxyType({"scale": 1.0, "smoothness": 0.1, "equivariance": 1.0, "shape": 1.0})
"""Terms with which nuclei are found best; where there is no haematoxylin, take those of the paper."""


@dataclass(frozen=True, slots=True)
class SlideSet:
    """A slide, a picture, or a folder of them, without labels.

    Parameters
    ----------
    path : str
        Where it lies.
    mpp_um : float or None
        Micrometres per pixel where the file does not say it.
    include : tuple of str
        Of a folder: glob patterns of names without ending; default all.
    regions : tuple of str
        Parts to take crops from, each ``y:x:height:width`` in level-0 pixels; default all tissue.
    licence : str
        SPDX identifier; ends up in the card of what is trained on it.
    name : str
        For people; default the name of the file or folder.
    """

    path: str
    mpp_um: float | None = None
    include: tuple[str, ...] = ("*",)
    regions: tuple[str, ...] = ()
    licence: str = ""
    name: str = ""

    @property
    def title(self) -> str:
        """Name for people."""
        return self.name or Path(self.path).name

    @property
    def boxes(self) -> tuple[Region, ...]:
        """The regions, level-0 pixels."""
        return tuple(Region(*map(int, text.split(":"))) for text in self.regions)

    def validation_error(self) -> str | None:
        """Return what is wrong as a sentence, or None."""
        if not self.path:
            return "a slide needs a path"
        if strange := [text for text in self.regions if not _REGION.fullmatch(text)]:
            return f"{strange[0]} is no region; write y:x:height:width in whole pixels, such as 2000:1000:4096:4096"
        if self.mpp_um is not None and not is_plausible(self.mpp_um):
            return (
                f"{self.mpp_um} micrometres per pixel cannot be right for {self.title}: mpp_um must lie between "
                f"{SMALLEST_MPP_UM} and {LARGEST_MPP_UM:g} (0.25 for most 40x scans, 0.5 for 20x)"
            )
        return None


@dataclass(frozen=True, slots=True)
class UnlabelledConfig:
    """What every run without labels is told; each recipe has its own defaults, and further fields.

    Parameters
    ----------
    out : str
        Folder for checkpoints, the log and the resulting weights.
    network : str
        Registry name of what learns.
    params : mapping
        Parameters of its build function.
    slides, validate : tuple of SlideSet
        What to learn from, and what to measure on.
    hold_out : float
        Share of the slides that is kept for measuring where `validate` is empty.
    tissue : float
        Least share of a patch that is tissue.
    batch_size, steps : int
        Patches a step, in all processes together; optimisation steps.
    learning_rate : float
        Of the optimiser.
    weight_decay : float
        Of matrices only.
    seed : int
        Seeds weights, patches, views and masks.
    device : str
        ``auto``, ``cpu``, ``cuda`` or ``mps``.
    mixed_precision : bool
        bfloat16 autocast where the hardware has it.
    threads : int
        Threads of torch on the CPU; 0 leaves torch's choice.
    initial : str
        Weight file to start from; may be empty.
    resume : bool
        Go on from the last checkpoint in `out` if there is one.
    """

    ranges: ClassVar[Ranges] = {
        "hold_out": (0.0, 0.9),
        "tissue": SHARE,
        "batch_size": (2, math.inf),
        "steps": COUNT,
        "learning_rate": ANY,
        "weight_decay": ANY,
        "seed": (0, 2**63 - 1),
        "threads": ANY,
    }

    out: str = "pretraining"
    network: str = ""
    params: Mapping[str, int | float | str | bool] = field(default_factory=dict)
    slides: tuple[SlideSet, ...] = ()
    validate: tuple[SlideSet, ...] = ()
    hold_out: float = 0.1
    tissue: float = 0.5
    batch_size: int = 256
    steps: int = 100_000
    learning_rate: float = 1e-4
    weight_decay: float = 0.05
    seed: int = 0
    device: str = "auto"
    mixed_precision: bool = True
    threads: int = 0
    initial: str = ""
    resume: bool = True

    def validation_error(self) -> str | None:
        """Return what is wrong as a sentence, or None."""
        if problem := settings_problem(self, self.ranges):
            return problem
        if not self.out:
            return "name a folder for the weights (out)"
        problems = (item.validation_error() for item in (*self.slides, *self.validate))
        return next(filter(None, problems), None) or self._own_error()

    def _own_error(self) -> str | None:
        """Return what is wrong with the fields of the recipe."""
        return None

    def _files(self) -> tuple[str, ...]:
        """Return the names of the fields that hold a path, beside slides."""
        return ("initial",)

    def seen_from(self, base: Path) -> Self:
        """Return the same; relative paths are taken from a folder."""

        def at(path: str) -> str:
            return resolved(path, base) if path else ""

        files: dict[str, Any] = {name: at(getattr(self, name)) for name in self._files()}
        for name in ("slides", "validate"):
            files[name] = tuple(replace(item, path=at(item.path)) for item in getattr(self, name))
        return replace(self, **files)


@dataclass(frozen=True, slots=True)
class ScaleConfig(UnlabelledConfig):
    """One run of pretraining by scale classification; the defaults are the paper's where nothing else is said.

    Parameters
    ----------
    out : str
        Folder for checkpoints, the log, attention maps and the resulting weights.
    network : str
        Registry name: scale-attention as published, scale-attention-fast at half resolution.
    params : mapping
        Parameters of the network's build function.
    magnifications : tuple of float
        To tell apart; 40 stands for 0.25 um per pixel. Each is the slide's own pixel size times a power of two.
    tissue : float
        Least share of a crop that is tissue.
    reinhard : float
        Share of crops whose colours are brought to those of one target picture (Reinhard et al. 2001) after their
        brightness was made alike; 1 in the paper. Where it is below 1 the network also learns a slide's own colours,
        which are what it is given later.
    stain_target : str
        The target picture; empty for the built-in colours.
    hed_jitter : float
        Standard deviation of the factor by which each stain is multiplied.
    losses : mapping of str to float
        Weight of each term, 0 or left out switches it off: scale (cross-entropy), smoothness (L1 total variation),
        equivariance (mirror images and turns), scale_equivariance (half size); of ours haematoxylin (A goes with that
        stain), self_training (pixels of which all views are sure) and shape (A at the highest magnification lies on
        plump regions of that stain with sharp rims). With shape the level stays 0: how many pixels are looked at is
        what the regions say, no stated share.
    sure : float
        Attention above which, or one minus it below which, a pixel is sure; of self_training.
    own_tau : bool
        Whether each crop is looked at around its own level while learning. Published is the mean of the batch, under
        which the magnification can also be told from how many pixels are looked at.
    settled_tau : bool
        Whether the level of what is kept is measured with the weights as they are kept, on crops of the highest
        magnification. Published is the running mean of training batches, which lags behind the weights and is not
        that of their moving average or of the statistics that normalise in use.
    crop_px, batch_size, steps : int
        Side of a crop, crops a step, optimisation steps.
    learning_rate, weight_decay : float
        Of Adam.
    drops : tuple of int
        Steps at which the learning rate becomes a tenth.
    ema : float
        Decay of a moving average of the weights, which is then what is measured and kept; 0 keeps the weights.
    classifier_width : int
        Width of the classifier, a ResNet; 64 is ResNet-34.
    imagenet : str
        Weights to start the classifier from: a file with torchvision's tensor names, ``download``, or empty for none.
    validate_every, validation_crops : int
        Steps between measurements, crops of each magnification to measure on.
    checkpoint_every : int
        Steps between checkpoints.
    seed : int
        Seeds weights, crops and augmentation.
    initial : str
        Weight file, or checkpoint (``last.pt``, with the classifier), to start from; may be empty.
    """

    ranges: ClassVar[Ranges] = {
        **UnlabelledConfig.ranges,
        "reinhard": SHARE,
        "hed_jitter": SHARE,
        "crop_px": (32, math.inf),
        "ema": SHARE,
        "sure": (0.5, 1.0),
        "validate_every": COUNT,
        "validation_crops": COUNT,
        "checkpoint_every": COUNT,
        "classifier_width": COUNT,
    }

    network: str = "scale-attention"
    hold_out: float = 0.2
    magnifications: tuple[float, ...] = (10.0, 20.0, 40.0)
    tissue: float = 0.9
    reinhard: float = 0.5
    stain_target: str = ""
    hed_jitter: float = 0.03
    losses: Mapping[str, float] = field(default_factory=lambda: {"scale": 1.0, "smoothness": 1.0, "equivariance": 1.0})
    sure: float = 0.9
    own_tau: bool = False
    settled_tau: bool = True
    crop_px: int = 160
    batch_size: int = 32
    steps: int = 20_000
    learning_rate: float = 2e-4
    weight_decay: float = 1e-4
    drops: tuple[int, ...] = (30_000, 60_000)
    ema: float = 0.0
    classifier_width: int = 64
    imagenet: str = ""
    validate_every: int = 200
    validation_crops: int = 32
    checkpoint_every: int = 100

    def weight(self, term: str) -> float:
        """Return the weight of a term of the loss."""
        return float(self.losses.get(term, 0.0))

    @property
    def level_is_fixed(self) -> bool:
        """Whether tau stays 0, for A is told where nuclei are."""
        return self.weight("shape") > 0

    @property
    def looks_at_own_level(self) -> bool:
        """Whether each crop is looked at around its own level while learning."""
        return self.own_tau and not self.level_is_fixed

    @property
    def settles_level(self) -> bool:
        """Whether the level of what is kept is measured with its weights."""
        return self.settled_tau and not self.level_is_fixed

    def rate(self, step: int) -> float:
        """Return the learning rate of a step, counted from 1."""
        return self.learning_rate * math.prod(0.1 for drop in self.drops if step > drop)

    def _own_error(self) -> str | None:
        return self._scale_error() or self._loss_error()

    def _files(self) -> tuple[str, ...]:
        return tuple(name for name in ("stain_target", "imagenet", "initial") if getattr(self, name) != "download")

    def _scale_error(self) -> str | None:
        """Return what is wrong with the magnifications."""
        powers = self.magnifications
        if len(set(powers)) < 2 or not all(math.isfinite(power) and power > 0 for power in powers):
            return "scale classification needs at least two magnifications, such as 10, 20 and 40"
        steps = [math.log2(power / powers[0]) for power in powers]
        if len({round(step) for step in steps}) < len(powers) or any(abs(step - round(step)) > 1e-6 for step in steps):
            return f"magnifications must differ by factors of two, such as 10, 20 and 40, not {_listed(powers)}"
        return None

    def _loss_error(self) -> str | None:
        """Return what is wrong with the weights of the loss."""
        strange = sorted(self.losses.keys() - set(LOSS_NAMES))
        if strange:
            return f"there is no loss called {strange[0]}; there are {', '.join(LOSS_NAMES)}"
        if any(not (math.isfinite(weight) and weight >= 0) for weight in self.losses.values()):
            return "the weight of a loss must be at least 0"
        return None if any(self.losses.values()) else "at least one loss needs a weight above 0"


def judge(scores: Mapping[str, float]) -> float:
    """Return by what measured weights are chosen: how well shapes of nuclei are met, else how often a scale is told."""
    return scores.get("shape", scores["accuracy"])


def _listed(powers: tuple[float, ...]) -> str:
    return ", ".join(f"{power:g}" for power in powers)


def load_scale_config(path: str) -> ScaleConfig:
    """Read a configuration from a JSON file; relative paths are taken from its folder.

    Raises
    ------
    DataError
        If the file cannot be read, or a field is unknown or of another type.
    """
    return load_fields(ScaleConfig, path, "a run of pretraining").seen_from(Path(path).parent)

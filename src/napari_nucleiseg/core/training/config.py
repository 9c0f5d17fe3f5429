"""Every parameter of a training run, declared once; the CLI and the GUI make their forms from these fields."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from napari_nucleiseg.core.errors import DataError
from napari_nucleiseg.core.slides.pixelsize import LARGEST_MPP_UM, SMALLEST_MPP_UM, is_plausible
from napari_nucleiseg.core.training.fields import ANY, load_fields, range_problem, read_fields

_LEAST_Z_UM, _MOST_Z_UM = 0.01, 100.0
# Least and most of what a field of a data set, of the augmentation and of a run may be.
_DATA_RANGES = {"nucleus_um": (0.5, 100.0), "share": ANY}
_AUGMENT_RANGES = {
    "scale": ANY,
    "elastic_um": ANY,
    "stain": ANY,
    "stain_transfer": (0.0, 1.0),
    "colour": ANY,
    "blur_px": ANY,
    "noise": (0.0, 1.0),
    "jpeg": (0.0, 1.0),
}
_RUN_RANGES = {
    "border_weight": ANY,
    "border_sigma_um": (0.01, math.inf),
    "focal_gamma": ANY,
    "dice": ANY,
    "tversky_alpha": ANY,
    "tversky_beta": ANY,
    "deep_supervision": (0.0, 1.0),
    "crop_px": (32, math.inf),
    "batch_size": (1, math.inf),
    "steps": (1, math.inf),
    "momentum": (0.0, 1.0),
    "learning_rate": ANY,
    "weight_decay": ANY,
    "warmup": ANY,
    "ema": (0.0, 1.0),
    "validate_every": (1, math.inf),
    "seed": (0, 2**63 - 1),
    "threads": ANY,
    "self_training": (0.0, 1.0),
    "threshold": (0.01, 0.99),
    "min_area_um2": ANY,
}
# What the loss of a foreground head may be the sum of; `core.training.losses` has them by these names.
LOSS_TERMS = (
    "cross_entropy",
    "weighted_cross_entropy",
    "focal",
    "dice",
    "tversky",
    "iou",
    "ms_ssim",
    "boundary",
)
CROPS_ON = ("auto", "cpu", "device")


@dataclass(frozen=True, slots=True)
class DataSet:
    """A folder with ``images/`` and ``labels/`` whose files pair up by stem.

    Parameters
    ----------
    path : str
        The folder.
    mpp_um : float or None
        Micrometres per pixel. None where it is not known: each image is then scaled so that its median nucleus has
        `nucleus_um` as equivalent diameter.
    nucleus_um : float
        See `mpp_um`.
    include : tuple of str
        Glob patterns of stems; default all.
    share : float
        Relative probability that a crop comes from this set.
    licence : str
        SPDX identifier; ends up in the card of what is trained on it.
    name : str
        For people; default the folder's name.
    z_um : float or None
        Of stacks: micrometres from plane to plane. None takes what the files say, for `mpp_um` too.
    """

    path: str
    mpp_um: float | None
    nucleus_um: float = 7.5
    include: tuple[str, ...] = ("*",)
    share: float = 1.0
    licence: str = ""
    name: str = ""
    z_um: float | None = None

    @property
    def title(self) -> str:
        """Name for people."""
        return self.name or Path(self.path).name

    def validation_error(self) -> str | None:
        """Return what is wrong as a sentence, or None."""
        if not self.path:
            return "a data set needs the path of its folder"
        if self.mpp_um is not None and not is_plausible(self.mpp_um):
            return (
                f"{self.mpp_um} micrometres per pixel cannot be right for the data set {self.title}: mpp_um must lie "
                f"between {SMALLEST_MPP_UM} and {LARGEST_MPP_UM:g} (0.25 for most 40x scans, 0.5 for 20x), or be none "
                "where it is not known"
            )
        if self.z_um is not None and not _LEAST_Z_UM <= self.z_um <= _MOST_Z_UM:
            return f"planes of {self.title} cannot lie {self.z_um} micrometres apart: give z_um in micrometres"
        return range_problem(self, _DATA_RANGES, f"the data set {self.title}")


@dataclass(frozen=True, slots=True)
class AugmentConfig:
    """How far a crop may be changed; 0 switches a change off.

    Parameters
    ----------
    scale : float
        Largest factor of magnification up or down.
    elastic_um : float
        Standard deviation of the elastic displacement, micrometres (Ronneberger et al. 2015 used 10 px).
    stain : float
        Standard deviation of the log gain of each stain's optical density.
    stain_transfer : float
        Probability of moving the colours of the crop to those of a random other picture.
    colour : float
        Strength of brightness, contrast, saturation and gamma changes.
    blur_px : float
        Largest Gaussian sigma, model pixels.
    noise : float
        Largest standard deviation of noise, fraction of 255.
    jpeg : float
        Probability of a JPEG round trip at quality 30 to 90.
    """

    scale: float = 1.4
    elastic_um: float = 1.5
    stain: float = 0.25
    stain_transfer: float = 0.3
    colour: float = 0.15
    blur_px: float = 1.2
    noise: float = 0.03
    jpeg: float = 0.2

    def validation_error(self) -> str | None:
        """Return what is wrong as a sentence, or None."""
        return range_problem(self, _AUGMENT_RANGES, "the augmentation")


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """One training run.

    Parameters
    ----------
    out : str
        Folder for checkpoints, the log and the resulting weights.
    network : str
        Registry name.
    params : mapping
        Parameters of the network's build function.
    train, validate : tuple of DataSet
        What to learn from, and what to choose the best weights by.
    unlabelled : str
        Folder of pictures whose colours serve as targets of stain transfer; may be empty.
    unlabelled_exclude : tuple of str
        Glob patterns of stems in `unlabelled` to leave out (for their licence, say).
    losses : mapping of str to float
        Weight of each head's loss; heads that are not named are not trained, heads that only other networks
        have are passed over.
    border_weight : float
        w0 of the border weight map (Ronneberger et al. 2015); 0 switches it off.
    border_sigma_um : float
        Sigma of that map in micrometres.
    class_balance : bool
        Whether foreground and background count the same in the border-weighted cross-entropy (w_c of that paper).
    focal_gamma : float
        Gamma of the focal term of foreground heads; 0 is plain cross-entropy (Lin et al. 2017).
    dice : float
        Weight of the soft Dice loss beside cross-entropy on foreground heads.
    terms : mapping of str to float
        What the loss of foreground heads is the sum of, with the weight of each: `cross_entropy`,
        `weighted_cross_entropy` (classes balanced, border weights), `focal` (with focal_gamma), `dice`, `tversky`,
        `iou`, `ms_ssim` (structural similarity at five scales) and `boundary` (cross-entropy along outlines; Wei et
        al., AAAI 2020). Empty means cross-entropy with focal_gamma, and Dice with its weight.
    tversky_alpha, tversky_beta : float
        What a false and a missed pixel cost in that term (Salehi et al. 2017).
    deep_supervision : float
        Networks that say what they see at coarser levels too learn by it: level k counts this number to the power of
        k. 0 passes over it.
    crop_px, batch_size, steps : int
        Side of a crop's output in model pixels, crops a step, optimisation steps.
    momentum : float
        Above 0: stochastic gradient descent with this momentum (0.99 in Ronneberger et al. 2015) in place of AdamW.
    learning_rate, weight_decay, warmup, ema
        AdamW (or see `momentum`) with linear warm-up, cosine decay and an exponential moving average of the weights.
    validate_every : int
        Steps between validations.
    seed : int
        Seeds weights, crops and augmentation.
    device : str
        ``auto``, ``cpu``, ``cuda`` or ``mps``.
    mixed_precision : bool
        bfloat16 autocast where the hardware has it.
    threads : int
        Threads of torch on the CPU; 0 leaves torch's choice.
    self_training : float
        Weight of pixels that nobody annotated (labels below 0): where the moving average of the network is sure of what
        it sees in the crop before its colours are changed, the network is taught to say the same after (mean teacher,
        Tarvainen and Valpola, NeurIPS 2017). 0 passes over them.
    crops_on : str
        Where crops are cut and coloured: ``auto`` is the network's own device if that is a GPU, ``cpu``, ``device``.
    mean, std : tuple of float
        Normalisation of RGB in 0..1, three numbers each; empty means the network's own.
    decoder : str
        What turns heads into nuclei; empty means the network's own.
    threshold, min_area_um2 : float
        Of the decoder, in validation and as the defaults of the weights: see `DecodeOptions`.
    initial : str
        Weight file to start from; may be empty. In a file, like all data, relative to the file's folder.
    resume : bool
        Go on from the last checkpoint in `out` if there is one.
    augment : AugmentConfig
        Augmentation.
    """

    out: str = "training"
    network: str = "nuclei"
    params: Mapping[str, int | float | str | bool] = field(default_factory=dict)
    train: tuple[DataSet, ...] = ()
    validate: tuple[DataSet, ...] = ()
    unlabelled: str = ""
    unlabelled_exclude: tuple[str, ...] = ()
    losses: Mapping[str, float] = field(
        default_factory=lambda: {"nuclei": 1.0, "offsets": 1.0, "distance": 1.0, "separated": 0.5, "hover": 1.0}
    )
    border_weight: float = 10.0
    border_sigma_um: float = 1.25
    class_balance: bool = False
    focal_gamma: float = 0.0
    dice: float = 1.0
    terms: Mapping[str, float] = field(default_factory=dict)
    tversky_alpha: float = 0.3
    tversky_beta: float = 0.7
    deep_supervision: float = 0.5
    crop_px: int = 256
    batch_size: int = 8
    steps: int = 2000
    momentum: float = 0.0
    learning_rate: float = 2e-3
    weight_decay: float = 1e-2
    warmup: int = 100
    ema: float = 0.998
    validate_every: int = 200
    seed: int = 0
    device: str = "auto"
    mixed_precision: bool = True
    threads: int = 0
    self_training: float = 0.0
    crops_on: str = "auto"
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    decoder: str = ""
    threshold: float = 0.5
    min_area_um2: float = 8.0
    initial: str = ""
    resume: bool = True
    augment: AugmentConfig = field(default_factory=AugmentConfig)

    def validation_error(self) -> str | None:
        """Return what is wrong as a sentence, or None."""
        try:
            read_fields(TrainConfig, self)
        except DataError as error:
            return str(error)
        if not self.out:
            return "name a folder for the weights (out)"
        if self.crops_on not in CROPS_ON:
            return f"crops_on must be {', '.join(CROPS_ON[:-1])} or {CROPS_ON[-1]}, not {self.crops_on}"
        if not self.train:
            return "name at least one data set to train on (a folder with images/ and labels/)"
        parts: tuple[DataSet | AugmentConfig, ...] = (*self.train, *self.validate, self.augment)
        problem = next(filter(None, (part.validation_error() for part in parts)), None)
        return problem or range_problem(self, _RUN_RANGES) or self._weights_error() or self._normalisation_error()

    def _normalisation_error(self) -> str | None:
        """Return what is wrong with mean and std."""
        if not self.mean and not self.std:
            return None
        if len(self.mean) != 3 or len(self.std) != 3:
            return "mean and std are three numbers each, for red, green and blue in 0..1, or both are left out"
        sane = all(0 <= mean <= 1 and 0.001 <= std <= 1 for mean, std in zip(self.mean, self.std, strict=True))
        return None if sane else f"mean and std must lie within 0..1, std above 0, not {self.mean} and {self.std}"

    def _weights_error(self) -> str | None:
        """Return what is wrong with the weights of data sets and losses."""
        if not any(item.share for item in self.train):
            return "at least one data set to train on needs a share above 0"
        for name, weight in (*self.losses.items(), *self.terms.items()):
            if not (math.isfinite(weight) and weight >= 0):
                return f"the weight of the loss {name} must be at least 0, not {weight}"
        if not any(self.losses.values()):
            return "at least one loss needs a weight above 0"
        return self._terms_error() if self.terms else None

    def _terms_error(self) -> str | None:
        """Return what is wrong with the terms of foreground heads."""
        if strange := sorted(self.terms.keys() - set(LOSS_TERMS)):
            return f"there is no term {' or '.join(strange)}; terms can name {', '.join(LOSS_TERMS)}"
        if not any(self.terms.values()):
            return "at least one term needs a weight above 0, or leave terms out"
        if self.terms.get("focal") and not self.focal_gamma:
            return "the term focal needs focal_gamma above 0 (2 in Lin et al. 2017); at 0 it is cross_entropy"
        return None


def load_config(path: str) -> TrainConfig:
    """Read a configuration from a JSON file; relative paths of what is read are taken from its folder.

    Raises
    ------
    DataError
        If the file cannot be read, or a field is unknown, missing or of another type.
    """
    config = load_fields(TrainConfig, path, "a training run")
    base = Path(path).parent
    return _with_paths(config, lambda given: resolved(given, base))


def _with_paths(config: TrainConfig, placed: Callable[[str], str]) -> TrainConfig:
    """Return the same with each path that is read, and not empty, put through `placed`."""

    def at(path: str) -> str:
        return placed(path) if path else ""

    return replace(
        config,
        train=tuple(replace(item, path=at(item.path)) for item in config.train),
        validate=tuple(replace(item, path=at(item.path)) for item in config.validate),
        unlabelled=at(config.unlabelled),
        initial=at(config.initial),
    )


def resolved(path: str, base: Path) -> str:
    """Expand environment variables and take a relative path from the configuration's folder."""
    expanded = os.path.expandvars(path)
    if "$" in expanded:
        raise DataError(f"set the environment variable in {path} to the folder that holds the data")
    return str(base / expanded)


def config_as_json(config: object) -> str:
    """Write the configuration of a run down so that what loads such configurations reads the same.

    The file may lie anywhere, so paths of what a training reads are written absolute.
    """
    if isinstance(config, TrainConfig):
        config = _with_paths(config, lambda given: str(Path(given).absolute()))
    return json.dumps(asdict(config), indent=2)  # type: ignore[call-overload] # a dataclass

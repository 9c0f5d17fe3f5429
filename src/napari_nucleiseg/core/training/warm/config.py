"""Every parameter of a warm start, declared once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from napari_nucleiseg.core.training.config import resolved
from napari_nucleiseg.core.training.fields import length_problem, load_fields, scale_problem, settings_problem
from napari_nucleiseg.core.training.scales.config import SlideSet, slides_from

SIMCLR, MOCO, SWIN_UNETR, MASKED = "simclr", "moco", "swin-unetr", "masked"
CONTRASTIVE = (SIMCLR, MOCO, SWIN_UNETR)
METHODS = (*CONTRASTIVE, MASKED)
ENCODER, NETWORK = PARTS = ("encoder", "network")
_ANY, _SHARE = (0.0, math.inf), (0.0, 1.0)
_COUNT = (1, math.inf)
_RANGES = {
    "hold_out": (0.0, 0.9),
    "tissue": _SHARE,
    "patches": (2, math.inf),
    "patch_px": (16, math.inf),
    "view_px": (16, math.inf),
    "flip": _SHARE,
    "jitter_share": _SHARE,
    "grey": _SHARE,
    "stain": _SHARE,
    "blur": _SHARE,
    "hidden": _COUNT,
    "projection": _COUNT,
    "temperature": (1e-3, 10.0),
    "memory": _COUNT,
    "momentum": _SHARE,
    "mask_px": _COUNT,
    "mask_share": (0.01, 0.99),
    "batch_size": (2, math.inf),
    "steps": _COUNT,
    "learning_rate": _ANY,
    "last_learning_rate": _ANY,
    "warmup": _SHARE,
    "weight_decay": _ANY,
    "clip": _ANY,
    "measure_every": _COUNT,
    "measured": (2, math.inf),
    "checkpoint_seconds": _ANY,
    "seed": (0, 2**63 - 1),
    "threads": _ANY,
}
_LENGTHS = {"view_scale": 2, "jitter": 4, "blur_px": 2}


@dataclass(frozen=True, slots=True)
class WarmConfig:
    """One run that makes a warm start.

    Parameters
    ----------
    out : str
        Folder for checkpoints, the log and the resulting weights.
    method : str
        ``simclr`` and ``moco`` tell the views of a patch from those of all others, ``swin-unetr`` does that, finds out
        how a view was turned, and fills what was cut out; ``masked`` fills what was covered.
    network : str
        Registry name of the network that will be trained with labels.
    params : mapping
        Parameters of the network's build function; the same must be given to the training with labels.
    part : str
        What learns: the ``encoder``, up to the coarsest feature map, or (masked only) the ``network`` up to its last
        convolution.
    slides, validate : tuple of SlideSet
        What to learn from, and what to measure on.
    hold_out : float
        Share of the slides that is kept for measuring where `validate` is empty.
    tissue : float
        Least share of a patch that is tissue.
    patches : int
        Patches that are read at the start and kept in memory, 3 bytes a pixel.
    patch_px, view_px : int
        Sides of a patch and of the views of it, pixels of the network.
    view_scale : tuple of float
        Least and most of a patch's area that a view covers.
    flip : float
        Share of views that are mirrored left to right.
    turns : bool
        Whether views are turned by quarters, too, since tissue has no up and down.
    jitter : tuple of float
        Largest changes of brightness, contrast, saturation and hue.
    jitter_share, grey : float
        Share of views with changed colours, and in grey; of masked views none is in grey.
    stain : float
        Standard deviation of the log gain of each stain.
    blur : float
        Share of views that are blurred; of masked ones none is.
    blur_px : tuple of float
        Least and most standard deviation of the blur, pixels.
    hidden, projection : int
        Widths of the head of contrast: its hidden layer and its output.
    temperature : float
        By which similarities are divided.
    memory : int
        Of moco: keys that are remembered to be told from, published 65,536.
    momentum : float
        Of moco: share of the encoder of keys that stays at each step.
    mask_px : int
        Side of the blocks that are covered or cut out.
    mask_share : float
        Share of a view that is covered (masked) or cut out (swin-unetr; published about 0.3).
    batch_size, steps : int
        Patches a step, in all processes together; optimisation steps.
    learning_rate, last_learning_rate : float
        Of AdamW after the warm-up, and at the end of the cosine.
    warmup : float
        Share of the run in which the learning rate rises.
    weight_decay : float
        Of matrices only.
    clip : float
        Largest norm of all gradients; 0 for no limit.
    measure_every, measured : int
        Steps between measurements on what was held out, and patches to measure on.
    checkpoint_seconds : float
        Between checkpoints.
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

    out: str = "warm"
    method: str = SIMCLR
    network: str = "nuclei"
    params: Mapping[str, int | float | str | bool] = field(default_factory=dict)
    part: str = ENCODER
    slides: tuple[SlideSet, ...] = ()
    validate: tuple[SlideSet, ...] = ()
    hold_out: float = 0.1
    tissue: float = 0.5
    patches: int = 4096
    patch_px: int = 192
    view_px: int = 128
    view_scale: tuple[float, ...] = (0.25, 0.75)
    flip: float = 0.5
    turns: bool = True
    jitter: tuple[float, ...] = (0.4, 0.4, 0.2, 0.05)
    jitter_share: float = 0.8
    grey: float = 0.1
    stain: float = 0.2
    blur: float = 0.3
    blur_px: tuple[float, ...] = (0.1, 1.5)
    hidden: int = 512
    projection: int = 128
    temperature: float = 0.1
    memory: int = 4096
    momentum: float = 0.99
    mask_px: int = 16
    mask_share: float = 0.5
    batch_size: int = 64
    steps: int = 5000
    learning_rate: float = 1e-3
    last_learning_rate: float = 1e-5
    warmup: float = 0.05
    weight_decay: float = 0.05
    clip: float = 5.0
    measure_every: int = 200
    measured: int = 256
    checkpoint_seconds: float = 60.0
    seed: int = 0
    device: str = "auto"
    mixed_precision: bool = True
    threads: int = 0
    initial: str = ""
    resume: bool = True

    @property
    def views(self) -> int:
        """Views of each patch."""
        return 1 if self.method == MASKED else 2

    def validation_error(self) -> str | None:
        """Return what is wrong as a sentence, or None."""
        if problem := settings_problem(self, _RANGES):
            return problem
        if not self.out:
            return "name a folder for the weights (out)"
        for name, known in (("method", METHODS), ("part", PARTS)):
            if getattr(self, name) not in known:
                return f"{name} must be {', '.join(known[:-1])} or {known[-1]}, not {getattr(self, name)}"
        if self.part == NETWORK and self.method != MASKED:
            return f"{self.method} teaches the encoder only; leave part out, or choose the method {MASKED}"
        problems = (item.validation_error() for item in (*self.slides, *self.validate))
        return next(filter(None, problems), None) or self._view_error()

    def _view_error(self) -> str | None:
        """Return what is wrong with the views."""
        if problem := length_problem(self, _LENGTHS) or scale_problem(self, ("view_scale",), "0.25 and 1"):
            return problem
        if not 0 < self.blur_px[0] <= self.blur_px[1]:
            return "blur_px must be a least and a most above 0, such as 0.1 and 2"
        if max(self.jitter[:3]) > 1 or self.jitter[3] > 0.5:
            return "jitter must lie between 0 and 1, the hue (its last) between 0 and 0.5"
        if self.view_px % self.mask_px:
            return f"views of {self.view_px} px are no multiple of blocks of {self.mask_px} px; change mask_px"
        return None


def load_warm_config(path: str) -> WarmConfig:
    """Read a configuration from a JSON file; relative paths are taken from its folder.

    Raises
    ------
    DataError
        If the file cannot be read, or a field is unknown or of another type.
    """
    config = load_fields(WarmConfig, path, "a warm start")
    base = Path(path).parent
    return replace(
        config,
        slides=slides_from(config.slides, base),
        validate=slides_from(config.validate, base),
        initial=resolved(config.initial, base) if config.initial else "",
    )

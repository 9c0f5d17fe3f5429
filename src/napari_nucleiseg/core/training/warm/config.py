"""Every parameter of a warm start, declared once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from napari_nucleiseg.core.training.fields import COUNT, SHARE, Ranges, length_problem, load_fields, scale_problem
from napari_nucleiseg.core.training.view_config import ViewConfig

SIMCLR, MOCO, SWIN_UNETR, MASKED = "simclr", "moco", "swin-unetr", "masked"
CONTRASTIVE = (SIMCLR, MOCO, SWIN_UNETR)
METHODS = (*CONTRASTIVE, MASKED)
ENCODER, NETWORK = PARTS = ("encoder", "network")
_LENGTHS = {"view_scale": 2, "jitter": 4, "blur_px": 2}


@dataclass(frozen=True, slots=True)
class WarmConfig(ViewConfig):
    """One run that makes a warm start.

    Parameters
    ----------
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
    patch_px, view_px : int
        Sides of a patch and of the views of it, pixels of the network.
    view_scale : tuple of float
        Least and most of a patch's area that a view covers.
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
    """

    ranges: ClassVar[Ranges] = {
        **ViewConfig.ranges,
        "patches": (2, math.inf),
        "patch_px": (16, math.inf),
        "view_px": (16, math.inf),
        "jitter_share": SHARE,
        "grey": SHARE,
        "stain": SHARE,
        "blur": SHARE,
        "hidden": COUNT,
        "projection": COUNT,
        "temperature": (1e-3, 10.0),
        "memory": COUNT,
        "momentum": SHARE,
        "mask_px": COUNT,
        "mask_share": (0.01, 0.99),
    }

    out: str = "warm"
    method: str = SIMCLR
    network: str = "nuclei"
    part: str = ENCODER
    patch_px: int = 192
    view_px: int = 128
    view_scale: tuple[float, ...] = (0.25, 0.75)
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
    clip: float = 5.0

    @property
    def views(self) -> int:
        """Views of each patch."""
        return 1 if self.method == MASKED else 2

    def _own_error(self) -> str | None:
        """Return what is wrong with method, part and views."""
        for name, known in (("method", METHODS), ("part", PARTS)):
            if getattr(self, name) not in known:
                return f"{name} must be {', '.join(known[:-1])} or {known[-1]}, not {getattr(self, name)}"
        if self.part == NETWORK and self.method != MASKED:
            return f"{self.method} teaches the encoder only; leave part out, or choose the method {MASKED}"
        return self._view_error()

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
    return load_fields(WarmConfig, path, "a warm start").seen_from(Path(path).parent)

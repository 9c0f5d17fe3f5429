"""Every parameter of a masked autoencoder, declared once."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from napari_nucleiseg.core.training.config import resolved
from napari_nucleiseg.core.training.fields import length_problem, load_fields, scale_problem, settings_problem
from napari_nucleiseg.core.training.scales.config import SlideSet, slides_from

_ANY, _SHARE = (0.0, math.inf), (0.0, 1.0)
_COUNT = (1, math.inf)
_RANGES = {
    "hold_out": (0.0, 0.9),
    "tissue": _SHARE,
    "patches": _COUNT,
    "view_px": (8, math.inf),
    "flip": _SHARE,
    "stain": _SHARE,
    "mask_share": (0.01, 0.99),
    "decoder_embed": (4, math.inf),
    "decoder_depth": _COUNT,
    "decoder_heads": _COUNT,
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
_LENGTHS = {"view_scale": 2}


@dataclass(frozen=True, slots=True)
class MaeConfig:
    """One run of a masked autoencoder; the defaults are published (He et al., CVPR 2022) but for steps and turns.

    Parameters
    ----------
    out : str
        Folder for checkpoints, the log and the resulting weights.
    network : str
        Registry name of the encoder of patches.
    params : mapping
        Parameters of the encoder's build function. Left out, ``grid`` is that of a view.
    slides, validate : tuple of SlideSet
        What to learn from, and what to measure on.
    hold_out : float
        Share of the slides that is kept for measuring where `validate` is empty.
    tissue : float
        Least share of a patch that is tissue.
    patches : int
        Patches that are read at the start and kept in memory, 3 bytes a pixel.
    view_px : int
        Side of a view, pixels of the encoder; a timm encoder takes no other than it was built for.
    view_scale : tuple of float
        Least and most of a patch's area that a view covers.
    flip : float
        Share of views that are mirrored left to right.
    turns : bool
        Whether views are turned by quarters, too, since tissue has no up and down; published is no.
    stain : float
        Standard deviation of the log gain of each stain; published is no change of colours.
    mask_share : float
        Share of the tokens that is left out.
    decoder_embed, decoder_depth, decoder_heads : int
        Of the transformer that fills what was left out: width of a token, a multiple of 4 and of the heads; layers;
        heads of attention in each.
    batch_size, steps : int
        Patches a step, in all processes together; optimisation steps.
    learning_rate, last_learning_rate : float
        Of AdamW for a batch of 256 (others in proportion) after the warm-up, and at the end of the cosine.
    warmup : float
        Share of the run in which the learning rate rises.
    weight_decay : float
        Of matrices only.
    clip : float
        Largest norm of all gradients; 0 for no limit, as published.
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
        Weight file of an encoder to start from; may be empty.
    resume : bool
        Go on from the last checkpoint in `out` if there is one.
    """

    out: str = "pretraining"
    network: str = "hipt-256"
    params: Mapping[str, int | float | str | bool] = field(default_factory=dict)
    slides: tuple[SlideSet, ...] = ()
    validate: tuple[SlideSet, ...] = ()
    hold_out: float = 0.1
    tissue: float = 0.5
    patches: int = 4096
    view_px: int = 224
    view_scale: tuple[float, ...] = (0.2, 1.0)
    flip: float = 0.5
    turns: bool = True
    stain: float = 0.0
    mask_share: float = 0.75
    decoder_embed: int = 512
    decoder_depth: int = 8
    decoder_heads: int = 16
    batch_size: int = 256
    steps: int = 100_000
    learning_rate: float = 1.5e-4
    last_learning_rate: float = 0.0
    warmup: float = 0.05
    weight_decay: float = 0.05
    clip: float = 0.0
    measure_every: int = 200
    measured: int = 256
    checkpoint_seconds: float = 60.0
    seed: int = 0
    device: str = "auto"
    mixed_precision: bool = True
    threads: int = 0
    initial: str = ""
    resume: bool = True

    def validation_error(self) -> str | None:
        """Return what is wrong as a sentence, or None."""
        if problem := settings_problem(self, _RANGES) or length_problem(self, _LENGTHS):
            return problem
        if not self.out:
            return "name a folder for the weights (out)"
        if problem := scale_problem(self, ("view_scale",), "0.2 and 1"):
            return problem
        if self.decoder_embed % 4 or self.decoder_embed % self.decoder_heads:
            return (
                f"decoder_embed must be a multiple of 4 and of the {self.decoder_heads} heads (decoder_heads), not "
                f"{self.decoder_embed}"
            )
        problems = (item.validation_error() for item in (*self.slides, *self.validate))
        return next(filter(None, problems), None)


def load_mae_config(path: str) -> MaeConfig:
    """Read a configuration from a JSON file; relative paths are taken from its folder.

    Raises
    ------
    DataError
        If the file cannot be read, or a field is unknown or of another type.
    """
    config = load_fields(MaeConfig, path, "a masked autoencoder")
    base = Path(path).parent
    return replace(
        config,
        slides=slides_from(config.slides, base),
        validate=slides_from(config.validate, base),
        initial=resolved(config.initial, base) if config.initial else "",
    )

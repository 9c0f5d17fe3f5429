"""Every parameter of a masked autoencoder, declared once."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from napari_nucleiseg.core.training.fields import COUNT, SHARE, Ranges, length_problem, load_fields, scale_problem
from napari_nucleiseg.core.training.view_config import ViewConfig

_LENGTHS = {"view_scale": 2}


@dataclass(frozen=True, slots=True)
class MaeConfig(ViewConfig):
    """One run of a masked autoencoder; the defaults are published (He et al., CVPR 2022) but for steps and turns.

    Parameters
    ----------
    network : str
        Registry name of the encoder of patches.
    params : mapping
        Parameters of the encoder's build function. Left out, ``grid`` is that of a view.
    view_px : int
        Side of a view, pixels of the encoder; a timm encoder takes no other than it was built for.
    view_scale : tuple of float
        Least and most of a patch's area that a view covers.
    turns : bool
        Whether views are turned by quarters, too, since tissue has no up and down; published is no.
    stain : float
        Standard deviation of the log gain of each stain; published is no change of colours.
    mask_share : float
        Share of the tokens that is left out.
    decoder_embed, decoder_depth, decoder_heads : int
        Of the transformer that fills what was left out: width of a token, a multiple of 4 and of the heads; layers;
        heads of attention in each.
    learning_rate, last_learning_rate : float
        Of AdamW for a batch of 256 (others in proportion) after the warm-up, and at the end of the cosine.
    clip : float
        Largest norm of all gradients; 0 for no limit, as published.
    initial : str
        Weight file of an encoder to start from; may be empty.
    """

    ranges: ClassVar[Ranges] = {
        **ViewConfig.ranges,
        "view_px": (8, math.inf),
        "stain": SHARE,
        "mask_share": (0.01, 0.99),
        "decoder_embed": (4, math.inf),
        "decoder_depth": COUNT,
        "decoder_heads": COUNT,
    }

    network: str = "hipt-256"
    view_px: int = 224
    view_scale: tuple[float, ...] = (0.2, 1.0)
    stain: float = 0.0
    mask_share: float = 0.75
    decoder_embed: int = 512
    decoder_depth: int = 8
    decoder_heads: int = 16
    steps: int = 100_000
    learning_rate: float = 1.5e-4

    def _own_error(self) -> str | None:
        """Return what is wrong with views and decoder."""
        if problem := length_problem(self, _LENGTHS) or scale_problem(self, ("view_scale",), "0.2 and 1"):
            return problem
        if self.decoder_embed % 4 or self.decoder_embed % self.decoder_heads:
            return (
                f"decoder_embed must be a multiple of 4 and of the {self.decoder_heads} heads (decoder_heads), not "
                f"{self.decoder_embed}"
            )
        return None


def load_mae_config(path: str) -> MaeConfig:
    """Read a configuration from a JSON file; relative paths are taken from its folder.

    Raises
    ------
    DataError
        If the file cannot be read, or a field is unknown or of another type.
    """
    return load_fields(MaeConfig, path, "a masked autoencoder").seen_from(Path(path).parent)

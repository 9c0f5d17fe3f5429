"""Views of patches for warm starts: two to be told from all others, or one to be covered."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from napari_nucleiseg.core.slides.pyramid import UInt8Image
from napari_nucleiseg.core.training.augment import jitter_stains
from napari_nucleiseg.core.training.dino.picture_crops import change, resized_crop
from napari_nucleiseg.core.training.warm.config import MASKED, WarmConfig


class WarmSamples:
    """Patches whose views teach; `Samples` of a `BatchMaker`.

    Parameters
    ----------
    patches : ndarray of uint8, shape (n, y, x, 3)
        RGB at the network's pixel size.
    config : WarmConfig
        How views are cut and changed.
    view_px : int
        Side of a view.
    """

    def __init__(self, patches: UInt8Image, config: WarmConfig, view_px: int) -> None:
        # What was covered is to be filled with its colours, sharp.
        self.config = replace(config, grey=0.0, blur=0.0) if config.method == MASKED else config
        self.patches, self.view_px = patches, view_px

    def __len__(self) -> int:
        """Return how many patches there are."""
        return len(self.patches)

    def crops(self, rng: np.random.Generator) -> tuple[list[UInt8Image], list[UInt8Image]]:
        """Return the views ``(view_px, view_px, 3)`` of a patch that `rng` chooses, and no local ones."""
        patch = self.patches[int(rng.integers(len(self.patches)))]
        return [self._view(patch, rng) for _ in range(self.config.views)], []

    def _view(self, patch: UInt8Image, rng: np.random.Generator) -> UInt8Image:
        config = self.config
        view = resized_crop(patch, self.view_px, config.view_scale, rng)
        if config.stain:
            view = jitter_stains(view, config.stain, rng)
        return change(view, config, config.blur, rng)

"""Slides whose coarse level cannot be decoded, as a viewer that has drawn it leaves them; level 0 is whole."""

import numpy as np

from napari_nucleiseg.core.geometry import YX
from napari_nucleiseg.core.slides.pyramid import Slide
from napari_nucleiseg.core.slides.tiled import TiledLevel, UnreadableTileError

FACTOR = YX(2.0, 2.0)


def broken_above(slide):
    """Return a slide with the same level 0 and a broken one of half the size, which was read before."""
    damage = []

    def tile(_row, _column):
        raise UnreadableTileError("its bytes are gone")

    height, width = slide.shape
    coarse = TiledLevel((-(-height // 2), -(-width // 2)), (64, 64), tile, downsample=FACTOR, damage=damage)
    np.asarray(coarse)
    assert damage
    return Slide(
        slide.path, (slide.levels[0], coarse), (YX(1.0, 1.0), FACTOR), slide.mpp_um, fingerprint=slide.fingerprint,
        damage=damage,
    )  # fmt: skip

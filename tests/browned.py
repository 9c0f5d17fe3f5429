"""Pictures of an immunostain whose nuclei are known: discs of haematoxylin under DAB everywhere."""

import numpy as np
from skimage.color import combine_stains, rgb_from_hdx

from dark_model import disc_picture


def browned_discs(shape, dab=0.15, discs=0.15):
    """The discs of `disc_picture` in haematoxylin, all of it under so much DAB; uint8 RGB."""
    plain = disc_picture(shape)
    grain = (plain[..., 0].astype(float) - 214) / 255 * 0.02
    is_disc = plain[..., 0] == 70
    stains = np.stack([np.where(is_disc, discs, 0.004), dab - np.where(is_disc, 0, grain), np.zeros(shape)], axis=2)
    return np.rint(combine_stains(stains, rgb_from_hdx) * 255).astype(np.uint8)

"""Rules for normalisation, augmentation, losses and decoding: each turns what was measured into one setting.

Every rule keeps the default setting where nothing could be measured: no nuclei, or one picture, which has no spread.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from napari_nucleiseg.core.decoders.base import DecodeOptions
from napari_nucleiseg.core.decoders.offsets import MAX_REACH_UM
from napari_nucleiseg.core.training.config import AugmentConfig, TrainConfig

_DEFAULT, _AUGMENT, _DECODE = TrainConfig(), AugmentConfig(), DecodeOptions()
# What the default settings were made for: tissue of which a third of the nuclei touch.
_USUAL_TOUCHING = 0.3
_LEAST_STD = 0.08


def _within(value: float, least: float, most: float) -> float:
    return min(max(value, least), most)


def share(nuclei: int, all_nuclei: Sequence[int]) -> float:
    """Draw crops from each set by the square root of its nuclei, so that a small set is seen and a large one rules.

    By number alone a small laboratory would be drowned; evenly, its few pictures would be learnt by heart.
    """
    total = sum(math.sqrt(max(count, 1)) for count in all_nuclei)
    return round(math.sqrt(max(nuclei, 1)) / total, 3)


def mean(tissue_mean: Sequence[float]) -> tuple[float, ...]:
    """Centre colours on the mean of the tissue, so that the first layer starts with inputs around zero."""
    return tuple(round(_within(value, 0.0, 1.0), 3) for value in tissue_mean)


def std(tissue_std: Sequence[float]) -> tuple[float, ...]:
    """Scale colours by the standard deviation of the tissue, but never by less than 0.08.

    So little is that of nearly uniform pictures: dividing by it would make noise of colours that the augmentation, or
    another stain, brings in.
    """
    return tuple(round(_within(value, _LEAST_STD, 0.5), 3) for value in tissue_std)


def stain(stain_spread: float, pictures: int) -> float:
    """Vary stains about as much as they vary between the pictures: slides to come will do so too.

    Pictures of one laboratory vary less than those of the next one: never below 0.1. Fewer than three pictures tell
    nothing.
    """
    return _AUGMENT.stain if pictures < 3 else round(_within(stain_spread, 0.1, 0.4), 3)


def colour(light_spread: float, pictures: int) -> float:
    """Vary light and gamma by four times the spread of the pictures' brightest parts, within 0.05..0.2.

    The brightest tenth is mostly glass, which scanners set white; tissue between varies more than that.
    """
    return _AUGMENT.colour if pictures < 3 else round(_within(4 * light_spread, 0.05, 0.2), 3)


def scale(low_um: float, high_um: float, *, mpp_given: bool) -> float:
    """Magnify by up to a quarter of the ratio of large to small nuclei beyond one, more where pixel sizes are guessed.

    Nuclei of all sizes are in the data already; the augmentation fills what lies between. A guessed pixel size is often
    wrong by a third, and so will be that of the slide to segment.
    """
    if not low_um:
        return _AUGMENT.scale
    ratio = 1 + (high_um / low_um - 1) / 4
    return round(_within(ratio, 1.1 if mpp_given else 1.4, 1.6), 3)


def elastic_um(diameter_um: float) -> float:
    """Bend by a fifth of a nucleus' diameter: enough to change its outline, too little to make it another shape."""
    return round(_within(diameter_um / 5, 0.5, 3.0), 2) if diameter_um else _AUGMENT.elastic_um


def border_weight(touching_share: float, nuclei: int) -> float:
    """Weigh borders by how many nuclei touch: w0 = 10 (Ronneberger et al., MICCAI 2015) where a third do.

    Where none touches there is no border to learn, and the weights would only favour background.
    """
    return round(10 * _within(touching_share / _USUAL_TOUCHING, 0.0, 1.5), 2) if nuclei else _DEFAULT.border_weight


def border_sigma_um(diameter_um: float) -> float:
    """Make the border's ridge a sixth of a nucleus wide: the gap that small nuclei leave is small."""
    return round(_within(diameter_um / 6, 0.5, 3.0), 2) if diameter_um else _DEFAULT.border_sigma_um


def class_balance(foreground_share: float) -> bool:
    """Balance foreground and background where less than a twentieth is nucleus, which cross-entropy would ignore."""
    return 0 < foreground_share < 0.05


def decoder(diameter_high_um: float) -> str:
    """Choose offsets, except where large nuclei are so wide that pixels near their outline vote from too far.

    A vote may miss its centre by 3 um at most; the error of an offset grows with its length, about a third of it.
    The distance to the border is learnt as a share of each nucleus, whatever its size.
    """
    return "distance" if diameter_high_um / 2 > 3 * MAX_REACH_UM else "offsets"


def threshold(diameter_low_um: float, model_mpp_um: float) -> float:
    """Lower the threshold by up to a tenth for nuclei below ten pixels: smoothing takes most from the smallest."""
    if not diameter_low_um:
        return _DECODE.threshold
    lacking = _within(1 - diameter_low_um / model_mpp_um / 10, 0.0, 1.0)
    return round(_DECODE.threshold - 0.1 * lacking, 3)


def min_area_um2(smallest_area_um2: float) -> float:
    """Drop what is smaller than half of the smallest nuclei (2 % are smaller), within 1..30 um2: dust and scraps."""
    return round(_within(smallest_area_um2 / 2, 1.0, 30.0), 2) if smallest_area_um2 else _DECODE.min_area_um2

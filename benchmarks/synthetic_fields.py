"""What benchmarks share: a field of known nuclei, what a perfect network would say of it, and the yardstick."""

import numpy as np
from scipy import ndimage

from measuring import in_turn
from napari_nucleiseg.core.decoders.base import decoder
from napari_nucleiseg.core.slides.synthetic import synthetic_slide

MPP_UM = 0.5
OFFSET_NOISE_PX = 0.7


def field(side, density_mm2, mpp_um=MPP_UM, seed=0):
    """True nuclei of solid synthetic tissue, int32 (y, x), numbered 1..n without gaps."""
    slide = synthetic_slide(side, side, mpp_um, seed, density_per_mm2=density_mm2, touching=0.2, glass=False)
    _, labels = np.unique(slide.truth_labels(slide.region), return_inverse=True)
    return labels.reshape(side, side).astype(np.int32)


def ideal_maps(labels, spec):
    """What a perfect network would say of a label image, with some noise on the offsets."""
    rng = np.random.default_rng(0)
    needed = decoder(spec.decoder)
    probabilities = {head.name for head in needed.heads if head.activation == "sigmoid"}
    maps = {}
    for name, values in needed.targets(labels).items():
        if name in probabilities:
            maps[name] = np.rint(values * 255).astype(np.uint8)
        elif name == "offsets":
            maps[name] = (values + rng.normal(0, OFFSET_NOISE_PX, values.shape) * (labels > 0)).astype(np.float16)
        else:
            maps[name] = values.astype(np.float16)
    return maps


def yardstick(rounds=3):
    """CPU milliseconds a megapixel of scipy.ndimage.label on a fixed mask, to scale figures of other machines."""
    slide = synthetic_slide(2048, 2048, 0.5, glass=False)
    mask = slide.truth_labels(slide.region) > 0
    found = in_turn({"yardstick": lambda: ndimage.label(mask)}, rounds + 2)["yardstick"]
    return found.cpu * 1e3 / (mask.size / 1e6)

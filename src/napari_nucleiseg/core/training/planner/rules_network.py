"""Rules for the network, its crops and batches: each turns measured numbers into one setting and says why.

That a run can be configured by rules from a fingerprint of its data is nnU-Net's lesson (Isensee et al., Nature Methods
2021). Its own rules are for volumes and a GPU of 8 GB; these are for nuclei, pictures, and any machine. Lengths are
micrometres or model pixels as their names say; 0 stands for what could not be measured (no nuclei, one picture).
"""

from __future__ import annotations

import math

from napari_nucleiseg.core.training.config import TrainConfig

_DEFAULT = TrainConfig()
COARSE, FINE = "nuclei", "nuclei-fine"
PIXEL_UM = {COARSE: 0.5, FINE: 0.25}

# Sides of crops must be multiples of this: what the network's tiles are made of.
SIDE_STEP_PX = 32
_SMALLEST_SIDE_PX, _LARGEST_SIDE_PX = 96, 512
_DEEPEST, _COARSEST_EDGE_PX = 4, 4
_STEM = 2
# In one minute of one core both pixel sizes found the nuclei of NuCLS equally well.
_FINE_MINUTES = 10


def network(diameter_um: float, mpp_um: float, minutes: float) -> str:
    """Choose pixels of 0.25 um where nuclei would be too small at 0.5 um, the pictures show more, and there is time.

    An outline of a nucleus of ten pixels is decided by single pixels. Finer pixels cost four times the work, so that
    a run of a few minutes learns more from coarse ones.
    """
    small = 0 < diameter_um < 10 * PIXEL_UM[COARSE]
    shown = mpp_um <= 1.4 * PIXEL_UM[FINE]
    patient = not minutes or minutes >= _FINE_MINUTES
    return FINE if small and shown and patient else COARSE


def crop_px(side_um: float, diameter_um: float, model_mpp_um: float, most_px: float) -> int:
    """Cut crops of about sixteen nuclei across, no larger than the pictures and than memory allows.

    A crop that is larger than its picture is filled by mirroring: work spent on showing the same again. One of a few
    nuclei gives batch normalisation and the context of a nucleus too little.
    """
    wanted = 16 * diameter_um / model_mpp_um if diameter_um else float(_DEFAULT.crop_px)
    allowed = min(wanted, side_um / model_mpp_um, most_px, _LARGEST_SIDE_PX)
    return max(_SMALLEST_SIDE_PX, SIDE_STEP_PX * int(allowed // SIDE_STEP_PX))


def depth(diameter_high_um: float, model_mpp_um: float, side_px: int) -> int:
    """Pool until half of the receptive field covers two large nuclei side by side and the coarsest map is no edge.

    What a unit really heeds is about half of what it could see (Luo et al., NeurIPS 2016). Below an edge of four pixels
    a map says nothing about where (nnU-Net's rule).
    """
    deepest = max(1, min(_DEEPEST, int(math.log2(side_px / _STEM / _COARSEST_EDGE_PX))))
    if not diameter_high_um:
        return deepest
    needed = 2 * diameter_high_um / model_mpp_um
    return next((d for d in range(2, deepest) if receptive_field_px(d) / 2 >= needed), deepest)


def receptive_field_px(levels: int) -> int:
    """Return the side of what one output pixel of the default network can see, in model pixels.

    A block of two 3 x 3 convolutions adds four steps of its level, a pooling one step of the level above.
    """
    steps = [_STEM << level for level in range(levels + 1)]
    blocks = 4 * sum(steps) + 4 * sum(steps[:-1])
    return _STEM + 2 * _STEM + blocks + sum(steps[:-1]) + 2 * _STEM


def batch_size(side_px: int, nuclei_per_mpx: float, most: int, device: str) -> int:
    """Take so many crops that a step sees about a hundred nuclei, at least four and no more than memory holds.

    Fewer nuclei make a noisy step, more make few steps. Batch normalisation needs several crops. A GPU is not busy with
    less than sixteen.
    """
    a_crop = max(nuclei_per_mpx * side_px**2 / 1e6, 1.0)
    least = 4 if device == "cpu" else 16
    return max(1, min(most, max(least, min(32, round(100 / a_crop)))))


def most_crop_px(memory_gb: float, bytes_per_px: float) -> float:
    """Return the side of which four crops take half of the memory: the other half is the system's and the data's."""
    return math.sqrt(memory_gb * 2**30 / 2 / bytes_per_px / 4)


def most_crops(memory_gb: float, bytes_per_px: float, side_px: int) -> int:
    """Return how many crops of a side take half of the memory, at least one."""
    return max(1, int(memory_gb * 2**30 / 2 / (bytes_per_px * side_px**2)))

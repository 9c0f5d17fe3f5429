"""How dark each stain is in nuclei, and how evenly: optical densities of their pixels."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from skimage.color import hdx_from_rgb

from napari_nucleiseg.core.geometry import YX
from napari_nucleiseg.core.measurement.columns import ENTROPY_BINS, ENTROPY_TOP
from napari_nucleiseg.core.measurement.runs import Runs
from napari_nucleiseg.core.measurement.shape import PixelNeighbours
from napari_nucleiseg.core.slides.stains import DENSITY, UNMIX

# Optical density is the decadic logarithm. Haematoxylin and eosin are parted as in H&E, DAB as in an immunostain, as it
# is taken out for models that ignore brown.
_TO_STAINS = (np.column_stack([UNMIX[:, :2], hdx_from_rgb[:, 1]]) * math.log10(math.e)).astype(np.float32)


def densities(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the optical densities (base 10) of haematoxylin, eosin and DAB, ``(3, p)``, of pixels ``(p, 3)`` RGB."""
    return np.ascontiguousarray(np.maximum(DENSITY.take(pixels) @ _TO_STAINS, 0).T)


def measure_stains(
    runs: Runs, near: PixelNeighbours, image: NDArray[np.uint8], mpp_um: YX
) -> Mapping[str, NDArray[np.float64]]:
    """Return the columns `STAIN` of nuclei, ``(count,)`` each; NaN for one that has no pixels.

    Parameters
    ----------
    runs : Runs
        The nuclei.
    near : PixelNeighbours
        Which pixels adjoin.
    image : ndarray of uint8, shape (y, x, 3)
        RGB, as large as the label image.
    mpp_um : YX
        Micrometres per pixel.
    """
    found = densities(image.reshape(-1, 3).take(runs.pixels, axis=0))
    columns: dict[str, NDArray[np.float64]] = {}
    for stain, values in zip(("haematoxylin", "eosin", "dab"), found, strict=True):
        columns[f"{stain}_mean"], columns[f"{stain}_std"] = _mean_and_spread(runs, values)
    haematoxylin = found[0]
    return columns | {
        "haematoxylin_entropy_bits": _entropies(runs, haematoxylin),
        "haematoxylin_gradient_per_um": _gradients(runs, near, haematoxylin, mpp_um),
    }


def _mean_and_spread(runs: Runs, values: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and standard deviation over the pixels of each nucleus."""
    areas = np.where(runs.areas > 0, runs.areas, np.nan)
    means = runs.sums(values) / areas
    # Squares of deviations, not of values: their difference would be lost in rounding.
    deviations = values - np.repeat(means.astype(np.float32)[runs.owners], runs.lengths)
    return means, np.sqrt(runs.sums(np.square(deviations, out=deviations)) / areas)


def _entropies(runs: Runs, values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the entropy in bits of the histogram of each nucleus."""
    bins = np.minimum((values * np.float32(ENTROPY_BINS / ENTROPY_TOP)).astype(np.intp), ENTROPY_BINS - 1)
    bins += np.repeat(runs.owners.astype(np.intp) * ENTROPY_BINS, runs.lengths)
    counts = np.bincount(bins, minlength=runs.count * ENTROPY_BINS).reshape(-1, ENTROPY_BINS)
    shares = counts / np.where(runs.areas > 0, runs.areas, np.nan)[:, None]
    # The first summand is 0 for an empty bin and must not be minus infinity times 0.
    entropies: NDArray[np.float64] = -(shares * np.log2(np.where(counts > 0, shares, 1.0))).sum(axis=1)
    return entropies + 0.0


def _gradients(runs: Runs, near: PixelNeighbours, values: NDArray[np.float32], mpp_um: YX) -> NDArray[np.float64]:
    """Return the mean over pairs of adjoining pixels of their difference per micrometre; NaN for a nucleus of one."""
    along = np.zeros(len(values), np.float32)
    np.abs(values[1:] - values[:-1], out=along[:-1])
    along[runs.first_pixels + runs.lengths - 1] = 0
    down = np.abs(values.take(near.below) - values)
    alone = np.flatnonzero(near.below < 0)
    down[alone] = 0
    pairs = np.bincount(runs.owners, 2 * runs.lengths - 1, runs.count) - np.bincount(
        runs.pixel_owners.take(alone), minlength=runs.count
    )
    totals = runs.sums(along) / mpp_um.x + runs.sums(down) / mpp_um.y
    gradients: NDArray[np.float64] = np.divide(totals, pairs, out=np.full(runs.count, np.nan), where=pairs > 0)
    return gradients

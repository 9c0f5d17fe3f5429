"""Measure the nuclei of one block, all at once: no loop over nuclei."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.geometry import YX
from napari_nucleiseg.core.measurement.columns import NAMES
from napari_nucleiseg.core.measurement.neighbours import measure_neighbours
from napari_nucleiseg.core.measurement.runs import runs_of
from napari_nucleiseg.core.measurement.shape import measure_shapes, pixel_neighbours
from napari_nucleiseg.core.measurement.stain import measure_stains

VERSION = 1
"""Of the formulas: another number makes what was kept be measured anew."""


def measure_nuclei(
    labels: NDArray[np.integer[Any]],
    image: NDArray[np.uint8],
    ids: NDArray[np.uint32],
    centroids: NDArray[np.float64],
    others: NDArray[np.float64],
    *,
    mpp_um: YX,
) -> dict[str, NDArray[np.float32]]:
    """Measure nuclei.

    Parameters
    ----------
    labels : ndarray of integers, shape (y, x)
        Ids; holds the wanted nuclei whole, and may hold others.
    image : ndarray of uint8, shape (y, x, 3)
        The same pixels of the slide, RGB.
    ids : ndarray of uint32, shape (n,)
        Nuclei to measure, ascending.
    centroids : ndarray of float64, shape (n, 2)
        ``(y, x)`` level-0 pixels of these.
    others : ndarray of float64, shape (m, 2)
        Of all nuclei around, these included; see `neighbours.searched`.
    mpp_um : YX
        Micrometres per pixel.

    Returns
    -------
    dict of str to ndarray of float32, shape (n,)
        By the names of `COLUMNS`, in their order; NaN is not measured, as for a nucleus that others cover wholly.
    """
    runs = runs_of(labels, ids)
    near = pixel_neighbours(runs, mpp_um)
    values = {
        **measure_shapes(runs, near, mpp_um),
        **measure_stains(runs, near, image, mpp_um),
        **measure_neighbours(centroids, others, mpp_um),
    }
    return {name: values[name].astype(np.float32) for name in NAMES}

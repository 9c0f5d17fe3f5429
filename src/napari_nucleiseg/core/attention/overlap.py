"""One map from several of the same input, each shifted a little: finer than a token.

The step that HIPT takes against the blocks of its maps (Chen et al., CVPR 2022, https://arxiv.org/abs/2206.02647), here
on pixels that were shifted as the maps are, and with each map counted once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.attention.compose import enlarged
from napari_nucleiseg.core.errors import DataError

WHITE = 255


@dataclass(frozen=True, slots=True, eq=False)
class Averaged:
    """The mean of shifted maps.

    Parameters
    ----------
    scores : ndarray of float32, shape (..., rows, columns)
        Mean of the maps that cover a cell; NaN where none does.
    coverage : ndarray of uint16, shape (..., rows, columns)
        How many maps cover a cell.
    step_px : int
        Side of a cell in pixels of the input: the largest by which all shifts and tokens can be measured.
    """

    scores: NDArray[np.float32]
    coverage: NDArray[np.uint16]
    step_px: int


def shifted(image: NDArray[np.uint8], shift_px: int, *, fill: int = WHITE) -> NDArray[np.uint8]:
    """Take rows and columns away at the top and left of an input, and add as many of glass at the bottom and right.

    Parameters
    ----------
    image : ndarray of uint8, shape (y, x, channels)
        The input.
    shift_px : int
        Pixels, 0 or more.
    fill : int
        Value of what is added.
    """
    if shift_px < 0:
        raise DataError(f"an input is shifted by 0 pixels or more, not by {shift_px}")
    moved = np.full_like(image, fill)
    rest = image[shift_px:, shift_px:]
    moved[: rest.shape[0], : rest.shape[1]] = rest
    return moved


def averaged(maps: Sequence[NDArray[np.floating]], shifts_px: Sequence[int], token_px: int) -> Averaged:
    """Average maps of one input and of the same input shifted.

    Parameters
    ----------
    maps : sequence of ndarray of float, each of shape (..., rows, columns)
        Scores 0..1, for example percentiles. NaN is not counted.
    shifts_px : sequence of int
        By how many pixels the input of each map was `shifted`; 0 for the input itself. Published for level 256: 0 and
        16 in a patch, 0 and 128 in a region; for level 4k: 0, 128, 256 and 384.
    token_px : int
        Side of a token in pixels of the input.

    Returns
    -------
    Averaged
        On cells of ``step_px`` over the extent of the input itself.

    Raises
    ------
    DataError
        If there are no maps, not as many as shifts, or not of one shape; if a shift is negative.
    """
    if not maps or len(maps) != len(shifts_px) or len({each.shape for each in maps}) != 1:
        raise DataError(
            f"{len(maps)} maps for {len(shifts_px)} shifts cannot be averaged; give one map of the same shape a shift"
        )
    if token_px < 1 or min(shifts_px) < 0:
        raise DataError(f"tokens of {token_px} px and shifts of {list(shifts_px)} px have no meaning; give 0 or more")
    step = math.gcd(token_px, *shifts_px)
    rows, columns = (side * token_px // step for side in maps[0].shape[-2:])
    total = np.zeros((*maps[0].shape[:-2], rows, columns), np.float64)
    coverage = np.zeros(total.shape, np.uint16)
    for each, shift in zip(maps, shifts_px, strict=True):
        skipped = shift // step
        # What was added at the bottom and right lies outside the input.
        seen = enlarged(each, rows, columns)[..., : max(rows - skipped, 0), : max(columns - skipped, 0)]
        known = ~np.isnan(seen)
        total[..., skipped:, skipped:] += np.where(known, seen, 0)
        coverage[..., skipped:, skipped:] += known
    scores = np.divide(total, coverage, out=np.full(total.shape, np.nan), where=coverage > 0)
    return Averaged(scores.astype(np.float32), coverage, step)

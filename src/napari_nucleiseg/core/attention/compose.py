"""Maps of two levels put together: what a region looks at, and what its patches look at.

HIPT's hierarchical attention (Chen et al., CVPR 2022, https://arxiv.org/abs/2206.02647): a mean of both maps, each
weighted by how many shifted inputs it was averaged over. Here each coverage is counted once, and the balance between
the levels is a number to be chosen.
"""

from __future__ import annotations

from typing import Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.errors import DataError

PUBLISHED = 0.5
Coverage = NDArray[np.integer[Any]] | int
T = TypeVar("T", bound=np.generic)


def enlarged(maps: NDArray[T], rows: int, columns: int) -> NDArray[T]:
    """Repeat tokens until there are so many rows and columns.

    Parameters
    ----------
    maps : ndarray, shape (..., r, c)
        Of any type.
    rows, columns : int
        Multiples of r and c.

    Returns
    -------
    ndarray, shape (..., rows, columns)
        Of the same type; `maps` itself where nothing is to be done.

    Raises
    ------
    DataError
        If they are no multiples.
    """
    r, c = maps.shape[-2:]
    if not (r and c) or rows < r or columns < c or rows % r or columns % c:
        raise DataError(
            f"a map of {r} x {c} tokens cannot be enlarged to {rows} x {columns}; give a multiple of both sides"
        )
    if rows != r:
        maps = np.repeat(maps, rows // r, axis=-2)
    return np.repeat(maps, columns // c, axis=-1) if columns != c else maps


def laid_out(patches: NDArray[T]) -> NDArray[T]:
    """Lay the maps of patches side by side as they lie in their region.

    Parameters
    ----------
    patches : ndarray, shape (..., down, across, rows, columns)
        A map for each patch of the region.

    Returns
    -------
    ndarray, shape (..., down * rows, across * columns)
        One map of the region.
    """
    if patches.ndim < 4:
        raise DataError(f"patches of a region have four axes (down, across, rows, columns), not {patches.ndim}")
    *front, down, across, rows, columns = patches.shape
    return np.moveaxis(patches, -2, -3).reshape(*front, down * rows, across * columns)


def composed(
    region: NDArray[np.floating],
    patch: NDArray[np.floating],
    *,
    weight: float = PUBLISHED,
    region_coverage: Coverage = 1,
    patch_coverage: Coverage = 1,
) -> NDArray[np.float32]:
    """Put the map of a region and the maps of its patches together.

    Parameters
    ----------
    region : ndarray of float, shape (..., r, c)
        Scores 0..1 of a head of the region transformer. NaN does not count.
    patch : ndarray of float, shape (..., rows, columns)
        Scores 0..1 of a head of the patch transformer over the same region; sides are multiples of r and c. NaN, where
        it is covered, is glass and stays NaN: it knows more finely what is glass.
    weight : float
        Of the region's map, 0..1; the patches' is 1 less that. 0.5 is published, 0 shows patches only.
    region_coverage, patch_coverage : ndarray of int or int
        How many inputs each cell was averaged over, of the shape of its map (see `overlap.averaged`).

    Returns
    -------
    ndarray of float32, shape (..., rows, columns)
        0..1; NaN where no map has a weight.

    Raises
    ------
    DataError
        If the weight is not 0..1 or the shapes do not fit.
    """
    if not 0 <= weight <= 1:
        raise DataError(f"the weight of the region's map lies between 0 and 1; {weight} does not")
    rows, columns = patch.shape[-2:]
    broad = _spread(region, rows, columns)
    of_region = np.where(np.isnan(broad), 0, weight * _spread(np.asarray(region_coverage), rows, columns))
    of_patch = (1 - weight) * np.asarray(patch_coverage)
    missing = np.isnan(patch) & (np.asarray(patch_coverage) > 0)
    try:
        total = of_region + of_patch
        parts = of_region * np.nan_to_num(broad) + of_patch * np.nan_to_num(patch)
    except ValueError as error:
        raise DataError(f"maps of {region.shape} and {patch.shape} do not fit each other: {error}") from error
    counted = (total > 0) & ~missing
    values: NDArray[np.float64] = np.divide(parts, total, out=np.full(parts.shape, np.nan), where=counted)
    return values.astype(np.float32)


def all_pairs(
    regions: NDArray[np.floating],
    patches: NDArray[np.floating],
    *,
    weight: float = PUBLISHED,
    region_coverage: Coverage = 1,
    patch_coverage: Coverage = 1,
) -> NDArray[np.float32]:
    """Put every head of the region transformer together with every head of the patch transformer; see `composed`.

    Parameters
    ----------
    regions : ndarray of float, shape (heads of regions, r, c)
        Scores 0..1.
    patches : ndarray of float, shape (heads of patches, rows, columns)
        Scores 0..1.
    weight, region_coverage, patch_coverage
        See `composed`; coverages of shape ``(r, c)`` and ``(rows, columns)``.

    Returns
    -------
    ndarray of float32, shape (heads of regions, heads of patches, rows, columns)
        0..1.
    """
    return composed(
        regions[:, None], patches, weight=weight, region_coverage=region_coverage, patch_coverage=patch_coverage
    )


def over_heads(maps: NDArray[np.floating], how: Literal["mean", "max"] = "mean") -> NDArray[np.float32]:
    """Return one map of all heads.

    Parameters
    ----------
    maps : ndarray of float, shape (..., heads, rows, columns)
        Scores.
    how : {"mean", "max"}
        What is taken of the heads.

    Returns
    -------
    ndarray of float32, shape (..., rows, columns)
        Of the same range; NaN where a head is NaN.
    """
    if how not in {"mean", "max"}:
        raise DataError(f"heads are put together by their mean or max, not by {how}")
    return np.asarray(maps.mean(axis=-3) if how == "mean" else maps.max(axis=-3), np.float32)


def _spread(values: NDArray[T], rows: int, columns: int) -> NDArray[T]:
    return values if values.ndim < 2 else enlarged(values, rows, columns)

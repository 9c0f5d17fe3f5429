"""Nuclei as runs along the rows of a label image: what every measure of a block starts from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Runs:
    """The pixels of some nuclei of a label image, as runs of one nucleus within one row, in raster order.

    Parameters
    ----------
    shape : tuple of int
        ``(height, width)`` of the label image.
    count : int
        Number of nuclei.
    owners : ndarray of int32, shape (m,)
        Nucleus of each run, 0..count - 1.
    ys, xs : ndarray of int64, shape (m,)
        Row and first column.
    lengths : ndarray of int64, shape (m,)
        Pixels.
    """

    shape: tuple[int, int]
    count: int
    owners: NDArray[np.int32]
    ys: NDArray[np.int64]
    xs: NDArray[np.int64]
    lengths: NDArray[np.int64]

    @cached_property
    def areas(self) -> NDArray[np.int64]:
        """Pixels of each nucleus, shape (count,); 0 for one that has none."""
        return np.bincount(self.owners, self.lengths, self.count).astype(np.int64)

    @cached_property
    def first_pixels(self) -> NDArray[np.int64]:
        """Place of each run's first pixel among all pixels, shape (m,)."""
        return np.cumsum(self.lengths) - self.lengths

    @cached_property
    def pixel_owners(self) -> NDArray[np.int32]:
        """Nucleus of each pixel, shape (p,)."""
        return np.repeat(self.owners, self.lengths)

    @cached_property
    def pixels(self) -> NDArray[np.intp]:
        """Raveled position of each pixel in the label image, ascending, shape (p,)."""
        return self.positions(self.shape[1], 0)

    def positions(self, width: int, rim: int) -> NDArray[np.intp]:
        """Return the raveled positions of the pixels in an image of that width with `rim` more pixels around."""
        starts = (self.ys + rim) * width + self.xs + rim - self.first_pixels
        return np.repeat(starts, self.lengths) + np.arange(int(self.lengths.sum()))

    def sums(self, values: NDArray[np.floating]) -> NDArray[np.float64]:
        """Return the sum over each nucleus of values ``(p,)`` of its pixels, shape (count,)."""
        if not len(self.owners):
            return np.zeros(self.count)
        by_run = np.add.reduceat(values, self.first_pixels)
        return np.asarray(np.bincount(self.owners, by_run, self.count), np.float64)


def runs_of(labels: NDArray[np.integer[Any]], ids: NDArray[np.integer[Any]]) -> Runs:
    """Find the runs of some nuclei of a label image.

    Parameters
    ----------
    labels : ndarray of integers, shape (y, x)
        Ids; 0 is background, and others than those wanted are left out.
    ids : ndarray of integers, shape (n,)
        Wanted nuclei, ascending, none of them 0.

    Returns
    -------
    Runs
        Owner i is ``ids[i]``.
    """
    height, width = labels.shape
    begins = np.ones(labels.shape, np.bool_)
    np.not_equal(labels[:, 1:], labels[:, :-1], out=begins[:, 1:])
    starts = np.flatnonzero(begins)
    lengths = np.diff(starts, append=height * width)
    numbers = labels.reshape(-1)[starts]
    inside = numbers > 0
    starts, lengths, numbers = starts[inside], lengths[inside], numbers[inside]
    owners = np.searchsorted(ids, numbers)
    wanted = owners < len(ids)
    wanted[wanted] = ids[owners[wanted]] == numbers[wanted]
    ys, xs = np.divmod(starts[wanted], width)
    return Runs((height, width), len(ids), owners[wanted].astype(np.int32), ys, xs, lengths[wanted])

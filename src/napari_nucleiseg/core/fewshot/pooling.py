"""Masked average pooling: the mean features of nuclei, marks and what lies between them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from napari_nucleiseg.core.fewshot.field import FeatureField


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """Which step of a field each pixel of the view lies in.

    Parameters
    ----------
    rows, columns : ndarray of int64
        Of each row and each column of the view's pixels.
    grid : tuple of int
        Rows and columns of the field.
    """

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    grid: tuple[int, int]

    @property
    def count(self) -> int:
        """Number of steps."""
        return self.grid[0] * self.grid[1]

    def at(self, flat: NDArray[np.integer]) -> NDArray[np.int64]:
        """Return the steps, counted row by row, of pixels given by their raveled positions."""
        ys, xs = np.divmod(flat, len(self.columns))
        return self.rows[ys] * self.grid[1] + self.columns[xs]


def cells_of(field: FeatureField) -> Cells:
    """Return how the pixels of a view lie in the steps of its field."""
    step, grid = field.step, (field.features.shape[1], field.features.shape[2])
    rows, columns = (
        np.minimum(((np.arange(length) + 0.5) / size).astype(np.int64), count - 1)
        for length, size, count in zip(field.shape, step, grid, strict=True)
    )
    return Cells(rows, columns, grid)


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """How nuclei lie in a field; row i of every result is nucleus ``ids[i]``.

    Parameters
    ----------
    ids : ndarray of int32, shape (n,)
        Ascending.
    shares : csr_array of float32, shape (n, steps)
        Which share of a nucleus' pixels lies in which step; rows add up to 1.
    """

    ids: NDArray[np.int32]
    shares: csr_array

    def __len__(self) -> int:
        return len(self.ids)

    def mean(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the mean of features ``(steps, channels)`` over each nucleus: ``(n, channels)``."""
        return np.asarray(self.shares @ values, np.float32)


def pool_labels(labels: NDArray[np.int32], cells: Cells) -> Pool:
    """Find how the nuclei of an instance map ``(y, x)`` lie in the steps of a field."""
    flat = np.flatnonzero(labels)
    ids, owners = np.unique(labels.ravel()[flat], return_inverse=True)
    return Pool(ids.astype(np.int32), _shares(owners, cells.at(flat), len(ids), cells.count))


def pool_pixels(parts: list[NDArray[np.int64]], cells: Cells) -> csr_array:
    """Return the same shares for sets of pixels, given as raveled positions, which may overlap."""
    flat = np.concatenate([np.zeros(0, np.int64), *parts])
    owners = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    return _shares(owners, cells.at(flat), len(parts), cells.count)


def _shares(owners: NDArray[np.integer], cells: NDArray[np.int64], count: int, width: int) -> csr_array:
    sizes = np.maximum(np.bincount(owners, minlength=count), 1)
    values = (1 / sizes)[owners].astype(np.float32)
    return csr_array((values, (owners, cells)), shape=(count, width))

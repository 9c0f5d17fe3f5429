"""Lazy two-dimensional arrays over a read function, in the shape that napari and dask take as they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

ReadBox = Callable[[int, int, int, int], NDArray[Any]]


class LazyPlane:
    """A read-only ``(y, x)`` array whose pixels are fetched when asked for.

    Parameters
    ----------
    shape : tuple of int
        ``(height, width)``.
    dtype : dtype
        Of the pixels.
    chunks : tuple of int
        ``(height, width)`` of the pieces it is stored in; napari aligns its reads to them.
    read : callable
        ``read(y0, x0, y1, x1)`` returns the half-open rectangle.
    """

    def __init__(self, shape: tuple[int, int], dtype: Any, chunks: tuple[int, int], read: ReadBox) -> None:
        self.shape: tuple[int, int] = shape
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        self.chunks = chunks
        self._read = read

    def __deepcopy__(self, _memo: Any) -> Self:
        return self  # who copies a layer means the same nuclei

    @property
    def ndim(self) -> int:
        """Always 2."""
        return 2

    @property
    def size(self) -> int:
        """Number of pixels."""
        return int(self.shape[0]) * int(self.shape[1])

    @property
    def nbytes(self) -> int:
        """Bytes of the whole plane if it were read."""
        return self.size * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __repr__(self) -> str:
        return f"LazyPlane(shape={self.shape}, dtype={self.dtype}, chunks={self.chunks})"

    def __getitem__(self, key: Any) -> Any:
        """Read the pixels that slices, integers, steps and Ellipsis select; as numpy would."""
        (start_y, stop_y, after_y), (start_x, stop_x, after_x) = (
            _bounds(part, length) for part, length in zip(_expanded(key), self.shape, strict=True)
        )
        if stop_y <= start_y or stop_x <= start_x:
            block = np.zeros((max(0, stop_y - start_y), max(0, stop_x - start_x)), self.dtype)
        else:
            block = self._read(start_y, start_x, stop_y, stop_x)
        return block[after_y, after_x]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Read the whole plane."""
        return np.asarray(self._read(0, 0, *self.shape), dtype=dtype)


def _expanded(key: Any) -> tuple[Any, Any]:
    parts = key if isinstance(key, tuple) else (key,)
    if any(part is Ellipsis for part in parts):
        at = next(index for index, part in enumerate(parts) if part is Ellipsis)
        parts = (*parts[:at], *(slice(None),) * (3 - len(parts)), *parts[at + 1 :])
    parts = (*parts, *(slice(None),) * (2 - len(parts)))
    if len(parts) != 2:
        raise IndexError(f"a plane has 2 axes but {len(parts)} indices were given")
    return parts[0], parts[1]


def _bounds(part: Any, length: int) -> tuple[int, int, Any]:
    """Return the half-open range to read along one axis and the index to apply to what was read."""
    if isinstance(part, slice):
        chosen = range(*part.indices(length))
        if not chosen:
            return 0, 0, slice(None)
        low, high = min(chosen[0], chosen[-1]), max(chosen[0], chosen[-1]) + 1
        return low, high, slice(None, None, chosen.step)
    index = int(part)
    if not -length <= index < length:
        raise IndexError(f"index {index} is out of bounds for an axis of {length} pixels")
    index %= length
    return index, index + 1, 0

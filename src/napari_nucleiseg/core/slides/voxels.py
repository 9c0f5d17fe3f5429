"""Blocks of a z-stack at another voxel size, read where they are needed, and its grey values."""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.errors import UnsupportedImageError, VoxelSizeError
from napari_nucleiseg.core.geometry import ZYX

SMALLEST_UM, LARGEST_UM = 0.01, 100.0
# A block is read so many planes at a time.
SLAB = 16
_DARKEST, _BRIGHTEST = 1.0, 99.9
_SAMPLED_SIDE = 512
_TRUNCATE = 3.0


class VolumeLike(Protocol):
    """What can be read like a numpy array ``(z, y, x)``, or ``(z, y, x, 3)`` of colours; lazily, as a rule."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Sides in voxels."""

    @property
    def dtype(self) -> Any:
        """Of the grey values."""

    def __getitem__(self, key: Any, /) -> Any:
        """Read a part."""


def checked_voxel(voxel_um: tuple[float, float, float]) -> ZYX:
    """Return a voxel size that can be true.

    Raises
    ------
    VoxelSizeError
        If it cannot.
    """
    if len(voxel_um) != 3 or not all(math.isfinite(side) and SMALLEST_UM <= side <= LARGEST_UM for side in voxel_um):
        raise VoxelSizeError(
            f"a voxel of {' x '.join(f'{side:g}' for side in voxel_um)} micrometres cannot be right: z, y and x must "
            f"each lie between {SMALLEST_UM:g} and {LARGEST_UM:g}."
        )
    return ZYX(*(float(side) for side in voxel_um))


def check_volume(volume: VolumeLike) -> None:
    """Refuse what is not one channel of a stack.

    Raises
    ------
    UnsupportedImageError
        If it has another number of axes, no voxels, or values that are no real numbers.
    """
    shape = tuple(volume.shape)
    if not (len(shape) == 3 or (len(shape) == 4 and shape[3] in (3, 4))) or 0 in shape:
        raise UnsupportedImageError(
            f"a stack must have the axes z, y, x (or z, y, x and colours), but its shape is {shape}; "
            "take one channel and one point in time of it."
        )
    if np.dtype(volume.dtype).kind not in "uifb":
        raise UnsupportedImageError(f"the values of this stack are {volume.dtype}; save it with real numbers.")


def grey(values: NDArray[Any]) -> NDArray[np.float32]:
    """Return grey values of part of a stack: of colours how dark they are, because stained nuclei are dark.

    Parameters
    ----------
    values : ndarray, shape (z, y, x) or (z, y, x, 3)
        As stored.
    """
    if values.ndim == 3:
        return values.astype(np.float32)
    white = np.iinfo(values.dtype).max if values.dtype.kind in "ui" else 1.0
    return np.asarray(white - values[..., :3].mean(axis=-1, dtype=np.float32), np.float32)


def grey_levels(volume: VolumeLike, planes: int = 16) -> tuple[float, float]:
    """Return the grey values that stand for dark and bright: the first percentile and nearly the last.

    They are those of at most so many `planes`, evenly spread.
    """
    depth, height, width = volume.shape[:3]
    steps = max(1, height // _SAMPLED_SIDE), max(1, width // _SAMPLED_SIDE)
    places = np.unique(np.linspace(0, depth - 1, min(depth, planes) + 2)[1:-1].astype(int))
    read = (grey(np.asarray(volume[int(z) : int(z) + 1]))[0, :: steps[0], :: steps[1]] for z in places)
    sample = np.concatenate([plane.ravel() for plane in read])
    low, high = (float(value) for value in np.percentile(sample[np.isfinite(sample)], (_DARKEST, _BRIGHTEST)))
    return (low, high) if high > low else (low, low + 1.0)


def extent(shape: tuple[int, ...], step: ZYX) -> tuple[int, int, int]:
    """Return the sides of a stack in voxels of another size, each `step` of its own."""
    depth, height, width = (max(1, math.floor(side / factor + 0.5)) for side, factor in zip(shape, step, strict=False))
    return depth, height, width


def read_block(
    volume: VolumeLike, step: ZYX, start: tuple[int, ...], shape: tuple[int, ...], levels: tuple[float, float]
) -> NDArray[np.float32]:
    """Read a block of a stack at another voxel size.

    Parameters
    ----------
    volume : array-like
        The stack.
    step : ZYX
        Voxels of the stack per voxel of the block.
    start, shape : tuple of int
        First voxel and sides of the block, ``(z, y, x)``, in its own voxels; beyond the stack it is mirrored.
    levels : tuple of float
        Grey values that become 0 and 1, see `grey_levels`.

    Returns
    -------
    ndarray of float32, shape (z, y, x)
        0..1. Each voxel averages over what it covers, by a Gaussian of the same variance.
    """
    windows = [
        _Window(first, count, factor, side)
        for first, count, factor, side in zip(start, shape, step, volume.shape, strict=False)
    ]
    along_z, along_y, along_x = windows
    low, high = levels
    planes = []
    for z in range(along_z.first, along_z.stop, SLAB):
        box = (slice(z, min(z + SLAB, along_z.stop)), along_y.read, along_x.read)
        values = np.clip((grey(np.asarray(volume[box])) - low) / (high - low), 0, 1)
        planes.append(along_x.resample(along_y.resample(values, 1), 2))
    return np.ascontiguousarray(along_z.resample(np.concatenate(planes), 0))


class _Window:
    """What must be read along one axis, and how it becomes the block's voxels."""

    def __init__(self, start: int, count: int, step: float, side: int) -> None:
        self._sigma = math.sqrt((step**2 - 1) / 12) if step > 1 else 0.0
        positions = (start + np.arange(count) + 0.5) * step - 0.5
        margin = math.ceil(_TRUNCATE * self._sigma)
        lowest = math.floor(positions[0]) - margin
        wanted = mirrored(lowest, math.ceil(positions[-1]) + margin + 1, side)
        self.first, self.stop = int(wanted.min()), int(wanted.max()) + 1
        self.read = slice(self.first, self.stop)
        self._wanted = wanted - self.first
        self._positions = positions - lowest

    def resample(self, values: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
        """Return the values at the block's voxels."""
        values = values.take(self._wanted, axis)
        if self._sigma:
            from scipy import ndimage

            values = ndimage.gaussian_filter1d(values, self._sigma, axis, truncate=_TRUNCATE)
        return linear(values, self._positions, axis)


def linear(values: NDArray[np.float32], positions: NDArray[np.floating[Any]], axis: int) -> NDArray[np.float32]:
    """Interpolate linearly along an axis; the ends go on beyond it."""
    positions = np.clip(positions, 0, values.shape[axis] - 1)
    below = np.minimum(positions.astype(np.intp), max(values.shape[axis] - 2, 0))
    share = (positions - below).astype(np.float32)
    first = values.take(below, axis)
    if not share.any():
        return first
    share = share.reshape([-1 if one == axis else 1 for one in range(values.ndim)])
    above = values.take(np.minimum(below + 1, values.shape[axis] - 1), axis)
    return np.asarray(first + share * (above - first), np.float32)


def mirrored(start: int, stop: int, length: int) -> NDArray[np.int64]:
    """Return for each place from `start` to `stop` the one in 0..length - 1 that a mirror at both ends shows."""
    period = max(1, 2 * (length - 1))
    places = np.arange(start, stop) % period
    return np.minimum(places, period - places) if length > 1 else np.zeros_like(places)

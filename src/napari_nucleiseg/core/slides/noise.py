"""Smooth random fields and random numbers that are pure functions of position: the same wherever one starts."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Float = NDArray[np.float32]
Double = NDArray[np.float64]
Positions = NDArray[np.floating[Any]]

_LATTICE = 256
# Standard deviation of white noise after cubic B-spline smoothing in both axes, averaged over positions.
_SPLINE_STD = 0.4794


def smoothstep(values: NDArray[Any], low: float | np.floating[Any], high: float | np.floating[Any]) -> Float:
    """Rise from 0 at `low` to 1 at `high` with no kink at either end; float32 of the same shape."""
    t = np.clip((values - np.float32(low)) * np.float32(1 / (high - low)), 0, 1).astype(np.float32, copy=False)
    return np.asarray(t * t * (3 - 2 * t), dtype=np.float32)


def smooth_noise(seed: int, channel: int, ys: Positions, xs: Positions) -> Float:
    """Evaluate Gaussian noise of about unit variance and wavelength 1 (period 256).

    Parameters
    ----------
    seed, channel : int
        Choose the field.
    ys, xs : ndarray of float64
        Ascending positions of a grid, ``(n, 1)`` and ``(1, m)``.

    Returns
    -------
    ndarray of float32, shape (n, m)
    """
    table = _random_lattice(seed, channel)
    down, first_row = _spline_matrix(ys[:, 0])
    across, first_column = _spline_matrix(xs[0])
    rows = (first_row + np.arange(down.shape[1])) % _LATTICE
    columns = (first_column + np.arange(across.shape[1])) % _LATTICE
    return np.asarray((down @ table[np.ix_(rows, columns)]) @ across.T, dtype=np.float32)


@lru_cache(maxsize=32)
def _random_lattice(seed: int, channel: int) -> Float:
    generator = np.random.default_rng([seed & 0xFFFFFFFF, channel])
    return (generator.standard_normal((_LATTICE, _LATTICE)) / _SPLINE_STD).astype(np.float32)


def _spline_matrix(positions: Positions) -> tuple[Float, int]:
    """Return the matrix of cubic B-spline weights of all positions, ``(n, nodes)``, and its first node."""
    node = np.floor(positions).astype(np.int64)
    if node.size == 0:
        return np.zeros((0, 4), np.float32), 0
    t = positions - node
    weights = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3], axis=1)
    first = node - 1
    origin = int(first[0])
    matrix = np.zeros((positions.size, int(first[-1]) - origin + 4), np.float32)
    matrix[np.arange(positions.size)[:, None], (first - origin)[:, None] + np.arange(4)] = weights / 6
    return matrix, origin


def chances(seed: int, rows: NDArray[np.int64], columns: NDArray[np.int64], count: int) -> Double:
    """Draw `count` uniform numbers in [0, 1) for every cell of a lattice.

    Returns
    -------
    ndarray of float64, shape (count, rows, columns)
        Each a hash of the seed and of the cell, so the order of asking does not matter.
    """
    cell = (rows[:, None].astype(np.uint64) << np.uint64(32)) | columns[None, :].astype(np.uint64)
    state = _scramble(cell ^ _scramble(np.array([seed & 0xFFFFFFFFFFFFFFFF], np.uint64)))
    out = np.empty((count, *cell.shape))
    step = np.uint64(0x9E3779B97F4A7C15)
    for draw in range(0, count, 2):
        state = state + step
        bits = _scramble(state)
        out[draw] = (bits >> np.uint64(32)) * 2.0**-32
        if draw + 1 < count:
            out[draw + 1] = (bits & np.uint64(0xFFFFFFFF)) * 2.0**-32
    return out


def _scramble(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Mix 64 bits thoroughly (the finaliser of SplitMix64, public domain)."""
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))

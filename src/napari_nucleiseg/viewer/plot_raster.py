"""Points of a plot as pixels: each a dot, or, of very many, how densely they lie; a matter of milliseconds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

# More points than this run together: their density says more.
MOST_DOTS = 20_000
# Side of a cell of density, pixels.
CELL_PX = 3
FAINTEST = 0.22

Pixels = NDArray[np.uint32]
Places = NDArray[np.int64]
RGB = tuple[int, int, int]


def argb(colour: RGB, opacity: float = 1.0) -> int:
    """Return a colour (0..255 each) as 0xAARRGGBB, multiplied by its opacity (0..1), as Qt takes it."""
    alpha = round(255 * opacity)
    red, green, blue = (round(part * opacity) for part in colour)
    return alpha << 24 | red << 16 | green << 8 | blue


def dots(x: Places, y: Places, colours: Pixels, shape: tuple[int, int], radius: float) -> Pixels:
    """Draw each point as a dot; later ones cover earlier ones.

    Parameters
    ----------
    x, y : ndarray of int64, shape (n,)
        Pixels; points outside the picture are left out, dots are cut at its rim.
    colours : ndarray of uint32, shape (n,)
        0xAARRGGBB, multiplied by the opacity.
    shape : tuple of int
        Rows and columns of the picture.
    radius : float
        Of a dot, pixels.

    Returns
    -------
    ndarray of uint32, shape (rows, columns)
        0 where nothing is.
    """
    reach = int(np.ceil(radius))
    height, width = shape[0] + 2 * reach, shape[1] + 2 * reach
    canvas = np.zeros(height * width, np.uint32)
    seen = (x >= 0) & (x < shape[1]) & (y >= 0) & (y < shape[0])
    places, drawn = (y[seen] + reach) * width + x[seen] + reach, colours[seen]
    for down in range(-reach, reach + 1):
        for across in range(-reach, reach + 1):
            if down * down + across * across <= radius * radius + 0.25:
                canvas[places + down * width + across] = drawn
    return canvas.reshape(height, width)[reach : height - reach, reach : width - reach]


def density(x: Places, y: Places, groups: Places, colours: Sequence[RGB], shape: tuple[int, int]) -> Pixels:
    """Draw how densely points lie: the more, the more opaque, on a scale of logarithms.

    Parameters
    ----------
    x, y : ndarray of int64, shape (n,)
        Pixels; points outside the picture are left out.
    groups : ndarray of int64, shape (n,)
        Place of each point's colour among `colours`.
    colours : sequence of tuple of int
        Red, green and blue, 0..255; where several groups meet, they are mixed by their numbers.
    shape : tuple of int
        Rows and columns of the picture.

    Returns
    -------
    ndarray of uint32, shape (rows, columns)
        0xAARRGGBB, multiplied by the opacity; 0 where nothing is.
    """
    rows, columns = -(-shape[0] // CELL_PX), -(-shape[1] // CELL_PX)
    seen = (x >= 0) & (x < shape[1]) & (y >= 0) & (y < shape[0])
    cells = (y[seen] // CELL_PX) * columns + x[seen] // CELL_PX
    kinds = groups[seen]
    several = max(len(colours), 1)
    counts = np.bincount(cells * several + kinds, minlength=rows * columns * several).reshape(-1, several)
    filled = np.flatnonzero(counts.any(axis=1))
    counts = counts[filled]
    total = counts.sum(axis=1)
    opacity = FAINTEST + (1 - FAINTEST) * np.log1p(total) / np.log1p(total.max(initial=1))
    mixed = (counts @ np.array(colours, np.float64).reshape(-1, 3)) * (opacity / total)[:, None]
    red, green, blue = np.rint(mixed).astype(np.uint32).T
    picture = np.zeros(rows * columns, np.uint32)
    picture[filled] = np.rint(255 * opacity).astype(np.uint32) << 24 | red << 16 | green << 8 | blue
    large = picture.reshape(rows, columns).repeat(CELL_PX, axis=0).repeat(CELL_PX, axis=1)
    return np.ascontiguousarray(large[: shape[0], : shape[1]])


def nearest(x: NDArray[np.float64], y: NDArray[np.float64], at: tuple[float, float], reach: float) -> int | None:
    """Return which point lies nearest to ``(x, y)``, in pixels; None if none lies within `reach`."""
    away = np.hypot(x - at[0], y - at[1])
    if not len(away) or not np.isfinite(away).any():
        return None
    place = int(np.nanargmin(away))
    return place if away[place] <= reach else None

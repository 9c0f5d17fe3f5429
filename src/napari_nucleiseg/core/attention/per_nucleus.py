"""How much attention each nucleus gets: means and maxima over its pixels, once it is known which tokens it lies in."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.stats import rankdata

from napari_nucleiseg.core.attention.grid import TokenGrid

# Points of a disc by which a nucleus without pixels is measured: 5 x 5 less the corners, in halves of its box.
_STEPS = np.array([-0.8, -0.4, 0.0, 0.4, 0.8])
_DISC = np.array([(y, x) for y in _STEPS for x in _STEPS if y * y + x * x < 1])


@dataclass(frozen=True, slots=True, eq=False)
class NucleiAttention:
    """Attention of nuclei; row i of every column is the same nucleus.

    Parameters
    ----------
    ids : ndarray of uint32, shape (n,)
        Ascending.
    means, maxima : ndarray of float32, shape (n,)
        Over the pixels of a nucleus that lie in known tokens; NaN for one that has none.
    """

    ids: NDArray[np.uint32]
    means: NDArray[np.float32]
    maxima: NDArray[np.float32]

    @property
    def percentiles(self) -> NDArray[np.float32]:
        """Ranks of the means among the nuclei over their number, 0..1; ties at their mean rank, NaN stays NaN."""
        known = ~np.isnan(self.means)
        ranks = np.full(self.means.shape, np.nan, np.float32)
        ranks[known] = rankdata(self.means[known]) / max(int(known.sum()), 1)
        return ranks


@dataclass(frozen=True, slots=True, eq=False)
class NucleiCover:
    """Which tokens nuclei lie in: found once, used for any map of these tokens.

    Parameters
    ----------
    grid : TokenGrid
        The tokens.
    ids : ndarray of uint32, shape (n,)
        Nuclei, ascending.
    starts : ndarray of int64, shape (n + 1,)
        The tokens of nucleus i are ``tokens[starts[i]:starts[i + 1]]``.
    tokens : ndarray of int64, shape (m,)
        Counted row by row.
    pixels : ndarray of float64, shape (m,)
        How many pixels of the nucleus lie in the token; of nuclei without pixels, how many points.
    """

    grid: TokenGrid
    ids: NDArray[np.uint32]
    starts: NDArray[np.int64]
    tokens: NDArray[np.int64]
    pixels: NDArray[np.float64]

    def measure(self, attention: NDArray[np.floating]) -> NucleiAttention:
        """Return the attention of each nucleus.

        Parameters
        ----------
        attention : ndarray of float, shape (rows, columns)
            A map of the grid's tokens; NaN (glass, or not known yet) does not count.

        Raises
        ------
        DataError
            If the map does not fit the grid.
        """
        self.grid.must_fit(attention)
        values = attention.ravel()[self.tokens].astype(np.float64)
        known = ~np.isnan(values)
        count = len(self.ids)
        owners = np.repeat(np.arange(count), np.diff(self.starts))[known]
        values, weights = values[known], self.pixels[known]
        pixels = np.bincount(owners, weights, count)
        sums = np.bincount(owners, values * weights, count)
        means = np.divide(sums, pixels, out=np.full(count, np.nan), where=pixels > 0)
        maxima = np.full(count, np.nan)
        present, firsts = np.unique(owners, return_index=True)
        if present.size:
            maxima[present] = np.maximum.reduceat(values, firsts)
        return NucleiAttention(self.ids, means.astype(np.float32), maxima.astype(np.float32))


def cover_of_pixels(image: NDArray[np.uint32], grid: TokenGrid) -> NucleiCover:
    """Find which tokens the nuclei of an instance map lie in; a pixel belongs to the token that holds its centre.

    Parameters
    ----------
    image : ndarray of uint32, shape (y, x)
        Instance map; 0 is background.
    grid : TokenGrid
        Tokens in the pixels of the map.

    Returns
    -------
    NucleiCover
        All nuclei of the map, those outside the grid too.
    """
    height, width = image.shape
    columns = np.floor((np.arange(width) + 0.5 - grid.origin[1]) / grid.token_px[1])
    # Runs of one nucleus within one token: a tenth of the pixels.
    begins = np.ones(image.shape, np.bool_)
    np.not_equal(image[:, 1:], image[:, :-1], out=begins[:, 1:])
    begins[:, 1:] |= columns[1:] != columns[:-1]
    starts = np.flatnonzero(begins)
    lengths = np.diff(starts, append=height * width)
    numbers = image.ravel()[starts]
    inside = numbers > 0
    starts, lengths, numbers = starts[inside], lengths[inside], numbers[inside]
    ys, xs = np.divmod(starts, width)
    ids, owners = np.unique(numbers, return_inverse=True)
    return _cover(grid, ids.astype(np.uint32), owners, grid.tokens_at(ys + 0.5, xs + 0.5), lengths)


def cover_of_table(
    ids: NDArray[np.uint32], centroids: NDArray[np.floating], boxes: NDArray[np.integer], grid: TokenGrid
) -> NucleiCover:
    """Find which tokens nuclei lie in without their pixels: as ellipses as large as their boxes.

    Parameters
    ----------
    ids : ndarray of uint32, shape (n,)
        Ascending, as in a table of nuclei.
    centroids : ndarray of float, shape (n, 2)
        ``(y, x)`` level-0 pixels, those of a pixel's centre whole numbers.
    boxes : ndarray of int, shape (n, 4)
        ``(y0, x0, y1, x1)`` half-open, level-0 pixels.
    grid : TokenGrid
        Tokens in level-0 pixels.

    Returns
    -------
    NucleiCover
        Of 21 points a nucleus.
    """
    halves = (boxes[:, 2:] - boxes[:, :2]) / 2
    points = (centroids + 0.5)[:, None] + _DISC * halves[:, None]
    tokens = grid.tokens_at(points[..., 0], points[..., 1]).ravel()
    owners = np.repeat(np.arange(len(ids)), len(_DISC))
    return _cover(grid, ids.astype(np.uint32), owners, tokens, np.ones(tokens.size, np.int64))


def _cover(
    grid: TokenGrid,
    ids: NDArray[np.uint32],
    owners: NDArray[np.int64],
    tokens: NDArray[np.int64],
    pixels: NDArray[np.int64],
) -> NucleiCover:
    """Add up the pixels of each nucleus in each token."""
    inside = tokens >= 0
    shape = len(ids), grid.rows * grid.columns
    table = coo_array((pixels[inside].astype(np.float64), (owners[inside], tokens[inside])), shape=shape).tocsr()
    return NucleiCover(grid, ids, table.indptr.astype(np.int64), table.indices.astype(np.int64), table.data)

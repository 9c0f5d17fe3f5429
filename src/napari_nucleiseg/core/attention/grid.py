"""Where the tokens of a map lie on a slide."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.errors import DataError
from napari_nucleiseg.core.geometry import YX, Region


@dataclass(frozen=True, slots=True)
class TokenGrid:
    """A grid of tokens of one size; frozen and comparable.

    Corners are those of pixels: pixel i reaches from i to i + 1, and its centre is at i + 0.5.

    Parameters
    ----------
    rows, columns : int
        Tokens down and across.
    token_px : YX
        Sides of a token, in pixels of level 0 or of whatever raster the grid lies on; need not be whole.
    origin : YX
        Upper left corner of the first token, in these pixels.

    Raises
    ------
    DataError
        If there is no token, or tokens have no size.
    """

    rows: int
    columns: int
    token_px: YX
    origin: YX = YX(0.0, 0.0)

    def __post_init__(self) -> None:
        if self.rows < 1 or self.columns < 1 or not (self.token_px[0] > 0 and self.token_px[1] > 0):
            raise DataError(
                f"a map of {self.rows} x {self.columns} tokens of {self.token_px[0]} x {self.token_px[1]} px covers "
                "nothing; choose a larger region"
            )

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.rows, self.columns

    def must_fit(self, values: NDArray[np.floating]) -> None:
        """Refuse a map that is not one of the rows and columns of the grid.

        Raises
        ------
        DataError
            If it is not.
        """
        if values.shape != self.shape:
            raise DataError(
                f"a map of {values.shape} does not fit a grid of {self.rows} x {self.columns} tokens; "
                "give both of the same region"
            )

    def tokens_at(self, ys: NDArray[np.floating], xs: NDArray[np.floating]) -> NDArray[np.int64]:
        """Return the token, counted row by row, that each point lies in; -1 outside the grid.

        Parameters
        ----------
        ys, xs : ndarray of float
            Points in the grid's pixels, measured from corners; they are broadcast.
        """
        rows = np.floor((ys - self.origin[0]) / self.token_px[0]).astype(np.int64)
        columns = np.floor((xs - self.origin[1]) / self.token_px[1]).astype(np.int64)
        inside = (rows >= 0) & (rows < self.rows) & (columns >= 0) & (columns < self.columns)
        return np.where(inside, rows * self.columns + columns, -1)

    def on_pixels(
        self, values: NDArray[np.floating], region: Region, shape: tuple[int, int], *, outside: float = 0.0
    ) -> NDArray[np.float32]:
        """Paint a map onto a raster: each pixel takes the token that its centre lies in.

        Parameters
        ----------
        values : ndarray of float, shape (rows, columns)
            The map.
        region : Region
            What the raster covers, in the grid's pixels.
        shape : tuple of int
            ``(y, x)`` of the raster.
        outside : float
            Value where there is no token.

        Returns
        -------
        ndarray of float32, shape (y, x)
            The painted map.

        Raises
        ------
        DataError
            If the map does not fit the grid.
        """
        self.must_fit(values)
        ys = region.y + (np.arange(shape[0]) + 0.5) * (region.height / max(shape[0], 1))
        xs = region.x + (np.arange(shape[1]) + 0.5) * (region.width / max(shape[1], 1))
        tokens = self.tokens_at(ys[:, None], xs[None, :])
        return np.append(values.ravel().astype(np.float32), np.float32(outside))[tokens]

    def centres(self, tokens: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the centres of tokens, counted row by row, ``(n, 2)`` in the grid's pixels, measured from corners."""
        rows, columns = np.divmod(tokens, self.columns)
        places = np.stack((rows, columns), axis=1) + 0.5
        return np.asarray(places * np.array(self.token_px) + np.array(self.origin), np.float64)

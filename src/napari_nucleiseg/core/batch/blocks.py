"""Which patches of a slide are looked at together: regions on one grid fixed to the slide, where there is tissue."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.inference.plan import TileGrid
from napari_nucleiseg.core.slides.tissue import TissueMask


@dataclass(frozen=True, slots=True)
class Block:
    """A rectangle of patches on the slide's grid.

    Parameters
    ----------
    row, column : int
        Of its first patch.
    rows, columns : int
        Patches down and across.
    """

    row: int
    column: int
    rows: int
    columns: int

    def patches(self, grid: TileGrid) -> Iterator[int]:
        """Iterate over the numbers of its patches on the grid, row by row."""
        for row in range(self.row, self.row + self.rows):
            start = row * grid.columns + self.column
            yield from range(start, start + self.columns)

    def region(self, grid: TileGrid) -> Region:
        """Return what it covers, level-0 pixels."""
        rows, columns = grid.row_edges(), grid.column_edges()
        return Region.from_bounds(
            int(rows[self.row]),
            int(columns[self.column]),
            int(rows[self.row + self.rows]),
            int(columns[self.column + self.columns]),
        )


def tissue_patches(grid: TileGrid, tissue: TissueMask | None, least: float) -> NDArray[np.bool_]:
    """Tell which patches of a grid show tissue.

    Parameters
    ----------
    grid : TileGrid
        Its last row and column are left out if less than half of a patch lies on the slide.
    tissue : TissueMask or None
        None takes all.
    least : float
        Share of a patch that must be tissue, 0..1.

    Returns
    -------
    ndarray of bool, shape (rows, columns)
        True where a patch is to be looked at.
    """
    side, extent = grid.tile_px, grid.extent
    count = [max(1, math.floor(size / side + 0.5)) for size in (extent.height, extent.width)]
    if tissue is None:
        return np.ones(count, np.bool_)
    found = np.zeros(count, np.bool_)
    rows, columns = grid.row_edges().tolist(), grid.column_edges().tolist()
    for row, column in np.ndindex(*count):
        core = Region.from_bounds(rows[row], columns[column], rows[row + 1], columns[column + 1])
        share = tissue.fraction(core)
        found[row, column] = share > 0 and share >= least
    return found


def single_patches(shown: NDArray[np.bool_]) -> tuple[Block, ...]:
    """Return each patch that shows tissue on its own, row by row."""
    return tuple(Block(int(row), int(column), 1, 1) for row, column in np.argwhere(shown))


def regions_of(shown: NDArray[np.bool_], cells: int, least: float) -> tuple[Block, ...]:
    """Return the regions that show enough tissue.

    A region is whole, glass included, and smaller only at the slide's edges. Where no region of the slide has enough,
    as on small biopsies, each is cut to the rectangle that holds its tissue.

    Parameters
    ----------
    shown : ndarray of bool, shape (rows, columns)
        See `tissue_patches`.
    cells : int
        Rows and columns of patches in a region.
    least : float
        Share of a full region's patches that must show tissue, 0..1.

    Returns
    -------
    tuple of Block
        Row by row; none where no patch shows tissue.
    """
    height, width = shown.shape
    held = [
        Block(row, column, min(cells, height - row), min(cells, width - column))
        for row in range(0, height, cells)
        for column in range(0, width, cells)
    ]
    counts = [int(_part(shown, block).sum()) for block in held]
    enough = tuple(block for block, count in zip(held, counts, strict=True) if count and count >= least * cells**2)
    return enough or tuple(_cut(shown, block) for block, count in zip(held, counts, strict=True) if count)


def _part(shown: NDArray[np.bool_], block: Block) -> NDArray[np.bool_]:
    return shown[block.row : block.row + block.rows, block.column : block.column + block.columns]


def _cut(shown: NDArray[np.bool_], block: Block) -> Block:
    part = _part(shown, block)
    rows, columns = (np.flatnonzero(part.any(axis=axis)) for axis in (1, 0))
    return Block(
        block.row + int(rows[0]),
        block.column + int(columns[0]),
        int(rows[-1] - rows[0]) + 1,
        int(columns[-1] - columns[0]) + 1,
    )

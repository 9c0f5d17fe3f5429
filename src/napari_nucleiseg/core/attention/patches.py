"""Which patches of a slide an encoder must look at for a view: one grid fixed to the slide, centre first."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.errors import DataError
from napari_nucleiseg.core.geometry import YX, Region
from napari_nucleiseg.core.inference.plan import Tile, TileGrid, model_downsample
from napari_nucleiseg.core.inference.predict import read_tile
from napari_nucleiseg.core.models.encoders import PATCH, EncoderSpec
from napari_nucleiseg.core.slides.pyramid import Slide
from napari_nucleiseg.core.slides.tissue import TissueMask

# Rows and columns of patches that are looked at in one piece: the published regions of 4,096 px.
MOST_CELLS = 16


@dataclass(frozen=True, slots=True)
class PatchPlan:
    """A rectangle of patches; frozen and comparable: equal plans show the same.

    Parameters
    ----------
    slide : str
        Fingerprint of the slide.
    spec : EncoderSpec
        Of the patch encoder.
    grid : TileGrid
        The slide's grid of patches, which does not move with the view.
    top, left : int
        First row and column of the rectangle on the grid.
    rows, columns : int
        Its size in patches.
    shift_px : int
        The whole grid is moved down and right by so many of the encoder's pixels (see `shifts`).
    is_cut : bool
        Whether more was wanted than is looked at in one piece, so that this is its middle.
    """

    slide: str
    spec: EncoderSpec
    grid: TileGrid
    top: int
    left: int
    rows: int
    columns: int
    shift_px: int = 0
    is_cut: bool = False

    @property
    def tiles(self) -> tuple[int, ...]:
        """Numbers of the patches on the slide's grid, row by row."""
        return tuple(
            (self.top + row) * self.grid.columns + self.left + column
            for row in range(self.rows)
            for column in range(self.columns)
        )

    @property
    def centre_first(self) -> tuple[int, ...]:
        """The same numbers, those nearest to the middle first."""
        middle = (self.rows - 1) / 2, (self.columns - 1) / 2

        def distance(place: int) -> float:
            row, column = divmod(place, self.columns)
            return (row - middle[0]) ** 2 + (column - middle[1]) ** 2

        numbers = self.tiles
        return tuple(numbers[place] for place in sorted(range(len(numbers)), key=distance))

    @property
    def region(self) -> Region:
        """What the patches cover, level-0 pixels, clipped to the slide."""
        return self.grid.level0_of(self.area_px)

    @property
    def area_px(self) -> Region:
        """What the patches cover, in the encoder's pixels; may reach beyond the slide."""
        side, shift = self.spec.input_px, self.shift_px
        return Region(self.top * side + shift, self.left * side + shift, self.rows * side, self.columns * side)

    @property
    def token_step(self) -> YX:
        """Level-0 pixels of one token, ``(y, x)``."""
        step = self.grid.downsample
        return YX(step.y * self.spec.patch_px, step.x * self.spec.patch_px)

    @property
    def origin(self) -> YX:
        """Level-0 place of the upper left corner of the first token, ``(y, x)``."""
        step = self.grid.downsample
        return YX(self.area_px.y * step.y, self.area_px.x * step.x)

    def cell_at(self, y: float, x: float) -> tuple[int, int] | None:
        """Return number of the patch at a level-0 place, and of the token in it; None beside the rectangle.

        Tokens are counted row by row from 1, because 0 is the class token.
        """
        step = self.token_step
        row, column = math.floor((y - self.origin.y) / step.y), math.floor((x - self.origin.x) / step.x)
        side = self.spec.side
        if not (0 <= row < self.rows * side and 0 <= column < self.columns * side):
            return None
        number = (self.top + row // side) * self.grid.columns + self.left + column // side
        return number, 1 + (row % side) * side + column % side

    def place_of(self, tile: int) -> tuple[int, int]:
        """Return row and column of a patch within the rectangle."""
        row, column = divmod(tile, self.grid.columns)
        return row - self.top, column - self.left

    def read(self, slide: Slide, tile: int) -> NDArray[np.uint8]:
        """Read a patch, ``(y, x, 3)`` uint8 RGB at the encoder's pixel size; beyond the slide it is mirrored.

        Raises
        ------
        SlideError
            If it cannot be read.
        """
        return read_tile(slide, self.grid, _as_tile(self.grid, tile, self._box_px(tile)))

    def box_of(self, tile: int) -> Region:
        """Return what a patch covers, level-0 pixels, clipped to the slide."""
        return self.grid.level0_of(self._box_px(tile))

    def _box_px(self, tile: int) -> Region:
        row, column = divmod(tile, self.grid.columns)
        side = self.spec.input_px
        return Region(row * side + self.shift_px, column * side + self.shift_px, side, side)

    def shifts(self, step_px: int, count: int) -> Iterator[PatchPlan]:
        """Iterate over the same rectangle on grids moved by 0, `step_px`, ... pixels: `count` of them."""
        for turn in range(count):
            yield replace(self, shift_px=turn * step_px)

    def grids(self, count: int, *, coarse: bool = False) -> tuple[PatchPlan, ...]:
        """Return the same rectangle on `count` grids whose maps are averaged, the slide's own first.

        Each is moved by a part of a token against the one before; by a part of a whole patch if `coarse`, which is for
        maps of a region, whose cells are patches.
        """
        side = self.spec.input_px if coarse else self.spec.patch_px
        return tuple(self.shifts(side // max(count, 1), max(count, 1)))

    def tissue_fractions(self, tissue: TissueMask | None) -> NDArray[np.float32]:
        """Return how much of each token is tissue, ``(rows, columns)`` of tokens, float32 in 0..1."""
        down, across = self._middles()
        if tissue is None:
            return np.ones((len(down), len(across)), np.float32)
        bounds = [
            np.clip(np.floor(places / factor).astype(np.intp), 0, extent - 1)
            for places, factor, extent in zip((down, across), tissue.downsample, tissue.mask.shape, strict=True)
        ]
        return tissue.mask[np.ix_(bounds[0], bounds[1])].astype(np.float32)

    def on_slide(self) -> NDArray[np.bool_]:
        """Return which tokens have their middle on the slide, ``(rows, columns)`` of tokens; others are mirrored."""
        down, across = self._middles()
        height, width = self.grid.slide_shape
        return np.asarray((down < height)[:, None] & (across < width), np.bool_)

    def _middles(self) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
        """Return where the middles of tokens lie down and across, level-0 pixels."""
        side, step, origin = self.spec.side, self.token_step, self.origin
        return (
            origin.y + (np.arange(self.rows * side) + 0.5) * step.y,
            origin.x + (np.arange(self.columns * side) + 0.5) * step.x,
        )


def patch_grid(slide: Slide, spec: EncoderSpec) -> TileGrid:
    """Return the one grid of an encoder's patches on a slide.

    Raises
    ------
    MissingPixelSizeError, PixelSizeError
        If the slide does not say how large its pixels are, or they are too large or small.
    """
    return TileGrid(slide.shape, model_downsample(slide, spec), spec.input_px, 0, spec.input_px, 0)


def plan_patches(slide: Slide, spec: EncoderSpec, region: Region, *, most: int = MOST_CELLS) -> PatchPlan:
    """Plan the patches that a region needs. Pure: nothing is read.

    Parameters
    ----------
    slide : Slide
        Only its geometry is used.
    spec : EncoderSpec
        Of a patch encoder.
    region : Region
        Level-0 pixels.
    most : int
        Rows and columns of patches at most; of a larger region the middle is taken.

    Raises
    ------
    DataError
        If nothing of the region lies on the slide, or it is no encoder of patches.
    MissingPixelSizeError, PixelSizeError
        If the slide does not say how large its pixels are, or they are too large or small.
    """
    if spec.kind != PATCH:
        raise DataError(f"{spec.name} looks at regions made of patches, not at pixels; give an encoder of patches")
    grid = patch_grid(slide, spec)
    downsample = grid.downsample
    wanted = region.intersect(slide.content)
    if wanted.is_empty:
        raise DataError("nothing of the slide lies in this region; move to where there is tissue")
    tiles = grid.indices_in(wanted)
    row, column = (np.unique(part) for part in np.divmod(tiles, grid.columns))
    centre = wanted.centre.y / downsample.y / spec.input_px, wanted.centre.x / downsample.x / spec.input_px
    top, rows = _middle(int(row[0]), len(row), centre[0], most)
    left, columns = _middle(int(column[0]), len(column), centre[1], most)
    is_cut = rows < len(row) or columns < len(column)
    return PatchPlan(slide.fingerprint, spec, grid, top, left, rows, columns, is_cut=is_cut)


def _middle(first: int, count: int, centre: float, most: int) -> tuple[int, int]:
    """Return first and number of at most `most` cells around a centre."""
    if count <= most:
        return first, count
    start = min(max(math.floor(centre - most / 2 + 0.5), first), first + count - most)
    return start, most


def _as_tile(grid: TileGrid, index: int, box_px: Region) -> Tile:
    row, column = divmod(index, grid.columns)
    return Tile(index, row, column, grid.level0_of(box_px), box_px, box_px, box_px.intersect(grid.extent))

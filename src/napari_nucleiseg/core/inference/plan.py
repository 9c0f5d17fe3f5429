"""Which tiles a model must see: one grid a slide, in model pixels, ordered from the centre of what is wanted."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, overload

import cv2
import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.errors import PixelSizeError
from napari_nucleiseg.core.geometry import YX, Region
from napari_nucleiseg.core.models.spec import ModelSpec
from napari_nucleiseg.core.slides.pyramid import Slide

# A scan states its pixel size to a few per cent at best; within this a whole-number ratio (or a level that
# the file already holds) is taken as meant, so that pixels need no resampling and masks fall on whole pixels.
SNAP = 0.04
COARSE_NOTE = 1.2  # slide pixels this much larger than the model's: nuclei are upsampled guesses, say so
COARSE_LIMIT = 8.0  # larger than this there are no nuclei to see
FINE_LIMIT = 64.0  # smaller than this is no light microscope


class TissueCover(Protocol):
    """The coarse mask of tissue that a plan needs; see `core.slides.tissue`."""

    @property
    def mask(self) -> NDArray[np.bool_]:
        """True on tissue, ``(y, x)``, each pixel `downsample` level-0 pixels wide."""

    @property
    def downsample(self) -> Any:
        """Level-0 pixels per mask pixel: a number or a pair ``(y, x)``."""


class SizedNetwork(Protocol):
    """What is needed to find the pixels that a network wants: `ModelSpec`, `EncoderSpec`."""

    @property
    def name(self) -> str:
        """For people."""

    @property
    def mpp_um(self) -> float:
        """Micrometres per pixel."""


@dataclass(frozen=True, slots=True)
class Tile:
    """One tile of a slide's grid.

    Parameters
    ----------
    index : int
        ``row * columns + col`` on the slide's grid: the same whatever the view.
    row, col : int
        Place on the grid.
    core : Region
        What the tile owns, level-0 pixels; the cores of a grid partition the slide.
    core_px : Region
        The same in model pixels.
    box_px : Region
        What the network's output covers, model pixels; leaves the slide at its edges, where the
        input is mirrored.
    inside_px : Region
        The part of `box_px` on the slide: what the maps of a prediction cover.
    """

    index: int
    row: int
    col: int
    core: Region
    core_px: Region
    box_px: Region
    inside_px: Region


@dataclass(frozen=True, slots=True)
class TileGrid:
    """The one grid of a slide for a model, anchored at level-0 ``(0, 0)``.

    Parameters
    ----------
    slide_shape : tuple of int
        Level-0 ``(height, width)``.
    downsample : YX
        Level-0 pixels per model pixel ``(y, x)``.
    tile_px, halo_px, size_multiple, margin_px : int
        See `ModelSpec`; `margin_px` is its ``output_margin_px``.
    """

    slide_shape: tuple[int, int]
    downsample: YX
    tile_px: int
    halo_px: int
    size_multiple: int
    margin_px: int

    @property
    def extent(self) -> Region:
        """The slide in model pixels: rounded, so that at most half a model pixel is extrapolated."""
        height, width = self.slide_shape
        fy, fx = self.downsample
        return Region(0, 0, max(1, math.floor(height / fy + 0.5)), max(1, math.floor(width / fx + 0.5)))

    @property
    def rows(self) -> int:
        """Number of rows of tiles."""
        return -(-self.extent.height // self.tile_px)

    @property
    def columns(self) -> int:
        """Number of columns of tiles."""
        return -(-self.extent.width // self.tile_px)

    def __len__(self) -> int:
        return self.rows * self.columns

    @property
    def key(self) -> str:
        """A short stable name of the geometry: results of different keys do not fit together."""
        fy, fx = self.downsample
        return f"{self.tile_px}+{self.halo_px}@{fy:.6g}x{fx:.6g}"

    def row_edges(self) -> NDArray[np.int64]:
        """Level-0 rows where the cores begin, and the slide's height at the end."""
        return _edges(self.rows, self.tile_px * self.downsample.y, self.slide_shape[0])

    def column_edges(self) -> NDArray[np.int64]:
        """Level-0 columns where the cores begin, and the slide's width at the end."""
        return _edges(self.columns, self.tile_px * self.downsample.x, self.slide_shape[1])

    def tile(self, index: int) -> Tile:
        """Return tile number `index`.

        Raises
        ------
        IndexError
            If the grid has no such tile.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"tile {index} is not on a grid of {self.rows} x {self.columns}")
        row, col = divmod(index, self.columns)
        extent = self.extent
        core_px = Region(row * self.tile_px, col * self.tile_px, self.tile_px, self.tile_px).intersect(extent)
        box_px = Region(
            core_px.y - self.halo_px,
            core_px.x - self.halo_px,
            self._output_side(core_px.height),
            self._output_side(core_px.width),
        )
        y0, y1 = _edge_pair(row, self.rows, self.tile_px * self.downsample.y, self.slide_shape[0])
        x0, x1 = _edge_pair(col, self.columns, self.tile_px * self.downsample.x, self.slide_shape[1])
        return Tile(index, row, col, Region.from_bounds(y0, x0, y1, x1), core_px, box_px, box_px.intersect(extent))

    def indices_in(self, region: Region) -> NDArray[np.int64]:
        """Indices of all tiles whose cores overlap the level-0 `region`, ascending."""
        row0, row1 = _overlapping(self.row_edges(), region.y, region.y1)
        col0, col1 = _overlapping(self.column_edges(), region.x, region.x1)
        rows, cols = np.arange(row0, row1), np.arange(col0, col1)
        return np.asarray((rows[:, None] * self.columns + cols[None, :]).ravel(), dtype=np.int64)

    def level0_of(self, region_px: Region) -> Region:
        """Return the level-0 pixels that model pixels touch, clipped to the slide."""
        outer = region_px.scaled_outward(*self.downsample)
        return outer.intersect(Region(0, 0, *self.slide_shape))

    def _output_side(self, core_side: int) -> int:
        """Return the smallest side the network takes that holds the core and both halos.

        Sides that fit are those that differ from a full tile's by whole multiples, which is true of
        padded networks and of valid convolutions alike.
        """
        full = self.tile_px + 2 * self.halo_px
        spare = (self.tile_px - core_side) // self.size_multiple
        return full - spare * self.size_multiple


class PlannedTiles(Sequence[Tile]):
    """Tiles in the order they are wanted; each is made when it is asked for."""

    def __init__(self, grid: TileGrid, indices: NDArray[np.int64]) -> None:
        self._grid = grid
        self.indices = indices
        self.indices.setflags(write=False)

    def __len__(self) -> int:
        return len(self.indices)

    @overload
    def __getitem__(self, place: int) -> Tile: ...
    @overload
    def __getitem__(self, place: slice) -> PlannedTiles: ...
    def __getitem__(self, place: int | slice) -> Tile | PlannedTiles:
        if isinstance(place, slice):
            return PlannedTiles(self._grid, self.indices[place])
        return self._grid.tile(int(self.indices[place]))

    def __iter__(self) -> Iterator[Tile]:
        return (self._grid.tile(index) for index in self.indices.tolist())

    def without(self, done: Collection[int]) -> PlannedTiles:
        """Return the tiles whose index is not in `done`, in the same order."""
        return PlannedTiles(self._grid, self.indices[~self._among(done)]) if done else self

    def only(self, wanted: Collection[int]) -> PlannedTiles:
        """Return the tiles whose index is in `wanted`, in the same order."""
        return PlannedTiles(self._grid, self.indices[self._among(wanted)])

    def _among(self, chosen: Collection[int]) -> NDArray[np.bool_]:
        return np.isin(self.indices, np.fromiter(chosen, np.int64, len(chosen)))


@dataclass(frozen=True, slots=True)
class InferencePlan:
    """What to run where: frozen, comparable, hashable; equal plans mean nothing new to do.

    Parameters
    ----------
    slide : str
        Fingerprint of the slide.
    model : str
        Name of the network.
    grid : TileGrid
        The slide's grid for this model.
    mpp_um : YX
        Micrometres per model pixel ``(y, x)`` that the network will see.
    region : Region
        What was asked for, level-0 pixels, clipped to where the slide holds pixels.
    tiles : PlannedTiles
        Tiles that touch the region, nearest to its centre first.
    skipped_glass : int
        Tiles left out because there is no tissue in their core.
    notes : tuple of str
        What a person should know before trusting the result.
    fingerprint : str
        Hash of the tiles and their order.
    """

    slide: str
    model: str
    grid: TileGrid
    mpp_um: YX
    region: Region
    tiles: PlannedTiles = field(compare=False, repr=False)
    skipped_glass: int
    notes: tuple[str, ...]
    fingerprint: str

    def __len__(self) -> int:
        return len(self.tiles)

    @property
    def pixel_um(self) -> float:
        """Side in micrometres of a square pixel of a model pixel's area."""
        return math.sqrt(self.mpp_um.y * self.mpp_um.x)


def plan_inference(
    slide: Slide, spec: ModelSpec, region: Region | None = None, *, tissue: TissueCover | None = None
) -> InferencePlan:
    """Plan the tiles that `region` needs. Pure: nothing is read.

    Parameters
    ----------
    slide : Slide
        Only its geometry is used.
    spec : ModelSpec
        States pixel size, tile, halo.
    region : Region, optional
        Level-0 pixels; default all that the slide holds.
    tissue : TissueCover, optional
        Tiles without any tissue in their core are left out; default none is.

    Raises
    ------
    MissingPixelSizeError
        If the slide does not say how large its pixels are.
    PixelSizeError
        If its pixel size is beyond what the model can use.
    """
    downsample = model_downsample(slide, spec)
    mpp = slide.require_mpp()
    grid = TileGrid(slide.shape, downsample, spec.tile_px, spec.halo_px, spec.size_multiple, spec.output_margin_px)
    wanted = slide.content if region is None else region.intersect(slide.content)
    indices = grid.indices_in(wanted)
    before = len(indices)
    if tissue is not None:
        indices = indices[_touches_tissue(grid, indices, tissue)]
    skipped = before - len(indices)
    indices = _centre_first(grid, indices, wanted)
    digest = hashlib.blake2b(indices.tobytes(), digest_size=8).hexdigest()
    return InferencePlan(
        slide=slide.fingerprint,
        model=spec.name,
        grid=grid,
        mpp_um=YX(mpp.y * downsample.y, mpp.x * downsample.x),
        region=wanted,
        tiles=PlannedTiles(grid, indices),
        skipped_glass=skipped,
        notes=_notes(slide, spec, downsample),
        fingerprint=digest,
    )


def model_downsample(slide: Slide, spec: SizedNetwork) -> YX:
    """Return level-0 pixels per model pixel ``(y, x)``, snapped to a level or whole numbers within 4 %.

    Raises
    ------
    MissingPixelSizeError
        If the slide does not say how large its pixels are.
    PixelSizeError
        If its pixel size is beyond what the model can use.
    """
    mpp = slide.require_mpp()
    wanted = YX(spec.mpp_um / mpp.y, spec.mpp_um / mpp.x)
    if min(wanted) < 1 / COARSE_LIMIT or max(wanted) > FINE_LIMIT:
        raise PixelSizeError(
            f"{slide.path}: pixels of {mpp.y:.4g} x {mpp.x:.4g} µm are not for {spec.name}, which works at "
            f"{spec.mpp_um:g} µm. Check the value and give the right one (0.25 for most 40x scans, 0.5 for 20x)."
        )
    whole = YX(float(max(1, round(wanted.y))), float(max(1, round(wanted.x))))
    for candidate in (*slide.downsamples, whole):
        if max(abs(candidate.y / wanted.y - 1), abs(candidate.x / wanted.x - 1)) <= SNAP:
            return YX(float(candidate.y), float(candidate.x))
    return wanted


def _notes(slide: Slide, spec: ModelSpec, downsample: YX) -> tuple[str, ...]:
    coarse = 1 / min(downsample)
    if coarse < COARSE_NOTE:
        return slide.notes
    mpp = slide.require_mpp()
    text = (
        f"This slide's pixels ({max(mpp):.3g} µm) are {coarse:.1f} times larger than those the model was made for "
        f"({spec.mpp_um:g} µm): it is enlarged, and nuclei may be missed or merged."
    )
    return (*slide.notes, text)


def _edge(number: int, step: float, end: int) -> int:
    return min(end, math.floor(number * step + 0.5))


def _edge_pair(number: int, count: int, step: float, end: int) -> tuple[int, int]:
    return _edge(number, step, end), end if number == count - 1 else _edge(number + 1, step, end)


def _edges(count: int, step: float, end: int) -> NDArray[np.int64]:
    edges: NDArray[np.int64] = np.minimum(end, np.floor(np.arange(count + 1) * step + 0.5)).astype(np.int64)
    edges[-1] = end
    return edges


def _overlapping(edges: NDArray[np.int64], start: int, stop: int) -> tuple[int, int]:
    """Range of intervals ``[edges[i], edges[i + 1])`` that overlap ``[start, stop)``."""
    if stop <= start or stop <= 0 or start >= edges[-1]:
        return 0, 0
    first = int(np.searchsorted(edges, max(start, 0), side="right")) - 1
    last = int(np.searchsorted(edges, min(stop, int(edges[-1])), side="left"))
    return first, last


def _centre_first(grid: TileGrid, indices: NDArray[np.int64], region: Region) -> NDArray[np.int64]:
    """Sort by distance of the core's centre from the region's, in model pixels; ties by index."""
    rows, cols = np.divmod(indices, grid.columns)
    centre_y, centre_x = region.centre.y / grid.downsample.y, region.centre.x / grid.downsample.x
    distance = ((rows + 0.5) * grid.tile_px - centre_y) ** 2 + ((cols + 0.5) * grid.tile_px - centre_x) ** 2
    # Whole numbers, so that tiles that are equally far stay equal whatever the rounding.
    return indices[np.lexsort((indices, np.rint(distance).astype(np.int64)))]


def _touches_tissue(grid: TileGrid, indices: NDArray[np.int64], tissue: TissueCover) -> NDArray[np.bool_]:
    """Whether any tissue lies in each tile's core; by an integral image, in one pass over tiles."""
    factor = np.broadcast_to(np.asarray(tissue.downsample, float), (2,))
    height, width = tissue.mask.shape
    total = cv2.integral(tissue.mask.astype(np.uint8))
    rows, cols = np.divmod(indices, grid.columns)
    row_edges, column_edges = grid.row_edges(), grid.column_edges()

    def bounds(edges: NDArray[np.int64], at: NDArray[np.int64], step: float, end: int) -> tuple[Any, Any]:
        low = np.clip(np.floor(edges[at] / step), 0, end - 1).astype(np.int64)
        high = np.clip(np.ceil(edges[at + 1] / step), 1, end).astype(np.int64)
        return low, np.maximum(high, low + 1)

    y0, y1 = bounds(row_edges, rows, float(factor[0]), height)
    x0, x1 = bounds(column_edges, cols, float(factor[1]), width)
    return np.asarray(total[y1, x1] - total[y0, x1] - total[y1, x0] + total[y0, x0] > 0, dtype=np.bool_)

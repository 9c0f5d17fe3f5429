"""How many nuclei there are in a region, and how densely they lie in the tissue that was segmented."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.geometry import YX, Region
from napari_nucleiseg.core.slides.pyramid import Slide
from napari_nucleiseg.viewer.messages import Counts
from napari_nucleiseg.viewer.shapes import bounds_of

if TYPE_CHECKING:
    from napari_nucleiseg.core.inference.plan import TileGrid
    from napari_nucleiseg.core.store.project import Project

# Areas are measured on a raster of at most this many pixels on the longer side.
RASTER_PX = 1024


@dataclass(frozen=True, slots=True, eq=False)
class Done:
    """What is done with the present settings.

    Parameters
    ----------
    grid : TileGrid
        The grid that `tiles` count on.
    tiles : collection of int
        Those that are done.
    """

    grid: TileGrid
    tiles: Collection[int]


def count_view(
    project: Project, slide: Slide, region: Region, done: Done | None = None, *, tissue: Any = None
) -> Counts:
    """Count the nuclei in a rectangle, whoever has found them.

    Parameters
    ----------
    project : Project
        Holds the nuclei, and where they were looked for.
    slide : Slide
        Gives the pixel size.
    region : Region
        Level-0 pixels.
    done : Done, optional
        What is done with the present settings; None where nothing was segmented in this session.
    tissue : TissueMask, optional
        Where tissue is; None takes all of the slide for tissue.
    """
    area = measured_area(slide, project.tiles_in(region), region, done, tissue=tissue)
    return Counts("view", project.count_in(region), *area, knows_tissue=tissue is not None)


def count_polygon(
    project: Project, slide: Slide, polygon: NDArray[np.float64], done: Done | None = None, *, tissue: Any = None
) -> Counts:
    """Count the nuclei whose centroid lies in a polygon ``(y, x)`` of level-0 pixels; otherwise as `count_view`."""
    region = bounds_of(polygon).intersect(slide.region)
    if region.is_empty:
        return Counts("shape", 0, 0.0, 0.0)
    centroids = project.nuclei_in(region).centroids
    area = measured_area(slide, project.tiles_in(region), region, done, tissue=tissue, polygon=polygon)
    inside = int(inside_polygon(centroids, polygon).sum())
    return Counts("shape", inside, *area, knows_tissue=tissue is not None)


def inside_polygon(points: NDArray[np.float64], polygon: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether each point ``(y, x)`` lies inside a polygon ``(y, x)``, by the even-odd rule.

    Parameters
    ----------
    points : ndarray of float, shape (n, 2)
        Points.
    polygon : ndarray of float, shape (m, 2)
        Corners, the last joined to the first.
    """
    inside = np.zeros(len(points), dtype=np.bool_)
    y, x = points[:, 0], points[:, 1]
    for (y0, x0), (y1, x1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        if y0 == y1:
            continue
        crosses = (y0 > y) != (y1 > y)
        inside ^= crosses & (x < x0 + (y - y0) / (y1 - y0) * (x1 - x0))
    return inside


def measured_area(
    slide: Slide,
    tiles: Iterable[Region],
    region: Region,
    done: Done | None = None,
    *,
    tissue: Any = None,
    polygon: NDArray[np.float64] | None = None,
) -> tuple[float, float]:
    """Return the tissue of a region where nuclei were looked for in square millimetres, and the share that is done.

    Parameters
    ----------
    tiles : iterable of Region
        Where nuclei were looked for, level-0 pixels.
    slide, region, done, tissue
        As in `count_view`.
    polygon : ndarray of float, shape (n, 2), optional
        Only inside this, ``(y, x)`` level-0 pixels.

    Returns
    -------
    mm2 : float
        All nuclei there are in the region lie in this area, but for those that people drew elsewhere.
    share : float
        Of the tissue, 0..1: what is done with the present settings; where nothing is, what any model has looked at.
    """
    mpp = slide.require_mpp()
    step = max(1.0, max(region.height, region.width) / RASTER_PX)
    shape = (max(1, round(region.height / step)), max(1, round(region.width / step)))
    steps = YX(region.height / shape[0], region.width / shape[1])
    wanted = _tissue_raster(tissue, region, shape, steps)
    if polygon is not None:
        mask = np.zeros(shape, np.uint8)
        corners = np.rint((polygon - (region.y, region.x)) / steps - 0.5)[:, ::-1].astype(np.int32)
        cv2.fillPoly(mask, [corners[:, None, :]], (1,))
        wanted &= mask.astype(bool)
    whole = int(wanted.sum())
    if whole == 0:
        return 0.0, 1.0
    seen = int((wanted & _tile_raster(tiles, region, shape, steps)).sum())
    now = 0 if done is None else int((wanted & _done_raster(done, region, shape, steps)).sum())
    pixel_mm2 = steps.y * steps.x * mpp.y * mpp.x * 1e-6
    return seen * pixel_mm2, (now or seen) / whole


def _tissue_raster(tissue: Any, region: Region, shape: tuple[int, int], steps: YX) -> NDArray[np.bool_]:
    if tissue is None:
        return np.ones(shape, dtype=np.bool_)
    factor = np.broadcast_to(np.asarray(tissue.downsample, float), (2,))
    rows = ((region.y + (np.arange(shape[0]) + 0.5) * steps.y) / factor[0]).astype(int)
    cols = ((region.x + (np.arange(shape[1]) + 0.5) * steps.x) / factor[1]).astype(int)
    rows, cols = np.clip(rows, 0, tissue.mask.shape[0] - 1), np.clip(cols, 0, tissue.mask.shape[1] - 1)
    return np.array(tissue.mask[rows[:, None], cols[None, :]], dtype=np.bool_)


def _tile_raster(tiles: Iterable[Region], region: Region, shape: tuple[int, int], steps: YX) -> NDArray[np.bool_]:
    """Whether each raster pixel's centre lies in one of the tiles."""
    raster = np.zeros(shape, dtype=np.bool_)
    corner = np.array((region.y, region.x))
    for tile in tiles:
        ends = (np.array(((tile.y, tile.x), (tile.y1, tile.x1))) - corner) / steps
        (y, x), (y1, x1) = np.maximum(np.ceil(ends - 0.5), 0).astype(int).tolist()
        raster[y:y1, x:x1] = True
    return raster


def _done_raster(done: Done, region: Region, shape: tuple[int, int], steps: YX) -> NDArray[np.bool_]:
    """Whether each raster pixel's centre lies in the core of a tile that is done."""
    grid = done.grid
    finished = np.zeros(grid.rows * grid.columns, dtype=np.bool_)
    if done.tiles:
        finished[np.fromiter(done.tiles, np.int64, len(done.tiles))] = True
    ys = region.y + (np.arange(shape[0]) + 0.5) * steps.y
    xs = region.x + (np.arange(shape[1]) + 0.5) * steps.x
    rows = np.clip(np.searchsorted(grid.row_edges(), ys, side="right") - 1, 0, grid.rows - 1)
    cols = np.clip(np.searchsorted(grid.column_edges(), xs, side="right") - 1, 0, grid.columns - 1)
    return np.asarray(finished.reshape(grid.rows, grid.columns)[rows[:, None], cols[None, :]], dtype=np.bool_)

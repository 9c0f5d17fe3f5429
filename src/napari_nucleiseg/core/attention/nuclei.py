"""What heads have to do with the nuclei of a slide: which of them look there, and how much each one is looked at."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.attention.grid import TokenGrid
from napari_nucleiseg.core.attention.look import Looked
from napari_nucleiseg.core.attention.patches import PatchPlan
from napari_nucleiseg.core.attention.per_nucleus import NucleiAttention, cover_of_table
from napari_nucleiseg.core.attention.ranking import HeadScore, area_fractions, rank_heads
from napari_nucleiseg.core.attention.shown import ShownMap
from napari_nucleiseg.core.errors import DataError
from napari_nucleiseg.core.geometry import YX, Region
from napari_nucleiseg.core.slides.tissue import TissueMask

if TYPE_CHECKING:
    from napari_nucleiseg.core.store.project import Project

# Points in the side of a token from which its share of nuclei is told.
LEAST_POINTS, MOST_POINTS = 8, 32
NO_NUCLEI = "There are no nuclei here to rank heads against. Segment the view first (“View” in the Nuclei panel)."


def nuclei_fractions(project: Project, looked: Looked) -> NDArray[np.float32]:
    """Return how much of each token of a view is covered by nuclei, ``(rows, columns)`` of tokens, float32 in 0..1.

    Parameters
    ----------
    project : Project
        Of the slide; for any thread.
    looked : Looked
        Says where the tokens lie.
    """
    plan = looked.plan
    side, step = plan.spec.side, plan.token_step
    # As many points a token on each side as it has pixels; beside the slide there are no nuclei. Coarser levels are of
    # no use: in them nuclei grow, so that none vanishes.
    points = YX(*(min(max(math.ceil(size), LEAST_POINTS), MOST_POINTS) for size in step))
    labels = project.labels.levels[0]
    across = _pixels_at(plan.origin.x, plan.columns * side, step.x, points.x, project.shape[1])
    found = []
    for row in range(plan.rows):
        top = plan.origin.y + row * side * step.y
        down = _pixels_at(top, side, step.y, points.y, project.shape[0])
        mask = np.zeros((len(down), len(across)), np.bool_)
        rows, columns = down >= 0, across >= 0
        if rows.any() and columns.any():
            ys, xs = down[rows], across[columns]
            ids = np.asarray(labels[int(ys[0]) : int(ys[-1]) + 1, int(xs[0]) : int(xs[-1]) + 1])
            mask[np.ix_(rows, columns)] = ids[np.ix_(ys - ys[0], xs - xs[0])] > 0
        found.append(area_fractions(mask, side, plan.columns * side))
    return np.concatenate(found)


def _pixels_at(start: float, tokens: int, size: float, points: float, extent: int) -> NDArray[np.int64]:
    """Return the level-0 pixel that each of so many points a token lies in, along one side; -1 beside the slide."""
    places = np.floor(start + (np.arange(tokens * int(points)) + 0.5) * size / points).astype(np.int64)
    return np.where((places >= 0) & (places < extent), places, -1)


def rank_looked(project: Project, looked: Looked, tissue: TissueMask | None = None) -> tuple[HeadScore, ...]:
    """Rank every head of every layer against the nuclei of what was looked at, best first.

    Tokens beside the slide, where the picture is mirrored, do not count.

    Raises
    ------
    DataError
        If there are no nuclei, or nothing else.
    """
    nuclei = nuclei_fractions(project, looked)
    if not nuclei.any():
        raise DataError(NO_NUCLEI)
    attention = looked.all_attention()
    attention[..., ~looked.plan.on_slide()] = np.nan
    return rank_heads(attention, nuclei, looked.plan.tissue_fractions(tissue))


def rank_region(project: Project, looked: Looked, tissue: TissueMask | None = None) -> tuple[HeadScore, ...]:
    """Rank the heads of the region encoder against where nuclei are densest: in the upper half of the patches.

    Raises
    ------
    DataError
        If the region was not looked at, has no nuclei, or is but one patch.
    """
    if looked.region is None:
        raise DataError("No region was looked at. Choose a transformer of regions, and look at the view again.")
    plan = looked.plan
    nuclei, known = _patches_on_slide(plan, nuclei_fractions(project, looked))
    if not nuclei.any():
        raise DataError(NO_NUCLEI)
    median = float(np.median(nuclei[known]))
    least = min(max(float(np.nextafter(np.float32(median), np.float32(1))), 1e-6), 1.0)
    attention = looked.region.attention.astype(np.float32)
    attention[..., ~known] = np.nan
    inside, _ = _patches_on_slide(plan, plan.tissue_fractions(tissue))
    return rank_heads(attention, nuclei, inside, least_nuclei=least)


def _patches_on_slide(plan: PatchPlan, fractions: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return the mean over each patch of its tokens on the slide, and which patches have any, ``(rows, columns)``."""
    shape, on_slide = (plan.rows, plan.spec.side, plan.columns, plan.spec.side), plan.on_slide()
    total = np.where(on_slide, fractions, 0).reshape(shape).sum(axis=(1, 3), dtype=np.float64)
    count = on_slide.reshape(shape).sum(axis=(1, 3))
    return (total / np.maximum(count, 1)).astype(np.float32), count > 0


def attention_of_nuclei(project: Project, looked: Looked, shown: ShownMap) -> NucleiAttention:
    """Return how much a map lies on each nucleus of what was looked at.

    Raises
    ------
    DataError
        If there are no nuclei.
    """
    table = project.nuclei_in(looked.plan.region)
    if not len(table):
        raise DataError(NO_NUCLEI)
    return cover_of_table(table.ids, table.centroids, table.boxes, shown.grid).measure(shown.values)


def painted_nuclei(
    project: Project, region: Region, ids: NDArray[np.uint32], values: NDArray[np.float32], *, most_px: int = 2048
) -> tuple[NDArray[np.float32], TokenGrid]:
    """Return a picture in which each nucleus has its value, and where it lies; NaN beside nuclei.

    Parameters
    ----------
    project : Project
        Of the slide.
    region : Region
        What to paint, level-0 pixels inside the slide.
    ids : ndarray of uint32, shape (n,)
        Nuclei, ascending.
    values : ndarray of float32, shape (n,)
        Of each.
    most_px : int
        Rows and columns of the picture at most.
    """
    planes = project.labels.levels
    longest = max(region.height, region.width)
    level = min(len(planes) - 1, max(0, math.ceil(math.log2(max(longest / most_px, 1)))))
    plane = planes[level]
    step = YX(project.shape[0] / plane.shape[0], project.shape[1] / plane.shape[1])
    box = region.scaled_outward(1 / step.y, 1 / step.x).intersect(Region(0, 0, *plane.shape))
    found = np.asarray(plane[box.slices])
    height, width = found.shape
    picture = np.full((height, width), np.nan, np.float32)
    if len(ids):
        place = np.minimum(np.searchsorted(ids, found), len(ids) - 1)
        known = (found > 0) & (ids[place] == found)
        picture[known] = values[place[known]]
    return picture, TokenGrid(height, width, step, YX(box.y * step.y, box.x * step.x))

"""What can be proposed in a view: the nuclei that there are, and what a model finds there beside them if it is bold."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.geometry import YX, Region
from napari_nucleiseg.viewer.messages import Progress

if TYPE_CHECKING:
    from napari_nucleiseg.core.decoders.base import DecodeOptions
    from napari_nucleiseg.core.inference.plan import InferencePlan
    from napari_nucleiseg.core.models.weights import LoadedModel
    from napari_nucleiseg.core.store.nuclei import TileNuclei
    from napari_nucleiseg.core.store.project import Project
    from napari_nucleiseg.viewer.engine import Engine
    from napari_nucleiseg.viewer.segmentation import Wish

# Bold enough to find what is usually missed; what is too much is not like the marks.
BOLD = 0.25
# What shares so much of itself with a nucleus that there is, is that nucleus.
SAME = 0.1
TITLE = "Looking for candidates"

Ids = NDArray[np.uint32]
Labels = NDArray[np.int32]


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """Everything in a part of the slide that can be proposed.

    Parameters
    ----------
    region : Region
        What is covered, level-0 pixels.
    labels : ndarray of int32, shape (y, x)
        Numbers from 1 on, level-0 pixels of `region`; 0 is none.
    ids : ndarray of uint32, shape (n + 1,)
        Of each number the nucleus that it is; 0 of one that is none yet.
    classes : ndarray of uint8, shape (n + 1,)
        Class of each; 0 is none.
    centroids : ndarray of float, shape (n + 1, 2)
        ``(y, x)`` of each, level-0 pixels of the slide.
    """

    region: Region
    labels: Labels
    ids: Ids
    classes: NDArray[np.uint8]
    centroids: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.ids) - 1

    def within(self, view: Region) -> NDArray[np.bool_]:
        """Return of each number whether its centroid lies in a part of the slide."""
        ys, xs = self.centroids.T
        inside: NDArray[np.bool_] = (ys >= view.y) & (ys < view.y1) & (xs >= view.x) & (xs < view.x1)
        return inside


def bold_nuclei(
    wish: Wish, engine: Engine, cancelled: Callable[[], bool]
) -> Generator[Progress, None, tuple[str, Labels]]:
    """Find what a model takes for a nucleus at a low threshold; nothing is written.

    Tiles whose maps were kept cost no forward.

    Parameters
    ----------
    wish : Wish
        Model, settings and region; the slide must state its pixel size.
    engine : Engine
        Loads and plans.
    cancelled : callable
        Polled between tiles.

    Yields
    ------
    Progress
        After each tile.

    Returns
    -------
    tuple
        Version of the model, and labels from 1 on over the region, int32 ``(y, x)``.
    """
    region, opened = wish.region, wish.opened
    if region is None:
        raise ValueError("bold nuclei are looked for in a region")
    loaded = engine.load(wish.model)
    plan = engine.plan(opened.slide, loaded.spec, region, None)
    model, _note = yield from engine.levels.model_for(loaded, opened, wish.attention_level)
    options = replace(wish.options, threshold=min(BOLD, wish.options.threshold))
    labels = np.zeros((region.height, region.width), np.int32)
    count, total = 0, len(plan.tiles)
    found = _tiles(wish, model, plan, options, cancelled)
    with closing(found) as tiles:  # type: ignore[type-var]
        for done, nuclei in enumerate(tiles, start=1):
            if nuclei is not None:
                count = _put(labels, region, nuclei, count)
            yield Progress(TITLE, done, total)
    return model.version, labels


def _tiles(
    wish: Wish, model: LoadedModel, plan: InferencePlan, options: DecodeOptions, cancelled: Callable[[], bool]
) -> Iterator[TileNuclei | None]:
    from napari_nucleiseg.core.inference.instances import find_nuclei
    from napari_nucleiseg.core.inference.predict import needed_heads
    from napari_nucleiseg.core.inference.segment import find_in_tiles

    project, version = wish.opened.project, model.version
    heads, settled = needed_heads(model.spec, shown=False), set()
    kept = () if project is None else plan.tiles.only(project.maps.tiles(version))
    for tile in kept:
        maps = None if project is None else project.maps.get(version, tile.index)
        shape = (tile.inside_px.height, tile.inside_px.width)
        if maps is not None and all(name in maps and maps[name].shape[1:] == shape for name in heads):
            settled.add(tile.index)
            yield find_nuclei(tile, maps, plan, model.spec, options)
    rest = plan.tiles.without(settled)
    if not len(rest):
        return
    found = find_in_tiles(wish.opened.slide, model, plan, options, tiles=rest, device=wish.device, cancelled=cancelled)
    with closing(found) as results:
        for result in results:
            yield result.nuclei


def _put(labels: Labels, region: Region, nuclei: TileNuclei, count: int) -> int:
    """Put the nuclei of a tile where none are; those that another tile found too are left out. Return the new count."""
    common = nuclei.box.intersect(region)
    if common.is_empty or not len(nuclei):
        return count
    target = labels[common.translate(-region.y, -region.x).slices]
    own = nuclei.labels[common.translate(-nuclei.box.y, -nuclei.box.x).slices]
    free = np.where(target == 0, own, 0)
    total, got = (np.bincount(values.ravel(), minlength=len(nuclei) + 1) for values in (own, free))
    taken = (2 * got >= total) & (got > 0)
    taken[0] = False
    numbers = np.where(taken, count + np.cumsum(taken), 0).astype(np.int32)
    new = numbers[free]
    target[new > 0] = new[new > 0]
    return count + int(np.count_nonzero(taken))


def candidates_in(region: Region, bold: Labels, project: Project | None, shape: tuple[int, int]) -> Candidates:
    """Return what can be proposed: nuclei that there are, and of what was found boldly what is none of them.

    Parameters
    ----------
    region : Region
        Level-0 pixels inside the slide.
    bold : ndarray of int32, shape (y, x)
        Over `region`, from `bold_nuclei`.
    project : Project or None
        Of the slide; None if there is none yet.
    shape : tuple of int
        Level-0 ``(height, width)`` of the slide.
    """
    known = np.zeros(bold.shape, np.uint32) if project is None else project.labels.read(region)
    ids = np.unique(known)
    ids = ids[ids > 0]
    labels = np.zeros(bold.shape, np.int32)
    covered = known > 0
    if len(ids):
        labels[covered] = np.searchsorted(ids, known[covered]) + 1
    highest = int(bold.max(initial=0))
    total = np.bincount(bold.ravel(), minlength=highest + 1)
    hidden = np.bincount(bold[covered | _rejected(project, region)], minlength=highest + 1)
    fresh = (total > 0) & (hidden <= SAME * total)
    fresh[[0, *_cut_off(bold, region, shape)]] = False
    numbers = np.where(fresh, len(ids) + np.cumsum(fresh), 0).astype(np.int32)
    new = numbers[bold]
    labels = np.where((new > 0) & ~covered, new, labels)
    everyone = np.concatenate([[0], ids, np.zeros(int(np.count_nonzero(fresh)))]).astype(np.uint32)
    return Candidates(region, labels, everyone, _classes(project, everyone), _centroids(labels, len(everyone), region))


def _cut_off(bold: Labels, region: Region, shape: tuple[int, int]) -> list[int]:
    """Return the numbers that touch a border of the region inside the slide: there is more of them beyond."""
    edges = [
        *([bold[0]] if region.y > 0 else []),
        *([bold[-1]] if region.y1 < shape[0] else []),
        *([bold[:, 0]] if region.x > 0 else []),
        *([bold[:, -1]] if region.x1 < shape[1] else []),
    ]
    return np.unique(np.concatenate(edges)).tolist() if edges else []


def _rejected(project: Project | None, region: Region) -> NDArray[np.bool_]:
    """Return where nuclei were that a person took away: nobody wants them proposed again."""
    from napari_nucleiseg.core.store.ledger import claims_in
    from napari_nucleiseg.core.store.merge import State
    from napari_nucleiseg.core.store.records import NUCLEI, rows_of

    where = np.zeros((region.height, region.width), np.bool_)
    if project is None:
        return where
    claims = claims_in(project.ledger.reader, region)
    rows: dict[int, Any] = rows_of(project.ledger.reader, NUCLEI, list(claims))
    for number, claim in claims.items():
        if number in rows and rows[number][13] == State.REJECTED:
            common = claim.box.intersect(region)
            inside = claim.mask[common.translate(-claim.box.y, -claim.box.x).slices]
            where[common.translate(-region.y, -region.x).slices] |= inside
    return where


def _classes(project: Project | None, ids: Ids) -> NDArray[np.uint8]:
    from napari_nucleiseg.viewer.project_view import said_of

    if project is None or not ids.any():
        return np.zeros(len(ids), np.uint8)
    said = said_of(project, ids[ids > 0].tolist())
    return said.classes.of(ids) * (ids > 0).astype(np.uint8)


def _centroids(labels: Labels, count: int, region: Region) -> NDArray[np.float64]:
    """Return ``(y, x)`` of numbers 0..count - 1, level-0 pixels of the slide; of 0 and of none, NaN."""
    ys, xs = np.nonzero(labels)
    numbers = labels[ys, xs]
    areas = np.bincount(numbers, minlength=count).astype(np.float64)
    areas[areas == 0] = np.nan
    sums = (np.bincount(numbers, weights=values, minlength=count) for values in (ys + region.y, xs + region.x))
    return np.stack([values / areas for values in sums], axis=1)


def seen_at(labels: Labels, region: Region, origin: YX, step: YX, shape: tuple[int, int]) -> Labels:
    """Return labels as they are on a coarser (or finer) grid: at the middle of each of its pixels.

    Parameters
    ----------
    labels : ndarray of int32, shape (y, x)
        Over `region`, level-0 pixels.
    region : Region
        Level-0 pixels.
    origin : YX
        Upper left corner of the grid, level-0 pixels.
    step : YX
        Level-0 pixels per pixel of the grid.
    shape : tuple of int
        Rows and columns of the grid.
    """
    places = []
    for start, first, side, count, length in zip(origin, (region.y, region.x), step, shape, labels.shape, strict=True):
        at = np.floor(start + (np.arange(count) + 0.5) * side).astype(np.int64) - first
        places.append(np.clip(at, 0, length - 1))
    return np.ascontiguousarray(labels[np.ix_(places[0], places[1])])

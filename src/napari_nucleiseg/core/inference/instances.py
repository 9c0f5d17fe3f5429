"""From the maps of one tile to the nuclei it owns, with smooth outlines in level-0 pixels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.decoders.base import DecodeOptions, Instances, as_float32, decoder
from napari_nucleiseg.core.decoders.measure import instances_of, smooth_foreground, smooth_probability
from napari_nucleiseg.core.geometry import YX, Region
from napari_nucleiseg.core.inference.enlarge import enlarge, grow, measure
from napari_nucleiseg.core.inference.plan import InferencePlan, Tile
from napari_nucleiseg.core.models.spec import ModelSpec
from napari_nucleiseg.core.store.nuclei import LocalLabels, TileNuclei

# A centroid this close outside the core is owned too: two tiles may place it a fraction of a pixel apart, and
# a nucleus found twice is told apart later while one that nobody took is lost.
OWNED_MARGIN_PX = 1.0
ROWS_AT_A_TIME = 64

StoredMap = NDArray[np.uint8] | NDArray[np.float16] | NDArray[np.float32]
Maps = Mapping[str, StoredMap]


def as_float(maps: Maps, as_stored: frozenset[str] = frozenset()) -> dict[str, StoredMap]:
    """Return maps as decoders want them: float32, probabilities in 0..1; those of `as_stored` as they are."""
    found: dict[str, StoredMap] = {}
    for name, values in maps.items():
        if name in as_stored:
            found[name] = values
        elif values.dtype == np.uint8:
            floats = as_float32(values)
            found[name] = np.multiply(floats, np.float32(1 / 255), out=floats)
        else:
            found[name] = as_float32(values)
    return found


def find_nuclei(
    tile: Tile,
    maps: Maps,
    plan: InferencePlan,
    spec: ModelSpec,
    options: DecodeOptions,
    *,
    labels: NDArray[np.int32] | None = None,
) -> TileNuclei:
    """Decode one tile and keep the nuclei whose centroid lies in its core.

    Parameters
    ----------
    tile : Tile
        Of the plan.
    maps : mapping of str to ndarray, shape (channels, y, x)
        Over ``tile.inside_px``: uint8 (probability times 255), float16 or float32.
    plan : InferencePlan
        Gives the grid and the size of a model pixel.
    spec : ModelSpec
        Names the decoder.
    options : DecodeOptions
        Threshold and smallest area.
    labels : ndarray of int32, shape (y, x), optional
        What the device has decoded of these maps at this threshold, of which only the foreground is needed then.

    Returns
    -------
    TileNuclei
        Whole masks, also where they reach beyond the core.
    """
    needed = decoder(spec.decoder)
    if labels is None:
        floats = as_float({head.name: maps[head.name] for head in needed.heads}, needed.as_stored)
        found = needed.decode(floats, plan.pixel_um, options)
    else:
        probability = smooth_foreground(maps["nuclei"][0], plan.pixel_um)
        found = instances_of(np.ascontiguousarray(labels), probability, options.min_area_um2 / plan.pixel_um**2)
    owned = np.flatnonzero(_owned(found.centroids, tile))
    gate = None
    if "nuclei" in maps and plan.grid.downsample != YX(1.0, 1.0):
        # Outlines are cut from what the decoder thresholds.
        gate = smooth_probability(_as_bytes(maps["nuclei"][0]), plan.pixel_um)
    return _on_level0(tile, found=found, owned=owned, gate=gate, plan=plan, threshold=options.threshold)


def _owned(centroids: NDArray[np.float32], tile: Tile) -> NDArray[np.bool_]:
    """Whether each centroid (pixels of ``tile.inside_px``) lies in the core or within the margin around it."""
    core, origin = tile.core_px, tile.inside_px
    # Pixel centres are whole numbers, so a core [a, b) of pixels spans a - 0.5 to b - 0.5.
    y = centroids[:, 0] + (origin.y - core.y + 0.5)
    x = centroids[:, 1] + (origin.x - core.x + 0.5)
    margin = OWNED_MARGIN_PX
    inside: NDArray[np.bool_] = (y >= -margin) & (y < core.height + margin) & (x >= -margin) & (x < core.width + margin)
    return inside


def _on_level0(
    tile: Tile,
    *,
    found: Instances,
    owned: NDArray[np.intp],
    gate: NDArray[np.uint8] | None,
    plan: InferencePlan,
    threshold: float,
) -> TileNuclei:
    """Cut out the owned nuclei, number them 1..n, bring them to level 0 and measure them there."""
    grid = plan.grid
    if len(owned) == 0:
        return _no_nuclei(tile)
    boxes = found.boxes[owned]
    # One pixel of room, for the outline to round itself into.
    window = Region.enclosing(boxes).expand(1)
    height, width = found.shape
    window = window.intersect(Region(0, 0, height, width))
    scores = found.scores[owned]
    window_px = window.translate(tile.inside_px.y, tile.inside_px.x)
    box = grid.level0_of(window_px)
    um2 = plan.mpp_um.y * plan.mpp_um.x / (grid.downsample.y * grid.downsample.x)
    if grid.downsample == YX(1.0, 1.0):
        shift = np.array([tile.inside_px.y, tile.inside_px.x])
        return TileNuclei(
            tile_index=tile.index,
            core=tile.core,
            box=box,
            labels=_kept(found, owned)[window.slices],
            centroids=found.centroids[owned].astype(np.float64) + shift,
            areas_um2=(found.areas[owned] * um2).astype(np.float32),
            boxes=boxes + np.tile(shift, 2),
            scores=scores,
        )
    labels = found.labels[window.slices]
    if gate is not None:
        labels, gate = grow(labels), gate[window.slices]
    coarse = _renumbered(labels, owned, len(found))
    fine = enlarge(coarse, gate, window_px=window_px, box=box, grid=grid, threshold=threshold)
    return _measured(tile, box, fine, scores=scores, um2=um2)


def _kept(found: Instances, kept: NDArray[np.intp]) -> LocalLabels:
    """Do as `_renumbered` with all labels of a field, by its pixels."""
    numbers = _new_numbers(kept, len(found))
    new = np.zeros(found.shape, numbers.dtype)
    new.reshape(-1)[found.pixels.flat] = numbers.take(found.pixels.labels)
    return new


def _new_numbers(kept: NDArray[np.intp], count: int) -> NDArray[Any]:
    """Return what becomes of the labels 0..`count`: 1..n of ``kept + 1``, 0 of the others."""
    numbers: NDArray[Any] = np.zeros(count + 1, np.uint16 if len(kept) < 1 << 16 else np.int32)
    numbers[kept + 1] = np.arange(1, len(kept) + 1)
    return numbers


def _renumbered(labels: LocalLabels, kept: NDArray[np.intp], count: int) -> LocalLabels:
    """Return labels 1..`count` with the ids ``kept + 1`` (ascending) as 1..n and the others cleared."""
    numbers = _new_numbers(kept, count)
    new = np.empty(labels.shape, numbers.dtype)
    # numpy makes wide indices of the labels first: of a few rows they stay in the cache.
    for top in range(0, len(labels), ROWS_AT_A_TIME):
        rows = slice(top, top + ROWS_AT_A_TIME)
        numbers.take(labels[rows], out=new[rows], mode="clip")
    return new


def _measured(
    tile: Tile,
    box: Region,
    labels: LocalLabels,
    *,
    scores: NDArray[np.float32],
    um2: float,
) -> TileNuclei:
    """Measure labels at level 0; ids that lost all their pixels are closed up."""
    found = measure(labels, len(scores))
    alive = np.flatnonzero(found.areas)
    if len(alive) < len(scores):
        labels = _renumbered(labels, alive, len(scores))
    return TileNuclei(
        tile_index=tile.index,
        core=tile.core,
        box=box,
        labels=labels,
        centroids=found.centroids[alive] + (box.y, box.x),
        areas_um2=(found.areas[alive] * um2).astype(np.float32),
        boxes=found.boxes[alive] + np.array([box.y, box.x, box.y, box.x]),
        scores=scores[alive],
    )


def _as_bytes(probability: StoredMap) -> NDArray[np.uint8]:
    if probability.dtype == np.uint8:
        return np.asarray(probability, dtype=np.uint8)
    return np.asarray(np.rint(np.clip(probability, 0, 1) * 255), dtype=np.uint8)


def _no_nuclei(tile: Tile) -> TileNuclei:
    return TileNuclei(
        tile_index=tile.index,
        core=tile.core,
        box=Region(tile.core.y, tile.core.x, 1, 1),
        labels=np.zeros((1, 1), np.uint16),
        centroids=np.zeros((0, 2)),
        areas_um2=np.zeros(0, np.float32),
        boxes=np.zeros((0, 4), np.int64),
        scores=np.zeros(0, np.float32),
    )

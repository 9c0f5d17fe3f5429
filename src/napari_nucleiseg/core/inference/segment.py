"""The one path from a plan to nuclei in a project: forward, decode and write overlap; what is done stays done."""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.decoders.base import DecodeOptions, decoder
from napari_nucleiseg.core.errors import ModelError, StoreError
from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.inference.ahead import run_ahead
from napari_nucleiseg.core.inference.device import Message
from napari_nucleiseg.core.inference.instances import find_nuclei
from napari_nucleiseg.core.inference.plan import InferencePlan, PlannedTiles, Tile, plan_inference
from napari_nucleiseg.core.inference.predict import (
    Cancelled,
    StoredMaps,
    TilePrediction,
    needed_heads,
    never,
    predict,
)
from napari_nucleiseg.core.inference.stitch import join_tiles
from napari_nucleiseg.core.models.hardware import bound_kept_memory, choose_device
from napari_nucleiseg.core.models.weights import LoadedModel
from napari_nucleiseg.core.slides.pyramid import Slide
from napari_nucleiseg.core.store.layout import MapLayout
from napari_nucleiseg.core.store.nuclei import MAX_NUCLEI_PER_TILE, MAX_TILES, TileNuclei

if TYPE_CHECKING:
    from napari_nucleiseg.core.store.project import Project


@dataclass(frozen=True, slots=True)
class TileDone:
    """One tile has been dealt with.

    Parameters
    ----------
    tile : Tile
        Which.
    region : Region
        Level-0 pixels in which labels may have changed.
    n_nuclei : int
        Nuclei that the tile owns.
    seconds : float
        Wall clock of its forward and its post-processing; waiting not counted.
    skipped : bool
        True if nothing was written; it will be tried again next time.
    reason : str
        Why it was skipped, or what was wrong with part of it; a sentence for people.
    done, total : int
        Tiles of the plan dealt with so far, those of earlier runs included.
    """

    tile: Tile
    region: Region
    n_nuclei: int
    seconds: float
    skipped: bool
    reason: str
    done: int
    total: int


@dataclass(frozen=True, slots=True, eq=False)
class FoundTile:
    """The nuclei of one tile, not written anywhere yet.

    Parameters
    ----------
    tile : Tile
        Which.
    nuclei : TileNuclei or None
        What the tile owns; None where it could not be read or decoded.
    seconds : float
        Wall clock of its forward and decoding.
    reason : str
        Why there is nothing, or what was wrong with part of it; a sentence for people.
    """

    tile: Tile
    nuclei: TileNuclei | None
    seconds: float
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    """What stays the same from tile to tile."""

    slide: Slide
    model: LoadedModel
    plan: InferencePlan
    options: DecodeOptions
    device: str
    batch_size: int | None
    cancelled: Cancelled
    on_message: Message | None

    def __post_init__(self) -> None:
        problem = self.options.validation_error()
        if problem:
            raise ModelError(problem)
        if len(self.plan.grid) > MAX_TILES:
            raise ModelError(
                f"this slide has {len(self.plan.grid):,} tiles at the model's pixel size, more than the "
                f"{MAX_TILES:,} that can be numbered; check its pixel size (mpp) or use a model with a coarser one"
            )


@dataclass(frozen=True, slots=True, eq=False)
class _Decoded:
    prediction: TilePrediction
    nuclei: TileNuclei | None
    seconds: float
    reason: str


def default_options(model: LoadedModel) -> DecodeOptions:
    """Return the threshold and smallest area that the weights' card recommends."""
    return DecodeOptions(model.card.threshold, model.card.min_area_um2)


def options_key(plan: InferencePlan, model: LoadedModel, options: DecodeOptions) -> str:
    """Return a stable name of all that, beside the weights, decides what nuclei come out."""
    revision = decoder(model.spec.decoder).revision
    name = f"{model.spec.decoder}{revision if revision > 1 else ''}"
    decode = f"{name}:t{options.threshold:.6g}:a{options.min_area_um2:.6g}"
    return f"{decode}:{plan.grid.key}"


def segment(
    slide: Slide,
    model: LoadedModel,
    project: Project,
    plan: InferencePlan,
    options: DecodeOptions | None = None,
    *,
    device: str = "auto",
    batch_size: int | None = None,
    cancelled: Cancelled = never,
    keep_maps: bool = False,
    on_message: Message | None = None,
) -> Generator[TileDone, None, None]:
    """Find the nuclei of all tiles of a plan that are not done yet and write them to the project.

    Tiles whose maps were kept are decoded again without a forward. Killed at any instant, the next call
    goes on where this one was.

    Parameters
    ----------
    slide, model, project, plan
        All of the same slide and model.
    options : DecodeOptions, optional
        Default what the model's card says.
    device : str
        ``auto``, ``cuda``, ``mps``, ``cpu``.
    batch_size : int, optional
        Tiles forwarded together; default what suits the device.
    cancelled : callable
        Polled between tiles; after it says True at most one more tile is written.
    keep_maps : bool
        Keep the maps in the project, for heatmaps and for decoding with other options.
    on_message : callable, optional
        Told in a sentence when device or batch size had to change.

    Yields
    ------
    TileDone
        As soon as a tile's labels can be seen.

    Raises
    ------
    StoreError
        If the project cannot be written (a full disk): what is done stays.
    SlideError
        If the slide is gone.
    ModelError
        If the options make no sense or the network cannot run.
    """
    job = _Job(slide, model, plan, options or default_options(model), device, batch_size, cancelled, on_message)
    key = options_key(plan, model, job.options)
    before = project.tiles_done(model.version, key)
    if keep_maps:
        _declare_maps(project, plan, model.version)
    predictions = _predictions(job, project, before, keep_maps=keep_maps)
    with _tidied(), _flushed(project), closing(_decoded(predictions, job)) as results:
        for done, result in enumerate(results, start=len(plan.tiles.only(before)) + 1):
            yield _write(result, job, project, key=key, done=done, keep_maps=keep_maps)
            if cancelled():
                break


def _declare_maps(project: Project, plan: InferencePlan, version: str) -> None:
    """Tell the project on which grid the maps lie that it is going to keep."""
    grid, extent = plan.grid, plan.grid.extent
    layout = MapLayout(extent.height, extent.width, grid.tile_px, grid.halo_px, grid.size_multiple, grid.key)
    project.maps.declare(version, layout)


@contextmanager
def _tidied() -> Iterator[None]:
    """Bound the memory that is kept for the next segmentation: each has threads of its own, with memory of theirs."""
    try:
        yield
    finally:
        bound_kept_memory()


@contextmanager
def _flushed(project: Project) -> Iterator[None]:
    """Flush the project at the end of the block, however it ends."""
    try:
        yield
    except BaseException:
        with suppress(StoreError):  # the first error is the one to tell
            project.flush()
        raise
    project.flush()


def segment_picture(
    slide: Slide,
    model: LoadedModel,
    options: DecodeOptions | None = None,
    device: str = "auto",
    *,
    batch_size: int | None = None,
    cancelled: Cancelled = never,
    on_message: Message | None = None,
) -> NDArray[np.int32]:
    """Find all nuclei of a slide that is small enough for memory; the same plan, forward and decoding.

    Returns
    -------
    ndarray of int32, shape (height, width) of level 0
        1..n; a tile that cannot be read stays 0.

    Raises
    ------
    MissingPixelSizeError
        If the slide does not say how large its pixels are.
    SlideError
        If it cannot be read.
    ModelError
        If the options make no sense or the network cannot run.
    """
    plan = plan_inference(slide, model.spec)
    found = find_in_tiles(
        slide,
        model,
        plan,
        options,
        device=device,
        batch_size=batch_size,
        cancelled=cancelled,
        on_message=on_message,
    )
    with closing(found) as results:
        return join_tiles((result.nuclei for result in results if result.nuclei is not None), slide.shape)


def find_in_tiles(
    slide: Slide,
    model: LoadedModel,
    plan: InferencePlan,
    options: DecodeOptions | None = None,
    *,
    tiles: PlannedTiles | None = None,
    device: str = "auto",
    batch_size: int | None = None,
    cancelled: Cancelled = never,
    on_message: Message | None = None,
) -> Generator[FoundTile, None, None]:
    """Find the nuclei of tiles of a plan and write nothing: the same reading, forward and decoding as `segment`.

    Parameters
    ----------
    slide, model, plan, options, device, batch_size, cancelled, on_message
        As for `segment`.
    tiles : PlannedTiles, optional
        Some of the plan's tiles; default all.

    Yields
    ------
    FoundTile
        In the order of `tiles`.

    Raises
    ------
    SlideError
        If many tiles in a row cannot be read.
    ModelError
        If the options make no sense or the network cannot run.
    """
    job = _Job(slide, model, plan, options or default_options(model), device, batch_size, cancelled, on_message)
    with closing(_decoded(_forwarded(job, None, plan.tiles if tiles is None else tiles), job)) as results:
        for result in results:
            seconds = result.prediction.seconds + result.seconds
            yield FoundTile(result.prediction.tile, result.nuclei, seconds, result.reason)


def _forwarded(job: _Job, heads: tuple[str, ...] | None, tiles: PlannedTiles) -> Generator[TilePrediction, None, None]:
    return predict(
        job.plan,
        job.slide,
        job.model,
        tiles=tiles,
        device=job.device,
        batch_size=job.batch_size,
        heads=heads,
        options=job.options,
        cancelled=job.cancelled,
        on_message=job.on_message,
    )


def _predictions(
    job: _Job, project: Project, before: set[int], *, keep_maps: bool
) -> Generator[TilePrediction, None, None]:
    """Maps of the tiles to do: first those that were kept, which cost no forward, then the network's."""
    heads, version = needed_heads(job.model.spec, shown=keep_maps), job.model.version
    settled = set(before)
    for tile in job.plan.tiles.only(project.maps.tiles(version)).without(before):
        if job.cancelled():
            return
        maps = project.maps.get(version, tile.index)
        if maps is not None and _fits(maps, heads, tile):
            settled.add(tile.index)
            yield TilePrediction(tile, maps, kept=True)
    yield from _forwarded(job, heads if keep_maps else None, job.plan.tiles.without(settled))


def _fits(maps: StoredMaps, heads: tuple[str, ...], tile: Tile) -> bool:
    """Whether kept maps hold all heads and cover what the tile covers now (its pixel size may have been corrected)."""
    shape = (tile.inside_px.height, tile.inside_px.width)
    return all(name in maps and maps[name].shape[1:] == shape for name in heads)


def _decoded(predictions: Generator[TilePrediction, None, None], job: _Job) -> Generator[_Decoded, None, None]:
    """Decode in worker threads while the next forward runs in another; in the order of `predictions`."""

    def decode(prediction: TilePrediction) -> _Decoded:
        start = time.perf_counter()
        if not prediction.maps:
            return _Decoded(prediction, None, 0.0, prediction.reason)
        nuclei = find_nuclei(
            prediction.tile, prediction.maps, job.plan, job.model.spec, job.options, labels=prediction.labels
        )
        seconds = time.perf_counter() - start
        if len(nuclei) <= MAX_NUCLEI_PER_TILE:
            return _Decoded(prediction, nuclei, seconds, prediction.reason)
        reason = (
            f"tile {prediction.tile.index} holds {len(nuclei):,} nuclei, which no tissue has: it is left out; "
            "raise the threshold or the smallest area, or check the pixel size (mpp)"
        )
        return _Decoded(prediction, None, seconds, reason)

    on_cpu = choose_device(job.device).type == "cpu"
    workers = 1 if on_cpu else max(1, min(8, (os.cpu_count() or 2) // 2))
    with ThreadPoolExecutor(workers, thread_name_prefix="nucleiseg-decode") as pool:

        def submitted() -> Iterator[Future[_Decoded]]:
            with closing(predictions):
                for prediction in predictions:
                    yield pool.submit(decode, prediction)

        # The forward has its own thread, so that a finished tile is shown while the next one is computed.
        with closing(run_ahead(submitted(), depth=2 * workers, name="nucleiseg-forward")) as futures:
            for future in futures:
                yield future.result()


def _write(result: _Decoded, job: _Job, project: Project, *, key: str, done: int, keep_maps: bool) -> TileDone:
    """Write one tile; tiles without nuclei count as done too, unreadable ones do not."""
    prediction, nuclei, start = result.prediction, result.nuclei, time.perf_counter()
    tile, total = prediction.tile, len(job.plan)
    if nuclei is None:
        return TileDone(tile, tile.core, 0, result.seconds, True, result.reason, done, total)
    version = job.model.version
    if keep_maps and not prediction.kept:
        project.maps.put(version, tile.index, prediction.maps)
    project.write_tile(nuclei, version, key)
    seconds = prediction.seconds + result.seconds + time.perf_counter() - start
    changed = _union(tile.core, nuclei.box)
    return TileDone(tile, changed, len(nuclei), seconds, False, result.reason, done, total)


def _union(one: Region, other: Region) -> Region:
    return Region.from_bounds(min(one.y, other.y), min(one.x, other.x), max(one.y1, other.y1), max(one.x1, other.x1))

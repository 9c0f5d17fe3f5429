"""From planned tiles to maps: reading runs ahead of the forward, tile after tile, in bounded memory."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import cast

import cv2
import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.decoders.base import DecodeOptions, decoder
from napari_nucleiseg.core.errors import SlideError
from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.inference.ahead import map_ahead
from napari_nucleiseg.core.inference.device import Forward, Message, default_batch_size, default_readers
from napari_nucleiseg.core.inference.device_decode import LABELS, device_decode
from napari_nucleiseg.core.inference.plan import InferencePlan, Tile, TileGrid
from napari_nucleiseg.core.inference.transfer import MapArrays
from napari_nucleiseg.core.models.spec import ModelSpec
from napari_nucleiseg.core.models.weights import LoadedModel
from napari_nucleiseg.core.slides.pyramid import Slide
from napari_nucleiseg.core.slides.voxels import mirrored

StoredMaps = Mapping[str, NDArray[np.uint8] | NDArray[np.float16]]
Cancelled = Callable[[], bool]
# One broken tile is a broken tile; this many in a row are a lost file or drive.
MAX_UNREADABLE = 8


def never() -> bool:
    """Say that nobody has cancelled."""
    return False


@dataclass(frozen=True, slots=True, eq=False)
class TilePrediction:
    """What the network says of one tile, or why it says nothing.

    Parameters
    ----------
    tile : Tile
        Where; the maps cover ``tile.inside_px``.
    maps : mapping of str to ndarray, shape (channels, y, x)
        Sigmoid heads as uint8 (probability times 255), others as float16 in model pixels; empty if unreadable.
    seconds : float
        Share of the forward, wall clock.
    reason : str
        Why there are no maps, or what was wrong with part of the tile; empty if all is well.
    kept : bool
        Whether the maps come from an earlier run.
    labels : ndarray of int32, shape (y, x), or None
        Where the device has decoded too: its nuclei, those too small included, numbered with gaps.
    """

    tile: Tile
    maps: StoredMaps
    seconds: float = 0.0
    reason: str = ""
    kept: bool = False
    labels: NDArray[np.int32] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class _TilePixels:
    tile: Tile
    pixels: NDArray[np.uint8] | None
    reason: str = ""


def needed_heads(spec: ModelSpec, *, shown: bool) -> tuple[str, ...]:
    """Return the heads the decoder needs and, if `shown`, those offered as heatmaps, in the spec's order."""
    wanted = {head.name for head in decoder(spec.decoder).heads}
    return tuple(head.name for head in spec.heads if head.name in wanted or (shown and head.shown))


def predict(
    plan: InferencePlan,
    slide: Slide,
    model: LoadedModel,
    *,
    tiles: Sequence[Tile] | None = None,
    device: str = "auto",
    batch_size: int | None = None,
    readers: int | None = None,
    heads: Sequence[str] | None = None,
    options: DecodeOptions | None = None,
    cancelled: Cancelled = never,
    on_message: Message | None = None,
) -> Generator[TilePrediction, None, None]:
    """Run the model over the tiles of a plan, in its order.

    Parameters
    ----------
    plan, slide, model
        The plan is of this slide and ``model.spec``; the slide must stand being read from threads.
    tiles : sequence of Tile, optional
        Some of the plan's tiles; default all.
    device : str
        ``auto``, ``cuda``, ``mps``, ``cpu``.
    batch_size, readers : int, optional
        Tiles forwarded together (the first always goes alone, so that it is there as soon as can be) and threads that
        read ahead; default what suits the device.
    heads : sequence of str, optional
        Outputs wanted; default what the decoder needs.
    options : DecodeOptions, optional
        Lets the device find the nuclei too where `device_decode` says so; the default is then the foreground alone.
    cancelled : callable
        Polled between tiles; after it says True at most the tile in work is finished.
    on_message : callable, optional
        Told when device or batch size had to change.

    Yields
    ------
    TilePrediction
        One for every tile; without maps where the slide could not be read.

    Raises
    ------
    SlideError
        If many tiles in a row cannot be read.
    ModelError
        If the network cannot run.
    """
    wanted = needed_heads(model.spec, shown=False) if heads is None else heads
    decode = device_decode(model.spec, plan.pixel_um, options, heads)
    forward = Forward(model, device, heads=wanted, decode=decode, on_message=on_message)
    size, readers = batch_size or default_batch_size(forward.device), readers or default_readers(forward.device)
    read = partial(_read, slide, plan.grid, cancelled=cancelled)
    todo, depth = plan.tiles if tiles is None else tiles, max(size + readers, 2)
    with closing(map_ahead(read, todo, workers=readers, depth=depth, name="nucleiseg-read")) as ahead:
        for started in _started(_batches(_readable(ahead, cancelled), size), forward, cancelled):
            for prediction in _predictions(started):
                yield prediction
                if cancelled():
                    return


@dataclass(slots=True, eq=False)
class _Started:
    """A batch in work: what gives its maps (None if nothing of it could be read), and since when it is waited for."""

    batch: list[_TilePixels]
    maps: Callable[[], MapArrays] | None
    since: float


def _started(batches: Iterable[list[_TilePixels]], forward: Forward, cancelled: Cancelled) -> Iterator[_Started]:
    """Start each batch before the one before is waited for, where the device computes by itself; not the first."""
    waiting: deque[_Started] = deque()
    ahead = 0
    for batch in batches:
        if cancelled():
            return
        start = time.perf_counter()
        pixels = [entry.pixels for entry in batch if entry.pixels is not None]
        windows = [_window(entry.tile) for entry in batch if entry.pixels is not None]
        waiting.append(_Started(batch, forward.start(pixels, windows) if pixels else None, start))
        while len(waiting) > ahead:
            yield waiting.popleft()
            if waiting:  # the device turned to it just now
                waiting[0].since = time.perf_counter()
        ahead = forward.ahead
    yield from waiting


def _predictions(started: _Started) -> Iterator[TilePrediction]:
    batch = started.batch
    if started.maps is None:
        yield from (TilePrediction(entry.tile, {}, reason=entry.reason) for entry in batch)
        return
    maps, started.maps = started.maps(), None  # so that they go when the last tile is gone
    seconds = (time.perf_counter() - started.since) / len(batch)
    for place, entry in enumerate(batch):
        tile = entry.tile
        inside = _window(tile).slices
        own = {name: values[place][:, inside[0], inside[1]] for name, values in maps.items()}
        labels = cast("NDArray[np.int32] | None", own.pop(LABELS)[0] if LABELS in own else None)
        yield TilePrediction(tile, own, seconds, entry.reason, labels=labels)


def _window(tile: Tile) -> Region:
    """Return the part of a tile's box that lies on the slide, in pixels of the box."""
    return tile.inside_px.translate(-tile.box_px.y, -tile.box_px.x)


def _batches(entries: Iterable[_TilePixels], size: int) -> Iterator[list[_TilePixels]]:
    """Group neighbours in the order that have the same shape; the first tile goes alone, unreadable ones too."""
    batch: list[_TilePixels] = []
    limit = 1
    for entry in entries:
        if batch and _shape(entry) != _shape(batch[0]):
            yield batch
            batch, limit = [], size
        batch.append(entry)
        if len(batch) >= limit or entry.pixels is None:
            yield batch
            batch, limit = [], size
    if batch:
        yield batch


def _shape(entry: _TilePixels) -> tuple[int, ...]:
    return () if entry.pixels is None else entry.pixels.shape


def _readable(entries: Iterable[_TilePixels], cancelled: Cancelled) -> Iterator[_TilePixels]:
    """Pass tiles through until it is cancelled or too many in a row could not be read."""
    failed = 0
    for entry in entries:
        if cancelled():
            return
        failed = failed + 1 if entry.pixels is None else 0
        if failed >= MAX_UNREADABLE:
            raise SlideError(
                f"{failed} tiles in a row cannot be read; the slide or its drive seems to be gone. "
                f"Finished tiles are kept. The last one said: {entry.reason}"
            )
        yield entry


def _read(slide: Slide, grid: TileGrid, tile: Tile, cancelled: Cancelled) -> _TilePixels:
    if cancelled():
        return _TilePixels(tile, None, "cancelled")  # nobody will look at it
    where = f"tile {tile.index} (row {tile.row}, column {tile.col})"
    try:
        pixels = read_tile(slide, grid, tile)
    except (SlideError, OSError) as error:
        return _TilePixels(tile, None, f"{where} cannot be read: {error}")
    except Exception as error:
        error.add_note(f"while reading {where} of {slide.path}")
        raise
    hurt = [damage for damage in slide.damage_at(grid.downsample) if damage.region.overlaps(tile.core)]
    if not hurt:
        return _TilePixels(tile, pixels)
    reason = hurt[0].reason
    if _cover([damage.region for damage in hurt], tile.core):
        return _TilePixels(tile, None, f"{where} is damaged: {reason}")
    return _TilePixels(tile, pixels, f"part of {where} is damaged: {reason}")


def _cover(regions: Sequence[Region], core: Region) -> bool:
    """Whether regions that may overlap cover a tile together."""
    parts = [region.intersect(core) for region in regions]
    rows = np.unique([core.y, core.y1, *(edge for part in parts for edge in (part.y, part.y1))])
    columns = np.unique([core.x, core.x1, *(edge for part in parts for edge in (part.x, part.x1))])
    covered = np.zeros((len(rows) - 1, len(columns) - 1), np.bool_)
    for part in parts:
        y0, y1 = np.searchsorted(rows, (part.y, part.y1))
        x0, x1 = np.searchsorted(columns, (part.x, part.x1))
        covered[y0:y1, x0:x1] = True
    return bool(covered.all())


def read_tile(slide: Slide, grid: TileGrid, tile: Tile) -> NDArray[np.uint8]:
    """Read what the network must see to predict ``tile.box_px``.

    Returns
    -------
    ndarray of uint8, shape (y, x, 3)
        RGB at the model's pixel size: the box and the margin that valid convolutions lose.
        Beyond the slide's edges the picture is mirrored, whatever was asked to be seen.
    """
    wanted, extent = tile.box_px.expand(grid.margin_px), grid.extent
    there = wanted.intersect(extent)
    pads = there.y - wanted.y, wanted.y1 - there.y1, there.x - wanted.x, wanted.x1 - there.x1
    if max(pads[:2]) < there.height and max(pads[2:]) < there.width:
        pixels = _read_px(slide, grid, there)
        if not any(pads):
            return np.ascontiguousarray(pixels)
        return np.asarray(cv2.copyMakeBorder(pixels, *pads, cv2.BORDER_REFLECT_101), dtype=np.uint8)
    # A thin last column or a tiny picture: what the mirror shows reaches beyond the box, or is mirrored again.
    rows, columns = mirrored(wanted.y, wanted.y1, extent.height), mirrored(wanted.x, wanted.x1, extent.width)
    source = Region.from_bounds(int(rows.min()), int(columns.min()), int(rows.max()) + 1, int(columns.max()) + 1)
    return _read_px(slide, grid, source)[np.ix_(rows - source.y, columns - source.x)]


def _read_px(slide: Slide, grid: TileGrid, region_px: Region) -> NDArray[np.uint8]:
    """Read a rectangle of model pixels on the slide."""
    fy, fx = grid.downsample
    return slide.read_box(region_px.y * fy, region_px.x * fx, fy, fx, (region_px.height, region_px.width))

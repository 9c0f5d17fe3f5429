"""A pyramid level made of tiles that are decoded when they are read."""

from __future__ import annotations

import logging
import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.errors import SlideError
from napari_nucleiseg.core.geometry import YX, Region
from napari_nucleiseg.core.slides.pyramid import BACKGROUND, DamagedTile, UInt8Image
from napari_nucleiseg.core.slides.tilecache import TileCache, TileKey, new_owner, shared_cache

logger = logging.getLogger(__name__)

# Fewer missing tiles than this are decoded where they are asked for: handing them over costs about as much.
POOL_FROM = 4
LARGEST_STRIP_BYTES = 32 << 20
"""Full-width tiles larger than this are worth splitting when another level is made from them."""

POOL_THREADS = min(4, os.cpu_count() or 1)

ReadTile = Callable[[int, int], UInt8Image | None]


class UnreadableTileError(SlideError):
    """One tile cannot be decoded; its level shows background there and goes on."""


class TiledLevel:
    """A lazy, read-only ``(y, x, 3)`` uint8 RGB array over a source of tiles.

    Parameters
    ----------
    shape : tuple of int
        ``(height, width)`` of the level, pixels.
    tile_shape : tuple of int
        ``(height, width)`` of a whole tile, pixels.
    read_tile : callable
        ``(row, col) -> (y, x, 3)`` uint8; tiles of the last row and column may be whole or cut.
        None where nothing was scanned. Raises `UnreadableTileError` with the reason.
        It is called from several threads at a time.
    downsample : YX
        Level-0 pixels per pixel, to say where and in which level a damaged tile lies.
    damage : list of DamagedTile, optional
        Where each unreadable tile is recorded, once.
    cache : TileCache, optional
        Default: the one of the process.
    expose_chunks : bool
        Whether to have ``chunks``, by which napari widens what it reads; not for full-width strips.
    pool_from : int
        Decode in threads when at least so many tiles are missing.
    read_passing : callable, optional
        Like `read_tile`, where what it returns need only last until the thread asks for the next.
    """

    chunks: tuple[int, int, int]

    def __init__(
        self,
        shape: tuple[int, int],
        tile_shape: tuple[int, int],
        read_tile: ReadTile,
        *,
        downsample: YX = YX(1.0, 1.0),
        damage: list[DamagedTile] | None = None,
        cache: TileCache | None = None,
        expose_chunks: bool = True,
        pool_from: int = POOL_FROM,
        read_passing: ReadTile | None = None,
    ) -> None:
        self._shape = (int(shape[0]), int(shape[1]), 3)
        self._tile_shape = (int(tile_shape[0]), int(tile_shape[1]))
        self._read_tile = read_tile
        self._read_passing = read_passing or read_tile
        self._downsample = downsample
        self._damage: list[DamagedTile] = [] if damage is None else damage
        self._damaged: set[tuple[int, int]] = set()
        self._cache = shared_cache() if cache is None else cache
        self._owner = new_owner()
        self._pool_from = pool_from
        self._busy: dict[tuple[int, int], threading.Lock] = {}
        self._lock = threading.Lock()
        if expose_chunks:
            self.chunks = (*self._tile_shape, 3)

    def __deepcopy__(self, _memo: Any) -> Self:
        return self  # who copies a layer means the same file

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(height, width, 3)``."""
        return self._shape

    @property
    def tile_shape(self) -> tuple[int, int]:
        """``(height, width)`` of a whole tile."""
        return self._tile_shape

    @property
    def is_strips(self) -> bool:
        """Whether tiles are full-width strips, which a viewer must not be told of as chunks."""
        return not hasattr(self, "chunks")

    @property
    def dtype(self) -> np.dtype[np.uint8]:
        """Always uint8."""
        return np.dtype(np.uint8)

    @property
    def ndim(self) -> int:
        """Always 3."""
        return 3

    @property
    def size(self) -> int:
        """Number of samples."""
        return self._shape[0] * self._shape[1] * 3

    @property
    def nbytes(self) -> int:
        """Bytes of the whole level once decoded."""
        return self.size

    def __len__(self) -> int:
        return self._shape[0]

    def __repr__(self) -> str:
        return f"<TiledLevel {self._shape[0]} x {self._shape[1]} in tiles of {self._tile_shape}>"

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Decode the whole level."""
        if copy is False:
            raise ValueError("a slide level is decoded on reading and cannot be had without a copy")
        return np.asarray(self[...], dtype=dtype)

    def __getitem__(self, key: Any) -> UInt8Image:
        """Read the pixels that `key` (slices, integers, steps, Ellipsis) selects."""
        rows, cols, channels = _normalise(key, self._shape)
        out = self._read(_ascending(rows), _ascending(cols))
        flip = tuple(slice(None, None, -1 if isinstance(axis, range) and axis.step < 0 else 1) for axis in (rows, cols))
        final = tuple(slice(None) if isinstance(axis, range) else 0 for axis in (rows, cols))
        if flip != (slice(None, None, 1),) * 2:
            out = out[flip]
        if not isinstance(channels, range):
            return out[(*final, channels)]
        if channels == range(3):
            return out[final] if 0 in final else out
        return out[final][..., np.array(channels, dtype=np.intp)]

    def read_through(self, rows: slice, cols: slice) -> UInt8Image:
        """Read a rectangle without crowding the shared cache with its tiles; those kept already are used."""
        keep = self._cache is not shared_cache()
        return self._read(range(*rows.indices(self._shape[0])), range(*cols.indices(self._shape[1])), keep=keep)

    def forget(self) -> None:
        """Give the cached tiles back."""
        self._cache.drop(self._owner)

    def tile(self, row: int, col: int, *, keep: bool = True) -> UInt8Image:
        """Return one decoded tile, read-only by agreement; white where damaged or never scanned."""
        key = TileKey(self._owner, row, col)
        tile = self._cache.get(key)
        if tile is not None:
            return tile
        # Two threads that want one tile: the second waits for the first instead of decoding it too.
        with self._lock:
            busy = self._busy.setdefault((row, col), threading.Lock())
        try:
            with busy:
                tile = self._cache.get(key)
                if tile is None:
                    tile = self._decode(row, col, self._read_tile)
                    if keep:
                        self._cache.put(key, tile)
        finally:
            with self._lock:
                self._busy.pop((row, col), None)
        return tile

    def passing_tile(self, row: int, col: int) -> UInt8Image:
        """Return one decoded tile that is not kept, to be used up before this thread asks for another."""
        if self._cache is not shared_cache():
            return self.tile(row, col)
        tile = self._cache.get(TileKey(self._owner, row, col))
        return self._decode(row, col, self._read_passing) if tile is None else tile

    def _decode(self, row: int, col: int, read: ReadTile) -> UInt8Image:
        try:
            decoded = read(row, col)
        except UnreadableTileError as error:
            self._record(row, col, str(error))
            decoded = None
        if decoded is None:
            decoded = np.full((*self._tile_shape, 3), BACKGROUND, np.uint8)
        return decoded

    def _record(self, row: int, col: int, reason: str) -> None:
        with self._lock:
            if (row, col) in self._damaged:
                return
            self._damaged.add((row, col))
        height, width = self._tile_shape
        y, x = row * height, col * width
        box = Region.from_bounds(y, x, min(y + height, self._shape[0]), min(x + width, self._shape[1]))
        region = box.scaled_outward(*self._downsample)
        self._damage.append(DamagedTile(region, reason, self._downsample))
        # One is a warning that there may be more; all of them are in the slide's `damage`, where callers look.
        level = logging.WARNING if len(self._damage) == 1 else logging.DEBUG
        where = (region.y, region.y1, region.x, region.x1)
        sentence = "rows %d to %d, columns %d to %d of a slide cannot be read and are shown white: %s"
        logger.log(level, sentence, *where, reason)

    def _read(self, rows: range, cols: range, *, keep: bool = True) -> UInt8Image:
        out = np.empty((len(rows), len(cols), 3), np.uint8)
        if out.size == 0:
            return out
        height, width = self._tile_shape
        parts = [(row, col) for row in _tiles_along(rows, height) for col in _tiles_along(cols, width)]

        def place(part: tuple[int, int]) -> None:
            row, col = part
            to_y, from_y = _overlap(rows, row * height, height)
            to_x, from_x = _overlap(cols, col * width, width)
            out[to_y, to_x] = self.tile(row, col, keep=keep)[from_y, from_x]

        if len(parts) < self._pool_from or not _may_use_pool() or self._missing(parts) < self._pool_from:
            for part in parts:
                place(part)
        else:
            _run_in_pool(place, parts)
        return out

    def _missing(self, parts: list[tuple[int, int]]) -> int:
        return sum(self._cache.get(TileKey(self._owner, *part)) is None for part in parts)


def _normalise(key: Any, shape: tuple[int, int, int]) -> tuple[range | int, range | int, range | int]:
    """Turn an index into one range or integer an axis."""
    parts = key if isinstance(key, tuple) else (key,)
    if any(part is Ellipsis for part in parts):
        at = next(index for index, part in enumerate(parts) if part is Ellipsis)
        parts = parts[:at] + (slice(None),) * (len(shape) - len(parts) + 1) + parts[at + 1 :]
    if len(parts) > len(shape):
        raise IndexError(f"too many indices for a slide level of 3 axes: {key}")
    parts = parts + (slice(None),) * (len(shape) - len(parts))
    rows, cols, channels = (_along(part, length) for part, length in zip(parts, shape, strict=True))
    return rows, cols, channels


def _along(part: Any, length: int) -> range | int:
    if isinstance(part, slice):
        return range(*part.indices(length))
    try:
        index = part.__index__()
    except (AttributeError, TypeError):
        raise IndexError(f"a slide level takes slices and integers as index, not {type(part).__name__}") from None
    if not -length <= index < length:
        raise IndexError(f"index {index} is outside an axis of {length} pixels")
    return int(index) % length


def _ascending(axis: range | int) -> range:
    if isinstance(axis, int):
        return range(axis, axis + 1)
    return axis if axis.step > 0 else axis[::-1]


def _tiles_along(axis: range, length: int) -> list[int]:
    """Return the tiles of `length` pixels that hold a pixel of `axis` (a large step leaves some out)."""
    if axis.step <= length:
        return list(range(axis[0] // length, axis[-1] // length + 1))
    return [position // length for position in axis]


def _overlap(axis: range, start: int, length: int) -> tuple[slice, slice]:
    """Return where the tile ``[start, start + length)`` goes in the output, and what of the tile goes there."""
    step = axis.step
    first = max(0, -((axis.start - start) // step))
    last = min(len(axis), -((axis.start - start - length) // step))
    begin = axis.start + first * step - start
    return slice(first, last), slice(begin, begin + (last - first - 1) * step + 1, step)


_here = threading.local()
_pool: ThreadPoolExecutor | None = None
_pool_lock = threading.Lock()


def _may_use_pool() -> bool:
    # A tile of a virtual level reads the level below from within the pool; waiting there for the
    # same pool would lock it up.
    return POOL_THREADS > 1 and not getattr(_here, "in_pool", False)


def _mark_thread() -> None:
    _here.in_pool = True


def _forget_pool() -> None:
    global _pool  # noqa: PLW0603 - a forked child has none of its parent's threads
    _pool = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)


def _run_in_pool(place: Callable[[tuple[int, int]], None], parts: list[tuple[int, int]]) -> None:
    global _pool  # noqa: PLW0603 - started by the first read that needs it
    with _pool_lock:
        if _pool is None:
            _pool = ThreadPoolExecutor(POOL_THREADS, thread_name_prefix="tiles", initializer=_mark_thread)
        pool = _pool

    waiting = deque(parts)

    def place_some() -> None:
        # One after another: a thread whose core is busy with a model must not hold up a share of its own.
        while True:
            try:
                part = waiting.popleft()
            except IndexError:
                return
            place(part)

    for done in [pool.submit(place_some) for _ in range(min(POOL_THREADS, len(parts)))]:
        done.result()

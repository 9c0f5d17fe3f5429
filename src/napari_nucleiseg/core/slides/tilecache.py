"""A byte-bounded, thread-safe cache of decoded tiles, shared by the levels of all open slides."""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict
from typing import NamedTuple

from napari_nucleiseg.core.slides.pyramid import UInt8Image

# Several screens of 4K pixels, of 24 MiB each. Segmenting a large slide from its centre finds few of its halos in any
# cache that fits into memory, so that a larger one hardly saves it anything.
DEFAULT_MAX_BYTES = 192 << 20

_owners = itertools.count(1)


class TileKey(NamedTuple):
    """A tile of one level; `owner` is the number that the level got from `new_owner`."""

    owner: int
    row: int
    col: int


def new_owner() -> int:
    """Return a number under which one level keeps its tiles; never given twice in a process."""
    return next(_owners)


class TileCache:
    """Keep the tiles used last, up to a number of bytes.

    Parameters
    ----------
    max_bytes : int
        Upper bound of what is kept; a tile larger than that is not kept at all.
    """

    def __init__(self, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._tiles: OrderedDict[TileKey, UInt8Image] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    @property
    def bytes(self) -> int:
        """Bytes of the tiles kept now."""
        return self._bytes

    @property
    def max_bytes(self) -> int:
        """Upper bound of `bytes`."""
        return self._max_bytes

    def __len__(self) -> int:
        return len(self._tiles)

    def get(self, key: TileKey) -> UInt8Image | None:
        """Return the tile, read-only by agreement, or None if it is not kept (any more)."""
        with self._lock:
            tile = self._tiles.get(key)
            if tile is not None:
                self._tiles.move_to_end(key)
            return tile

    def put(self, key: TileKey, tile: UInt8Image) -> None:
        """Keep `tile`, dropping those not used for longest."""
        if tile.nbytes > self._max_bytes:
            return
        with self._lock:
            old = self._tiles.pop(key, None)
            self._bytes += tile.nbytes - (old.nbytes if old is not None else 0)
            self._tiles[key] = tile
            while self._bytes > self._max_bytes:
                self._bytes -= self._tiles.popitem(last=False)[1].nbytes

    def drop(self, owner: int) -> None:
        """Forget all tiles of one level."""
        with self._lock:
            for key in [key for key in self._tiles if key.owner == owner]:
                self._bytes -= self._tiles.pop(key).nbytes

    def clear(self) -> None:
        """Forget all tiles."""
        with self._lock:
            self._tiles.clear()
            self._bytes = 0


_shared = TileCache()


def shared_cache() -> TileCache:
    """Return the cache of the process: memory is bounded by it, however many slides are open."""
    return _shared

"""The chunk files of a zarr pyramid behind a bounded cache: a chunk is seldom encoded twice, readers see all.

The files are plain zarr v3 (little-endian bytes, zstd, sharded), so any zarr library reads them. They are
written here and not through zarr-python because one chunk then costs its compression and little else.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.store.files import decode_chunk, encode_chunk, sync_files
from napari_nucleiseg.core.store.shards import ChunkFiles, Key

ROWS_APART = 32
MOST_MISSING = 1 << 14

Slices = tuple[slice, slice]
UInt32Image = NDArray[np.uint32]


@dataclass(slots=True)
class _Waiting:
    """A changed chunk that is not in its file yet; `since` is the first journal entry it belongs to."""

    chunk: UInt32Image
    since: int


@dataclass(slots=True)
class _Strips:
    """The first few pixels of a chunk that is otherwise empty: what a tile's nuclei reach into its neighbour."""

    parts: list[tuple[Slices, UInt32Image]]
    since: int

    def copy(self, inside: Slices, out: UInt32Image) -> None:
        """Copy a part of the chunk."""
        out[...] = 0
        rows, columns = inside
        for (part_rows, part_columns), values in self.parts:
            y0, y1 = max(rows.start, part_rows.start), min(rows.stop, part_rows.stop)
            x0, x1 = max(columns.start, part_columns.start), min(columns.stop, part_columns.stop)
            if y0 < y1 and x0 < x1:
                out[y0 - rows.start : y1 - rows.start, x0 - columns.start : x1 - columns.start] = values[
                    y0 - part_rows.start : y1 - part_rows.start, x0 - part_columns.start : x1 - part_columns.start
                ]

    @property
    def nbytes(self) -> int:
        """Memory held."""
        return sum(values.nbytes for _, values in self.parts)


class ChunkPyramid:
    """Chunks of all levels of one uint32 pyramid; one thread writes, any thread reads.

    Parameters
    ----------
    root : Path
        Folder of the zarr group; level k lies in ``root/k``.
    shapes : tuple of tuple of int
        ``(height, width)`` of each level.
    side : int
        Chunk height and width in pixels.
    scratch : Path
        Folder on the same disk for files in the making.
    per_side : int
        Chunks along a side of the square that a file holds (see `shards`).
    writable : bool
        Whether files may be written; where not, changes that would be are kept compressed in memory.
    waiting_bytes, kept_bytes : int
        Bounds of the cache: changes that wait to be written, and clean chunks kept for readers.
    """

    def __init__(
        self,
        root: Path,
        shapes: tuple[tuple[int, int], ...],
        side: int,
        scratch: Path,
        *,
        per_side: int = 1,
        writable: bool = True,
        waiting_bytes: int = 80 << 20,
        kept_bytes: int = 32 << 20,
    ) -> None:
        self.root = root
        self.shapes = shapes
        self.side = side
        self.damaged: set[Key] = set()
        self._files = ChunkFiles(root, per_side, scratch)
        self._chunk_bytes = side * side * 4
        self._most_waiting = max(4 * self._chunk_bytes, waiting_bytes)
        self._most_kept = max(4, kept_bytes // self._chunk_bytes)
        self._most_strips = waiting_bytes // 4
        self._waiting: OrderedDict[Key, _Waiting] = OrderedDict()
        self._strips: OrderedDict[Key, _Strips] = OrderedDict()
        self._strips_bytes = 0
        self._kept: OrderedDict[Key, UInt32Image] = OrderedDict()
        # Chunks known to have no file: to look for one takes as long as to read it. Only where nobody else writes.
        self._missing: set[Key] = set()
        self._unsynced: set[str] = set()
        self._packed: dict[Key, bytes] | None = None if writable else {}
        self._lock = threading.Lock()
        self._writes = 0

    def path(self, key: Key) -> str:
        """Return the file that holds chunk ``(level, row, column)``."""
        return self._files.path(key)

    def read(self, level: int, y0: int, x0: int, y1: int, x1: int) -> NDArray[np.uint32]:
        """Read a half-open rectangle of one level (must lie inside it), unwritten changes included.

        Returns
        -------
        ndarray of uint32, shape (y1 - y0, x1 - x0)
            A copy.
        """
        # Zeros cost nothing where nothing is written, and most chunks of a slide are empty.
        out = np.zeros((y1 - y0, x1 - x0), np.uint32)
        for key, inside, outside in self._pieces(level, y0, x0, y1, x1):
            with self._lock:
                if self._copy_from_memory(key, inside, out[outside]):
                    continue
                writes = self._writes
            chunk = self._load(key)
            if chunk is None:
                with self._lock:
                    if writes == self._writes:
                        self._miss(key)
                continue
            out[outside] = chunk[inside]
            with self._lock:
                # If a chunk was written meanwhile, what was loaded may be old: use it once, do not keep it.
                if writes == self._writes and key not in self._waiting:
                    self._keep(key, chunk)
        return out

    def write(self, level: int, y0: int, x0: int, values: NDArray[np.uint32], since: int) -> None:
        """Change pixels in memory; they reach the disk with `trim` or `flush`. Only for the writing thread.

        Parameters
        ----------
        level : int
            Which level.
        y0, x0 : int
            Top-left corner, pixels of that level.
        values : ndarray of uint32, shape (y, x)
            New pixels; the rectangle must lie inside the level.
        since : int
            Number of the journal entry that this belongs to.
        """
        y1, x1 = y0 + values.shape[0], x0 + values.shape[1]
        for key, inside, outside in self._pieces(level, y0, x0, y1, x1):
            new = values[outside]
            waiting = self._waiting.get(key)
            chunk = waiting.chunk if waiting else self._kept.get(key)
            if chunk is None and key not in self._strips and key not in self._missing:
                chunk = self._load(key)
            if chunk is None:
                self._write_into_empty(key, inside, new, since)
            elif waiting or not np.array_equal(chunk[inside], new):
                with self._lock:
                    chunk[inside] = new
                    self._kept.pop(key, None)
                    self._waiting.setdefault(key, _Waiting(chunk, since))
                    self._waiting.move_to_end(key)

    def trim(self) -> None:
        """Write the chunks that were not touched for longest until the cache is within its bounds."""
        while self._strips_bytes > self._most_strips:
            self._write_out(self._files.together(next(iter(self._strips)), iter(self._strips)))
        # A strip is little and its chunk is likely to be filled soon: whole chunks make room for strips.
        while self._waiting and self.waiting_bytes > self._most_waiting:
            self._write_out(self._files.together(next(iter(self._waiting)), iter(self._waiting)))

    def flush(self, before: int | None = None) -> None:
        """Write changed chunks: all, or those that have waited since a journal entry before `before`."""
        of_a_file: dict[str, list[Key]] = {}
        for waiting in (self._waiting, self._strips):
            for key, entry in waiting.items():
                if before is None or entry.since < before:
                    of_a_file.setdefault(self.path(key), []).append(key)
        for keys in of_a_file.values():
            self._write_out(keys)

    def discard(self, key: Key) -> None:
        """Take a chunk that cannot be read out of its file."""
        self._unsynced.add(self._files.save({key: None}))
        self.damaged.discard(key)

    def sync(self) -> None:
        """Make what was written outlive a power cut."""
        sync_files(self._unsynced)
        self._unsynced = set()

    def forget(self) -> None:
        """Drop everything from memory, changes that were not written too."""
        with self._lock:
            self._waiting.clear()
            self._strips.clear()
            self._kept.clear()
            self._missing.clear()
            self._strips_bytes = 0
            if self._packed is not None:
                self._packed.clear()

    @property
    def waiting_bytes(self) -> int:
        """Memory held by changes that wait to be written."""
        return len(self._waiting) * self._chunk_bytes + self._strips_bytes

    def present(self, level: int) -> list[Key]:
        """Return the chunks of a level that are not empty, in files or in memory."""
        found = {key for key in (*self._waiting, *self._strips, *(self._packed or ())) if key[0] == level}
        found.update(self._files.present(level))
        return sorted(found)

    def region(self, key: Key) -> Region:
        """Return the pixels of its level that a chunk covers, clipped to the level."""
        level, row, column = key
        square = Region(row * self.side, column * self.side, self.side, self.side)
        return square.intersect(Region(0, 0, *self.shapes[level]))

    def _pieces(self, level: int, y0: int, x0: int, y1: int, x1: int) -> Iterator[tuple[Key, Slices, Slices]]:
        """Yield each chunk that a rectangle touches, the part inside the chunk and the part of the rectangle."""
        side = self.side
        for row in range(y0 // side, -(-y1 // side)):
            top, bottom = max(y0, row * side), min(y1, (row + 1) * side)
            for column in range(x0 // side, -(-x1 // side)):
                left, right = max(x0, column * side), min(x1, (column + 1) * side)
                inside = (
                    slice(top - row * side, bottom - row * side),
                    slice(left - column * side, right - column * side),
                )
                outside = (slice(top - y0, bottom - y0), slice(left - x0, right - x0))
                yield (level, row, column), inside, outside

    def _copy_from_memory(self, key: Key, inside: Slices, out: UInt32Image) -> bool:
        """Copy a part of a chunk over zeros if it is in memory or known to be empty; the lock is held."""
        waiting = self._waiting.get(key)
        chunk = waiting.chunk if waiting else self._kept.get(key)
        if chunk is not None:
            out[...] = chunk[inside]
            if not waiting:
                self._kept.move_to_end(key)
            return True
        strips = self._strips.get(key)
        if strips is not None:
            strips.copy(inside, out)
            return True
        return key in self._missing

    def _filled(self, strips: _Strips) -> UInt32Image:
        chunk = np.empty((self.side, self.side), np.uint32)
        strips.copy((slice(0, self.side), slice(0, self.side)), chunk)
        return chunk

    def _write_into_empty(self, key: Key, inside: Slices, new: UInt32Image, since: int) -> None:
        """Change a chunk that has no file: a few pixels are kept as they are, more become a chunk in memory."""
        strips = self._strips.get(key)
        if strips is None and _is_blank(new):
            return
        with self._lock:
            if new.size * 4 <= self.side * self.side and (strips is None or len(strips.parts) < 4):
                entry = self._strips.setdefault(key, _Strips([], since))
                entry.parts.append((inside, new.copy()))
                self._strips_bytes += new.nbytes
                return
            if new.size == self.side * self.side:
                chunk = new.copy()
            else:
                chunk = np.zeros((self.side, self.side), np.uint32) if strips is None else self._filled(strips)
                chunk[inside] = new
            self._waiting[key] = _Waiting(chunk, since if strips is None else strips.since)
            self._drop_strips(key)

    def _drop_strips(self, key: Key) -> None:
        strips = self._strips.pop(key, None)
        if strips is not None:
            self._strips_bytes -= strips.nbytes

    def _keep(self, key: Key, chunk: UInt32Image) -> None:
        self._kept[key] = chunk
        self._kept.move_to_end(key)
        while len(self._kept) > self._most_kept:
            self._kept.popitem(last=False)

    def _miss(self, key: Key) -> None:
        """Note that a chunk has no file; the lock is held."""
        if self._packed is None and key not in self.damaged:
            if len(self._missing) >= MOST_MISSING:
                self._missing.clear()
            self._missing.add(key)

    def _load(self, key: Key) -> UInt32Image | None:
        """Read a chunk from its file; None if it has none. A damaged file counts as empty and is remembered."""
        packed = None if self._packed is None else self._packed.get(key)
        try:
            # Packed chunks that became empty have no bytes; a file without any is damaged.
            data = self._files.load(key) if packed is None else packed or None
            return None if data is None else decode_chunk(data, (self.side, self.side), np.dtype(np.uint32))
        except ValueError:
            self.damaged.add(key)
            return None

    def _write_out(self, keys: list[Key]) -> None:
        """Write changed chunks that lie in one file."""
        chunks = {key: self._changed(key) for key in keys}
        encoded = {key: None if _is_blank(chunk) else encode_chunk(chunk) for key, chunk in chunks.items()}
        if self._packed is not None:
            self._packed.update((key, data or b"") for key, data in encoded.items())
        else:
            self._unsynced.add(self._files.save(encoded))
            self.damaged.difference_update(keys)
        with self._lock:
            self._writes += 1
            for key, chunk in chunks.items():
                self._missing.discard(key)
                self._waiting.pop(key, None)
                self._drop_strips(key)
                self._keep(key, chunk)

    def _changed(self, key: Key) -> UInt32Image:
        waiting = self._waiting.get(key)
        return waiting.chunk if waiting else self._filled(self._strips[key])


def _is_blank(pixels: UInt32Image) -> bool:
    """Whether there is background only; where there is not, a few rows mostly tell."""
    return not pixels[::ROWS_APART].any() and not pixels.max()

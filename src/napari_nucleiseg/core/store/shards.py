"""The files of a zarr pyramid's chunks: one for each chunk, or one for a square of them (zarr's sharding).

A whole slide has some ten thousand chunks of 512 pixels, more files than clusters and backups like; sixteen to a file
they are few. A file changes as a whole: what it held before is copied, compressed as it is.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.store.files import BINARY, read_file, remove_file, write_file

# Offset and bytes of each chunk in its file, then a checksum; both all ones where there is no chunk.
_ENTRY_BYTES = 16
_CHECKSUM_BYTES = 4
_NONE = 2**64 - 1

Key = tuple[int, int, int]
Index = NDArray[np.uint64]


class ChunkFiles:
    """Compressed chunks of all levels by their place; one thread writes, any thread or process reads.

    Parameters
    ----------
    root : Path
        Folder of the zarr group; level k lies in ``root/k``.
    per_side : int
        Chunks along a side of the square that a file holds; 1 for files that are chunks.
    scratch : Path
        Folder on the same disk for files in the making.
    """

    def __init__(self, root: Path, per_side: int, scratch: Path) -> None:
        self.root = root
        self.per_side = per_side
        self._prefix = str(root)
        self._scratch = str(scratch)
        self._index_bytes = per_side**2 * _ENTRY_BYTES + _CHECKSUM_BYTES

    def path(self, key: Key) -> str:
        """Return the file that holds chunk ``(level, row, column)``."""
        level, row, column = key
        return f"{self._prefix}/{level}/c/{row // self.per_side}/{column // self.per_side}"

    def load(self, key: Key) -> bytes | None:
        """Return the bytes of a chunk; None if it has none.

        Raises
        ------
        ValueError
            If its file is damaged.
        """
        if self.per_side == 1:
            return read_file(self.path(key))
        try:
            handle = os.open(self.path(key), os.O_RDONLY | BINARY)
        except FileNotFoundError:
            return None
        try:
            index = self._index(self._tail(handle))
            offset, size = (int(value) for value in index[self._place(key)])
            if offset == _NONE:
                return None
            os.lseek(handle, offset, os.SEEK_SET)
            return _read(handle, size)
        finally:
            os.close(handle)

    def save(self, chunks: Mapping[Key, bytes | None]) -> str:
        """Write chunks of one file, None for those that are empty; the others in it stay. Return its path."""
        first = next(iter(chunks))
        path = self.path(first)
        held = dict(chunks) if self.per_side == 1 else {**self._held(first, path), **chunks}
        full = {key: data for key, data in held.items() if data is not None}
        if not full:
            remove_file(path)
        elif self.per_side == 1:
            write_file(path, full[first], self._scratch)
        else:
            write_file(path, self._packed(full), self._scratch)
        return path

    def present(self, level: int) -> Iterator[Key]:
        """Yield the chunks of a level that files hold; of a damaged file all that it may have held."""
        top = self.root / str(level) / "c"
        if not top.is_dir():
            return
        for row in os.scandir(top):
            for column in os.scandir(row.path):
                first = level, int(row.name) * self.per_side, int(column.name) * self.per_side
                yield from [first] if self.per_side == 1 else self._keys_in(first, column.path)

    def together(self, key: Key, keys: Iterator[Key]) -> list[Key]:
        """Return those of `keys` that lie in the file of `key`."""
        level, row, column = key
        side = self.per_side
        row, column = row // side, column // side
        return [one for one in keys if one[0] == level and one[1] // side == row and one[2] // side == column]

    def _keys_in(self, first: Key, path: str) -> Iterator[Key]:
        level, top, left = first
        try:
            with Path(path).open("rb") as file:
                there = self._index(self._tail(file.fileno()))[:, 0] != _NONE
        except ValueError:
            there = np.ones(self.per_side**2, np.bool_)
        for place in np.flatnonzero(there).tolist():
            yield level, top + place // self.per_side, left + place % self.per_side

    def _held(self, key: Key, path: str) -> dict[Key, bytes]:
        """Return what a file holds; nothing if there is none or nothing can be found in it."""
        data = read_file(path)
        if data is None:
            return {}
        try:
            index = self._index(data[-self._index_bytes :])
        except ValueError:
            return {}
        level, row, column = key
        top, left = row - row % self.per_side, column - column % self.per_side
        found = {}
        for place, (offset, size) in enumerate(index.tolist()):
            if offset != _NONE:
                key = level, top + place // self.per_side, left + place % self.per_side
                found[key] = data[offset : offset + size]
        return found

    def _packed(self, chunks: Mapping[Key, bytes]) -> bytes:
        index = np.full((self.per_side**2, 2), _NONE, "<u8")
        offset = 0
        # In order, so that equal labels are equal files, whatever came first.
        keys = sorted(chunks)
        for key in keys:
            index[self._place(key)] = offset, len(chunks[key])
            offset += len(chunks[key])
        entries = index.tobytes()
        checksum = google_crc32c.value(entries).to_bytes(_CHECKSUM_BYTES, "little")
        return b"".join((*(chunks[key] for key in keys), entries, checksum))

    def _place(self, key: Key) -> int:
        _, row, column = key
        return row % self.per_side * self.per_side + column % self.per_side

    def _tail(self, handle: int) -> bytes:
        size = os.fstat(handle).st_size
        os.lseek(handle, max(0, size - self._index_bytes), os.SEEK_SET)
        return _read(handle, self._index_bytes)

    def _index(self, data: bytes) -> Index:
        """Return offset and bytes of each chunk, shape ``(per_side ** 2, 2)``.

        Raises
        ------
        ValueError
            If these are not the last bytes of such a file.
        """
        entries, checksum = data[:-_CHECKSUM_BYTES], data[-_CHECKSUM_BYTES:]
        if len(data) != self._index_bytes or google_crc32c.value(entries) != int.from_bytes(checksum, "little"):
            raise ValueError("the file does not end with an index of its chunks")
        return np.frombuffer(entries, "<u8").reshape(-1, 2)


def _read(handle: int, size: int) -> bytes:
    data = os.read(handle, size)
    while len(data) < size and (more := os.read(handle, size - len(data))):
        data += more
    return data

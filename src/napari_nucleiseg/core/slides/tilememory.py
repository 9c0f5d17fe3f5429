"""Memory for decoded tiles, used again once nobody holds a tile: the system clears fresh memory page by page."""

from __future__ import annotations

import threading
import weakref
from collections import deque
from math import prod

import numpy as np
from numpy.typing import NDArray

# numpy asks the system for large pages from 4 MiB on: they are cleared in a fraction of the time.
SLAB_BYTES = 8 << 20
# Two screens of 4K pixels: what a jump to another place leaves behind.
SPARE_BYTES = 64 << 20


class _Slab:
    """A piece of memory of the system, cut into blocks of one size."""

    def __init__(self, size: int, slab_bytes: int) -> None:
        count = max(1, slab_bytes // size)
        memory = np.empty(count * size, np.uint8).data
        self.bytes = count * size
        # All are held here: what a block knows of its array would be lost with it.
        self.blocks = [_Block(self, memory[at : at + size]) for at in range(0, self.bytes, size)]
        self.free = list(self.blocks)

    @property
    def is_unused(self) -> bool:
        return len(self.free) == len(self.blocks)


class _Block:
    """The memory of one array; `holder` tells when the array and everything that looks into it are gone."""

    def __init__(self, slab: _Slab, memory: memoryview) -> None:
        self.slab = slab
        self.memory = memory
        self.holder: weakref.ref[NDArray[np.uint8]] | None = None


class TileMemory:
    """Hands out arrays and takes their memory back by itself; for any thread.

    Parameters
    ----------
    slab_bytes : int
        What is asked of the system at a time.
    spare_bytes : int
        At most so many bytes of unused memory are kept.
    """

    def __init__(self, slab_bytes: int = SLAB_BYTES, spare_bytes: int = SPARE_BYTES) -> None:
        self._slab_bytes = slab_bytes
        self._spare_bytes = spare_bytes
        self._slabs: dict[int, list[_Slab]] = {}
        # An array may go while this very thread holds the lock: what comes back waits here.
        self._returned: deque[_Block] = deque()
        self._lock = threading.Lock()

    def empty(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        """Return an array of any content; for few different sizes, each of which has slabs of its own.

        Parameters
        ----------
        shape : tuple of int
            Of the array.

        Returns
        -------
        ndarray of uint8
            In C order. Its memory is used again when neither it nor any view of it is held any more.
        """
        size = prod(shape)
        if not 0 < size <= self._slab_bytes // 4:
            return np.empty(shape, np.uint8)
        with self._lock:
            self._take_back()
            block = self._block(size)
            # Views of an array point to the one that they were made of, but never past this one: numpy did not make
            # its memory.
            flat = np.frombuffer(block.memory, np.uint8)
            block.holder = weakref.ref(flat, lambda _gone, block=block: self._returned.append(block))  # type: ignore[misc]
        return flat.reshape(shape)

    @property
    def bytes(self) -> int:
        """Bytes asked of the system and not given back."""
        with self._lock:
            self._take_back()
            return sum(slab.bytes for slabs in self._slabs.values() for slab in slabs)

    def _block(self, size: int) -> _Block:
        slabs = self._slabs.setdefault(size, [])
        # Older slabs first, so that younger ones become unused.
        slab = next((slab for slab in slabs if slab.free), None)
        if slab is None:
            slab = _Slab(size, self._slab_bytes)
            slabs.append(slab)
        return slab.free.pop()

    def _take_back(self) -> None:
        """Note what nobody holds any more, and give the system what is too much of it."""
        if not self._returned:
            return
        while self._returned:
            block = self._returned.popleft()
            block.holder = None
            block.slab.free.append(block)
        spare = 0
        for size, slabs in self._slabs.items():
            kept = []
            for slab in slabs:
                spare += slab.bytes if slab.is_unused else 0
                if not slab.is_unused or spare <= self._spare_bytes:
                    kept.append(slab)
            self._slabs[size] = kept


tile_memory = TileMemory()
"""That of the process."""

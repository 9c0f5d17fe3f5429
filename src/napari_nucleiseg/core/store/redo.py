"""The way of changed pixels into the label image: noted in the database first, so that a crash loses none."""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.store.census import Census
from napari_nucleiseg.core.store.labels import LabelStore
from napari_nucleiseg.core.store.ledger import Ledger, put_redo, redo_entries
from napari_nucleiseg.core.store.pixels import encode_pixels

REDO_BYTES = 16 << 20


@dataclass(frozen=True, slots=True, eq=False)
class Noted:
    """Pixels that are in the database: number and bytes of their note, where, ids."""

    entry: int
    size: int
    region: Region
    image: NDArray[np.uint32]


class RedoLog:
    """Notes changed pixels, applies them to the image, and drops the notes once the files hold them.

    Parameters
    ----------
    labels : LabelStore
        The image.
    ledger : Ledger
        The database.
    """

    def __init__(self, labels: LabelStore, ledger: Ledger) -> None:
        self._labels = labels
        self._ledger = ledger
        self._kept: deque[tuple[int, int]] = deque()
        self._is_behind = False

    def make_room(self) -> None:
        """Write chunks if many wait, and settle the older half of the notes if those have become many.

        Before a transaction: where the disk is full, nothing has changed yet, and what is through never seems to fail.
        """
        self._catch_up()
        self._labels.chunks.trim()
        if sum(size for _, size in self._kept) > REDO_BYTES:
            self._shorten(REDO_BYTES // 2)

    @staticmethod
    def note(
        database: sqlite3.Connection, region: Region, image: NDArray[np.uint32], encoded: bytes | None = None
    ) -> Noted:
        """Note pixels that are about to change, inside the caller's transaction; `encoded` are they, if known."""
        after = encode_pixels(image) if encoded is None else encoded
        return Noted(*put_redo(database, region, after), region, image)

    def apply(self, changes: Iterable[Noted]) -> None:
        """Change the image and its pyramid in memory, once the transaction that noted this is through.

        Where that fails, as when a drive is gone for a moment, the notes outlive it: the next change, or settling,
        brings the image to what they say, and until then none of them is dropped.
        """
        for noted in changes:
            self._is_behind = True
            self._kept.append((noted.entry, noted.size))
            self._labels.apply(noted.region, noted.image, noted.entry)
            self._is_behind = False

    def replay(self) -> None:
        """Bring changes into the image that the chunk files may lack."""
        self._kept.clear()  # who looks on replays again and again
        for entry, size, region, image in redo_entries(self._ledger.reader):
            self._kept.append((entry, size))
            self._labels.apply(region, image, entry)
            self._labels.chunks.trim()

    def _catch_up(self) -> None:
        """Bring the image to what the notes say, if a change did not reach it."""
        if self._is_behind:
            self._labels.chunks.forget()
            self.replay()
            self._is_behind = False

    def flush(self) -> None:
        """Write every changed chunk; the notes stay until the files are sure to outlive a power cut."""
        self._labels.chunks.flush()

    def settle(self) -> None:
        """Write every changed chunk, wait for the disk and drop the notes."""
        self._shorten(0)

    def _shorten(self, most_bytes: int) -> None:
        """Write the chunks that old notes stand for, then drop those notes; at most `most_bytes` of notes remain."""
        self._catch_up()
        kept = sum(size for _, size in self._kept)
        last = 0
        dropped = 0
        for entry, size in self._kept:
            if kept <= most_bytes:
                break
            kept, last, dropped = kept - size, entry, dropped + 1
        self._labels.chunks.flush(before=last + 1 if self._kept else None)
        self._labels.chunks.sync()
        if dropped:
            self._ledger.writer.execute("DELETE FROM redo WHERE entry <= ?", (last,))
            for _ in range(dropped):
                self._kept.popleft()


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """What a change of the project touches: image, database, counts, and the way of pixels to the disk."""

    labels: LabelStore
    ledger: Ledger
    census: Census
    redo: RedoLog

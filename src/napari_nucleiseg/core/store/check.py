"""Verifies that a project's image, pyramid and tables say the same, and repairs what can be."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.store.audit import TableReport, Tally, audit, mend
from napari_nucleiseg.core.store.chunks import ChunkPyramid
from napari_nucleiseg.core.store.classmarks import leave_marks
from napari_nucleiseg.core.store.labels import halve
from napari_nucleiseg.core.store.ledger import drop_nuclei, reopen_tiles, rows_by_id
from napari_nucleiseg.core.store.merge import State
from napari_nucleiseg.core.store.nuclei import tile_of
from napari_nucleiseg.core.store.shards import Key

if TYPE_CHECKING:
    from napari_nucleiseg.core.store.project import Project


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What a check found (and repaired, if it was asked to).

    Parameters
    ----------
    nuclei : int
        Nuclei in the table that should be seen.
    unknown_ids : tuple of int
        Ids in the image that the table does not have; repaired by clearing them.
    unseen_ids : tuple of int
        Nuclei of the table without a pixel; repaired by taking them out and doing their tiles again.
    wrong_chunks : tuple of tuple of int
        ``(level, row, column)`` of pyramid chunks that differ from the level below; repaired by computing them anew.
    damaged_files : tuple of str
        Chunk files that cannot be decoded; repaired by doing their tiles again.
    repaired : bool
        Whether repairs were made.
    tables : TableReport
        What is wrong in the tables.
    """

    nuclei: int
    unknown_ids: tuple[int, ...]
    unseen_ids: tuple[int, ...]
    wrong_chunks: tuple[tuple[int, int, int], ...]
    damaged_files: tuple[str, ...]
    repaired: bool
    tables: TableReport = field(default_factory=TableReport)

    @property
    def is_sound(self) -> bool:
        """Whether nothing was wrong."""
        wrong = self.unknown_ids or self.unseen_ids or self.wrong_chunks or self.damaged_files
        return not wrong and self.tables.is_sound


def _nobody(_done: int, _total: int) -> None:
    """Nobody wants to know how far it is."""


def check(project: Project, *, repair: bool = False, on_progress: Callable[[int, int], None] = _nobody) -> CheckReport:
    """Compare the image with the tables and every level with the one below; reads the whole label image.

    Parameters
    ----------
    project : Project
        Open; for writing if `repair`.
    repair : bool
        Mend what is wrong: a nucleus that cannot be mended goes, and its tile counts as not done.
    on_progress : callable
        Told parts of the image done and in all.

    Raises
    ------
    StoreError
        If a repair cannot be written.
    """
    if project.writable:
        # Notes of earlier changes, replayed after a crash, would undo the repairs.
        project.flush(settle=True)
    chunks = project.labels.chunks
    rows = project.ledger.reader.execute("SELECT id FROM nuclei WHERE state = ? ORDER BY id", (int(State.SHOWN),))
    known = np.fromiter((row[0] for row in rows), np.uint32)
    seen = np.zeros(len(known), bool)
    unknown: set[int] = set()
    tally = Tally(project.ledger.reader)
    keys = chunks.present(0)
    for done, key in enumerate(keys):
        on_progress(done, len(keys))
        image = _read(chunks, key)
        ids = _ids_in(image)
        tally.add(image, chunks.region(key), ids)
        places = np.searchsorted(known, ids)
        found = places < len(known)
        found[found] = known[places[found]] == ids[found]
        seen[places[found]] = True
        unknown.update(ids[~found].tolist())
    wrong = tuple(key for level in range(1, len(chunks.shapes)) for key in _wrong_chunks(chunks, level, repair=False))
    damaged = sorted({chunks.path(key) for key in chunks.damaged})
    report = CheckReport(
        nuclei=len(known),
        unknown_ids=tuple(sorted(unknown)),
        unseen_ids=tuple(known[~seen].tolist()),
        wrong_chunks=wrong,
        damaged_files=tuple(os.path.relpath(path, project.folder) for path in damaged),
        repaired=repair,
        tables=audit(project, tally),
    )
    on_progress(len(keys), len(keys))
    if repair and not report.is_sound:
        with project.changing():
            if not report.tables.is_sound:
                mend(project, report.tables, tally, np.union1d(known[seen], np.array(report.unknown_ids, np.uint32)))
            _repair(project, report)
    return report


def _repair(project: Project, report: CheckReport) -> None:
    chunks = project.labels.chunks
    rows = rows_by_id(project.ledger.writer, "state", report.unseen_ids)
    lost = {row[0] for row in rows if row[1] == State.SHOWN}
    hurt = set(tile_of(list(lost)).tolist())
    for key in sorted(chunks.damaged):
        chunks.discard(key)
        if key[0] == 0:
            hurt |= _tiles_of_nuclei_in(project, chunks.region(key))
    # Rows that contradicted themselves may be shown by now.
    rows = rows_by_id(project.ledger.writer, "state", report.unknown_ids)
    known = {row[0] for row in rows if row[1] == State.SHOWN}
    unknown = np.array(sorted(set(report.unknown_ids) - known), np.uint32)
    for key in chunks.present(0) if len(unknown) else []:
        image = _read(chunks, key)
        strange = np.isin(image, unknown)
        if strange.any():
            image[strange] = 0
            region = chunks.region(key)
            chunks.write(0, region.y, region.x, image, 0)
    with project.ledger.transaction() as database:
        leave_marks(database, project.labels, lost)
        drop_nuclei(database, lost)
        reopen_tiles(database, hurt)
    for coarser in range(1, len(chunks.shapes)):
        list(_wrong_chunks(chunks, coarser, repair=True))
    chunks.flush()
    chunks.sync()
    project.census.recount_all()


def _read(chunks: ChunkPyramid, key: Key) -> NDArray[np.uint32]:
    region = chunks.region(key)
    return chunks.read(key[0], region.y, region.x, region.y1, region.x1)


def _ids_in(image: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Return the ids of an image; only where they change along a row, which is all that sorting needs to see."""
    flat = image.ravel()
    ids = np.unique(flat[np.flatnonzero(np.diff(flat, prepend=flat[:1] + np.uint32(1)))])
    return ids[ids > 0]


def _wrong_chunks(chunks: ChunkPyramid, level: int, *, repair: bool) -> Iterator[Key]:
    """Find the chunks of a level that are not what the level below says."""
    places = {(row // 2, column // 2) for _, row, column in chunks.present(level - 1)}
    places.update((row, column) for _, row, column in chunks.present(level))
    below_h, below_w = chunks.shapes[level - 1]
    for row, column in sorted(places):
        key = level, row, column
        region = chunks.region(key)
        below = chunks.read(
            level - 1, 2 * region.y, 2 * region.x, min(2 * region.y1, below_h), min(2 * region.x1, below_w)
        )
        expected = halve(below)
        if not np.array_equal(_read(chunks, key), expected):
            if repair:
                chunks.write(level, region.y, region.x, expected, 0)
            yield key


def _tiles_of_nuclei_in(project: Project, region: Region) -> set[int]:
    """Return the tiles of the nuclei that reach into a region."""
    rows = project.ledger.reader.execute(
        "SELECT id FROM nuclei WHERE y0 < ? AND y1 > ? AND x0 < ? AND x1 > ?",
        (region.y1, region.y, region.x1, region.x),
    )
    return set(tile_of([row[0] for row in rows]).tolist())

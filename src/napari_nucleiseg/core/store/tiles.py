"""Writes the nuclei of one tile: pixels, table and ledger change together or not at all."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.store.census import Census
from napari_nucleiseg.core.store.classmarks import give_up_classes, leave_marks, take_over
from napari_nucleiseg.core.store.labels import LabelStore
from napari_nucleiseg.core.store.ledger import (
    Ledger,
    claims_in,
    drop_nuclei,
    put_claims,
    put_nuclei,
    put_states,
    put_tile,
    rows_by_id,
    run_number,
)
from napari_nucleiseg.core.store.merge import Arrivals, Claim, Known, Merge, State, shared_pixels
from napari_nucleiseg.core.store.nuclei import (
    ID_BITS,
    MAX_NUCLEI_PER_TILE,
    PERSON_ID_START,
    TileNuclei,
    global_ids,
    tile_of,
)
from napari_nucleiseg.core.store.redo import Noted, RedoLog
from napari_nucleiseg.core.store.schema import TILES_OF_RUN

# What overlapping nuclei of neighbours usually need around a tile.
ROOM_PX = 40

_Bounds = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class _Record:
    """A row of the nuclei table, as far as writing needs it."""

    known: Known
    run: int | None


@dataclass(slots=True)
class _Frame:
    """A rectangle of the image that changes, with the groups of nuclei that leave it and the claims it touches."""

    region: Region
    leaving: list[tuple[Region, NDArray[np.uint32]]] = field(default_factory=list)
    claims: dict[int, Claim] = field(default_factory=dict)
    home: bool = False

    def look_up_claims(self, database: sqlite3.Connection) -> None:
        """Find the claims in the rectangle and grow it to hold them."""
        self.claims = claims_in(database, self.region)
        self.region = bounding([self.region, *(claim.box for claim in self.claims.values())])

    def join(self, other: _Frame) -> None:
        """Take up another frame that overlaps this one."""
        self.home |= other.home
        self.region = bounding([self.region, other.region])
        self.leaving += other.leaving
        self.claims.update(other.claims)


class TileWriter:
    """Merges tiles into the label image and the nuclei table of one project; for one thread.

    Parameters
    ----------
    labels : LabelStore
        The image.
    ledger : Ledger
        The database, writable.
    census : Census
        Counts to keep in step.
    redo : RedoLog
        Takes the changed pixels.
    """

    def __init__(self, labels: LabelStore, ledger: Ledger, census: Census, redo: RedoLog) -> None:
        self._labels = labels
        self._ledger = ledger
        self._census = census
        self._redo = redo
        # Rows of the tallest tile of each run; None as long as nobody has asked.
        self._tallest: dict[int, int] | None = None

    def write(self, nuclei: TileNuclei, model_version: str, options_key: str) -> None:
        """Write one tile; see `Project.write_tile`."""
        _validate(nuclei, self._labels.shape)
        self._redo.make_room()
        changed: list[Noted] = []
        states: dict[int, State] = {}
        around = self._around(nuclei)
        before = self._labels.read(around)
        shared = shared_pixels(nuclei.labels, before[nuclei.box.translate(-around.y, -around.x).slices])
        with self._ledger.transaction() as database:
            run = run_number(database, model_version, options_key)
            ids = _free_ids(database, nuclei)
            touched = _touched(database, nuclei, shared[1])
            leaving = self._leaving(database, nuclei, run, touched)
            leave_marks(database, self._labels, leaving)
            drop_nuclei(database, leaving)
            put_nuclei(database, nuclei, ids, run, self._census.cells(nuclei.centroids))
            arrivals = Arrivals(nuclei.box, nuclei.labels, ids, nuclei.boxes)
            for frame in self._frames(database, nuclei, touched, leaving):
                region = frame.region
                image = before if region == around else self._labels.read(region)
                merge = Merge(region, image, frame.claims, lambda wanted: _lookup(database, touched, wanted))
                merge.take_out(frame.leaving)
                if frame.home:
                    merge.put_in(arrivals, None if frame.leaving else shared)
                put_states(database, merge.outcome.states)
                states |= merge.outcome.states
                put_claims(database, merge.outcome.claims)
                changed.append(self._redo.note(database, region, image))
            duplicates = {key for key, state in states.items() if state is State.DUPLICATE}
            give_up_classes(database, self._labels, duplicates - set(ids.tolist()))
            unseen = [key for key, state in states.items() if state is not State.SHOWN]
            take_over(database, self._labels, nuclei, ids, unseen)
            self._retire(database, nuclei, run, leaving)
            put_tile(database, nuclei.tile_index, run, nuclei.core, len(nuclei))
        self._census.recount(noted.region for noted in changed)
        self._redo.apply(changed)

    def _leaving(
        self, database: sqlite3.Connection, nuclei: TileNuclei, run: int, touched: Mapping[int, _Record]
    ) -> dict[int, _Bounds]:
        """Return the boxes of the nuclei that must go: this tile's own old ones and those of other runs in its way."""
        first = nuclei.tile_index << ID_BITS
        rows = database.execute(
            "SELECT id, y0, x0, y1, x1 FROM nuclei WHERE id BETWEEN ? AND ? AND review = 0",
            (first, first + MAX_NUCLEI_PER_TILE),
        ).fetchall()
        if database.execute("SELECT count(*) FROM runs").fetchone()[0] > 1:
            stale = f"run IS NOT NULL AND run != {run} AND review = 0"
            rows += self._census.rows_in(database, nuclei.core, "id, y0, x0, y1, x1", stale)
        leaving = {row[0]: row[1:] for row in rows}
        for other, record in touched.items():
            if record.run != run and not record.known.protected:
                box = record.known.box
                leaving[other] = box.y, box.x, box.y1, box.x1
        return leaving

    def _retire(self, database: sqlite3.Connection, nuclei: TileNuclei, run: int, leaving: Iterable[int]) -> None:
        """Note that tiles of other runs which lost nuclei, or whose place this one takes, must be done again."""
        core = nuclei.core
        if self._tallest is None:
            # A table without it, of an older project, would be looked through from end to end for each tile.
            database.execute(TILES_OF_RUN)
            self._tallest = dict(database.execute("SELECT run, max(y1 - y0) FROM tiles GROUP BY run"))
        for other, height in self._tallest.items():
            if other != run:
                database.execute(
                    "UPDATE tiles SET whole = 0 WHERE run = ? AND whole AND y0 BETWEEN ? AND ? "
                    "AND y1 > ? AND x0 < ? AND x1 > ?",
                    (other, core.y - height, core.y1 - 1, core.y, core.x1, core.x),
                )
        self._tallest[run] = max(core.height, self._tallest.get(run, 0))
        robbed = {(int(tile), run) for tile in np.unique(tile_of(list(leaving)))}
        database.executemany("UPDATE tiles SET whole = 0 WHERE tile = ? AND run != ?", robbed)

    def _frames(
        self,
        database: sqlite3.Connection,
        nuclei: TileNuclei,
        touched: Mapping[int, _Record],
        leaving: Mapping[int, _Bounds],
    ) -> list[_Frame]:
        """Return the disjoint rectangles that change; one of them holds the tile, if it has nuclei."""
        frames = []
        if len(nuclei):
            staying = [record.known.box for other, record in touched.items() if other not in leaving]
            home = _Frame(bounding([nuclei.box, *staying]), home=True)
            home.look_up_claims(database)
            home.region = bounding([home.region, self._around(nuclei)])
            frames.append(home)
        ids = np.fromiter(leaving, np.uint32, len(leaving))
        boxes = np.array(list(leaving.values()), np.int64).reshape(-1, 4)
        tiles = tile_of(ids)
        for tile in np.unique(tiles):
            mine = tiles == tile
            box = Region.enclosing(boxes[mine])
            frames.append(_Frame(box, [(box, ids[mine])]))
            frames[-1].look_up_claims(database)
        for frame in frames:
            frame.region = self._labels.aligned(frame.region)
        return _disjoint(frames)

    def _around(self, nuclei: TileNuclei) -> Region:
        """Return the rectangle that a tile usually changes."""
        return self._labels.aligned(nuclei.box.expand(ROOM_PX))


def bounding(regions: Iterable[Region]) -> Region:
    """Return the smallest region that contains all of `regions` (at least one)."""
    every = list(regions)
    return Region.from_bounds(
        min(region.y for region in every),
        min(region.x for region in every),
        max(region.y1 for region in every),
        max(region.x1 for region in every),
    )


def _validate(nuclei: TileNuclei, shape: tuple[int, int]) -> None:
    n = len(nuclei)
    if not Region(0, 0, *shape).contains(nuclei.box):
        raise ValueError(f"the box of tile {nuclei.tile_index} leaves the slide: {nuclei.box}")
    if nuclei.labels.dtype not in (np.int32, np.uint16):
        raise ValueError(f"labels of tile {nuclei.tile_index} are {nuclei.labels.dtype}, not int32 or uint16")
    if nuclei.labels.shape != (nuclei.box.height, nuclei.box.width):
        raise ValueError(f"labels of tile {nuclei.tile_index} are {nuclei.labels.shape} but its box is {nuclei.box}")
    if nuclei.labels.size and not 0 <= int(nuclei.labels.max()) <= n:
        raise ValueError(f"labels of tile {nuclei.tile_index} reach {nuclei.labels.max()} but it has {n} nuclei")
    for name in ("areas_um2", "boxes", "scores"):
        if len(getattr(nuclei, name)) != n:
            raise ValueError(f"tile {nuclei.tile_index} has {n} centroids but {len(getattr(nuclei, name))} {name}")


def _free_ids(database: sqlite3.Connection, nuclei: TileNuclei) -> NDArray[np.uint32]:
    """Return the ids for a tile's nuclei, leaving out those that a person decided about."""
    first = nuclei.tile_index << ID_BITS
    taken = [
        row[0]
        for row in database.execute(
            "SELECT id FROM nuclei WHERE id BETWEEN ? AND ? AND review != 0",
            (first, first + MAX_NUCLEI_PER_TILE),
        )
    ]
    ids = global_ids(nuclei.tile_index, len(nuclei) + len(taken))
    return ids[~np.isin(ids, np.array(taken, np.uint32))][: len(nuclei)] if taken else ids


def _records(database: sqlite3.Connection, ids: Iterable[int]) -> dict[int, _Record]:
    found = {}
    for row in rows_by_id(database, "run, review, state, y0, x0, y1, x1", ids):
        protected = row[0] >= PERSON_ID_START or row[2] != 0
        known = Known(row[0], Region.from_bounds(*row[4:]), State(row[3]), protected)
        found[row[0]] = _Record(known, row[1])
    return found


def _touched(database: sqlite3.Connection, nuclei: TileNuclei, under: NDArray[np.uint32]) -> dict[int, _Record]:
    """Return what is known of the nuclei whose pixels or claims the new ones meet; `under` has the ids of pixels."""
    if not len(nuclei):
        return {}
    ids = {*np.unique(under).tolist(), *claims_in(database, nuclei.box)}
    found = _records(database, ids)
    # An id without a row is left from a damaged project: it gives way.
    lost = {other: _Record(Known(other, nuclei.box, State.SHOWN, other >= PERSON_ID_START), None) for other in ids}
    return {**lost, **found}


def _lookup(database: sqlite3.Connection, touched: Mapping[int, _Record], wanted: Iterable[int]) -> dict[int, Known]:
    """Return what is known of nuclei; those that are in no table are left out unless they were met."""
    ids = set(wanted)
    found = {other: touched[other] for other in ids if other in touched}
    found.update(_records(database, ids - set(found)))
    return {other: record.known for other, record in found.items()}


def _disjoint(frames: list[_Frame]) -> list[_Frame]:
    """Join frames that overlap."""
    disjoint: list[_Frame] = []
    waiting = list(frames)
    while waiting:
        frame = waiting.pop()
        clash = next((other for other in disjoint if other.region.overlaps(frame.region)), None)
        if clash is None:
            disjoint.append(frame)
        else:
            # The joined rectangle may meet others that neither half met: look at it again.
            disjoint.remove(clash)
            frame.join(clash)
            waiting.append(frame)
    return disjoint

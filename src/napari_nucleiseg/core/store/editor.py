"""What people change on the slide: every change is in the journal before anything else happens, and can be undone."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.edits.change import bounds_of
from napari_nucleiseg.core.errors import StoreError
from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.store.journal import (
    Heading,
    Step,
    get_edit,
    kind_of,
    mark,
    next_turn,
    put_edit,
    steps,
)
from napari_nucleiseg.core.store.ledger import APPROVED, reopen_tiles
from napari_nucleiseg.core.store.newcomers import Newcomers
from napari_nucleiseg.core.store.nuclei import PERSON_ID_START, tile_of
from napari_nucleiseg.core.store.packing import Row, Rows
from napari_nucleiseg.core.store.pixels import encode_pixels
from napari_nucleiseg.core.store.records import CLAIMS, NUCLEI, Records, add_nuclei, put_rows, rows_of
from napari_nucleiseg.core.store.redo import Noted, Parts
from napari_nucleiseg.core.store.retouch import Attributes, Retouch, measured_in_place
from napari_nucleiseg.core.store.turn import Turn

MOST_PX = 1 << 28
NEXT_ID = "next_id"
UNSEEN = 0
# Of very many nuclei so many are changed at a time, so that it can be stopped.
PART = 4000

Ids = NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class Changed:
    """What an edit (or its undoing) changed: step of the journal, pixels and nuclei, level-0 pixels."""

    step: int
    region: Region
    ids: frozenset[int] = field(default_factory=frozenset)


@dataclass(frozen=True, slots=True, eq=False)
class NewEdit:
    """What the journal is told of an edit of pixels: where, rows, the nuclei concerned, pixels before and after."""

    heading: Heading
    place: Region
    records: Records
    ids: list[int]
    pixels: tuple[bytes, bytes]


class Editor:
    """The edits of one project; every method that changes something is durable when it returns.

    Parameters
    ----------
    parts : Parts
        Of the project.
    changing : callable
        Returns a context that holds the right to write, see `Project.changing`.
    person : str
        Who edits.
    """

    def __init__(self, parts: Parts, changing: Callable[[], AbstractContextManager[None]], person: str) -> None:
        self._parts = parts
        self._labels, self._ledger, self._census, self._redo = parts.labels, parts.ledger, parts.census, parts.redo
        self._changing = changing
        self._counting = threading.Lock()
        self.person = person
        self._next_id = int(parts.ledger.meta().get(NEXT_ID, PERSON_ID_START))

    # ------------------------------------------------------------------ pixels

    def new_id(self) -> int:
        """Return an id that no nucleus has or had; for any thread.

        Raises
        ------
        StoreError
            If there is none left: they are 32 bits wide.
        """
        with self._counting:
            if self._next_id >= 1 << 32:
                raise StoreError("this project has no numbers left for more nuclei; export them and begin a new one")
            self._next_id += 1
            return self._next_id - 1

    def paint(
        self,
        region: Region,
        after: Ids,
        *,
        before: Ids | None = None,
        kind: str = "paint",
        attributes: Mapping[int, Attributes] | None = None,
        step: int | None = None,
    ) -> Changed | None:
        """Bring pixels to what a person made of them.

        Nuclei whose pixels change are theirs from now on: no model touches them any more. Nuclei that lose their last
        pixel are kept as rejected, so that no model brings them back. New ids become nuclei, with the class of what
        they replace unless `attributes` says otherwise.

        Parameters
        ----------
        region : Region
            Level-0 pixels inside the slide.
        after : ndarray of uint32, shape (y, x)
            Ids over `region`.
        before : ndarray of uint32, shape (y, x), optional
            What the person saw there: only pixels that differ from it are changed. Default: what is there.
        kind : str
            For the history.
        attributes : mapping of int to Attributes, optional
            Of new nuclei, by id.
        step : int, optional
            Number of an earlier step that this belongs to: both are undone together.

        Returns
        -------
        Changed or None
            None if nothing changed.

        Raises
        ------
        ValueError
            If `region` leaves the slide or `after` has another shape.
        StoreError
            If it cannot be written, or a nucleus would reach over too large a part of the slide.
        """
        if not self._labels.whole.contains(region) or after.shape != (region.height, region.width):
            raise ValueError(f"{after.shape} pixels do not fit {region} of a slide of {self._labels.shape}")
        with self._changing():
            self._redo.make_room()
            current = self._labels.read(region)
            wanted = after if before is None else np.where(before != after, after, current)
            box = bounds_of(wanted != current)
            if box is None:
                return None
            pixels = np.ascontiguousarray(current[box.slices]), np.ascontiguousarray(wanted[box.slices])
            heading = Heading(kind, self.person, step)
            return self._commit(heading, box.translate(region.y, region.x), pixels, attributes or {})

    def _commit(
        self, heading: Heading, place: Region, pixels: tuple[Ids, Ids], attributes: Mapping[int, Attributes]
    ) -> Changed:
        """Journal, tables, then image; the right to write is held."""
        with self._ledger.transaction() as database:
            retouch = Retouch(database, self._parts, place, pixels)
            if retouch.frame.area > MOST_PX:
                raise StoreError(
                    "A nucleus would reach over too large a part of the slide. Take a new label for another one."
                )
            records = retouch.records(self.person, attributes)
            encoded = encode_pixels(pixels[0]), encode_pixels(pixels[1])
            edit = NewEdit(heading, place, records, retouch.touched, encoded)
            step, noted = self._note(database, edit, pixels[1])
        self._census.recount([retouch.frame])
        self._redo.apply([noted])
        return Changed(step, place, frozenset(retouch.touched))

    def add(self, newcomers: Newcomers, image: Ids, *, kind: str, step: int | None = None) -> Changed:
        """Put new nuclei where none are: what `paint` makes of them too, in half the time.

        The right to write must be held since `image` was read, and no pixel of the place be claimed by a nucleus that
        does not show it; see `are_pixels_claimed`.

        Parameters
        ----------
        newcomers : Newcomers
            The nuclei; at least one.
        image : ndarray of uint32, shape (y, x)
            Ids over their place as they are; changed and kept.
        kind, step
            As for `paint`.

        Raises
        ------
        StoreError
            If it cannot be written.
        """
        place = newcomers.place
        with self._changing():
            self._redo.make_room()
            before = encode_pixels(image)
            newcomers.put_into(image)
            with self._ledger.transaction() as database:
                after = encode_pixels(image) if before else newcomers.encoded()
                rows = newcomers.rows(self._census, self._labels.mpp_um, self.person)
                add_nuclei(database, rows)
                ids = [row[0] for row in rows]
                records = Records({NUCLEI: dict.fromkeys(ids)}, {NUCLEI: dict(zip(ids, rows, strict=True))})
                edit = NewEdit(Heading(kind, self.person, step), place, records, ids, (before, after))
                number, noted = self._note(database, edit, image)
            self._census.recount([place])
            self._redo.apply([noted])
            return Changed(number, place, frozenset(ids))

    def _note(self, database: sqlite3.Connection, edit: NewEdit, after: Ids) -> tuple[int, Noted]:
        """Write an edit of pixels into the journal and the notes; return the number of its step, and its note."""
        step = put_edit(database, edit.heading, edit.place, edit.records, nuclei=len(edit.ids), pixels=edit.pixels)
        self.keep_next_id(database, edit.ids)
        return step, self._redo.note(database, edit.place, after, edit.pixels[1])

    def delete(self, ids: Collection[int], *, kind: str = "delete") -> list[Changed]:
        """Take nuclei out of the image as one step; those that a model found stay in the table as rejected."""
        return list(self.delete_in_parts(ids, kind=kind))

    def delete_in_parts(self, ids: Collection[int], *, kind: str = "delete") -> Iterator[Changed]:
        """Like `delete`, part by part of the slide, so that it can be stopped; all parts are one step."""
        step = None
        # Those of a tile have numbers in a row: they lie together.
        for part in _parts(sorted(ids)):
            for box, group in self._groups(part):
                image = self._labels.read(box)
                image[np.isin(image, np.array(group, np.uint32))] = 0
                changed = self.paint(box, image, kind=kind, step=step)
                if changed is not None:
                    step = changed.step
                    yield changed

    def _groups(self, ids: Iterable[int]) -> Iterator[tuple[Region, list[int]]]:
        """Sort nuclei by place, so that each group lies together; yield the box of each group."""
        groups: dict[int, list[Row]] = {}
        for row in rows_of(self._ledger.reader, NUCLEI, ids).values():
            groups.setdefault(row[3], []).append(row)
        for _, rows in sorted(groups.items()):
            yield Region.enclosing(np.array([row[6:10] for row in rows])), [row[0] for row in rows]

    # ------------------------------------------------------------------ rows

    def classify(self, ids: Collection[int], number: int, *, step: int | None = None) -> Changed | None:
        """Give nuclei a class (0: none), as a step of its own or as part of `step`."""
        return self.change_rows(ids, "classify", lambda row: (*row[:11], number, *row[12:]), step=step)

    def review(self, ids: Collection[int], *, approved: bool, step: int | None = None) -> Changed | None:
        """Mark nuclei as approved, so that no model touches them; or give them back to the models.

        What is given back counts as undone: the next run of a model replaces it.
        """
        state, kind = (APPROVED, "approve") if approved else (UNSEEN, "unapprove")
        return self.change_rows(ids, kind, lambda row: (*row[:14], state), step=step, approval=approved)

    def in_parts(
        self, ids: Collection[int], change: Callable[[list[int], int | None], Changed | None]
    ) -> Iterator[Changed | None]:
        """Change very many nuclei part by part, so that it can be stopped; all parts are one step.

        `change` is called with `PART` ids at most and the step that they belong to.
        """
        step = None
        for part in _parts(ids):
            changed = change(part, step)
            step = step if changed is None else changed.step
            yield changed

    def change_rows(
        self,
        ids: Collection[int],
        kind: str,
        change: Callable[[Row], Row],
        *,
        step: int | None = None,
        approval: bool | None = None,
    ) -> Changed | None:
        """Change rows of the nuclei table as one step, or as part of `step`; `kind` is a word for the history.

        `approval` says that the change is one (True: no model touches the nuclei any more) or takes it back (False:
        their tiles are done again).
        """
        with self._changing():
            with self._ledger.transaction() as database:
                before = {key: row for key, row in rows_of(database, NUCLEI, ids).items() if row[13] == 0}
                after = {key: change(row) for key, row in before.items()}
                records = Records()
                records.note(NUCLEI, before, after)
                if not records:
                    return None
                if approval is True:
                    # Approved is what was seen: pixels that others covered are given up.
                    claims = rows_of(database, CLAIMS, after)
                    records.note(CLAIMS, claims, {})
                    seen = measured_in_place(self._parts, {key: after[key] for key in claims})
                    records.note(NUCLEI, {key: before[key] for key in claims}, seen)
                if approval is False:
                    reopen_tiles(database, set(tile_of(list(records.after[NUCLEI])).tolist()) - {-1})
                for table, rows in records.after.items():
                    put_rows(database, table, rows)
                bounds = {key: row[6:10] for key, row in records.before[NUCLEI].items() if row is not None}
                box = Region.enclosing(np.array(list(bounds.values())))
                number = put_edit(database, Heading(kind, self.person, step), box, records, nuclei=len(bounds))
            # What gave up pixels may be listed elsewhere now.
            self._census.recount(Region.from_bounds(*bounds[key]) for key in records.after.get(CLAIMS, ()))
            return Changed(number, box, frozenset(bounds))

    def put(
        self, table: str, key: int, row: Row | None, *, kind: str, region: Region, step: int | None = None
    ) -> Changed | None:
        """Add, change or (None) remove a row of another table as one step, or as part of `step`; see `records`."""
        return self.put_all(table, {key: row}, kind=kind, region=region, step=step)

    def put_all(self, table: str, rows: Rows, *, kind: str, region: Region, step: int | None = None) -> Changed | None:
        """Add, change or (None) remove several rows by key; see `put`."""
        with self._changing(), self._ledger.transaction() as database:
            records = Records()
            records.note(table, rows_of(database, table, rows), rows)
            if not records:
                return None
            put_rows(database, table, records.after[table])
            return Changed(put_edit(database, Heading(kind, self.person, step), region, records), region)

    # ------------------------------------------------------------------ history

    def history(self, most: int = 200, *, before: int | None = None) -> list[Step]:
        """Return the newest steps, newest first; `before` leaves out that step and later ones."""
        return steps(self._ledger.reader, most, before)

    def turns(self) -> tuple[str, str]:
        """Return the kinds of what `undo` and `redo` would turn next; empty for nothing."""
        found = [next_turn(self._ledger.reader, back=back) for back in (True, False)]
        undo, redo = ("" if turn is None else kind_of(self._ledger.reader, turn[0]) for turn in found)
        return undo, redo

    def undo(self) -> list[Changed]:
        """Undo the last step that is done; empty if there is none."""
        return list(self.turn_in_parts(back=True))

    def redo(self) -> list[Changed]:
        """Do the first step again that is undone; empty if there is none."""
        return list(self.turn_in_parts(back=False))

    def jump(self, step: int) -> Iterator[Changed]:
        """Undo what came after a step, or do again what is undone up to it; 0 undoes everything."""
        for back in (True, False):
            while (turn := next_turn(self._ledger.reader, back=back)) and (turn[1] > step) == back:
                yield from self.turn_in_parts(back=back)

    def count_jump(self, step: int) -> int:
        """Return how many parts `jump` to a step turns."""
        return self._count("(undone = 0 AND step > ?1) OR (undone = 1 AND step <= ?1)", step)

    def count_turn(self, *, back: bool) -> int:
        """Return how many parts the next undo (`back`) or redo turns."""
        turn = next_turn(self._ledger.reader, back=back)
        return 0 if turn is None else self._count(f"undone = {int(not back)} AND step = ?1", turn[1])

    def _count(self, condition: str, step: int) -> int:
        return int(self._ledger.reader.execute(f"SELECT count(*) FROM edits WHERE {condition}", (step,)).fetchone()[0])  # noqa: S608

    def turn_in_parts(self, *, back: bool) -> Iterator[Changed]:
        """Like `undo` (`back`) or `redo`, part by part; where it is stopped, the next one goes on."""
        first = next_turn(self._ledger.reader, back=back)
        turn = first
        while first is not None and turn is not None and turn[1] == first[1]:
            yield self._turn(turn[0], turn[1], back=back)
            turn = next_turn(self._ledger.reader, back=back)

    def _turn(self, number: int, step: int, *, back: bool) -> Changed:
        with self._changing():
            self._redo.make_room()
            with self._ledger.transaction() as database:
                edit = get_edit(database, number)
                turn = Turn(database, self._parts, edit, back=back)
                turn.restore()
                mark(database, number, undone=back)
                noted = [] if turn.image is None else [self._redo.note(database, turn.region, turn.image)]
            self._census.recount([turn.frame])
            self._redo.apply(noted)
            return Changed(step, turn.region, frozenset(turn.ids))

    # ------------------------------------------------------------------ inside

    def keep_next_id(self, database: sqlite3.Connection, ids: Iterable[int]) -> None:
        """Note, inside the caller's transaction, that people's names among `ids` are not to be used again."""
        highest = max(ids, default=0)
        if highest >= PERSON_ID_START:
            with self._counting:
                self._next_id = max(self._next_id, highest + 1)
            database.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (NEXT_ID, str(self._next_id)))


def _parts(ids: Iterable[int]) -> Iterator[list[int]]:
    every = list(ids)
    for start in range(0, len(every), PART):
        yield every[start : start + PART]

"""One slide's nuclei: tiles go out as tasks, parcels come back, one writer joins them in the project."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from napari_nucleiseg.core.batch.engines.base import Ending, Outcome, Task
from napari_nucleiseg.core.batch.unattended import work
from napari_nucleiseg.core.batch.unattended.orders import Found, Prepared, SlideOrder, unpack_tissue
from napari_nucleiseg.core.batch.unattended.parcels import FOLDER, discard, left_parcels, read_parcel, remove_folder
from napari_nucleiseg.core.batch.unattended.tiling import Heap, Pace, near_together
from napari_nucleiseg.core.errors import SlideError
from napari_nucleiseg.core.inference.plan import plan_inference
from napari_nucleiseg.core.inference.predict import MAX_UNREADABLE
from napari_nucleiseg.core.inference.segment import options_key
from napari_nucleiseg.core.slides.registry import open_slide
from napari_nucleiseg.core.store.finding import remember
from napari_nucleiseg.core.store.project import Project

Namer = Callable[[str], str]


class Segmenting:
    """The tiles of one slide on their way; for one thread, which writes the project.

    Parameters
    ----------
    order : SlideOrder
        The slide.
    prepared : Prepared
        What a worker found out.
    pace : Pace
        Of the run.

    Attributes
    ----------
    order : SlideOrder
        With the slide's level and key; what tasks are told.
    total, done, skipped, nuclei : int
        Tiles planned, whole and given up; nuclei found in this run.
    notes : list of str
        What a person should know.

    Raises
    ------
    SlideError, StoreError
        If slide or project cannot be opened.
    """

    def __init__(self, order: SlideOrder, prepared: Prepared, pace: Pace) -> None:
        model_order = replace(order.model, tau=prepared.tau)
        model = work.model_of(model_order)
        with closing(open_slide(order.path, mpp_um=order.mpp_um)) as slide:
            if slide.fingerprint != prepared.fingerprint:
                raise SlideError(f"{order.path} changes while it is worked on. Run the command again when it is whole.")
            plan = plan_inference(slide, model.spec, tissue=unpack_tissue(prepared))
            self.project = Project.open_or_create(order.folder, slide)
            remember(order.folder, slide)
        self._pace, self._version = pace, model.version
        self._options = options_key(plan, model, order.options)
        key = f"{prepared.fingerprint} {self._version} {self._options}"
        self.order = replace(order, model=model_order, key=key)
        self._done = self.project.tiles_done(self._version, self._options)
        before = len(plan.tiles.only(self._done))
        self.total, self.done, self.skipped, self.nuclei = len(plan), before, 0, 0
        self.notes: list[str] = []
        self._in_a_row, self._out = 0, 0
        try:
            for parcel in left_parcels(Path(order.folder) / FOLDER, key):
                self._join(parcel)
        except BaseException:
            self.project.close()  # or others would find it in use until this process ends
            raise
        self._heap = Heap(near_together(plan.tiles.without(self._done).indices, plan.grid.columns))

    @property
    def is_over(self) -> bool:
        """Whether every tile is whole or given up."""
        return not len(self._heap) and not self._out

    def task(self, workers: int, name: Namer) -> Task | None:
        """Return the next task; None if all tiles are out or done."""
        tiles = self._heap.cut(self._pace.at_once, workers) if len(self._heap) else ()
        if not tiles:
            return None
        self._out += 1
        return Task(name("segment"), work.segment_tiles, (self.order, tiles))

    def take(self, outcome: Outcome) -> None:
        """Join what a task found, or have its tiles done again; those of a task that failed stay undone.

        Raises
        ------
        SlideError
            If tile after tile cannot be read.
        StoreError
            If the project cannot be written.
        """
        self._out -= 1
        tiles: tuple[int, ...] = outcome.task.arguments[1]
        if outcome.ending is Ending.FAILED:
            return
        if outcome.ending is not Ending.DONE:
            given_up = self._heap.halve(tiles)
            if given_up is not None:
                self._give_up(given_up, f"tile {given_up}: {outcome.sentence}, three times")
            return
        found: Found = outcome.value
        self._pace.note(len(tiles), found.seconds)
        self.notes += found.notes
        if found.parcel and not self._join(Path(found.parcel)):
            self._heap.again([tile for tile in tiles if tile not in found.skipped])
        elif found.parcel:
            self._in_a_row = 0
        for tile, reason in found.skipped.items():
            self._give_up(tile, reason)

    def close(self) -> None:
        """Flush and close the project."""
        self.project.close()
        remove_folder(Path(self.order.folder) / FOLDER)

    def _join(self, path: Path) -> bool:
        parcel = read_parcel(path)
        if parcel is None or parcel.key != self.order.key:
            discard(path)
            return False
        for tile in parcel.tiles:
            if tile.tile_index in self._done:
                continue
            self.project.write_tile(tile, self._version, self._options)
            self._done.add(tile.tile_index)
            self.done += 1
            self.nuclei += len(tile)
        discard(path)
        return True

    def _give_up(self, _tile: int, reason: str) -> None:
        self.skipped += 1
        self._in_a_row += 1
        self.notes.append(reason)
        if self._in_a_row >= MAX_UNREADABLE:
            raise SlideError(
                f"{self._in_a_row} tiles in a row cannot be read; the slide or its drive seems to be gone. Finished "
                f"tiles are kept. The last one said: {reason}"
            )

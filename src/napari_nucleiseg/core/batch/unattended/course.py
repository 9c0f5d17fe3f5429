"""One slide's way through a run: prepared, segmented, measured, described, written; it fails alone."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from napari_nucleiseg.core.batch.engines.base import Ending, Outcome, Task
from napari_nucleiseg.core.batch.job import SlideAdvanced, SlideFailed, SlideNoted
from napari_nucleiseg.core.batch.unattended import encoded, work
from napari_nucleiseg.core.batch.unattended.database import DONE, FAILED, RUNNING, STOPPED, SlideRow
from napari_nucleiseg.core.batch.unattended.job import BatchEvent, BatchJob, SlideDone, Stage
from napari_nucleiseg.core.batch.unattended.orders import SlideOrder
from napari_nucleiseg.core.batch.unattended.segmenting import Segmenting
from napari_nucleiseg.core.batch.unattended.tiling import Pace
from napari_nucleiseg.core.errors import NucleiSegError
from napari_nucleiseg.core.measurement.grid import blocks_of
from napari_nucleiseg.core.store.project import Project

MAX_NOTES = 5
FEATURES, ATTENTION = "features", "attention"
Blocks = tuple[tuple[int, int, int, int], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Paces:
    """How long tiles and blocks take; shared by all slides of a run."""

    tiles: Pace
    blocks: Pace


class Course:
    """One slide on its way; for one thread.

    Parameters
    ----------
    order : SlideOrder
        The slide.
    row : SlideRow
        What is known of it; `row` is kept up to date.
    job : BatchJob
        Of the run.
    paces : Paces
        Of the run.
    """

    def __init__(self, order: SlideOrder, row: SlideRow, job: BatchJob, paces: Paces) -> None:
        self.order = order
        self._job, self._paces = job, paces
        self.row = replace(row, state=RUNNING, stage=Stage.PREPARING.value, sentence="", kind="", seconds={}, notes=())
        self.stage = Stage.PREPARING
        self._segmenting: Segmenting | None = None
        self._out, self._numbers, self._tries = 0, 0, dict[str, int]()
        self._ready: deque[Task] = deque([Task(self._name("prepare"), work.prepare, (order,))])
        self._parts_done, self._parts = 0, 0
        self._notes_told = 0
        self._started = time.monotonic()
        self._failed: tuple[str, str] | None = None

    @property
    def is_over(self) -> bool:
        """Whether nothing of it is to be done or on its way."""
        return self.stage is Stage.OVER and not self._out

    def task(self, workers: int) -> Task | None:
        """Return the next task, or None if what is out must come back first."""
        if self.stage is Stage.OVER:
            return None
        task = self._ready.popleft() if self._ready else None
        if task is None and self.stage is Stage.SEGMENTING and self._segmenting is not None:
            task = self._segmenting.task(workers, self._name)
        self._out += task is not None
        return task

    def take(self, outcome: Outcome) -> Iterator[BatchEvent]:
        """Take back a task; yield what happened.

        Raises
        ------
        NucleiSegError
            Never for what concerns this slide alone: that ends its course and is told.
        """
        self._out -= 1
        if self.stage is Stage.OVER:
            return
        try:
            yield from self._taken(outcome)
        except NucleiSegError as error:
            yield from self._fail(str(error), type(error).__name__)

    def stop(self) -> None:
        """Send out no more; what is done stays done."""
        if self.stage is not Stage.OVER:
            self.row = replace(self.row, state=STOPPED)
            self._end()

    def close(self) -> None:
        """Close the project, whatever happened; safe to call twice."""
        segmenting, self._segmenting = self._segmenting, None
        if segmenting is not None:
            segmenting.close()

    def _name(self, what: str) -> str:
        self._numbers += 1
        return f"{self.order.stem}-{what}-{self._numbers}"

    def _taken(self, outcome: Outcome) -> Iterator[BatchEvent]:
        if outcome.ending is Ending.FAILED:
            if self._segmenting is not None and self.stage is Stage.SEGMENTING:
                self._segmenting.take(outcome)
            yield from self._fail(outcome.sentence, outcome.kind)
            return
        if self.stage is Stage.SEGMENTING:
            yield from self._segmented(outcome)
            return
        if outcome.ending is not Ending.DONE:
            yield from self._once_more(outcome)
            return
        after: dict[Stage, Callable[[Outcome], Iterator[BatchEvent]]] = {
            Stage.PREPARING: self._prepared,
            Stage.MEASURING: self._measured,
            Stage.ENCODING: self._encoded,
            Stage.WRITING: self._written,
        }
        yield from after[self.stage](outcome)

    def _once_more(self, outcome: Outcome) -> Iterator[BatchEvent]:
        """Give a task that killed its worker, or found no memory, to another; three times in all."""
        name = outcome.task.name
        self._tries[name] = self._tries.get(name, 0) + 1
        if self._tries[name] >= 3:
            yield from self._fail(f"{self.stage.value}: {outcome.sentence}, three times", outcome.kind)
            return
        blocks = outcome.task.arguments[1] if self.stage is Stage.MEASURING else ()
        if len(blocks) > 1:
            middle = len(blocks) // 2
            for half in (blocks[:middle], blocks[middle:]):
                self._ready.append(Task(self._name("measure"), outcome.task.function, (self.order, half)))
            self._parts += 1
        else:
            self._ready.append(outcome.task)

    def _prepared(self, outcome: Outcome) -> Iterator[BatchEvent]:
        prepared = outcome.value
        self._tell(prepared.notes)
        self.row = replace(self.row, fingerprint=prepared.fingerprint, told=self.row.told | prepared.facts)
        segmenting = self._segmenting = Segmenting(self.order, prepared, self._paces.tiles)
        self.order = segmenting.order
        self._to(Stage.SEGMENTING)
        yield from self._notes()
        yield self._advanced(segmenting.done, segmenting.total)
        yield from self._if_segmented()

    def _segmented(self, outcome: Outcome) -> Iterator[BatchEvent]:
        segmenting = self._segmenting
        if segmenting is None:
            return
        if outcome.ending is Ending.DONE:
            self._spent("segment", outcome.value.seconds)
            most = max(outcome.value.worker_bytes, self.row.told.get("worker_bytes", 0))
            self.row = replace(self.row, told=self.row.told | {"worker_bytes": most})
        segmenting.take(outcome)
        self._tell(segmenting.notes)
        segmenting.notes.clear()
        self.row = replace(
            self.row,
            tiles=segmenting.total,
            tiles_done=segmenting.done,
            tiles_skipped=segmenting.skipped,
            nuclei=segmenting.nuclei,
        )
        yield from self._notes()
        yield self._advanced(segmenting.done, segmenting.total)
        yield from self._if_segmented()

    def _if_segmented(self) -> Iterator[BatchEvent]:
        segmenting = self._segmenting
        if segmenting is None or not segmenting.is_over:
            return
        self.row = replace(self.row, tiles=segmenting.total, tiles_done=segmenting.done)
        segmenting.project.flush(settle=True)
        blocks = self._blocks(segmenting.project) if self._job.measure else []
        # Closed, so that workers and people may open it.
        self.close()
        if blocks:
            self._to(Stage.MEASURING, [self._measuring(part) for part in blocks])
            yield self._advanced(0, self._parts)
        else:
            yield from self._encode()

    def _blocks(self, project: Project) -> list[Blocks]:
        regions = [(region.y, region.x, region.y1, region.x1) for region in blocks_of(project)]
        size = self._paces.blocks.at_once
        return [tuple(regions[start : start + size]) for start in range(0, len(regions), size)]

    def _measuring(self, blocks: Blocks) -> Task:
        return Task(self._name("measure"), work.measure_blocks, (self.order, blocks))

    def _measured(self, outcome: Outcome) -> Iterator[BatchEvent]:
        self._paces.blocks.note(len(outcome.task.arguments[1]), outcome.value)
        self._spent("measure", outcome.value)
        self._parts_done += 1
        yield self._advanced(self._parts_done, self._parts)
        if self._parts_done == self._parts:
            yield from self._encode()

    def _encode(self) -> Iterator[BatchEvent]:
        job, out = self._job, Path(self.order.out)
        tasks = []
        if job.encoder:
            what = job.encoder, job.region_encoder, str(out / FEATURES)
            tasks.append(Task(self._name("describe"), encoded.describe, (self.order, *what)))
        if job.attention_maps:
            what = job.encoder, job.region_encoder, str(out / ATTENTION / f"{self.order.stem}.tif")
            tasks.append(Task(self._name("attend"), encoded.attend, (self.order, *what)))
        if not tasks:
            yield from self._write()
            return
        self._to(Stage.ENCODING, tasks)
        yield self._advanced(0, self._parts)

    def _encoded(self, outcome: Outcome) -> Iterator[BatchEvent]:
        said: dict[str, Any] = dict(outcome.value)
        outputs = (*self.row.outputs, *said.pop("outputs"))
        self.row = replace(self.row, outputs=outputs, told=self.row.told | said)
        self._parts_done += 1
        yield self._advanced(self._parts_done, self._parts)
        if self._parts_done == self._parts:
            yield from self._write()

    def _write(self) -> Iterator[BatchEvent]:
        looked = Path(self.order.out) / ATTENTION / f"{self.order.stem}.npz"
        attention = str(looked) if self._job.attention_maps else ""
        what = self.order, self._job.formats, self._job.measure, attention
        task = Task(self._name("finish"), work.finish, what)
        self._to(Stage.WRITING, [task])
        yield self._advanced(0, 1)

    def _written(self, outcome: Outcome) -> Iterator[BatchEvent]:
        said: dict[str, Any] = dict(outcome.value)
        outputs = (self.order.folder, *said.pop("outputs"), *self.row.outputs)
        nuclei, seconds = said.pop("nuclei"), time.monotonic() - self._started
        self._spent("wall", seconds)
        self.row = replace(
            self.row, state=DONE, stage="", nuclei=nuclei, outputs=outputs, told=self.row.told | said, kind=""
        )
        self._end()
        yield SlideDone(self.order.path, outputs, nuclei, self.row.tiles_skipped, seconds)

    def _fail(self, sentence: str, kind: str) -> Iterator[BatchEvent]:
        self._failed = sentence, kind
        self.row = replace(self.row, state=FAILED, sentence=sentence, kind=kind)
        self._end()
        yield SlideFailed(self.order.path, sentence, kind)

    def _end(self) -> None:
        self.stage = Stage.OVER
        self._ready.clear()
        with suppress(NucleiSegError):  # what ended it is the one to tell; finished tiles are safe already
            self.close()

    def _to(self, stage: Stage, tasks: list[Task] | None = None) -> None:
        self.stage = stage
        self._ready = deque(tasks or ())
        self._parts_done, self._parts = 0, len(self._ready)
        self.row = replace(self.row, stage=stage.value)

    def _advanced(self, done: int, total: int) -> SlideAdvanced:
        return SlideAdvanced(self.order.path, self.stage.value, done, total, self.row.nuclei)

    def _spent(self, what: str, seconds: float) -> None:
        spent = self.row.seconds
        self.row = replace(self.row, seconds=spent | {what: round(spent.get(what, 0.0) + seconds, 2)})

    def _tell(self, notes: list[str] | tuple[str, ...]) -> None:
        if notes:
            self.row = replace(self.row, notes=tuple(dict.fromkeys((*self.row.notes, *notes))))

    def _notes(self) -> Iterator[BatchEvent]:
        """Tell the first few things that a person should know; the summary has all of them."""
        fresh = self.row.notes[self._notes_told : MAX_NOTES]
        self._notes_told = max(self._notes_told, min(MAX_NOTES, len(self.row.notes)))
        for note in fresh:
            yield SlideNoted(self.order.path, note)

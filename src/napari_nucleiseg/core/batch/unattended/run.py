"""The loop of an unattended run: give tasks to an engine, take back what they found, tell what happens."""

from __future__ import annotations

import shutil
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from napari_nucleiseg.core.batch.earlier import WRITES, EarlierResults
from napari_nucleiseg.core.batch.engines.base import Engine, Outcome, Task
from napari_nucleiseg.core.batch.heads import ARRAYS
from napari_nucleiseg.core.batch.inputs import Input
from napari_nucleiseg.core.batch.job import SlideFailed, SlideStarted
from napari_nucleiseg.core.batch.output import file_name, project_name, require_own
from napari_nucleiseg.core.batch.segmentation import chosen_options
from napari_nucleiseg.core.batch.unattended import work
from napari_nucleiseg.core.batch.unattended.course import ATTENTION, Course, Paces
from napari_nucleiseg.core.batch.unattended.database import DONE, FAILED, STOPPED, RunDatabase, SlideRow
from napari_nucleiseg.core.batch.unattended.job import (
    BatchAdvanced,
    BatchEvent,
    BatchFinished,
    BatchJob,
    SlideDone,
)
from napari_nucleiseg.core.batch.unattended.manifest import Entry, read_entries
from napari_nucleiseg.core.batch.unattended.orders import ModelOrder, SlideOrder
from napari_nucleiseg.core.batch.unattended.page import NAME as PAGE
from napari_nucleiseg.core.batch.unattended.page import require_own_page, write_page
from napari_nucleiseg.core.batch.unattended.start import make_engine, versions
from napari_nucleiseg.core.batch.unattended.tiling import Pace
from napari_nucleiseg.core.decoders.base import DecodeOptions
from napari_nucleiseg.core.errors import ExportError, ModelError, NucleiSegError, StoreError
from napari_nucleiseg.core.models.hardware import choose_device
from napari_nucleiseg.core.models.looking import looks
from napari_nucleiseg.core.models.weights import LoadedModel, load_model
from napari_nucleiseg.core.slides.bytesource import is_address
from napari_nucleiseg.core.slides.fingerprint import is_same
from napari_nucleiseg.core.slides.pixelsize import given_mpp
from napari_nucleiseg.core.slides.registry import open_slide
from napari_nucleiseg.core.store.failure import full_disk
from napari_nucleiseg.core.store.finding import last_written
from napari_nucleiseg.core.training.scales.slide_level import takes_slide_level

FULL_DISK_BYTES = 2**26
POLL_S = 0.2
# A summary takes a moment to write; while slides are worked on, once in a while is enough.
PAGE_S = 15.0
_MEASURES = "measures 1"


def never() -> bool:
    """Say that nobody has asked."""
    return False


def run_batch(
    job: BatchJob,
    *,
    cancelled: Callable[[], bool] = never,
    paused: Callable[[], bool] = never,
    engine: Engine | None = None,
) -> Generator[BatchEvent, None, None]:
    """Work through all slides of a job: segment, measure, write, sum up.

    What an earlier run has done with the same weights, settings and slides is not done again; what it had begun is
    gone on with. A slide that fails is told and passed over. The labels do not depend on the engine, on how many
    workers there are, or on the order in which they answer.

    Parameters
    ----------
    job : BatchJob
        What to do.
    cancelled : callable
        Polled a few times a second; tasks in work end first.
    paused : callable
        While it says True no more tasks are given out.
    engine : Engine, optional
        Where tasks are done; default what the job says. It is closed at the end.

    Yields
    ------
    BatchEvent
        What happens; last comes `BatchFinished`.

    Raises
    ------
    ModelError
        If the job makes no sense, the device is not there, or the model cannot be loaded.
    DataError, SlideError
        If the manifest cannot be understood, a folder holds no slide, or two slides have one name.
    ExportError
        If a file that is no summary of ours has its name.
    StoreError
        If the folder cannot be written, another run is at work there, or the disk is full.
    EngineLostError
        If the place where tasks are done is gone; the same job goes on from there.
    """
    if problem := job.validation_error():
        raise ModelError(problem)
    if job.mpp_um is not None:
        given_mpp(job.mpp_um)
    if engine is None and not job.scheduler:
        choose_device(job.device)
    entries = read_entries(job.paths)
    model = load_model(job.model, accept_licence=job.accept_licence)
    options = chosen_options(model, job.threshold, job.min_area_um2)
    out = Path(job.out).absolute()
    require_own_page(out)
    with RunDatabase(out) as database:
        run = _Run(job, entries, _Model(model, options), database, (cancelled, paused))
        try:
            yield from run.go(engine)
        finally:
            work.forget()


@dataclass(frozen=True, slots=True, eq=False)
class _Model:
    """The model as it was loaded, and how its maps become nuclei."""

    loaded: LoadedModel
    options: DecodeOptions


@dataclass(slots=True, eq=False)
class _Counts:
    """How far the slides are."""

    done: int = 0
    failed: int = 0
    nuclei: int = 0


class _Run:
    """One run; `asked` tells whether it was cancelled and whether it is paused."""

    def __init__(
        self,
        job: BatchJob,
        entries: tuple[Entry, ...],
        model: _Model,
        database: RunDatabase,
        asked: tuple[Callable[[], bool], Callable[[], bool]],
    ) -> None:
        self._job, self._entries, self._model, self._options = job, entries, model.loaded, model.options
        self._database, (self._cancelled, self._paused) = database, asked
        self._out = database.folder
        self._earlier = EarlierResults(self._out)
        self._rows = database.slides()
        self._waiting: deque[tuple[int, Entry]] = deque()
        self._courses: list[Course] = []
        self._counts = _Counts()
        self._failures: list[tuple[str, str]] = []
        self._paces = Paces(Pace(job.unit_s), Pace(job.unit_s, most=64))
        self._by_task: dict[str, Course] = {}
        self._page_at = 0.0

    def go(self, engine: Engine | None) -> Iterator[BatchEvent]:
        """Do it; end the run in the database however it ends."""
        start = time.monotonic()
        number = self._database.begin(asdict(self._job), versions(self._model))
        state, where = STOPPED, "nothing to do"
        try:
            yield from self._skip_done(number)
            # Workers take seconds to start: only if there is something to do.
            if self._waiting:
                engine = engine or make_engine(self._job)
                where = engine.describe()
                yield from self._loop(engine)
                where = engine.describe()
            state = STOPPED if self._cancelled() else DONE
        finally:
            if engine is not None:
                engine.close()
            for course in self._courses:
                course.stop()
                self._database.put(course.row)
            with suppress(NucleiSegError):  # a full disk is told by what raised
                self._database.end(number, state, where)
                write_page(self._out)
        counts, left = self._counts, len(self._entries) - self._counts.done - self._counts.failed
        page, seconds = str(self._out / PAGE), time.monotonic() - start
        yield BatchFinished(page, counts.done, counts.failed, left, counts.nuclei, seconds, tuple(self._failures))

    def _skip_done(self, number: int) -> Iterator[BatchEvent]:
        """Tell what an earlier run has done, and what cannot be written; the others wait."""
        known = set(self._rows)
        for place, entry in enumerate(self._entries, start=1):
            before = self._rows.get(entry.stem) or SlideRow(entry.stem, entry.path)
            told = before.told | {"manifest": dict(entry.facts)}
            path = _where(entry.path)
            row = self._rows[entry.stem] = replace(before, path=path, run=number, told=told)
            if self._is_done(entry, row):
                self._counts.done += 1
                self._counts.nuclei += row.nuclei
                yield SlideDone(entry.path, row.outputs, row.nuclei, row.tiles_skipped, from_before=True)
                continue
            try:
                require_own(_input(entry), self._out, self._writes(entry), self._earlier)
            except ExportError as error:
                yield self._refuse(entry, str(error))
                continue
            if entry.stem not in known:
                self._database.put(row)
            self._waiting.append((place, entry))

    def _refuse(self, entry: Entry, sentence: str) -> SlideFailed:
        failed = SlideFailed(entry.path, sentence, ExportError.__name__)
        row = replace(self._rows[entry.stem], state=FAILED, stage="", sentence=sentence, kind=failed.kind)
        self._database.put(row)
        self._count(failed)
        return failed

    def _writes(self, entry: Entry) -> list[str]:
        """Return what is written for a slide, relative to the folder of results, without its project and features."""
        names = [file_name(_input(entry), name, picture=False) for name in self._job.formats]
        maps = [f"{ATTENTION}/{entry.stem}{ending}" for ending in (".tif", ARRAYS) if self._job.attention_maps]
        return [*names, *maps, f"pictures/{entry.stem}.jpg"]

    def _loop(self, engine: Engine) -> Iterator[BatchEvent]:
        yield self._advanced(engine)
        while not self._cancelled():
            if not self._paused():
                yield from self._give_out(engine)
            if not (self._courses or self._waiting):
                return
            for outcome in engine.collect(POLL_S):
                yield from self._take(outcome, engine)
            self._page_now_and_then()
        yield from self._drain(engine)

    def _drain(self, engine: Engine) -> Iterator[BatchEvent]:
        """After it was cancelled: take back what is in work, so that it is not done again."""
        until = time.monotonic() + max(10.0, 5 * self._job.unit_s)
        while engine.waiting and time.monotonic() < until:
            for outcome in engine.collect(POLL_S):
                yield from self._take(outcome, engine)

    def _give_out(self, engine: Engine) -> Iterator[BatchEvent]:
        """Fill the engine: with what the first slides have to do, then with further slides."""
        while engine.room:
            task, course = self._next_task(engine.workers)
            if task is not None and course is not None:
                self._by_task[task.name] = course
                engine.submit(task)
                continue
            # More projects open than workers could need would only cost memory and file handles.
            if not self._waiting or len(self._courses) > engine.workers + 1:
                return
            yield from self._begin(*self._waiting.popleft())

    def _next_task(self, workers: int) -> tuple[Task | None, Course | None]:
        for course in self._courses:
            task = course.task(workers)
            if task is not None:
                return task, course
        return None, None

    def _begin(self, number: int, entry: Entry) -> Iterator[BatchEvent]:
        before = self._rows[entry.stem]
        # Kept from run to run, while `outputs` are those of the last one: all of them may be replaced.
        names = {*before.told.get(WRITES, ()), *map(self._earlier.name_of, before.outputs), *self._writes(entry)}
        told = before.told | {WRITES: sorted(names)}
        row = replace(before, settings=self._settings(entry), outputs=(), told=told)
        course = Course(self._order(entry), row, self._job, self._paces)
        self._courses.append(course)
        self._database.put(course.row)
        yield SlideStarted(entry.path, number, len(self._entries))

    def _is_done(self, entry: Entry, row: SlideRow) -> bool:
        """Whether the slide, the settings and the results are those of an earlier run, and nobody has edited since.

        The fingerprint of a former version is brought up to date, so that later another picture is told from this one.
        """
        if row.state != DONE or row.settings != self._settings(entry) or row.tiles_skipped:
            return False
        try:
            # Not of the file alone: what DICOM is known by stands in it.
            with closing(open_slide(entry.path)) as slide:
                found = slide.fingerprint
        except (NucleiSegError, OSError):
            return False
        untouched = 0 < last_written(self._out / _project_name(entry)) <= row.updated
        if not untouched or not is_same(found, row.fingerprint) or any(not Path(name).exists() for name in row.outputs):
            return False
        if found != row.fingerprint:
            self._rows[entry.stem] = replace(row, fingerprint=found)
            self._database.put(self._rows[entry.stem])
        return True

    def _settings(self, entry: Entry) -> str:
        job, model = self._job, self._model
        parts = (
            model.version,
            "+level of the slide" if takes_slide_level(model, job.attention_level) else "",
            looks(ignore_brown=job.ignore_brown, thorough=job.thorough),
            f"t{self._options.threshold:.6g} a{self._options.min_area_um2:.6g}",
            f"mpp {entry.mpp_um or job.mpp_um or 'stated'}",
            "tissue" if job.tissue_mask else "everything",
            _MEASURES if job.measure else "",
            f"{job.encoder} {job.region_encoder} {'maps' if job.attention_maps else ''}".strip(),
            "+".join(sorted(job.formats)),
        )
        return " | ".join(part for part in parts if part)

    def _order(self, entry: Entry) -> SlideOrder:
        job = self._job
        card = self._model.card
        name = str(Path(job.model).absolute()) if Path(job.model).is_file() else job.model
        model = ModelOrder(
            name,
            card.version,
            accept_licence=job.accept_licence,
            ignore_brown=job.ignore_brown,
            thorough=job.thorough,
        )
        return SlideOrder(
            path=_where(entry.path),
            mpp_um=entry.mpp_um or job.mpp_um,
            stem=entry.stem,
            folder=str(self._out / _project_name(entry)),
            out=str(self._out),
            model=model,
            options=self._options,
            device=job.device,
            batch_size=job.batch_size,
            tissue_mask=job.tissue_mask,
            slide_level=takes_slide_level(self._model, job.attention_level),
        )

    def _take(self, outcome: Outcome, engine: Engine) -> Iterator[BatchEvent]:
        course = self._by_task.pop(outcome.task.name)
        before = course.row
        for event in course.take(outcome):
            self._count(event)
            yield event
        if self._is_full(course):
            raise StoreError(full_disk(self._out))  # the next slide would not find room either
        if course.row is not before:
            self._database.put(course.row)
        if course.is_over:
            self._courses.remove(course)
            yield self._advanced(engine)

    def _is_full(self, course: Course) -> bool:
        wrote = course.row.state == FAILED and course.row.kind in {StoreError.__name__, ExportError.__name__}
        return wrote and shutil.disk_usage(self._out).free < FULL_DISK_BYTES

    def _count(self, event: BatchEvent) -> None:
        if isinstance(event, SlideDone):
            self._counts.done += 1
            self._counts.nuclei += event.nuclei
        elif isinstance(event, SlideFailed):
            self._counts.failed += 1
            self._failures.append((event.path, event.reason))

    def _advanced(self, engine: Engine) -> BatchAdvanced:
        counts = self._counts
        return BatchAdvanced(counts.done, counts.failed, len(self._entries), engine.workers, engine.describe())

    def _page_now_and_then(self) -> None:
        if time.monotonic() - self._page_at > PAGE_S:
            write_page(self._out)
            self._page_at = time.monotonic()


def _where(path: str) -> str:
    """Return a path that means the same in any folder; an address stays as it is."""
    return path if is_address(path) else str(Path(path).absolute())


def _project_name(entry: Entry) -> str:
    return project_name(_input(entry))


def _input(entry: Entry) -> Input:
    return Input(entry.path, entry.stem)

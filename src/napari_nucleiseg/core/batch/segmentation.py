"""Segment many slides and pictures with one model, telling what happens as it happens."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from napari_nucleiseg.core.batch.earlier import EarlierResults
from napari_nucleiseg.core.batch.inputs import LARGEST_PICTURE_PX, Input, find_inputs, is_picture
from napari_nucleiseg.core.batch.job import (
    LOOKS_BROWN,
    Event,
    SegmentJob,
    SlideAdvanced,
    SlideFailed,
    SlideFinished,
    SlideNoted,
    SlideStarted,
)
from napari_nucleiseg.core.batch.output import file_name, project_name, require_own, write_results
from napari_nucleiseg.core.batch.record import Entry, Record
from napari_nucleiseg.core.decoders.base import DecodeOptions
from napari_nucleiseg.core.errors import ExportError, ModelError, NucleiSegError, SlideError, StoreError
from napari_nucleiseg.core.exchange.source import source_of_labels, source_of_project
from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.inference.plan import InferencePlan, plan_inference
from napari_nucleiseg.core.inference.segment import default_options, options_key, segment, segment_picture
from napari_nucleiseg.core.models.hardware import choose_device
from napari_nucleiseg.core.models.looking import looking
from napari_nucleiseg.core.models.weights import LoadedModel, load_model
from napari_nucleiseg.core.slides.pixelsize import given_mpp
from napari_nucleiseg.core.slides.pyramid import Slide
from napari_nucleiseg.core.slides.registry import open_slide
from napari_nucleiseg.core.slides.tissue import TissueMask, tissue_mask
from napari_nucleiseg.core.store.finding import find_renamed, remember
from napari_nucleiseg.core.store.project import Project
from napari_nucleiseg.core.training.scales.slide_level import SlideLevel, recorded_level, takes_slide_level

MAX_NOTES = 5
FULL_DISK_BYTES = 2**26


@dataclass(frozen=True, slots=True, eq=False)
class _Run:
    """What all slides of a run share; `base` is the model as it was loaded, `model` as it is used."""

    job: SegmentJob
    base: LoadedModel
    model: LoadedModel
    options: DecodeOptions
    record: Record
    earlier: EarlierResults
    cancelled: Callable[[], bool]

    @property
    def folder(self) -> Path:
        return Path(self.job.out)

    @property
    def takes_level(self) -> bool:
        return takes_slide_level(self.base, self.job.attention_level)

    def using(self, base: LoadedModel) -> _Run:
        model = looking(base, ignore_brown=self.job.ignore_brown, thorough=self.job.thorough)
        return replace(self, model=model)


def segment_slides(job: SegmentJob, *, cancelled: Callable[[], bool] = lambda: False) -> Generator[Event, None, None]:
    """Segment all slides of a job, one after the other.

    A slide that fails is told and passed over. Slides that an earlier run finished with the same settings are not
    done again, and a whole slide that was interrupted goes on with the tiles that are missing.

    Parameters
    ----------
    job : SegmentJob
        What to do.
    cancelled : callable
        Polled between tiles and slides.

    Yields
    ------
    Event
        What happens, as it happens.

    Raises
    ------
    ModelError
        If the job makes no sense, the device is not there, or the model cannot be loaded.
    SlideError
        If a folder holds no slide, two slides have one name, or the pixel size cannot be true.
    StoreError
        If the output folder cannot be written, or the disk is full.
    """
    if problem := job.validation_error():
        raise ModelError(problem)
    # What is wrong for every slide is said once, before work starts.
    if job.mpp_um is not None:
        given_mpp(job.mpp_um)
    choose_device(job.device)
    inputs = find_inputs(job.paths)
    model = load_model(job.model, accept_licence=job.accept_licence)
    options = chosen_options(model, job.threshold, job.min_area_um2)
    out = Path(job.out)
    run = _Run(job, model, model, options, Record(out), EarlierResults(out), cancelled).using(model)
    for number, entry in enumerate(inputs, start=1):
        if cancelled():
            return
        yield SlideStarted(entry.path, number, len(inputs))
        try:
            yield from _segment_one(entry, run)
        except NucleiSegError as error:
            if isinstance(error, StoreError | ExportError) and _is_full(run.folder):
                raise  # the next slide would not find room either
            yield SlideFailed(entry.path, str(error), type(error).__name__)


def _is_full(folder: Path) -> bool:
    return shutil.disk_usage(folder).free < FULL_DISK_BYTES


def chosen_options(model: LoadedModel, threshold: float | None, min_area_um2: float | None) -> DecodeOptions:
    """Return how maps become nuclei: as the model's card says, but for what was chosen.

    Raises
    ------
    ModelError
        If a value makes no sense.
    """
    options = default_options(model)
    if threshold is not None:
        options = replace(options, threshold=threshold)
    if min_area_um2 is not None:
        options = replace(options, min_area_um2=min_area_um2)
    if problem := options.validation_error():
        raise ModelError(problem)
    return options


def _segment_one(entry: Input, run: _Run) -> Iterator[Event]:
    start = time.monotonic()
    slide = open_slide(entry.path, mpp_um=run.job.mpp_um)
    with closing(slide):
        require_overlap(slide, run.job.region)
        picture = is_picture(slide)
        formats = run.job.formats or (("tif",) if picture else ())
        plan = plan_inference(slide, run.model.spec, run.job.region, tissue=None)
        settings = _settings(plan, run, formats)
        before = run.record.find(entry.stem, slide.fingerprint, settings)
        if before is not None:
            outputs = tuple(str(run.folder / name) for name in before.outputs)
            yield SlideFinished(entry.path, outputs, before.nuclei, from_before=True)
            return
        require_own(entry, run.folder, _names(entry, formats, picture=picture), run.earlier)
        for note in plan.notes:
            yield SlideNoted(entry.path, note)
        small = slide.region.area <= LARGEST_PICTURE_PX and run.job.region is None
        if picture and small and formats == ("tif",):
            finished = yield from _segment_picture(entry, slide, run)
        else:
            finished = yield from _segment_into_project(entry, slide, run, formats, picture=picture)
        if finished is None or run.cancelled():
            return
        if finished.skipped_tiles == 0:
            names = [Path(path).name for path in finished.outputs]
            run.record.add(Entry(entry.stem, entry.path, slide.fingerprint, settings, names, finished.nuclei))
        yield replace(finished, seconds=time.monotonic() - start)


def _names(entry: Input, formats: tuple[str, ...], *, picture: bool) -> list[str]:
    return [file_name(entry, name, picture=picture) for name in formats]


def require_overlap(slide: Slide, region: Region | None) -> None:
    """Raise a SlideError where a region (level-0 pixels) holds nothing that was scanned; None is the whole slide."""
    if region is None or region.overlaps(slide.content):
        return
    (height, width), content = slide.shape, slide.content
    scanned = f", of which {_told(content)} are scanned" if content != slide.region else ""
    raise SlideError(
        f"{slide.path} is {height} pixels high and {width} wide{scanned}; the region {_told(region)} lies beside that. "
        "Give one on the slide."
    )


def _told(region: Region) -> str:
    return f"{region.y},{region.x},{region.height},{region.width} (y, x, height, width)"


def _settings(plan: InferencePlan, run: _Run, formats: tuple[str, ...]) -> str:
    """Name all that decides what comes out."""
    region = run.job.region
    where = "all" if region is None else f"{region.y},{region.x},{region.height},{region.width}"
    tissue = "tissue" if run.job.tissue_mask else "everything"
    key = options_key(plan, run.model, run.options)
    # Not which level that is: what is done already is known without another look at the slide.
    level = "+level of the slide" if run.takes_level else ""
    return f"{run.model.version}{level} {key} {where} {tissue} {'+'.join(sorted(formats))}"


def _at_level(
    entry: Input, slide: Slide, run: _Run, project: Project | None = None, tissue: TissueMask | None = None
) -> Generator[Event, None, _Run]:
    """Find the level of attention that suits a slide, where the model wants one; return the run at that level."""
    if not run.takes_level:
        return run
    found = SlideLevel(run.base, recorded_level(project, run.base))
    for done, total in found.look(slide, tissue):
        if run.cancelled():
            return run
        yield SlideAdvanced(entry.path, "finding the level", done, total)
    if found.note:
        yield SlideNoted(entry.path, found.note)
    return run.using(found.model)


def _segment_picture(entry: Input, slide: Slide, run: _Run) -> Generator[Event, None, SlideFinished | None]:
    """Segment a picture in memory and write its label TIFF."""
    run = yield from _at_level(entry, slide, run)
    if run.cancelled():
        return None
    yield SlideAdvanced(entry.path, "segmenting", 0, 1)
    notes: list[str] = []
    labels = segment_picture(
        slide,
        run.model,
        run.options,
        run.job.device,
        batch_size=run.job.batch_size,
        cancelled=run.cancelled,
        on_message=notes.append,
    )
    if run.cancelled():
        return None
    hurt = list(slide.damage)
    notes += [f"{_rows_and_columns(tile.region)} cannot be read and hold no nuclei: {tile.reason}" for tile in hurt]
    for note in notes[:MAX_NOTES]:
        yield SlideNoted(entry.path, note)
    if len(notes) > MAX_NOTES:
        yield SlideNoted(entry.path, _more_trouble(len(notes)))
    count = int(labels.max(initial=0))
    source = source_of_labels(labels, slide.require_mpp(), name=entry.stem, origin=run.model.version)
    run.record.begin(_names(entry, ("tif",), picture=True))
    outputs = yield from write_results(source, entry, run.folder, ("tif",), picture=True)
    yield SlideAdvanced(entry.path, "segmenting", 1, 1, count)
    return SlideFinished(entry.path, outputs, count, len(hurt))


def _rows_and_columns(region: Region) -> str:
    return f"rows {region.y} to {region.y1}, columns {region.x} to {region.x1}"


def _more_trouble(told: int) -> str:
    return f"{told - MAX_NOTES} more tiles had such trouble"


def _segment_into_project(
    entry: Input, slide: Slide, run: _Run, formats: tuple[str, ...], *, picture: bool
) -> Generator[Event, None, SlideFinished | None]:
    """Segment a slide into its project and write what else is wanted from it."""
    job = run.job
    tissue = tissue_mask(slide) if job.tissue_mask and not picture else None
    if tissue is not None and tissue.looks_immunostained and not job.ignore_brown:
        yield SlideNoted(entry.path, LOOKS_BROWN)
    plan = plan_inference(slide, run.model.spec, job.region, tissue=tissue)
    folder = run.folder / project_name(entry)
    if not folder.exists():
        folder = find_renamed(slide, run.folder) or folder
    with closing(Project.open_or_create(folder, slide)) as project:
        remember(folder, slide)
        run = yield from _at_level(entry, slide, run, project, tissue)
        if run.cancelled():
            return None
        skipped = yield from _segment_tiles(entry, slide, run, project, plan)
        if run.cancelled():
            return None
        # The project holds whole tiles and maybe earlier regions; what was asked for is this one.
        source = source_of_project(project).only_in(plan.region)
        run.record.begin(_names(entry, formats, picture=picture))
        outputs = yield from write_results(source, entry, run.folder, formats, picture=picture)
        nuclei = project.count_in(plan.region)
    return SlideFinished(entry.path, (str(folder), *outputs), nuclei, skipped)


def _segment_tiles(
    entry: Input, slide: Slide, run: _Run, project: Project, plan: InferencePlan
) -> Generator[Event, None, int]:
    """Segment the tiles that are not done yet; return how many could not be."""
    nuclei, skipped, notes = 0, 0, list[str]()
    tiles = segment(
        slide,
        run.model,
        project,
        plan,
        run.options,
        device=run.job.device,
        batch_size=run.job.batch_size,
        cancelled=run.cancelled,
        keep_maps=run.job.keep_maps,
        on_message=notes.append,
    )
    told = 0
    with closing(tiles):
        for tile in tiles:
            nuclei, skipped = nuclei + tile.n_nuclei, skipped + tile.skipped
            if tile.reason:
                notes.append(tile.reason)
            while notes:
                sentence, told = notes.pop(0), told + 1
                if told <= MAX_NOTES:
                    yield SlideNoted(entry.path, sentence)
            yield SlideAdvanced(entry.path, "segmenting", tile.done, tile.total, nuclei)
    if told > MAX_NOTES:
        yield SlideNoted(entry.path, _more_trouble(told))
    return skipped

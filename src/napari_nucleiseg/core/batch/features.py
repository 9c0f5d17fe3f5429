"""Many slides described by encoders: what fails is told, what is done stays done unless an encoder has changed."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.attention.forward import EncoderForward
from napari_nucleiseg.core.attention.patches import patch_grid
from napari_nucleiseg.core.batch.blocks import Block, regions_of, single_patches, tissue_patches
from napari_nucleiseg.core.batch.feature_job import FeatureEvent, FeatureJob, FeaturesFinished
from napari_nucleiseg.core.batch.inputs import Input, find_inputs
from napari_nucleiseg.core.batch.job import SlideAdvanced, SlideFailed, SlideNoted, SlideStarted
from napari_nucleiseg.core.errors import DataError, ModelError, NucleiSegError, SlideError, StoreError
from napari_nucleiseg.core.inference.ahead import map_ahead
from napari_nucleiseg.core.inference.plan import COARSE_NOTE, TileGrid
from napari_nucleiseg.core.inference.predict import read_tile
from napari_nucleiseg.core.models.encoders import PATCH, REGION, LoadedEncoder, load_encoder
from napari_nucleiseg.core.models.files import sweep
from napari_nucleiseg.core.models.hardware import choose_device
from napari_nucleiseg.core.slides.fingerprint import is_same
from napari_nucleiseg.core.slides.pixelsize import given_mpp
from napari_nucleiseg.core.slides.pyramid import Slide
from napari_nucleiseg.core.slides.registry import open_slide
from napari_nucleiseg.core.slides.tissue import tissue_mask
from napari_nucleiseg.core.training.cohort.bags import ENDING, Bag, BagCard, read_bag, write_bag


def extract_features(
    job: FeatureJob, *, inputs: Sequence[Input] = (), cancelled: Callable[[], bool] = lambda: False
) -> Generator[FeatureEvent, None, None]:
    """Describe all slides of a job, one after the other, each by one file.

    A slide that fails is told and passed over. One that was described with the same encoders and settings is not done
    again; one that was interrupted is.

    Parameters
    ----------
    job : FeatureJob
        What to do.
    inputs : sequence of Input
        The slides and the names of their files, where these are given; default what the job's paths mean.
    cancelled : callable
        Polled between batches of patches.

    Yields
    ------
    FeatureEvent
        What happens, as it happens.

    Raises
    ------
    ModelError
        If the job makes no sense, the device is not there, or the encoders cannot be loaded or do not go together.
    SlideError
        If a folder holds no slide, two slides have one name, or the pixel size cannot be true.
    StoreError
        If the folder cannot be written.
    """
    if problem := job.validation_error():
        raise ModelError(problem)
    # What is wrong for every slide is said once, before work starts.
    if job.mpp_um is not None:
        given_mpp(job.mpp_um)
    choose_device(job.device)
    inputs = tuple(inputs) or find_inputs(job.paths)
    run = _prepared(job, cancelled)
    for number, entry in enumerate(inputs, start=1):
        if cancelled():
            return
        yield SlideStarted(entry.path, number, len(inputs))
        try:
            yield from _describe(entry, run)
        except StoreError:
            raise  # the next slide could not be written either
        except (NucleiSegError, OSError) as error:
            yield SlideFailed(entry.path, str(error), type(error).__name__)


@dataclass(frozen=True, slots=True, eq=False)
class _Run:
    """What all slides of a run share."""

    job: FeatureJob
    encoders: tuple[LoadedEncoder, ...]
    patches: EncoderForward
    regions: EncoderForward | None
    cancelled: Callable[[], bool]
    messages: list[str] = field(default_factory=list)

    @property
    def level(self) -> str:
        return PATCH if self.regions is None else REGION

    def card(self, slide: Slide, grid: TileGrid) -> BagCard:
        """Return what the slide's file will say of itself."""
        job, cards = self.job, [encoder.card for encoder in self.encoders]
        cells = 1 if self.regions is None else self.regions.spec.most_cells
        least = f"{job.patch_tissue:g} {job.region_tissue:g}" if job.tissue_mask else "everything"
        return BagCard(
            Path(slide.path).name,
            slide.fingerprint,
            tuple(encoder.version for encoder in self.encoders),
            f"{grid.key} {cells} {least}",
            " AND ".join(dict.fromkeys(card.licence for card in cards)),
            all(card.commercial_use for card in cards),
        )

    def blocks(self, slide: Slide, grid: TileGrid) -> tuple[Block, ...]:
        """Plan what of the slide is looked at.

        Raises
        ------
        SlideError
            If there is no tissue, or it cannot be read.
        """
        job = self.job
        shown = tissue_patches(grid, tissue_mask(slide) if job.tissue_mask else None, job.patch_tissue)
        if not shown.any():
            raise SlideError(
                f"{slide.path} shows no patch of {grid.tile_px} px with at least {job.patch_tissue:.0%} tissue; lower "
                "that share, or leave out the tissue mask"
            )
        if self.regions is None:
            return single_patches(shown)
        return regions_of(shown, self.regions.spec.most_cells, job.region_tissue)


def _prepared(job: FeatureJob, cancelled: Callable[[], bool]) -> _Run:
    patches = load_encoder(job.encoder, accept_licence=job.accept_licence)
    if patches.spec.kind != PATCH:
        raise ModelError(
            f"{patches.card.name} looks at regions, not at pixels; name an encoder of patches, and this one as the "
            "encoder of regions"
        )
    encoders: tuple[LoadedEncoder, ...] = (patches,)
    if job.region_encoder:
        regions = load_encoder(job.region_encoder, accept_licence=job.accept_licence)
        _must_go_together(patches, regions)
        encoders = (patches, regions)
    folder = Path(job.out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"the folder {folder} cannot be made ({error.strerror or error}); name another") from error
    sweep(folder)
    messages: list[str] = []
    first, *rest = (EncoderForward(encoder, job.device, on_message=messages.append) for encoder in encoders)
    return _Run(job, encoders, first, rest[0] if rest else None, cancelled, messages)


def _must_go_together(patches: LoadedEncoder, regions: LoadedEncoder) -> None:
    name = regions.card.name
    if regions.spec.kind != REGION:
        raise ModelError(f"{name} looks at pixels, not at the features of patches; name an encoder of regions")
    trained_on = regions.card.features_of
    if trained_on and trained_on != patches.version:
        raise ModelError(f"{name} reads the features of {trained_on}, not those of {patches.version}; name that one")
    one, other = (
        (spec.input_px, spec.mpp_um, width)
        for spec, width in ((patches.spec, patches.spec.embed), (regions.spec, regions.spec.features))
    )
    if one != other:
        raise ModelError(
            f"{name} reads {other[2]} features of patches of {other[0]} px at {other[1]:g} µm, {patches.card.name} "
            f"gives {one[2]} of {one[0]} px at {one[1]:g} µm; name encoders that were made for each other"
        )


def _describe(entry: Input, run: _Run) -> Iterator[FeatureEvent]:
    start = time.monotonic()
    output = Path(run.job.out) / f"{entry.stem}{ENDING}"
    slide = open_slide(entry.path, mpp_um=run.job.mpp_um)
    with closing(slide):
        spec = run.patches.spec
        grid = patch_grid(slide, spec)
        downsample = grid.downsample
        card = run.card(slide, grid)
        with suppress(DataError):  # there is none yet, or a damaged one
            before = read_bag(output)
            known = before.card.fingerprint
            if before.card == (replace(card, fingerprint=known) if is_same(known, card.fingerprint) else card):
                if before.card != card:
                    write_bag(output, replace(before, card=card))
                yield FeaturesFinished(entry.path, str(output), len(before.boxes), run.level, from_before=True)
                return
        if 1 / min(downsample) >= COARSE_NOTE:
            yield SlideNoted(
                entry.path,
                f"This slide's pixels are {1 / min(downsample):.1f} times larger than those the encoder was made for "
                f"({spec.mpp_um:g} µm): it is enlarged, and features say less.",
            )
        blocks = run.blocks(slide, grid)
        features = yield from _features(entry, slide, grid, blocks, run)
        if features is None:
            return
        if hurt := slide.damage_at(downsample):
            yield SlideNoted(entry.path, f"{len(hurt)} tiles are damaged and were taken for glass.")
        boxes = [(region.y, region.x, region.y1, region.x1) for region in (block.region(grid) for block in blocks)]
        write_bag(output, Bag(card, features, np.array(boxes, np.int64)))
    yield FeaturesFinished(entry.path, str(output), len(boxes), run.level, time.monotonic() - start)


def _features(
    entry: Input, slide: Slide, grid: TileGrid, blocks: Sequence[Block], run: _Run
) -> Generator[FeatureEvent, None, NDArray[np.float32] | None]:
    """Return the features of blocks, ``(blocks, width)``; None if it was cancelled."""
    numbers = [number for block in blocks for number in block.patches(grid)]
    found: list[NDArray[np.float32]] = []
    waiting: list[NDArray[np.float32]] = []
    done, left = 0, iter(blocks)
    block = next(left)
    read = partial(_read, slide, grid)
    depth = run.patches.batch_size + run.job.readers
    with closing(map_ahead(read, numbers, workers=run.job.readers, depth=depth, name="nucleiseg-read")) as ahead:
        while done < len(numbers):
            if run.cancelled():
                return None
            size = min(run.patches.batch_size, len(numbers) - done)
            waiting += list(run.patches.features(np.stack([next(ahead) for _ in range(size)])))
            done += size
            while len(waiting) >= block.rows * block.columns:
                own, waiting = _parted(waiting, block)
                found.append(own[0, 0] if run.regions is None else _of_region(own, run.regions))
                block = next(left, block)
            while run.messages:
                yield SlideNoted(entry.path, run.messages.pop(0))
            yield SlideAdvanced(entry.path, "describing", done, len(numbers))
    return np.stack(found)


def _read(slide: Slide, grid: TileGrid, number: int) -> NDArray[np.uint8]:
    return read_tile(slide, grid, grid.tile(number))


def _parted(waiting: list[NDArray[np.float32]], block: Block) -> tuple[NDArray[np.float32], list[NDArray[np.float32]]]:
    """Return the grid ``(rows, columns, width)`` of a block's features, and what is left."""
    count = block.rows * block.columns
    return np.stack(waiting[:count]).reshape(block.rows, block.columns, -1), waiting[count:]


def _of_region(features: NDArray[np.float32], regions: EncoderForward) -> NDArray[np.float32]:
    return np.asarray(regions.region(features).features, np.float32)

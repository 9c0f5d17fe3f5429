"""What a worker does: functions of an order, called in any process of any machine; slides and models stay open."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from napari_nucleiseg.core.batch.engines.worker import own_device
from napari_nucleiseg.core.batch.inputs import Input
from napari_nucleiseg.core.batch.job import LOOKS_BROWN
from napari_nucleiseg.core.batch.output import write_results
from napari_nucleiseg.core.batch.unattended.attended import AttentionMeasures, JoinedMeasures
from napari_nucleiseg.core.batch.unattended.orders import Found, ModelOrder, Prepared, SlideOrder, pack_tissue
from napari_nucleiseg.core.batch.unattended.parcels import FOLDER, Parcel, require_shared, write_parcel
from napari_nucleiseg.core.batch.unattended.picture import write_picture
from napari_nucleiseg.core.errors import ModelError, SlideError
from napari_nucleiseg.core.exchange.source import source_of_project
from napari_nucleiseg.core.geometry import YX, Region
from napari_nucleiseg.core.inference.plan import InferencePlan, PlannedTiles, plan_inference
from napari_nucleiseg.core.inference.segment import find_in_tiles
from napari_nucleiseg.core.measurement.kept import source_with_measures
from napari_nucleiseg.core.measurement.measure import measure
from napari_nucleiseg.core.models.looking import looking
from napari_nucleiseg.core.models.scale_attention import at_level
from napari_nucleiseg.core.models.weights import LoadedModel, load_model
from napari_nucleiseg.core.slides.pyramid import Slide
from napari_nucleiseg.core.slides.registry import open_slide
from napari_nucleiseg.core.slides.tissue import TissueMask, tissue_mask
from napari_nucleiseg.core.store.project import DATABASE, Project
from napari_nucleiseg.core.training.scales.slide_level import SlideLevel, recorded_level, takes_slide_level

_MOST_SLIDES = 2
_MOST_MODELS = 4


@dataclass(frozen=True, slots=True, eq=False)
class _Planned:
    """A slide that is open, and the plan of its tiles for one model."""

    slide: Slide
    plan: InferencePlan


_models: OrderedDict[ModelOrder, LoadedModel] = OrderedDict()
_slides: OrderedDict[tuple[str, float | None, ModelOrder], _Planned] = OrderedDict()


def forget() -> None:
    """Close the slides and drop the models that this process keeps; for tests and for the end of a run in-process."""
    while _slides:
        _slides.popitem()[1].slide.close()
    _models.clear()


def model_of(order: ModelOrder) -> LoadedModel:
    """Return a model, loaded once a process.

    Raises
    ------
    ModelError
        If it cannot be loaded, or is not the one that was meant.
    """
    if order not in _models:
        while len(_models) >= _MOST_MODELS:
            _models.popitem(last=False)
        loaded = load_model(order.name, accept_licence=order.accept_licence)
        if loaded.card.version != order.version:
            raise ModelError(
                f"the worker's {order.name} is {loaded.card.version}, not {order.version} as where the run was "
                "started; give the model as a weight file on a shared drive, or install the same version everywhere"
            )
        levelled = loaded if order.tau is None else at_level(loaded, order.tau)
        _models[order] = looking(levelled, ignore_brown=order.ignore_brown, thorough=order.thorough)
    _models.move_to_end(order)
    return _models[order]


def prepare(order: SlideOrder) -> Prepared:
    """Open a slide, find its tissue and, if it is wanted, its level of attention.

    Parameters
    ----------
    order : SlideOrder
        The slide.

    Raises
    ------
    SlideError
        If it cannot be opened or read.
    ModelError
        If the model cannot be loaded.
    """
    with closing(open_slide(order.path, mpp_um=order.mpp_um)) as slide:
        plan = plan_inference(slide, model_of(order.model).spec)  # refuses a pixel size that does not fit
        tissue = tissue_mask(slide) if order.tissue_mask else None
        packed = (b"", (0, 0), YX(1.0, 1.0)) if tissue is None else pack_tissue(tissue)
        tau, note = _level(order, slide, tissue)
        facts = _facts(slide, tissue)
        is_brown = tissue is not None and tissue.looks_immunostained and not order.model.ignore_brown
        told = (*plan.notes, *([LOOKS_BROWN] if is_brown else []), *([note] if note else []))
        return Prepared(
            slide.fingerprint, slide.shape, slide.require_mpp(), *packed, tau, facts, told
        )  # fmt: skip


def _level(order: SlideOrder, slide: Slide, tissue: TissueMask | None) -> tuple[float | None, str]:
    base = model_of(replace(order.model, ignore_brown=False, thorough=False))
    if not (order.slide_level and takes_slide_level(base)):
        return None, ""
    recorded = None
    if (Path(order.folder) / DATABASE).is_file():
        with Project.open(order.folder, slide, writable=False) as project:
            recorded = recorded_level(project, base)
    found = SlideLevel(base, recorded)
    for _ in found.look(slide, tissue):
        pass
    return found.tau, found.note


def _facts(slide: Slide, tissue: TissueMask | None) -> dict[str, Any]:
    mpp = slide.require_mpp()
    covered = 1.0 if tissue is None else tissue.tissue_fraction
    area_mm2 = slide.shape[0] * mpp.y * slide.shape[1] * mpp.x / 1e6
    return {
        "height": slide.shape[0],
        "width": slide.shape[1],
        "mpp_y_um": mpp.y,
        "mpp_x_um": mpp.x,
        "objective": slide.objective_power,
        "vendor": slide.vendor,
        "tissue_mm2": area_mm2 * covered,
    }


def segment_tiles(order: SlideOrder, tiles: Sequence[int]) -> Found:
    """Find the nuclei of some tiles of a slide and put them into a parcel.

    Parameters
    ----------
    order : SlideOrder
        The slide, prepared.
    tiles : sequence of int
        Indices on the slide's grid.

    Raises
    ------
    SlideError
        If the slide is gone or was replaced.
    ModelError
        If the network cannot run.
    StoreError
        If the parcel cannot be written.
    """
    start = time.monotonic()
    require_shared(Path(order.folder))
    planned, model = _planned(order), model_of(order.model)
    wanted = PlannedTiles(planned.plan.grid, np.asarray(tiles, np.int64))
    notes: list[str] = []
    results = find_in_tiles(
        planned.slide,
        model,
        planned.plan,
        order.options,
        tiles=wanted,
        device=own_device(order.device),
        batch_size=order.batch_size,
        on_message=notes.append,
    )
    with closing(results) as found:
        every = list(found)
    skipped = {tile.tile.index: tile.reason for tile in every if tile.nuclei is None}
    notes += [tile.reason for tile in every if tile.nuclei is not None and tile.reason]
    done = tuple(tile.nuclei for tile in every if tile.nuclei is not None)
    parcel = str(write_parcel(Path(order.folder) / FOLDER, Parcel(order.key, done))) if done else ""
    count = sum(len(nuclei) for nuclei in done)
    return Found(parcel, len(done), count, skipped, tuple(notes), time.monotonic() - start, memory_bytes())


def memory_bytes() -> int:
    """Return the memory that this process has now."""
    return int(psutil.Process().memory_info().rss)


def _planned(order: SlideOrder) -> _Planned:
    key = order.path, order.mpp_um, order.model
    if key not in _slides:
        while len(_slides) >= _MOST_SLIDES:
            _slides.popitem(last=False)[1].slide.close()
        slide = open_slide(order.path, mpp_um=order.mpp_um)
        _slides[key] = _Planned(slide, plan_inference(slide, model_of(order.model).spec))
    _slides.move_to_end(key)
    planned = _slides[key]
    if not order.key.startswith(planned.slide.fingerprint):
        _slides.pop(key).slide.close()
        raise SlideError(f"{order.path} has changed since the run began. Run the same command again for the new file.")
    return planned


def measure_blocks(order: SlideOrder, blocks: Sequence[tuple[int, int, int, int]]) -> float:
    """Measure the nuclei of some blocks of a slide's project; what is measured is kept in the project's folder.

    Parameters
    ----------
    order : SlideOrder
        The slide, segmented.
    blocks : sequence of tuple of int
        ``(y0, x0, y1, x1)``, level-0 pixels.

    Returns
    -------
    float
        Seconds it took.
    """
    start = time.monotonic()
    slide = _planned(order).slide
    regions = [Region.from_bounds(*block) for block in blocks]
    with Project.open(order.folder, slide, writable=False) as project:
        for _ in measure(project, slide, blocks=regions):
            pass
    return time.monotonic() - start


def finish(order: SlideOrder, formats: Sequence[str], measured: bool, attention: str = "") -> dict[str, Any]:
    """Write a slide's results and a small picture of it for the summary.

    Parameters
    ----------
    order : SlideOrder
        The slide, segmented and, if `measured`, measured.
    formats : sequence of str
        Keys of `FORMATS`.
    measured : bool
        Whether tables hold measurements.
    attention : str
        Maps of heads (``.npz``) whose values on nuclei tables hold, too; empty: none.

    Returns
    -------
    dict
        ``outputs`` (paths), ``nuclei``, ``picture`` (path), ``median_area_um2``.
    """
    slide = _planned(order).slide
    with Project.open(order.folder, slide, writable=False) as project:
        source = source_with_measures(project) if measured else source_of_project(project)
        if attention:
            parts = () if source.measures is None else (source.measures,)
            source = replace(source, measures=JoinedMeasures(*parts, AttentionMeasures(Path(attention))))
        writing = write_results(source, Input(order.path, order.stem), Path(order.out), tuple(formats), picture=False)
        outputs: tuple[str, ...] = ()
        while True:
            try:
                next(writing)
            except StopIteration as stop:
                outputs = stop.value
                break
        nuclei = project.count_in(slide.region)
        areas = [row[0] for row in project.ledger.reader.execute("SELECT area_um2 FROM nuclei WHERE state = 0")]
        picture = write_picture(Path(order.out) / "pictures" / f"{order.stem}.jpg", slide, project)
    return {
        "outputs": list(outputs),
        "nuclei": nuclei,
        "picture": str(picture),
        "median_area_um2": float(np.median(areas)) if areas else None,
    }

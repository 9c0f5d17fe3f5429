"""What encoders say of a slide, as tasks: features for cohorts, and what the heads look at."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from napari_nucleiseg.core.batch.engines.worker import own_device
from napari_nucleiseg.core.batch.feature_job import FeatureJob, FeaturesFinished
from napari_nucleiseg.core.batch.features import extract_features
from napari_nucleiseg.core.batch.heads import ARRAYS, HeadsJob, HeadsWritten, write_heads
from napari_nucleiseg.core.batch.inputs import Input
from napari_nucleiseg.core.batch.job import SlideFailed
from napari_nucleiseg.core.batch.unattended.orders import SlideOrder
from napari_nucleiseg.core.errors import DataError, SlideError


def describe(order: SlideOrder, encoder: str, region_encoder: str, out: str) -> dict[str, Any]:
    """Describe a slide by the features of encoders; see `extract_features`.

    Parameters
    ----------
    order : SlideOrder
        The slide; the file goes by the name of its results, as another slide's file may be called like its own.
    encoder, region_encoder : str
        Names or files; the latter may be empty.
    out : str
        Folder of the files of features.

    Raises
    ------
    SlideError
        If it cannot be described; says why.
    """
    job = FeatureJob(
        (order.path,),
        out,
        encoder,
        region_encoder,
        accept_licence=order.model.accept_licence,
        mpp_um=order.mpp_um,
        tissue_mask=order.tissue_mask,
        device=own_device(order.device),
    )
    for event in extract_features(job, inputs=(Input(order.path, order.stem),)):
        if isinstance(event, SlideFailed):
            raise SlideError(event.reason)
        if isinstance(event, FeaturesFinished):
            return {"outputs": [event.output], "features": event.count}
    raise SlideError(f"{order.path} gave no features; describe it with `napari-nucleiseg features` to see why")


def attend(order: SlideOrder, encoder: str, region_encoder: str, out: str) -> dict[str, Any]:
    """Write what the heads of encoders look at where a slide has most tissue; see `write_heads`.

    Parameters
    ----------
    order : SlideOrder
        The slide, segmented.
    encoder, region_encoder : str
        Names or files; the latter may be empty.
    out : str
        File ending in ``.tif``; the maps are also written to one ending in ``.npz`` beside it, for tables.
    """
    job = HeadsJob(
        order.path,
        out,
        encoder,
        region_encoder=region_encoder,
        rank=order.folder,
        project=order.folder,
        accept_licence=order.model.accept_licence,
        mpp_um=order.mpp_um,
        device=own_device(order.device),
    )
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    try:
        written = _written(job)
    except DataError:
        # Where hardly a nucleus was found nothing can be ranked against them; the maps are there all the same.
        written = _written(replace(job, rank=""))
    # What was looked at is kept in the project, so that this costs no second look.
    arrays = _written(replace(job, out=str(Path(out).with_suffix(ARRAYS)), rank=""))
    best = written.ranking[0] if written.ranking else None
    told = "" if best is None else f"layer {best.layer + 1}, head {best.head + 1}: AUROC {best.auroc:.2f}"
    return {"outputs": [written.output, arrays.output], "best_head": told}


def _written(job: HeadsJob) -> HeadsWritten:
    return next(event for event in write_heads(job) if isinstance(event, HeadsWritten))

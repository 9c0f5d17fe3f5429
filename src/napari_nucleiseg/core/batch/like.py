"""Find the like in one region of a slide: picture, candidates, features, query, and the nuclei as a file."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.errors import DataError
from napari_nucleiseg.core.exchange.formats import export
from napari_nucleiseg.core.exchange.source import source_of_labels
from napari_nucleiseg.core.exchange.whole_file import check_target
from napari_nucleiseg.core.fewshot.projection import load_projection
from napari_nucleiseg.core.fewshot.search import (
    AUTO,
    FeatureField,
    LikeOptions,
    Mark,
    candidates_of,
    colour_field,
    field_of,
    find_the_like,
)
from napari_nucleiseg.core.fewshot.square import SquareView
from napari_nucleiseg.core.geometry import YX, Region
from napari_nucleiseg.core.models.encoders import encoder_files, load_encoder
from napari_nucleiseg.core.models.weights import load_model
from napari_nucleiseg.core.slides.registry import open_slide
from napari_nucleiseg.core.training.samples import read_labels

COLOUR = "colour"
LARGEST_REGION_PX = 4096 * 4096


@dataclass(frozen=True, slots=True)
class LikeJob:
    """What to find, where, and where to write it.

    Parameters
    ----------
    path : str
        Slide or picture.
    out : str
        Label image to write, ``.tif``.
    marks : tuple of (float, float)
        Points ``(y, x)`` in level-0 pixels on nuclei that the others shall be like.
    against : tuple of (float, float)
        Points on what they shall not be like.
    region : Region or None
        Level-0 pixels; default all of it.
    mpp_um : float or None
        Micrometres per pixel; needed where the file does not say, overrides what it says.
    model : str
        Model or encoder whose features are used, by name or file; ``colour`` for none.
    layer : str
        Its layers, joined by ``+``.
    candidates : str
        Instance map of the region to choose among; empty to make candidates.
    projection : str
        File of a projection that episodes have taught; empty for none.
    accept_licence : bool
        Accept a restrictive licence of weights for this run.
    device : str
        ``auto``, ``cuda``, ``mps``, ``cpu``.
    """

    path: str
    out: str
    marks: tuple[tuple[float, float], ...]
    against: tuple[tuple[float, float], ...] = ()
    region: Region | None = None
    mpp_um: float | None = None
    model: str = "nuclei"
    layer: str = AUTO
    candidates: str = ""
    projection: str = ""
    accept_licence: bool = False
    device: str = "auto"


@dataclass(frozen=True, slots=True)
class LikeFound:
    """What was found and written.

    Parameters
    ----------
    out : str
        The label image of the proposals.
    candidates, proposed : int
        How many there were to choose among, and how many are like.
    threshold : float
        What a score had to exceed.
    region : Region
        What was looked at, level-0 pixels.
    seconds : float
        Wall clock of the query alone.
    scores : dict of int to float
        How similar each proposed nucleus is, 0..1, by its number in the file.
    """

    out: str
    candidates: int
    proposed: int
    threshold: float
    region: Region
    seconds: float
    scores: dict[int, float] = field(default_factory=dict)


def find_like(job: LikeJob, options: LikeOptions | None = None) -> LikeFound:
    """Find what is like the marks in a region and write it.

    Raises
    ------
    SlideError
        If the slide cannot be read or its pixel size is not known.
    DataError
        If the region is too large or lies beside the slide, marks lie beside the region, or candidates do not fit.
    ModelError
        If there is no such model or layer.
    ExportError
        If the result cannot be written.
    """
    check_target(job.out, inputs=filter(None, (job.path, job.candidates, job.projection)))
    with closing(open_slide(job.path, mpp_um=job.mpp_um)) as slide:
        region = slide.content if job.region is None else job.region.intersect(slide.content)
        if region.is_empty or region.area > LARGEST_REGION_PX:
            raise DataError(
                f"a region of {region.height} x {region.width} px of {job.path} cannot be looked at in one piece; "
                "give one on the slide of at most 4096 x 4096 px with --region"
            )
        mpp = slide.require_mpp()
        image = slide.read_box(region.y, region.x, 1.0, 1.0, (region.height, region.width))
    view = SquareView.of(image, mpp)
    if job.candidates:
        candidates = read_labels(Path(job.candidates))
    else:
        candidates = view.on_picture(candidates_of(view.image, view.mpp_um))
    features = _features(job, view, YX(region.y, region.x))
    marks = [
        Mark(view.place_of(y - region.y, x - region.x), is_like=is_like)
        for points, is_like in ((job.marks, True), (job.against, False))
        for y, x in points
    ]
    found = find_the_like(features, view.labels_of(candidates), marks, options)
    labels, scores = _numbered(candidates, found.ids, found.scores)
    stem = Path(job.path).stem
    export(source_of_labels(labels, mpp, name=stem, origin=f"like {len(job.marks)} marks"), job.out, "tif")
    return LikeFound(job.out, len(found.all_ids), len(found), found.threshold, region, found.seconds, scores)


def _features(job: LikeJob, view: SquareView, origin: YX) -> FeatureField:
    if job.model == COLOUR:
        return colour_field(view.image, view.mpp_um, origin=origin)
    load = load_encoder if job.model in encoder_files() else load_model
    model = load(job.model, accept_licence=job.accept_licence)
    features = field_of(model, view.image, view.mpp_um, job.layer, origin=origin, device=job.device)
    return load_projection(job.projection).apply(features) if job.projection else features


def _numbered(
    candidates: NDArray[np.int32], ids: NDArray[np.int32], scores: NDArray[np.float32]
) -> tuple[NDArray[np.int32], dict[int, float]]:
    """Number proposals from 1 on, the most similar first."""
    known = np.unique(candidates)
    numbers = np.zeros(len(known), np.int32)
    numbers[np.searchsorted(known, ids)] = np.arange(1, len(ids) + 1, dtype=np.int32)
    labels = numbers[np.searchsorted(known, candidates)].astype(np.int32)
    return labels, {place: round(float(score), 4) for place, score in enumerate(scores, start=1)}

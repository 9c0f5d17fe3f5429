"""Score the nuclei of a label image by words: picture, labels, CLIP, and a table, outlines or a map of classes."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.errors import DataError
from napari_nucleiseg.core.exchange.formats import export, format_of
from napari_nucleiseg.core.exchange.source import (
    Column,
    LabelSource,
    NamedClass,
    owned_by,
    source_of_labels,
)
from napari_nucleiseg.core.exchange.whole_file import check_target
from napari_nucleiseg.core.fewshot.by_text import BACKGROUND, TextOptions, TextScores, score_by_text
from napari_nucleiseg.core.fewshot.clip import load_clip
from napari_nucleiseg.core.fewshot.clip_download import get_clip
from napari_nucleiseg.core.geometry import YX, Region
from napari_nucleiseg.core.slides.registry import open_slide
from napari_nucleiseg.core.store.nuclei import NucleiTable
from napari_nucleiseg.core.training.samples import read_ids

LARGEST_REGION_PX = 4096 * 4096
# What tables and label images have room for.
LARGEST_ID = 2**32 - 1
LEAST_LEVEL_PX = 512
_MAP = "tif"


@dataclass(frozen=True, slots=True)
class TextJob:
    """What to score by which words, and where to write it.

    Parameters
    ----------
    path : str
        Slide or picture.
    labels : str
        Label image of the region.
    out : str
        File to write; its ending says how: a table or outlines with classes, or ``.tif`` for a map of the classes.
    prompts : tuple of (str, str)
        Class and prompt; a class may come several times.
    clip : str
        Folder or file of a CLIP, or name or address of one, which is downloaded once; see `get_clip`.
    sha256 : str
        Checksum that its weights must have; empty where none is known.
    region : Region or None
        Level-0 pixels; default all of it.
    mpp_um : float or None
        Micrometres per pixel; needed where the file does not say, overrides what it says.
    known : str
        Table of what another model says of each nucleus; empty for CLIP alone. See `read_known`.
    seen : tuple of str
        Classes that the other model was trained on.
    accept_licence : bool
        Accept a licence of the weights that is restrictive or not stated, for this run.
    device : str
        ``auto``, ``cuda``, ``mps``, ``cpu``.
    """

    path: str
    labels: str
    out: str
    prompts: tuple[tuple[str, str], ...]
    clip: str
    sha256: str = ""
    region: Region | None = None
    mpp_um: float | None = None
    known: str = ""
    seen: tuple[str, ...] = ()
    accept_licence: bool = False
    device: str = "auto"


@dataclass(frozen=True, slots=True)
class TextFound:
    """What was scored and written.

    Parameters
    ----------
    out : str
        The file.
    nuclei : int
        How many were scored.
    classes : dict of str to int
        How many are most like each class.
    clip : str
        Version of the weights.
    licence : str
        Of the weights, as far as their files say.
    sha256 : str
        Of the file of weights.
    region : Region
        What was looked at, level-0 pixels.
    """

    out: str
    nuclei: int
    classes: dict[str, int]
    clip: str
    licence: str
    sha256: str
    region: Region


@dataclass(frozen=True, slots=True, eq=False)
class TextMeasures:
    """Scores by words as columns of a table of nuclei, ``p_`` and the class.

    Parameters
    ----------
    scores : TextScores
        Of all nuclei.
    """

    scores: TextScores
    columns: tuple[Column, ...] = field(init=False)

    def __post_init__(self) -> None:
        """Name the columns."""
        columns = (
            Column(f"p_{name}", f"By words: {name}", f"Score of {name} by words, 0 to 1; all classes add up to 1.")
            for name in self.scores.classes
        )
        object.__setattr__(self, "columns", tuple(columns))

    def of(self, table: NucleiTable) -> Mapping[str, NDArray[np.float32]]:
        """Return the scores of the nuclei of a table by column."""
        rows = np.searchsorted(self.scores.ids, table.ids.astype(np.int64))
        return {column.name: self.scores.scores[rows, place] for place, column in enumerate(self.columns)}


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """What is looked at of a slide.

    Parameters
    ----------
    image : ndarray of uint8, shape (y, x, 3)
        RGB.
    region : Region
        Where it lies, level-0 pixels.
    extent : Region
        All of the slide's level 0.
    mpp_um : YX
        Micrometres per pixel.
    """

    image: NDArray[np.uint8]
    region: Region
    extent: Region
    mpp_um: YX


@dataclass(frozen=True, slots=True, eq=False)
class PlacedLevel:
    """A level of a label image as large as the slide; it holds the labels of a region and nothing elsewhere.

    Parameters
    ----------
    labels : ndarray of integers, shape (y, x)
        Of the region, at level 0.
    region : Region
        Where they lie, level-0 pixels.
    extent : Region
        All of the slide's level 0.
    factor : int
        Every how many pixels of level 0 are in this level.
    """

    labels: NDArray[np.integer[Any]]
    region: Region
    extent: Region
    factor: int = 1

    @property
    def shape(self) -> tuple[int, int]:
        """``(height, width)`` of the level."""
        return -(-self.extent.height // self.factor), -(-self.extent.width // self.factor)

    def __getitem__(self, key: tuple[slice, slice]) -> NDArray[np.integer[Any]]:
        """Read the pixels that two slices select."""
        corner = self.region.y, self.region.x
        wanted = [
            np.arange(*part.indices(length)) * self.factor - start
            for part, length, start in zip(key, self.shape, corner, strict=True)
        ]
        inside = [(at >= 0) & (at < length) for at, length in zip(wanted, self.labels.shape, strict=True)]
        found = np.zeros([len(at) for at in wanted], self.labels.dtype)
        found[np.ix_(*inside)] = self.labels[np.ix_(*(at[held] for at, held in zip(wanted, inside, strict=True)))]
        return found


def score_region(
    job: TextJob,
    options: TextOptions | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    on_download: Callable[[int, int], None] | None = None,
) -> TextFound:
    """Score the nuclei of a region by words and write what was found.

    Parameters
    ----------
    job : TextJob
        What and where.
    options : TextOptions, optional
        Settings.
    on_progress : callable, optional
        Told how many nuclei are done, of how many.
    on_download : callable, optional
        Told how many bytes of the weights are there, of how many, if they are downloaded.

    Raises
    ------
    SlideError
        If the slide cannot be read or its pixel size is not known.
    DataError
        If region, labels, prompts, the other model's table or settings make no sense.
    WeightsError
        If the CLIP cannot be downloaded or loaded.
    LicenceNotAcceptedError
        If its licence was not accepted.
    ExportError
        If the result cannot be written.
    """
    form = format_of(job.out)  # a name that asks for no format is said before the work
    check_target(job.out, inputs=(job.path, job.labels))
    prompts: dict[str, list[str]] = {}
    for name, prompt in job.prompts:
        prompts.setdefault(name, []).append(prompt)
    labels = _labels(Path(job.labels))
    known = read_known(Path(job.known), np.unique(labels[labels > 0]), tuple(prompts)) if job.known else None
    view = _view(job)
    folder = get_clip(job.clip, sha256=job.sha256, accept_licence=job.accept_licence, progress=on_download)
    clip = load_clip(folder, accept_licence=job.accept_licence, sha256=job.sha256)
    scores = score_by_text(
        view.image,
        view.mpp_um,
        labels,
        prompts,
        clip,
        options=options,
        p_mask=known,
        seen=job.seen,
        device=job.device,
        on_progress=on_progress,
    )
    export(_source(labels, view, scores, job, folder.name), job.out, form)
    counts = Counter(scores.classes[place] for place in scores.best.tolist())
    card = clip.card
    classes = {name: counts[name] for name in scores.classes}
    return TextFound(job.out, len(scores), classes, card.version, card.licence, card.sha256, view.region)


def read_known(path: Path, ids: NDArray[np.integer], classes: tuple[str, ...]) -> NDArray[np.float32]:
    """Read what another model says of nuclei: a CSV with ``id`` and a column for each class, its name or ``p_`` and it.

    Parameters
    ----------
    path : Path
        The table; other columns and other nuclei do not matter. Tables that `score_region` writes are such.
    ids : ndarray of integers, shape (n,)
        The nuclei.
    classes : tuple of str
        The classes.

    Returns
    -------
    ndarray of float32, shape (n, classes)

    Raises
    ------
    DataError
        If a column or a nucleus is missing, or something is no number.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"{path} cannot be read as a table (CSV): {error}") from error
    there = set(rows[0]) if rows else set()
    columns = [name if name in there else f"p_{name}" for name in classes]
    if missing := [name for name in ("id", *columns) if name not in there]:
        raise DataError(f"{path} has no column {missing[0]}; it needs id and one for each class: {', '.join(classes)}")
    try:
        said = {int(row["id"]): [float(row[name]) for name in columns] for row in rows}
    except (ValueError, TypeError) as error:
        raise DataError(f"{path} holds something else than numbers in {', '.join(columns)} or id: {error}") from error
    lacking = [number for number in ids.tolist() if number not in said]
    if lacking:
        raise DataError(f"{path} says nothing of nucleus {lacking[0]} ({len(lacking)} are missing)")
    return np.array([said[number] for number in ids.tolist()], np.float32).reshape(-1, len(columns))


def _labels(path: Path) -> NDArray[np.integer[Any]]:
    labels = read_ids(path)
    if labels.size and labels.max() > LARGEST_ID:
        raise DataError(f"{path} has the id {labels.max()}; the largest that can be written is {LARGEST_ID}")
    return labels


def _view(job: TextJob) -> View:
    with closing(open_slide(job.path, mpp_um=job.mpp_um)) as slide:
        region = slide.content if job.region is None else job.region.intersect(slide.content)
        if region.is_empty or region.area > LARGEST_REGION_PX:
            raise DataError(
                f"a region of {region.height} x {region.width} px of {job.path} cannot be looked at in one piece; "
                "give one on the slide of at most 4096 x 4096 px with --region"
            )
        mpp = slide.require_mpp()
        image = slide.read_box(region.y, region.x, 1.0, 1.0, (region.height, region.width))
        return View(image, region, slide.region, mpp)


def _source(labels: NDArray[np.integer[Any]], view: View, scores: TextScores, job: TextJob, clip: str) -> LabelSource:
    """Return what to export: nuclei with classes where they lie on the slide, or, as label TIFF, the region's classes.

    The latter is as large as the region, as the label image is that was given.
    """
    # What is most like the background is of no class, which is 0.
    numbers = np.array([0 if name == BACKGROUND else place for place, name in enumerate(scores.classes, 1)], np.int32)
    of_nuclei = numbers[scores.best]
    name = Path(job.path).stem
    if format_of(job.out) == _MAP:
        lookup = np.concatenate(([0], of_nuclei)).astype(np.int32)
        places = np.where(labels > 0, np.searchsorted(scores.ids, labels) + 1, 0)
        return source_of_labels(lookup[places], view.mpp_um, name=name, origin="by text")
    source = source_of_labels(
        labels, view.mpp_um, scores=scores.scores.max(axis=1, initial=0.0), name=name, origin=f"by text, {clip}"
    )
    table = source.nuclei_in(source.region)
    corner = np.array((view.region.y, view.region.x))
    table = replace(
        table, classes=of_nuclei, centroids=table.centroids + corner, boxes=table.boxes + np.tile(corner, 2)
    )
    levels = [PlacedLevel(labels, view.region, view.extent)]
    while max(levels[-1].shape) > LEAST_LEVEL_PX:
        levels.append(replace(levels[-1], factor=2 * levels[-1].factor))
    classes = {int(number): NamedClass(scores.classes[place]) for place, number in enumerate(numbers) if number}
    return replace(
        source,
        levels=tuple(levels),
        nuclei_in=lambda region: owned_by(table, region),
        classes=classes,
        measures=TextMeasures(scores),
    )

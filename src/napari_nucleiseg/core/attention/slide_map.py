"""Where a model of whole slides looked: the file that it wrote, and the map of it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from napari_nucleiseg.core.attention.grid import TokenGrid
from napari_nucleiseg.core.attention.shown import ShownMap
from napari_nucleiseg.core.errors import DataError
from napari_nucleiseg.core.geometry import YX
from napari_nucleiseg.core.slides.pyramid import Slide

ENDING = ".attention.json"
# Rows and columns of the map at most: regions stay sharp, patches of a huge slide are drawn coarser.
MOST_PX = 2048


@dataclass(frozen=True, slots=True, eq=False)
class SlideAttention:
    """What a model said of a slide, and which parts of it decided.

    Parameters
    ----------
    slide : str
        Name of the slide's file.
    aggregator : str
        Version of the model.
    prediction : str
        The likeliest class; empty for survival.
    scores : mapping of str to float
        See `core.training.cohort.prediction.Prediction`.
    boxes : ndarray of int64, shape (n, 4)
        ``(y0, x0, y1, x1)``, half-open, level-0 pixels.
    attention : ndarray of float32, shape (n,)
        Share of each, adds up to 1.
    """

    slide: str
    aggregator: str
    prediction: str
    boxes: NDArray[np.int64]
    attention: NDArray[np.float32]
    scores: Mapping[str, float] = field(default_factory=dict)


def read_slide_attention(path: str | os.PathLike[str]) -> SlideAttention:
    """Read what ``napari-nucleiseg cohort predict`` wrote of a slide.

    Raises
    ------
    DataError
        If it cannot be read, or is something else.
    """
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
        boxes = np.asarray(found["boxes"], np.int64)
        attention = np.asarray(found["attention"], np.float32)
        scores = {str(name): float(value) for name, value in found.get("scores", {}).items()}
        slide, aggregator, prediction = (str(found.get(name, "")) for name in ("slide", "aggregator", "prediction"))
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error}). Check that it is there.") from error
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise DataError(_something_else(path, error)) from error
    if attention.ndim != 1 or not attention.size or boxes.shape != (attention.size, 4):
        raise DataError(_something_else(path, "boxes and attention do not belong together"))
    if not np.isfinite(attention).all() or (boxes[:, :2] >= boxes[:, 2:]).any():
        raise DataError(_something_else(path, "boxes have no extent, or attention is no number"))
    return SlideAttention(slide, aggregator, prediction, boxes, attention, scores)


def _something_else(path: str | os.PathLike[str], reason: object) -> str:
    return (
        f"{path} does not say where a model of slides looked ({reason}). Give a file {ENDING} that "
        "`napari-nucleiseg cohort predict` wrote."
    )


def slide_map(said: SlideAttention, slide: Slide) -> ShownMap:
    """Return the map of a slide: rank of each box among all, 0..1; NaN where nothing was looked at.

    Parameters
    ----------
    said : SlideAttention
        Of this slide.
    slide : Slide
        Gives the extent.

    Raises
    ------
    DataError
        If the file is of another slide, or its boxes lie beside this one.
    """
    if said.slide and said.slide != Path(slide.path).name:
        raise DataError(
            f"the file is of {said.slide}, not of {Path(slide.path).name}. Open that slide, or choose its own file."
        )
    height, width = slide.shape
    low, high = said.boxes.min(axis=0), said.boxes.max(axis=0)
    if min(low[0], low[1]) < 0 or high[2] > height or high[3] > width:
        raise DataError("what the file says lies beside this slide: it was made of another file of the same name")
    smallest = int(min((said.boxes[:, 2] - said.boxes[:, 0]).min(), (said.boxes[:, 3] - said.boxes[:, 1]).min()))
    step = max(1.0, max(height, width) / MOST_PX, smallest / 16)
    values = np.full((int(np.ceil(height / step)), int(np.ceil(width / step))), np.nan, np.float32)
    ranks = (rankdata(said.attention) / len(said.attention)).astype(np.float32)
    edges = np.floor(said.boxes / step + 0.5).astype(np.int64)
    for (y0, x0, y1, x1), rank in zip(edges, ranks, strict=True):
        values[y0 : max(y1, y0 + 1), x0 : max(x1, x0 + 1)] = rank
    return ShownMap(values, TokenGrid(values.shape[0], values.shape[1], YX(step, step)), (0.0, 1.0))

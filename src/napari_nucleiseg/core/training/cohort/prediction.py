"""What an aggregator says of a slide, and which of its parts decided."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from napari_nucleiseg.core.errors import ModelError, StoreError
from napari_nucleiseg.core.models.aggregators import CLASSES, LoadedAggregator
from napari_nucleiseg.core.models.files import write_over
from napari_nucleiseg.core.training.cohort.bags import Bag, name_of_bag, read_bag
from napari_nucleiseg.core.training.cohort.tasks import score_names, scores_of

SHEET, ENDING = "predictions.csv", ".attention.json"


@dataclass(frozen=True, slots=True)
class Prediction:
    """What is said of a slide.

    Parameters
    ----------
    slide : str
        Name of its file.
    scores : mapping of str to float
        Of classes: ``p_<class>``. Of survival: the probability of getting beyond each time, and the risk; larger is
        sooner, and only its order among slides means something.
    label : str
        The likeliest class; empty for survival.
    name : str
        Which its file of features goes by: of one run each has another, also where slides in different folders have
        files of one name.
    """

    slide: str
    scores: Mapping[str, float]
    label: str = ""
    name: str = ""


def slide_attention(
    features_file: str | os.PathLike[str], aggregator: LoadedAggregator
) -> tuple[NDArray[np.int64], NDArray[np.float32], Prediction]:
    """Judge a slide and say which of its parts decided.

    Parameters
    ----------
    features_file : path
        See `bags.read_bag`.
    aggregator : LoadedAggregator
        Trained on features of the same encoders.

    Returns
    -------
    boxes : ndarray of int64, shape (n, 4)
        Regions or patches, ``(y0, x0, y1, x1)``, half-open, level-0 pixels.
    attention : ndarray of float32, shape (n,)
        Share of each in the judgement; at least 0, adds up to 1. It says where was looked, not for which class.
    prediction : Prediction
        The judgement.

    Raises
    ------
    DataError
        If the file cannot be read.
    ModelError
        If its features are of other encoders than those that the aggregator was trained on.
    """
    bag = read_bag(features_file)
    _must_fit(bag, aggregator)
    with torch.inference_mode():
        logits, attention = aggregator.network(torch.from_numpy(bag.features))
    scores = scores_of(aggregator.task, logits)
    names = score_names(aggregator.task, aggregator.classes, aggregator.edges)
    label = aggregator.classes[int(scores.argmax())] if aggregator.task == CLASSES else ""
    told = dict(zip(names, map(float, scores), strict=True))
    said = Prediction(bag.card.slide, told, label, name_of_bag(features_file))
    return bag.boxes, np.asarray(attention.numpy(), np.float32), said


def _must_fit(bag: Bag, aggregator: LoadedAggregator) -> None:
    wanted = aggregator.card.taught.get("encoders", [aggregator.card.features_of])
    if tuple(wanted) != bag.card.encoders:
        raise ModelError(
            f"{aggregator.card.name} reads features of {' and '.join(wanted)}, those of {bag.card.slide} are of "
            f"{' and '.join(bag.card.encoders)}; run `napari-nucleiseg features` with the encoders it was trained on"
        )
    if bag.features.shape[1] != aggregator.spec.features:
        raise ModelError(
            f"{aggregator.card.name} reads {aggregator.spec.features} features, {bag.card.slide} has "
            f"{bag.features.shape[1]}; train it on these"
        )


def predict_slides(
    files: Sequence[Path], aggregator: LoadedAggregator, out: str | os.PathLike[str]
) -> Generator[Prediction, None, None]:
    """Judge slides, write where each was looked at, and in the end all judgements as ``predictions.csv``.

    Parameters
    ----------
    files : sequence of Path
        See `bags.find_bags`.
    aggregator : LoadedAggregator
        See `slide_attention`.
    out : path
        Folder; made if need be. ``<name>.attention.json`` holds boxes (``(y0, x0, y1, x1)``, half-open, level-0
        pixels) and the attention to each. Where slides have files of one name, the table has a column ``name`` too.

    Yields
    ------
    Prediction
        One a slide, once its attention is written.

    Raises
    ------
    DataError, ModelError
        See `slide_attention`.
    StoreError
        If results cannot be written.
    """
    folder = Path(out)
    every: list[Prediction] = []
    for path in files:
        boxes, attention, said = slide_attention(path, aggregator)
        document = {
            "slide": said.slide,
            "aggregator": aggregator.version,
            "prediction": said.label,
            "scores": dict(said.scores),
            "boxes": boxes.tolist(),
            "attention": [round(float(share), 8) for share in attention],
        }
        _write(folder / f"{said.name}{ENDING}", json.dumps(document))
        every.append(said)
        yield said
    _write(folder / SHEET, _sheet(every, aggregator))


def have_one_name(said: Sequence[Prediction]) -> bool:
    """Whether some of these slides cannot be told apart by the names of their files."""
    return len({one.slide for one in said}) < len(said)


def _sheet(said: Sequence[Prediction], aggregator: LoadedAggregator) -> str:
    """Return judgements as a CSV, a row a slide."""
    names = score_names(aggregator.task, aggregator.classes, aggregator.edges)
    has_label, has_name = aggregator.task == CLASSES, have_one_name(said)
    sheet = io.StringIO()
    writer = csv.writer(sheet, lineterminator="\n")
    writer.writerow(("slide", *(("name",) * has_name), *(("prediction",) * has_label), *names))
    for one in said:
        numbers = (f"{one.scores[name]:.6f}" for name in names)
        writer.writerow((one.slide, *((one.name,) * has_name), *((one.label,) * has_label), *numbers))
    return sheet.getvalue()


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_over(path, text.encode())
    except OSError as error:
        raise StoreError(f"{path} cannot be written ({error.strerror or error}); name another folder") from error

"""All scores of one image, and their mean over a data set."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass

import numpy as np

from napari_nucleiseg.core.errors import DataError
from napari_nucleiseg.core.evaluation.agreement import aji, aji_plus, detection, dice, panoptic_quality
from napari_nucleiseg.core.evaluation.contours import ahd, ahd_as_coded
from napari_nucleiseg.core.evaluation.overlaps import LabelImage, Overlaps, overlaps


@dataclass(frozen=True, slots=True)
class ImageScores:
    """How well the predicted nuclei of one image agree with the true ones, or the mean of many images.

    Parameters
    ----------
    dice, aji, aji_plus, pq, dq, sq : float
        See `agreement`; 0..1, higher is better. 1 if both images are empty, 0 if one is.
    f1, precision, recall : float
        Nuclei matched with an IoU of at least 0.5; 0..1, higher is better.
    ahd, ahd_as_coded : float
        Distances of outlines in pixels (`contours`), lower is better; NaN if there is no overlap or not computed.
    truth_count, pred_count : int
        Nuclei; of a mean, the totals.
    """

    dice: float
    aji: float
    aji_plus: float
    pq: float
    dq: float
    sq: float
    f1: float
    precision: float
    recall: float
    ahd: float
    ahd_as_coded: float
    truth_count: int
    pred_count: int

    def as_dict(self) -> dict[str, float | int | None]:
        """Return all fields by name, fit for JSON: what is not a number becomes None."""
        return {
            name: None if isinstance(value, float) and np.isnan(value) else value
            for name, value in asdict(self).items()
        }


def scores(truth: LabelImage, pred: LabelImage, *, distances: bool = True) -> ImageScores:
    """Score one image.

    Parameters
    ----------
    truth, pred : ndarray of integers, shape (y, x)
        Instance maps of one shape, 0 is background.
    distances : bool
        Whether to compute the two Hausdorff distances, which take most of the time.

    Returns
    -------
    ImageScores
        All scores.

    Raises
    ------
    DataError
        If the images are not two instance maps of one shape.
    """
    table = overlaps(truth, pred)
    nan = float("nan")
    return table_scores(
        table,
        ahd=ahd(truth, pred, table) if distances else nan,
        ahd_as_coded=ahd_as_coded(truth, pred, table) if distances else nan,
    )


def table_scores(table: Overlaps, *, ahd: float = float("nan"), ahd_as_coded: float = float("nan")) -> ImageScores:
    """Score what overlaps, however the table was counted.

    Parameters
    ----------
    table : Overlaps
        Overlapping pairs.
    ahd, ahd_as_coded : float
        Distances in pixels, which the table does not know; NaN if not computed.

    Returns
    -------
    ImageScores
        All scores.
    """
    pq, dq, sq = panoptic_quality(table)
    f1, precision, recall = detection(table)
    return ImageScores(
        dice=dice(table),
        aji=aji(table),
        aji_plus=aji_plus(table),
        pq=pq,
        dq=dq,
        sq=sq,
        f1=f1,
        precision=precision,
        recall=recall,
        ahd=ahd,
        ahd_as_coded=ahd_as_coded,
        truth_count=table.truth_count,
        pred_count=table.pred_count,
    )


def mean_scores(images: Iterable[ImageScores]) -> ImageScores:
    """Return the mean over images of every score (NaN distances left out) and the total of the counts.

    Raises
    ------
    DataError
        If there is no image.
    """
    rows = [asdict(image) for image in images]
    if not rows:
        raise DataError("there is no image to average the scores of")
    columns = {name: np.array([row[name] for row in rows], np.float64) for name in rows[0]}
    means = {name: _mean(values) for name, values in columns.items() if not name.endswith("_count")}
    return ImageScores(
        **means,
        truth_count=int(columns["truth_count"].sum()),
        pred_count=int(columns["pred_count"].sum()),
    )


def _mean(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")

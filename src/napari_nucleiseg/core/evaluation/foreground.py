"""Scores of a foreground without instances: Hammoude and XOR; and a published protocol that leaks the truth."""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.errors import DataError
from napari_nucleiseg.core.evaluation.agreement import dice
from napari_nucleiseg.core.evaluation.overlaps import LabelImage, Overlaps, check_label_images, overlaps


class ForegroundScores(NamedTuple):
    """Dice (0..1, higher is better), Hammoude (0..1) and XOR (0 or more), of which lower is better."""

    dice: float
    hammoude: float
    xor: float


def _areas(table: Overlaps) -> tuple[int, int, int]:
    """Return the pixels of the true foreground, of both and of either."""
    truth, common = int(table.truth_areas.sum()), int(table.intersections.sum())
    return truth, common, truth + int(table.pred_areas.sum()) - common


def hammoude(table: Overlaps) -> float:
    """Hammoude distance of the two foregrounds, ``(|A or B| - |A and B|) / |A or B|``, which is 1 - IoU.

    Parameters
    ----------
    table : Overlaps
        Overlapping pairs.

    Returns
    -------
    float
        0..1, lower is better; 0 if both images are empty.
    """
    _, common, either = _areas(table)
    return (either - common) / either if either else 0.0


def xor(table: Overlaps) -> float:
    """Pixels of one foreground alone, divided by those of the truth; never less than the Hammoude distance.

    Parameters
    ----------
    table : Overlaps
        Overlapping pairs.

    Returns
    -------
    float
        0 or more, lower is better; 0 if both images are empty, infinite if only the truth is.
    """
    truth, common, either = _areas(table)
    if not either:
        return 0.0
    return (either - common) / truth if truth else math.inf


def foreground_scores(truth: LabelImage, pred: LabelImage) -> ForegroundScores:
    """Score one image; see `dice`, `hammoude` and `xor`.

    Parameters
    ----------
    truth, pred : ndarray of integers, shape (y, x)
        Instance maps or masks of one shape, 0 is background.

    Raises
    ------
    DataError
        If the images are not two label images of one shape.
    """
    table = overlaps(truth, pred)
    return ForegroundScores(dice(table), hammoude(table), xor(table))


def best_cluster(truth: LabelImage, clusters: LabelImage) -> int:
    """Return the cluster that overlaps the true foreground best (highest IoU); the lowest number where several do.

    It looks at the truth, so what it gives says how good the clusters can be, not how good a choice without labels is.

    Parameters
    ----------
    truth : ndarray of integers, shape (y, x)
        Instance map or mask, 0 is background.
    clusters : ndarray of integers, shape (y, x)
        Cluster of each pixel, 0 or more.

    Raises
    ------
    DataError
        If the images are not two label images of one shape, or hold no pixel.
    """
    common, total, inside = _counts(truth, clusters)
    return int(np.argmax(common / np.maximum(total + inside - common, 1)))


def scores_with_leaked_truth(truth: LabelImage, clusters: LabelImage) -> ForegroundScores:
    """Score as the published code of S3-Net does: NOT comparable with anything else, for the truth leaks in.

    The cluster with most pixels inside the truth is taken, and everything farther than a dilation (5x5, twice) from
    the truth is erased before scoring. A prediction that covers the whole picture scores a Dice near 0.9 so. Use
    `foreground_scores`; this is here only to set published figures beside honest ones.

    Parameters
    ----------
    truth : ndarray of integers, shape (y, x)
        Instance map or mask, 0 is background.
    clusters : ndarray of integers, shape (y, x)
        Cluster of each pixel, 0 or more.

    Raises
    ------
    DataError
        If the images are not two label images of one shape, or hold no pixel.
    """
    common, _, _ = _counts(truth, clusters)
    mask = (truth > 0).astype(np.uint8)
    near = cv2.dilate(mask, np.ones((5, 5), np.uint8), iterations=2) > 0
    pred = near & (clusters == int(np.argmax(common)))
    return foreground_scores(mask, pred.astype(np.uint8))


def _counts(truth: LabelImage, clusters: LabelImage) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Return the pixels of each cluster inside the truth, of each cluster in all, and of the truth."""
    check_label_images(truth, clusters)
    if not truth.size:
        raise DataError("an image without pixels has no clusters")
    flat, inside = clusters.ravel().astype(np.intp), truth.ravel() > 0
    total = np.bincount(flat)
    return np.bincount(flat[inside], minlength=len(total)), total, int(inside.sum())

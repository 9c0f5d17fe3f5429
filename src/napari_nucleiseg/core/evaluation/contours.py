"""Average Hausdorff distances between the outlines of true and predicted nuclei, in pixels."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects
from scipy.spatial import KDTree
from scipy.spatial.distance import cdist

from napari_nucleiseg.core.evaluation.agreement import best_partners
from napari_nucleiseg.core.evaluation.overlaps import LabelImage, Overlaps, overlaps

Points = NDArray[np.float64]
_DENSE_LIMIT = 1_000_000


def ahd(truth: LabelImage, pred: LabelImage, table: Overlaps | None = None) -> float:
    """Average symmetric distance between outlines of true nuclei and their best predictions.

    For each true nucleus A with at least one overlapping prediction, B is the one of highest IoU, and the
    distance is half the sum of the mean distance from the outline of A to that of B and back. The score is the
    mean over these A. Missed nuclei have no distance: read it beside the recall.

    Parameters
    ----------
    truth, pred : ndarray of integers, shape (y, x)
        Instance maps of one shape, 0 is background.
    table : Overlaps, optional
        The pair's overlaps, if at hand.

    Returns
    -------
    float
        Pixels, 0 or more; 0 if both images are empty, NaN if no nucleus overlaps.
    """
    table = table or overlaps(truth, pred)
    if table.both_empty:
        return 0.0
    rows = best_partners(table)
    if not len(rows):
        return float("nan")
    distances = outline_distances(
        truth, pred, table.truth_ids[table.truth_index[rows]], table.pred_ids[table.pred_index[rows]]
    )
    return float(np.mean(distances))


def outline_distances(
    truth: LabelImage, pred: LabelImage, truth_ids: NDArray[np.int64], pred_ids: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the average symmetric distance between the outlines of nuclei that are given in pairs; see `ahd`.

    Parameters
    ----------
    truth, pred : ndarray of integers, shape (y, x)
        Instance maps of one shape that hold these nuclei whole, 0 is background; others may be in them or cut by them.
    truth_ids, pred_ids : ndarray of int64, shape (k,)
        The pairs; an id may occur several times.

    Returns
    -------
    ndarray of float64, shape (k,)
        Pixels, 0 or more.
    """
    sides = []
    for labels, ids in ((truth, truth_ids), (pred, pred_ids)):
        known, place = np.unique(ids, return_inverse=True)
        outlines = _outlines(labels, known)
        sides.append([outlines[index] for index in place.tolist()])
    return np.array([_symmetric_distance(one, other) for one, other in zip(*sides, strict=True)], np.float64)


def ahd_as_coded(truth: LabelImage, pred: LabelImage, table: Overlaps | None = None) -> float:
    """The "average Hausdorff distance" that the code of Sahasrabudhe et al. 2020 computes; only to compare with it.

    For each overlapped true nucleus G: the largest, over all predictions P that touch it, of the directed
    Hausdorff distance from G to the intersection of G and P. The score is the mean over these G, so misses
    are not counted and false foreground costs nothing.

    Parameters
    ----------
    truth, pred : ndarray of integers, shape (y, x)
        Instance maps of one shape, 0 is background.
    table : Overlaps, optional
        The pair's overlaps, if at hand.

    Returns
    -------
    float
        Pixels, 0 or more; 0 if both images are empty, NaN if no nucleus overlaps.
    """
    table = table or overlaps(truth, pred)
    if table.both_empty:
        return 0.0
    if not len(table.truth_index):
        return float("nan")
    boxes = _boxes(truth, table.truth_ids)
    farthest = np.zeros(table.truth_count)
    for row, (a, b) in enumerate(zip(table.truth_index, table.pred_index, strict=True)):
        if table.intersections[row] == table.truth_areas[a]:
            continue  # wholly covered: the distance is 0
        inside = truth[boxes[a]] == table.truth_ids[a]
        outside_both = ~(inside & (pred[boxes[a]] == table.pred_ids[b]))
        to_both = cv2.distanceTransform(outside_both.view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        farthest[a] = max(farthest[a], float(to_both[inside].max()))
    return float(farthest[np.unique(table.truth_index)].mean())


def _symmetric_distance(one: Points, other: Points) -> float:
    if len(one) * len(other) <= _DENSE_LIMIT:
        table = cdist(one, other)
        return float(table.min(axis=1).mean() + table.min(axis=0).mean()) / 2
    there, back = KDTree(other).query(one)[0], KDTree(one).query(other)[0]
    return float(np.mean(there) + np.mean(back)) / 2


def _outlines(labels: LabelImage, ids: NDArray[np.int64]) -> list[Points]:
    """Return for each of the ascending `ids` its pixels ``(n, 2)`` that have a foreign 4-neighbour; one id at least."""
    padded = np.pad(labels, 1)
    inner = padded[1:-1, 1:-1]
    edge = (inner != padded[:-2, 1:-1]) | (inner != padded[2:, 1:-1])
    edge |= (inner != padded[1:-1, :-2]) | (inner != padded[1:-1, 2:])
    # At the rim of the image the padding is background, so a nucleus cut by the rim has its outline there.
    points = np.argwhere(edge & (labels != 0))
    values = labels[points[:, 0], points[:, 1]]
    owners = np.minimum(np.searchsorted(ids, values), len(ids) - 1)
    mine = ids[owners] == values
    points, owners = points[mine], owners[mine]
    order = np.argsort(owners, kind="stable")
    splits = np.cumsum(np.bincount(owners, minlength=len(ids)))[:-1]
    return np.split(points[order].astype(np.float64), splits)


def _boxes(labels: LabelImage, ids: NDArray[np.int64]) -> list[tuple[slice, slice]]:
    """Return the bounding box of each of the ascending `ids`, which are all of the labels there are."""
    dense = np.zeros(labels.shape, np.int32)
    inside = labels != 0
    dense[inside] = np.searchsorted(ids, labels[inside]) + 1
    return [(box[0], box[1]) for box in find_objects(dense) if box is not None]

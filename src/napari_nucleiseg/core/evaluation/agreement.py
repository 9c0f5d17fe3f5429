"""Scores of agreement between true and predicted nuclei: AJI, AJI+, PQ, F1 and Dice.

Every score lies between 0 and 1. Where both images are empty it is 1; where only one is, it is 0.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components, min_weight_full_bipartite_matching

from napari_nucleiseg.core.evaluation.overlaps import Overlaps

# The assignment of so many pairs takes a few milliseconds.
_PAIRS_AT_ONCE = 2000


class PanopticQuality(NamedTuple):
    """Panoptic quality and its two factors, ``pq = dq * sq``."""

    pq: float
    dq: float
    sq: float


class Detection(NamedTuple):
    """How well nuclei are found, whatever their exact shape."""

    f1: float
    precision: float
    recall: float


def best_partners(table: Overlaps) -> NDArray[np.int64]:
    """Return for each overlapped true nucleus the row of its pair of highest IoU.

    This is the pairing of AJI: a prediction may serve several true nuclei. Ties go to the lower label.

    Parameters
    ----------
    table : Overlaps
        Overlapping pairs.

    Returns
    -------
    ndarray of int64, shape (number of true nuclei with an overlap,)
        Rows of the table's pairs, in the order of the true labels.
    """
    order = np.lexsort((table.pred_index, -table.ious, table.truth_index))
    if not len(order):
        return order
    owners = table.truth_index[order]
    first = np.concatenate(([True], owners[1:] != owners[:-1]))
    return order[first]


def one_to_one(table: Overlaps, weights: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the rows of the one-to-one assignment that has the highest sum of weights.

    Parameters
    ----------
    table : Overlaps
        Overlapping pairs.
    weights : ndarray of float64, shape (k,)
        Gain of each pair, 0 or more; a pair that gains nothing is not chosen.

    Returns
    -------
    ndarray of int64, shape (number of matches,)
        Rows of the table's pairs that are chosen, ascending.
    """
    chosen = np.zeros(len(weights), np.bool_)
    # The assignment takes as long as the square of their number, and nuclei far apart have nothing to do with each
    # other: neighbours are assigned among themselves.
    for rows in _neighbourhoods(table, np.flatnonzero(weights > 0)):
        chosen[rows[_assigned(table.truth_index[rows], table.pred_index[rows], weights[rows])]] = True
    return np.flatnonzero(chosen)


def _neighbourhoods(table: Overlaps, rows: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Yield `rows` in parts that share no nucleus, as many in each as are assigned quickly."""
    if not len(rows):
        return
    total = table.truth_count + table.pred_count
    ends = table.truth_index[rows], table.pred_index[rows] + table.truth_count
    graph = coo_array((np.ones(len(rows), np.uint8), ends), shape=(total, total))
    _, group = connected_components(graph.tocsr(), directed=False)
    group = group[ends[0]]
    order = np.argsort(group, kind="stable")
    firsts = np.flatnonzero(np.diff(group[order], prepend=-1))
    cuts = firsts[np.flatnonzero(np.diff(firsts // _PAIRS_AT_ONCE, prepend=0))]
    yield from (rows[part] for part in np.split(order, cuts))


def _assigned(
    truth_index: NDArray[np.int64], pred_index: NDArray[np.int64], weights: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Return which pairs the assignment of highest weight takes; there is at least one pair."""
    truths, rows = np.unique(truth_index, return_inverse=True)
    preds, columns = np.unique(pred_index, return_inverse=True)
    # Each true nucleus also gets a partner of its own that gains nothing, so that a full matching always
    # exists; the offset keeps all costs positive, for a stored zero would be an absent edge.
    highest = float(weights.max())
    alone = np.arange(len(truths))
    costs = np.concatenate((highest - weights + 1.0, np.full(len(truths), highest + 1.0)))
    ends = np.concatenate((rows, alone)), np.concatenate((columns, alone + len(preds)))
    shape = (len(truths), len(preds) + len(truths))
    truth_at, pred_at = min_weight_full_bipartite_matching(coo_array((costs, ends), shape=shape).tocsr())
    partner = np.full(len(truths), -1, np.int64)
    partner[truth_at] = pred_at
    return np.asarray(partner[rows] == columns, np.bool_)


def _jaccard(table: Overlaps, rows: NDArray[np.int64]) -> float:
    """Aggregate intersections over unions of the paired `rows`; what is unpaired enlarges the union."""
    if table.both_empty:
        return 1.0
    missed = int(table.truth_areas.sum() - table.truth_areas[table.truth_index[rows]].sum())
    chosen = np.unique(table.pred_index[rows])
    spurious = int(table.pred_areas.sum() - table.pred_areas[chosen].sum())
    common = int(table.intersections[rows].sum())
    return common / (int(table.unions[rows].sum()) + missed + spurious)


def aji(table: Overlaps) -> float:
    """Aggregated Jaccard index: each true nucleus takes its best prediction, which may be used again.

    Parameters
    ----------
    table : Overlaps
        Overlapping pairs.

    Returns
    -------
    float
        0..1; 1 if both images are empty.
    """
    return _jaccard(table, best_partners(table))


def aji_plus(table: Overlaps) -> float:
    """Aggregated Jaccard index over the one-to-one pairing of highest summed IoU.

    Parameters
    ----------
    table : Overlaps
        Overlapping pairs.

    Returns
    -------
    float
        0..1; 1 if both images are empty.
    """
    return _jaccard(table, one_to_one(table, table.ious))


def panoptic_quality(table: Overlaps) -> PanopticQuality:
    """Panoptic quality: pairs of IoU above 0.5 count as found.

    Parameters
    ----------
    table : Overlaps
        Overlapping pairs.

    Returns
    -------
    PanopticQuality
        ``(pq, dq, sq)``, each 0..1; all 1 if both images are empty, all 0 if nothing is found.
    """
    if table.both_empty:
        return PanopticQuality(1.0, 1.0, 1.0)
    ious = table.ious
    found = ious[ious > 0.5]
    if not len(found):
        return PanopticQuality(0.0, 0.0, 0.0)
    dq = 2 * len(found) / (table.truth_count + table.pred_count)
    sq = float(found.mean())
    return PanopticQuality(dq * sq, dq, sq)


def detection(table: Overlaps, threshold: float = 0.5) -> Detection:
    """F1, precision and recall of nuclei matched one to one with an IoU of at least `threshold`.

    Differs from DQ only where an IoU is exactly 0.5, or where `threshold` is lower and pairs compete: then as
    many nuclei as possible are matched, and among these matchings the one of highest summed IoU is taken.

    Parameters
    ----------
    table : Overlaps
        Overlapping pairs.
    threshold : float
        Smallest IoU of a match, above 0 and up to 1.

    Returns
    -------
    Detection
        ``(f1, precision, recall)``, each 0..1; all 1 if both images are empty.
    """
    if table.both_empty:
        return Detection(1.0, 1.0, 1.0)
    ious = table.ious
    good = ious >= threshold
    # One more match must outweigh any gain in IoU, which over all matches is below `truth_count`.
    weights = np.where(good, 1.0 + ious / (table.truth_count + 1.0), 0.0)
    rows = one_to_one(table, weights)
    matches = int(good[rows].sum())
    f1 = 2 * matches / (table.truth_count + table.pred_count)
    return Detection(f1, matches / max(table.pred_count, 1), matches / max(table.truth_count, 1))


def f1(table: Overlaps, threshold: float = 0.5) -> float:
    """F1 of `detection`, 0..1."""
    return detection(table, threshold).f1


def dice(table: Overlaps) -> float:
    """Dice coefficient of the two foregrounds, instances ignored.

    Parameters
    ----------
    table : Overlaps
        Overlapping pairs.

    Returns
    -------
    float
        0..1; 1 if both images are empty.
    """
    if table.both_empty:
        return 1.0
    return 2 * int(table.intersections.sum()) / (int(table.truth_areas.sum()) + int(table.pred_areas.sum()))

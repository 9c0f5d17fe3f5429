"""What became of each nucleus where two sets of them lie over each other: same, missed, added, split or merged."""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from napari_nucleiseg.core.evaluation.overlaps import Overlaps

Kinds = NDArray[np.uint8]

# Outlines that agree this well are the same to the eye; two people drawing one nucleus rarely reach more.
SAME_IOU = 0.8
# Two nuclei have to do with each other if more than this part of the smaller one is shared.
SHARED = 0.5


class Kind(IntEnum):
    """What became of a nucleus; the number is its code in images, where 0 is background."""

    SAME = 1
    CHANGED = 2
    SPLIT = 3
    MERGED = 4
    ADDED = 5
    MISSED = 6


def kinds_of(table: Overlaps) -> tuple[Kinds, Kinds, dict[Kind, int]]:
    """Return the kind of each nucleus of either map, and how often each happened.

    Nuclei that share more than half of the smaller one belong together. One of either map alone is missed or added, one
    and one are the same or of another shape, one and many are a split or a merger. Of many and many those that agree by
    more than half (IoU) are taken out as of one shape or another, and the rest is looked at again.

    Parameters
    ----------
    table : Overlaps
        Overlapping pairs; "true" nuclei are those that were there before.

    Returns
    -------
    former, now : ndarray of uint8, shape (n,) and (m,)
        Codes (`Kind`) in the order of the table's nuclei.
    counts : dict of Kind to int
        One nucleus split into three is one split, and three merged into one are one merger.
    """
    kinds = np.zeros(table.truth_count, np.uint8), np.zeros(table.pred_count, np.uint8)
    counts = dict.fromkeys(Kind, 0)
    smaller = np.minimum(table.truth_areas[table.truth_index], table.pred_areas[table.pred_index])
    linked = table.intersections > SHARED * smaller
    _settle(table, linked, kinds, counts, again=True)
    return *kinds, counts


def judged(table: Overlaps) -> tuple[Kinds, Kinds]:
    """Return what each nucleus is by a reference: `Kind.SAME` if it is right, else the mistake.

    As `kinds_of`, but another shape is no mistake of its own: where one nucleus lies on one by an IoU above 0.5 both
    are right, as panoptic quality has it, and elsewhere one is missed and the other added.

    Parameters
    ----------
    table : Overlaps
        Overlapping pairs of nuclei of the reference ("true") and of those that are judged.

    Returns
    -------
    truth, pred : ndarray of uint8, shape (n,) and (m,)
        Codes (`Kind`) in the order of the table's nuclei; `Kind.CHANGED` is none of them.
    """
    truth, pred, _ = kinds_of(table)
    found = table.ious > 0.5
    for kinds, paired, mistake in (
        (truth, table.truth_index[found], Kind.MISSED),
        (pred, table.pred_index[found], Kind.ADDED),
    ):
        is_right = np.zeros(len(kinds), np.bool_)
        is_right[paired] = True
        changed = kinds == Kind.CHANGED
        kinds[changed] = np.where(is_right[changed], Kind.SAME, mistake)
    return truth, pred


def _settle(
    table: Overlaps,
    linked: NDArray[np.bool_],
    kinds: tuple[Kinds, Kinds],
    counts: dict[Kind, int],
    *,
    again: bool,
) -> None:
    """Give the nuclei without a kind one, by the groups that the linked pairs make of them."""
    one, other = table.truth_index, table.pred_index
    linked = linked & (kinds[0][one] == 0) & (kinds[1][other] == 0)
    groups, count = _groups(table, linked)
    sizes = [np.bincount(group[kind == 0], minlength=count) for group, kind in zip(groups, kinds, strict=True)]
    open_groups = [kind == 0 for kind in kinds]
    of_group = np.zeros(count, np.uint8)
    of_group[(sizes[0] == 1) & (sizes[1] == 0)] = Kind.MISSED
    of_group[(sizes[0] == 0) & (sizes[1] == 1)] = Kind.ADDED
    of_group[(sizes[0] == 1) & (sizes[1] > 1)] = Kind.SPLIT
    of_group[(sizes[0] > 1) & (sizes[1] == 1)] = Kind.MERGED
    pair = (sizes[0] == 1) & (sizes[1] == 1)
    of_group[pair] = Kind.CHANGED
    same = linked & (table.ious >= SAME_IOU) & pair[groups[0][one]]
    of_group[groups[0][one[same]]] = Kind.SAME
    many = (sizes[0] > 1) & (sizes[1] > 1)
    if not again:
        of_group[many] = Kind.CHANGED
    for kind in Kind:
        counts[kind] += int(np.count_nonzero(of_group == kind))
    for kind_of, group, is_open in zip(kinds, groups, open_groups, strict=True):
        kind_of[is_open] = of_group[group[is_open]]
    if again and many.any():
        _take_out(table, linked & many[groups[0][one]], kinds, counts)
        _settle(table, linked, kinds, counts, again=False)


def _take_out(
    table: Overlaps,
    linked: NDArray[np.bool_],
    kinds: tuple[Kinds, Kinds],
    counts: dict[Kind, int],
) -> None:
    """Settle the pairs that agree by more than half: no nucleus is in two of them."""
    rows = np.flatnonzero(linked & (table.ious > 0.5))
    found = np.where(table.ious[rows] >= SAME_IOU, Kind.SAME, Kind.CHANGED).astype(np.uint8)
    kinds[0][table.truth_index[rows]] = found
    kinds[1][table.pred_index[rows]] = found
    for kind in (Kind.SAME, Kind.CHANGED):
        counts[kind] += int(np.count_nonzero(found == kind))


def _groups(table: Overlaps, linked: NDArray[np.bool_]) -> tuple[list[NDArray[np.int64]], int]:
    """Return the group of each nucleus of either map, and the number of groups."""
    total = table.truth_count + table.pred_count
    if not total:
        return [np.zeros(0, np.int64), np.zeros(0, np.int64)], 0
    rows, columns = table.truth_index[linked], table.pred_index[linked] + table.truth_count
    graph = coo_array((np.ones(len(rows), np.uint8), (rows, columns)), shape=(total, total))
    count, group = connected_components(graph.tocsr(), directed=False)
    found = group.astype(np.int64)
    return [found[: table.truth_count], found[table.truth_count :]], int(count)

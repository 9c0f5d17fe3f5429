"""What differs between two sets of nuclei of one view: missed, added, split, merged, of another shape, or the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.evaluation.kinds import Kind, kinds_of
from napari_nucleiseg.core.evaluation.overlaps import overlaps

LabelImage = NDArray[np.integer[Any]]


@dataclass(frozen=True, slots=True, eq=False)
class Differences:
    """Two instance maps of one view, compared.

    Parameters
    ----------
    former, now : mapping of Kind to ndarray of int64, shape (n,)
        Ids of each kind in either map, ascending; every nucleus has exactly one kind. None of `former` is added, none
        of `now` is missed.
    counts : mapping of Kind to int
        How often it happened: one nucleus split into three is one split, and three merged into one are one merger.
    codes : ndarray of uint8, shape (y, x)
        Code (`Kind`) of the nucleus that `now` shows, and where it shows none of the one that `former` shows; 0 is
        background.
    """

    former: Mapping[Kind, NDArray[np.int64]]
    now: Mapping[Kind, NDArray[np.int64]]
    counts: Mapping[Kind, int]
    codes: NDArray[np.uint8]

    @property
    def are_equal(self) -> bool:
        """Whether there is nothing but nuclei that stayed as they were."""
        return not any(count for kind, count in self.counts.items() if kind != Kind.SAME)

    @property
    def summary(self) -> str:
        """One sentence for people, such as ``12 added, 3 missed, 2 split, 1 merged; 154 as before``."""
        same = self.counts[Kind.SAME]
        if self.are_equal:
            return f"nothing differs; {same} as before" if same else "no nuclei here"
        words = (
            (Kind.ADDED, "added"),
            (Kind.MISSED, "missed"),
            (Kind.SPLIT, "split"),
            (Kind.MERGED, "merged"),
            (Kind.CHANGED, "of another shape"),
        )
        told = ", ".join(f"{self.counts[kind]} {word}" for kind, word in words if self.counts[kind])
        return f"{told}; {same} as before"


def compare_maps(former: LabelImage, now: LabelImage) -> Differences:
    """Compare two instance maps of one view.

    Nuclei that share more than half of the smaller one belong together. One of either map alone is missed or added, one
    and one are the same or of another shape, one and many are a split or a merger. Of many and many those that agree by
    more than half (IoU) are taken out as of one shape or another, and the rest is looked at again.

    Parameters
    ----------
    former, now : ndarray of integers, shape (y, x)
        Instance maps, 0 is background; ids need not be consecutive.

    Raises
    ------
    DataError
        If they are not two instance maps of one shape.
    """
    table = overlaps(former, now)
    kinds_former, kinds_now, counts = kinds_of(table)
    codes = _coded(former, table.truth_ids, kinds_former)
    shown = _coded(now, table.pred_ids, kinds_now)
    np.copyto(codes, shown, where=shown > 0)
    return Differences(
        {kind: table.truth_ids[kinds_former == kind] for kind in Kind},
        {kind: table.pred_ids[kinds_now == kind] for kind in Kind},
        counts,
        codes,
    )


def _coded(labels: LabelImage, ids: NDArray[np.int64], kinds: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the kind of the nucleus at each pixel, in one pass."""
    codes = np.zeros(labels.shape, np.uint8)
    inside = labels > 0
    if len(ids):
        codes[inside] = kinds[np.searchsorted(ids, labels[inside])]
    return codes

"""The rule by which nuclei of neighbouring tiles share pixels; pure, and the same whatever came first.

Every nucleus *claims* the pixels of its mask. Of two nuclei from different tiles that overlap by more than half
(IoU > 0.5) the higher id is a duplicate and shows nothing. Elsewhere a pixel shows the lowest id that claims it,
and what a person made or approved is never covered. So the image is a function of the set of nuclei alone. What
is claimed but not shown is kept as a small mask beside the image; without it, the loser of a pixel could not come
back when the winner turns out to be a duplicate of a third.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.store.nuclei import PERSON_ID_START, LocalLabels

ROWS_AT_A_TIME = 64

BoolMask = NDArray[np.bool_]
Ids = NDArray[np.uint32]


class State(IntEnum):
    """What is seen of a nucleus: something, or nothing: others cover it, it is a duplicate, a person rejected it."""

    SHOWN = 0
    COVERED = 1
    DUPLICATE = 2
    REJECTED = 3


# Nuclei whose claims never become pixels, whatever is cleared.
_UNSEEN = State.DUPLICATE, State.REJECTED


@dataclass(frozen=True, slots=True, eq=False)
class Claim:
    """Pixels of a nucleus that the image does not show; `mask` is bool ``(y, x)`` over `box` (level-0 pixels)."""

    box: Region
    mask: BoolMask


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """A nucleus that the store holds already; `protected` if a person made or approved it."""

    id: int
    box: Region
    state: State
    protected: bool


@dataclass(frozen=True, slots=True, eq=False)
class Arrivals:
    """Nuclei of one tile on their way in: local `labels` 1..n over `box`, their global `ids` and `boxes` ``(n, 4)``."""

    box: Region
    labels: LocalLabels
    ids: Ids
    boxes: NDArray[np.int64]


@dataclass(slots=True)
class Outcome:
    """What a merge changed besides the image: states and claims of old and new nuclei by id (None: no claim left)."""

    states: dict[int, State] = field(default_factory=dict)
    claims: dict[int, Claim | None] = field(default_factory=dict)


Shared = tuple[LocalLabels, Ids]
Lookup = Callable[[Iterable[int]], Mapping[int, Known]]


class Merge:
    """One change to a rectangle of the image: take nuclei out, put nuclei in.

    Parameters
    ----------
    frame : Region
        The rectangle, level-0 pixels; must contain the boxes of all nuclei that may change.
    image : ndarray of uint32, shape (y, x)
        Ids over `frame`; changed in place.
    claims : mapping of int to Claim
        All claims that overlap `frame`, without those of nuclei taken out.
    lookup : callable
        Returns what is known of existing nuclei by id.
    """

    def __init__(self, frame: Region, image: Ids, claims: Mapping[int, Claim], lookup: Lookup) -> None:
        self.frame = frame
        self.image = image
        self.claims = dict(claims)
        self.outcome = Outcome()
        self._lookup = lookup

    def take_out(self, groups: Iterable[tuple[Region, Ids]]) -> None:
        """Clear nuclei (each group: a region inside the frame that contains them, and ids) and show what they hid."""
        cleared = False
        for region, ids in groups:
            part = self.image[self._slices(region)]
            gone = np.isin(part, ids)
            if gone.any():
                part[gone] = 0
                cleared = True
        if cleared and self.claims:
            known = self._lookup(self.claims)
            self._show({}, self._bystanders(known), known, set())

    def put_in(self, arrivals: Arrivals, shared: Shared | None = None) -> None:
        """Add the nuclei of a tile; see the module for the rule.

        Parameters
        ----------
        arrivals : Arrivals
            The nuclei.
        shared : tuple of ndarray, optional
            What `shared_pixels` says of them and the image as it is now, if that is known already.
        """
        view = self.image[self._slices(arrivals.box)]
        overlaps = self._overlaps(arrivals, shared_pixels(arrivals.labels, view) if shared is None else shared)
        fresh = arrivals.labels > 0
        if not overlaps:
            _paint(view, arrivals, fresh)
            return
        others = {other for _, other in overlaps}
        known = {**self._lookup(self.claims), **self._lookup(others)}
        masks: dict[int, Claim] = {}
        for label in sorted({label for label, _ in overlaps}):
            claim = self._arriving_mask(arrivals, label)
            masks[int(arrivals.ids[label - 1])] = claim
            fresh[_within(claim.box, arrivals.box)][claim.mask] = False
        _paint(view, arrivals, fresh)
        masks.update({other: self._full_mask(known[other]) for other in others if not known[other].protected})
        duplicates = _duplicates(arrivals, overlaps, masks, known)
        duplicates |= {other for other in others if known[other].state is State.DUPLICATE}
        cleared = False
        for other in others & duplicates:
            part = self.image[self._slices(known[other].box)]
            if known[other].state is not State.DUPLICATE:
                part[part == other] = 0
                cleared = True
        self._show(masks, self._bystanders(known) if cleared else {}, known, duplicates)

    def _overlaps(self, arrivals: Arrivals, shared: Shared) -> dict[tuple[int, int], int]:
        """Count the pixels that (arriving label, existing id) both claim."""
        counts: dict[tuple[int, int], int] = {}
        _count_pairs(counts, *shared)
        for other, claim in self.claims.items():
            common = claim.box.intersect(arrivals.box)
            if common.is_empty:
                continue
            labels = arrivals.labels[_within(common, arrivals.box)][claim.mask[_within(common, claim.box)]]
            labels = labels[labels > 0]
            _count_pairs(counts, labels, np.full(len(labels), other, np.uint32))
        return counts

    def _arriving_mask(self, arrivals: Arrivals, label: int) -> Claim:
        y0, x0, y1, x1 = (int(value) for value in arrivals.boxes[label - 1])
        box = Region.from_bounds(y0, x0, y1, x1).intersect(arrivals.box)
        return Claim(box, arrivals.labels[_within(box, arrivals.box)] == label)

    def _full_mask(self, nucleus: Known) -> Claim:
        mask = self.image[self._slices(nucleus.box)] == nucleus.id
        claim = self.claims.get(nucleus.id)
        if claim is not None:
            mask[_within(claim.box, nucleus.box)] |= claim.mask
        return Claim(nucleus.box, mask)

    def _bystanders(self, known: Mapping[int, Known]) -> dict[int, Claim]:
        """Claims that may show up where something was cleared."""
        return {other: claim for other, claim in self.claims.items() if known[other].state not in _UNSEEN}

    def _show(
        self, whole: Mapping[int, Claim], partial: Mapping[int, Claim], known: Mapping[int, Known], duplicates: set[int]
    ) -> None:
        """Show the lowest claim at every pixel, then note what stays unseen.

        `whole` holds full masks; `partial` only the claims of nuclei that are otherwise left alone. Pixels of any
        others stay: nobody would note what those lose. (A nucleus that a person approved and gave back may still
        show what a lower id claims, until its tile is done again.)
        """
        masks = {**partial, **whole}
        movable = np.fromiter(masks, np.uint32, len(masks))
        for nucleus_id, claim in masks.items():
            if nucleus_id not in duplicates:
                part = self.image[self._slices(claim.box)]
                higher = claim.mask & (part > nucleus_id) & (part < PERSON_ID_START)
                if higher.any():
                    higher &= np.isin(part, movable) & ~np.isin(part, self._protected_among(part[higher], known))
                part[higher | (claim.mask & (part == 0))] = nucleus_id
        for nucleus_id, claim in masks.items():
            shown = self.image[self._slices(claim.box)] == nucleus_id
            self._note_claim(nucleus_id, cropped(claim.box, claim.mask & ~shown))
            if nucleus_id in duplicates:
                self.outcome.states[nucleus_id] = State.DUPLICATE
            elif shown.any():
                self.outcome.states[nucleus_id] = State.SHOWN
            elif nucleus_id in whole:
                self.outcome.states[nucleus_id] = State.COVERED

    def _protected_among(self, ids: Ids, known: Mapping[int, Known]) -> list[int]:
        rivals = set(np.unique(ids).tolist())
        found = {**self._lookup(rivals - set(known)), **known}
        return [other for other in rivals if other in found and found[other].protected]

    def _note_claim(self, nucleus_id: int, claim: Claim | None) -> None:
        before = self.claims.get(nucleus_id)
        if before is None and claim is None:
            return
        if before and claim and before.box == claim.box and np.array_equal(before.mask, claim.mask):
            return
        self.outcome.claims[nucleus_id] = claim
        if claim is None:
            self.claims.pop(nucleus_id)
        else:
            self.claims[nucleus_id] = claim

    def _slices(self, region: Region) -> tuple[slice, slice]:
        return _within(region, self.frame)


def shared_pixels(labels: LocalLabels, image: Ids) -> Shared:
    """Return the labels and the ids at the pixels where both are not background, 1-D each."""
    both = np.flatnonzero(np.logical_and(labels, image))
    rows, columns = np.divmod(both, labels.shape[1])
    return labels[rows, columns], image[rows, columns]


def _within(region: Region, outer: Region) -> tuple[slice, slice]:
    return region.translate(-outer.y, -outer.x).slices


def _paint(view: Ids, arrivals: Arrivals, where: BoolMask) -> None:
    """Write the global ids of labels into the image."""
    ids, labels = arrivals.ids, arrivals.labels
    if not len(ids):
        return
    if int(ids[-1]) - int(ids[0]) + 1 != len(ids):
        np.copyto(view, np.concatenate([np.zeros(1, np.uint32), ids])[labels], where=where)
        return
    # Adding everywhere and copying where wanted is quicker than adding where wanted, if the sums stay in the cache.
    for top in range(0, len(labels), ROWS_AT_A_TIME):
        rows = slice(top, top + ROWS_AT_A_TIME)
        painted = labels[rows].astype(np.uint32)
        painted += ids[0] - np.uint32(1)
        np.copyto(view[rows], painted, where=where[rows])


def _count_pairs(counts: dict[tuple[int, int], int], labels: LocalLabels, others: Ids) -> None:
    if len(labels):
        pairs, numbers = np.unique(labels.astype(np.uint64) << np.uint64(32) | others, return_counts=True)
        for pair, number in zip(pairs.tolist(), numbers.tolist(), strict=True):
            key = pair >> 32, pair & 0xFFFFFFFF
            counts[key] = counts.get(key, 0) + number


def _duplicates(
    arrivals: Arrivals, overlaps: Mapping[tuple[int, int], int], masks: Mapping[int, Claim], known: Mapping[int, Known]
) -> set[int]:
    """Return the ids that give way: the higher of two that overlap by more than half, or what a person made anew."""
    found: set[int] = set()
    taken: dict[int, int] = {}
    for (label, other), shared in overlaps.items():
        new = int(arrivals.ids[label - 1])
        area = int(masks[new].mask.sum())
        if known[other].protected:
            taken[new] = taken.get(new, 0) + shared
            if 2 * taken[new] > area:
                found.add(new)
        elif 3 * shared > area + int(masks[other].mask.sum()):
            found.add(max(new, other))
    return found


def cropped(box: Region, mask: BoolMask) -> Claim | None:
    """Return the claim of what is set of a mask over `box`; None if nothing is."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return None
    y0, y1, x0, x1 = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    return Claim(Region(box.y + y0, box.x + x0, y1 - y0, x1 - x0), mask[y0:y1, x0:x1].copy())

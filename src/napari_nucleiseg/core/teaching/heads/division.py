"""Which painted patches a head learns from and which it is judged by: patches that touch are never parted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from napari_nucleiseg.core.errors import TeachingError
from napari_nucleiseg.core.teaching.heads.painted import PaintedPatch

# Of this many places some are kept aside; fewer are too dear for that, and each is judged in turn.
ENOUGH_GROUPS, FOLDS = 8, 4
# With fewer patches to be judged by, a difference between two heads says nothing.
LEAST_PATCHES = 4
# One place is cut only if this long, in patches: so much on either side, and a strip between that neither uses.
LEAST_LENGTH = 3

_Groups = dict[str, list[int]]


@dataclass(frozen=True, slots=True)
class HeadRun:
    """One network to be taught.

    Parameters
    ----------
    name : str
        For people.
    teach, held : tuple of int
        Places, among all patches, of those it learns from and is measured on.
    """

    name: str
    teach: tuple[int, ...]
    held: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class HeadDivision:
    """All runs of a lesson; the last one gives the new encoder.

    Parameters
    ----------
    runs : tuple of HeadRun
        One where patches are held out; else one for each part, and a last one with everything.
    groups : dict of int to str
        By the place of a patch that is measured on: the group it is judged with.
    told : str
        How the new head is judged, a sentence.
    """

    runs: tuple[HeadRun, ...]
    groups: dict[int, str]
    told: str

    @property
    def held(self) -> tuple[int, ...]:
        """Places of all patches that are measured on, in the order of the runs."""
        return tuple(place for run in self.runs for place in run.held)


def divide_painted(patches: Sequence[PaintedPatch], share: float, seed: int) -> HeadDivision:
    """Divide painted patches into runs; no run learns from a patch that touches one it is measured on.

    What lies in regions that are held out is judged by. Else, of eight places and more a share is kept aside, if that
    is enough to judge by; otherwise each is measured by a network that did not see it (cross-validation), and the new
    encoder learns from all. A single place is cut into two halves with a strip between.

    Parameters
    ----------
    patches : sequence of PaintedPatch
        All of a lesson.
    share : float
        Of the places to be kept aside.
    seed : int
        Of the choice.

    Raises
    ------
    TeachingError
        If nothing is painted, or what is cannot be divided.
    """
    if not patches:
        raise TeachingError(
            "Nothing is painted. Paint where this head should look, and where not, in two or more places of the slide, "
            "and teach again."
        )
    groups: _Groups = {}
    for place, patch in enumerate(patches):
        groups.setdefault(patch.group, []).append(place)
    rng = np.random.default_rng(seed)
    aside = [name for name, places in groups.items() if any(patches[place].held for place in places)]
    if aside:
        if len(aside) == len(groups):
            raise TeachingError(
                "All paint lies in or beside regions that are held out, so that nothing is left to learn from. Paint "
                "in another place, too."
            )
        return _kept_aside(groups, aside, "Judged on what is painted in the regions that you held out")
    if len(groups) == 1:
        return _crossed(_halves(patches), tuple(range(len(patches))), _told_of_halves())
    chosen = _chosen(patches, groups, max(2, round(share * len(groups))), rng)
    if len(groups) < ENOUGH_GROUPS or sum(len(groups[name]) for name in chosen) < LEAST_PATCHES:
        parts = _folds(groups, min(len(groups), FOLDS), rng)
        told = f"Judged on all {len(groups)} painted places, each by a network that did not learn from it"
        return _crossed(parts, tuple(range(len(patches))), told)
    return _kept_aside(groups, chosen, f"Judged on {len(chosen)} of {len(groups)} painted places, kept aside")


def _kept_aside(groups: _Groups, aside: Sequence[str], told: str) -> HeadDivision:
    teach = tuple(place for name, places in groups.items() if name not in aside for place in places)
    held = tuple(place for name in aside for place in groups[name])
    of_place = {place: name for name in aside for place in groups[name]}
    return HeadDivision((HeadRun("with your paint", teach, held),), of_place, f"{told} ({_count(len(held))}).")


def _crossed(parts: Sequence[_Groups], everything: tuple[int, ...], told: str) -> HeadDivision:
    """One run without each part, and a last one with everything."""
    runs, of_place = [], dict[int, str]()
    for number, part in enumerate(parts):
        held = tuple(place for places in part.values() for place in places)
        others = tuple(place for other in parts if other is not part for places in other.values() for place in places)
        of_place |= {place: name for name, places in part.items() for place in places}
        runs.append(HeadRun(f"part {number + 1} of {len(parts)}", others, held))
    runs.append(HeadRun("with everything", everything, ()))
    return HeadDivision(tuple(runs), of_place, f"{told} ({_count(len(of_place))}).")


def _folds(groups: _Groups, count: int, rng: np.random.Generator) -> list[_Groups]:
    """Part groups into `count` parts of about as many patches each."""
    names = [list(groups)[place] for place in rng.permutation(len(groups))]
    parts: list[_Groups] = [{} for _ in range(count)]
    for name in sorted(names, key=lambda name: -len(groups[name])):
        smallest = min(parts, key=lambda part: sum(map(len, part.values())))
        smallest[name] = groups[name]
    return parts


def _halves(patches: Sequence[PaintedPatch]) -> list[_Groups]:
    """Cut one place across its longer side; the strip in the middle is in neither half."""
    places = np.array([(patch.row, patch.column) for patch in patches])
    axis = int(np.argmax(np.ptp(places, axis=0)))
    along = places[:, axis]
    if np.ptp(along) + 1 < LEAST_LENGTH:
        raise TeachingError(
            "Only one place is painted, and it is too small to learn from one part of it and be judged by another. "
            "Paint in a second place, at least one patch away from the first."
        )
    middle = int(np.clip(round(float(np.median(along))), along.min() + 1, along.max() - 1))
    halves = np.flatnonzero(along < middle).tolist(), np.flatnonzero(along > middle).tolist()
    return [{name: half} for name, half in zip(("first half", "second half"), halves, strict=True)]


def _told_of_halves() -> str:
    return (
        "Only one place is painted: it was cut in two, with a strip between, and each half judged by a network that "
        "learnt from the other; another place, best on another slide, would say more"
    )


def _chosen(patches: Sequence[PaintedPatch], groups: _Groups, count: int, rng: np.random.Generator) -> list[str]:
    """Choose groups to keep aside; first those of slides that are not yet among them."""
    left = [list(groups)[place] for place in rng.permutation(len(groups))]
    slide_of = {name: patches[places[0]].fingerprint or patches[places[0]].slide for name, places in groups.items()}
    chosen: list[str] = []
    while len(chosen) < count:
        seen = {slide_of[name] for name in chosen}
        best = max(left, key=lambda name: slide_of[name] not in seen)
        left.remove(best)
        chosen.append(best)
    return chosen


def _count(patches: int) -> str:
    return "one patch" if patches == 1 else f"{patches} patches"

"""Which examples a model learns from and which it is measured on: never the same, whole regions where possible."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.store.regions import HOLD_OUT
from napari_nucleiseg.core.teaching.collect import LOOSE, with_role
from napari_nucleiseg.core.teaching.examples import Example, by_role, count_nuclei, within

# Of this many regions some are kept aside; fewer are too dear for that, and each is learnt from in turn.
ENOUGH_REGIONS = 5
HELD_SHARE = 0.25
# So many pieces say enough; measuring does not take longer the more was annotated.
MOST_HELD = 8


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """One network to be taught.

    Parameters
    ----------
    name : str
        For people.
    teach, held : tuple of Example
        What it learns from, and what it is measured on; nothing held out means that others say when to stop.
    """

    name: str
    teach: tuple[Example, ...]
    held: tuple[Example, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Division:
    """All runs of a fine-tune; the last one gives the new model.

    Parameters
    ----------
    runs : tuple of Run
        One where something is held out; else one for each part and a last one with everything.
    told : str
        How the new model is judged, a sentence.
    """

    runs: tuple[Run, ...]
    told: str

    @property
    def held(self) -> tuple[Example, ...]:
        """All that is measured on, in the order of the runs."""
        return tuple(example for run in self.runs for example in run.held)


def divide(examples: Sequence[Example], folds: int, seed: int) -> Division:
    """Divide examples into runs; no run learns from a pixel or a nucleus of what it is measured on.

    Marked regions are held out as they are. Where none is marked, of five regions and more about a quarter is kept
    aside, so that each slide and class is among them as far as possible; of fewer each part is measured by a network
    that did not see it (cross-validation), and the new model learns from all. A single region is cut into parts.

    Parameters
    ----------
    examples : sequence of Example
        What people corrected.
    folds : int
        Parts of the cross-validation.
    seed : int
        Of the choice.
    """
    division = _divided(examples, folds, seed)
    runs = (replace(run, teach=tuple(_without(run.held, one) for one in run.teach)) for run in division.runs)
    return replace(division, runs=tuple(runs))


def _divided(examples: Sequence[Example], folds: int, seed: int) -> Division:
    teach, held = by_role(examples)
    if held:
        return Division(
            (Run("with your regions", tuple(teach), _some(held, seed)),),
            f"Judged on {_regions(held)} that you held out ({count_nuclei(held)} nuclei).",
        )
    groups = _groups(teach)
    if not any(example.known.any() for example in teach):
        return Division((Run("with everything", tuple(teach), ()),), "There are no corrected nuclei to judge by.")
    if len(groups) >= ENOUGH_REGIONS:
        return _kept_aside(groups, teach, seed)
    if len(groups) > 1:
        parts = [groups[start :: min(folds, len(groups))] for start in range(min(folds, len(groups)))]
        told = f"Each of {len(groups)} regions was judged by a network that had not seen it, for none was held out."
        return _crossed(
            [[example for group in part for example in group] for part in parts], teach, _always(teach), told
        )
    told = (
        "There is one region only, so it was cut into parts, each judged by a network that had not seen it. Parts of "
        "one region are alike: hold out a second region to know more."
    )
    # Where there are no regions at all, the nuclei outside of regions are what is cut, and so not learnt from besides.
    cut = groups[0] if groups else [example for example in teach if example.known.any()]
    always = [example for example in _always(teach) if groups or not example.known.any()]
    return _crossed(_cut(cut, folds), teach, always, told)


def _without(held: Sequence[Example], example: Example) -> Example:
    """Return an example in which nothing is known of what others, which overlap it on its slide, are measured on."""
    shared = np.zeros(example.labels.shape, np.bool_)
    for other in held:
        # Parts of one picture of one region were cut apart already.
        is_part = other.key == example.key and other.box == example.box
        if other.key[0] == example.key[0] and not is_part and other.box.overlaps(example.box):
            shared |= _seen_from(example, other)
    if not shared.any():
        return example
    shared |= np.isin(example.labels, np.unique(example.labels[shared & (example.labels > 0)]))
    return within(example, ~shared)


def _seen_from(example: Example, other: Example) -> NDArray[np.bool_]:
    """Return the pixels of an example that lie in what is known of another one of the same slide."""
    rows, columns = (
        (np.arange(side) + 0.5) * length / side + start
        for side, length, start in zip(
            example.labels.shape, (example.box.height, example.box.width), (example.box.y, example.box.x), strict=True
        )
    )
    height, width = other.labels.shape
    ys = np.floor((rows - other.box.y) * height / other.box.height).astype(np.int64)
    xs = np.floor((columns - other.box.x) * width / other.box.width).astype(np.int64)
    ys_in, xs_in = (ys >= 0) & (ys < height), (xs >= 0) & (xs < width)
    seen = np.zeros(example.labels.shape, np.bool_)
    seen[np.ix_(ys_in, xs_in)] = other.known[np.ix_(ys[ys_in], xs[xs_in])]
    return seen


def _groups(examples: Iterable[Example]) -> list[list[Example]]:
    """Gather the pieces of each annotated region; what `_always` returns is never held out."""
    found: dict[tuple[str, int], list[Example]] = {}
    for example in examples:
        if example.region != LOOSE and example.known.any():
            found.setdefault(example.key, []).append(example)
    return list(found.values())


def _kept_aside(groups: list[list[Example]], teach: Sequence[Example], seed: int) -> Division:
    """Hold out about a quarter of the regions; first those that show a slide or class that is not yet among them."""
    rng = np.random.default_rng(seed)
    left = [groups[place] for place in rng.permutation(len(groups))]
    wanted = max(1, round(HELD_SHARE * len(groups)))
    held: list[list[Example]] = []
    while len(held) < wanted:
        seen = {kind for group in held for kind in _kinds(group)}
        best = max(left, key=lambda group: (len(_kinds(group) - seen), count_nuclei(group) > 0))
        left.remove(best)
        held.append(best)
    aside = {example.key for group in held for example in group}
    kept = tuple(with_role(example, HOLD_OUT) for group in held for example in group)
    names = ", ".join(sorted({group[0].region for group in held})[:4]) + (", …" if len(held) > 4 else "")
    told = f"Judged on {names} ({count_nuclei(kept)} nuclei), kept aside because you held out none."
    rest = tuple(example for example in teach if example.key not in aside or example.region == LOOSE)
    return Division((Run("with your regions", rest, _some(kept, seed)),), told)


def _some(held: Sequence[Example], seed: int) -> tuple[Example, ...]:
    """Return at most `MOST_HELD` examples, in their order."""
    if len(held) <= MOST_HELD:
        return tuple(held)
    chosen = np.random.default_rng(seed).choice(len(held), MOST_HELD, replace=False)
    return tuple(held[place] for place in np.sort(chosen))


def _kinds(group: Sequence[Example]) -> set[tuple[str, object]]:
    """Slides and classes that a region shows."""
    slides = {("slide", example.fingerprint or example.slide) for example in group}
    return slides | {("class", number) for example in group for number in example.classes}


def _always(examples: Iterable[Example]) -> list[Example]:
    """Return the nuclei outside of regions, and where only attention was painted: nothing to be measured on."""
    return [example for example in examples if example.region == LOOSE or not example.known.any()]


def _crossed(parts: list[list[Example]], teach: Sequence[Example], always: Sequence[Example], told: str) -> Division:
    """One run without each part, and a last one with everything; some is `always` learnt from."""
    runs = []
    for place, part in enumerate(parts):
        others = [example for other in parts if other is not part for example in other]
        keys = {example.key for example in part}
        others += [example for example in always if example.region == LOOSE or example.key not in keys]
        held = tuple(with_role(example, HOLD_OUT) for example in part)
        runs.append(Run(f"part {place + 1} of {len(parts)}", tuple(others), held))
    return Division((*runs, Run("with everything", tuple(teach), ())), told)


def _cut(group: Sequence[Example], folds: int) -> list[list[Example]]:
    """Cut one region into parts along its longer side; nuclei belong to the part that holds their centre."""
    parts: list[list[Example]] = [[] for _ in range(folds)]
    for example in group:
        axis = int(np.argmax(example.labels.shape))
        known = np.flatnonzero(example.known.any(axis=1 - axis))
        bounds = np.linspace(known[0], known[-1] + 1, folds + 1) if len(known) else np.zeros(folds + 1)
        of_pixel = np.clip(
            np.searchsorted(bounds, np.arange(example.labels.shape[axis]), side="right") - 1, 0, folds - 1
        )
        part_of = np.broadcast_to(of_pixel[:, None] if axis == 0 else of_pixel[None], example.labels.shape).copy()
        for nucleus in example.ids:
            inside = example.labels == nucleus
            part_of[inside] = np.bincount(part_of[inside]).argmax()
        for place, part in enumerate(parts):
            part.append(within(example, part_of == place))
    return parts


def _regions(examples: Sequence[Example]) -> str:
    count = len({example.key for example in examples})
    return "one region" if count == 1 else f"{count} regions"

"""What there is to teach a model with and what to draw next, in words for a panel."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from napari_nucleiseg.core.store.regions import HOLD_OUT, TEACH
from napari_nucleiseg.core.teaching.classroom import LEAST_TO_LEARN
from napari_nucleiseg.core.teaching.collect import LOOSE, Lesson
from napari_nucleiseg.core.teaching.config import FinetuneConfig
from napari_nucleiseg.core.teaching.division import divide
from napari_nucleiseg.core.teaching.examples import Example, by_role, count_nuclei
from napari_nucleiseg.core.teaching.verdict import LEAST_NUCLEI
from napari_nucleiseg.core.training.augment import lab_statistics

# What fits on two lines of the panel.
LONGEST = 120
# Distance of mean colours in L*a*b* (as 8 bits) from which two stains look different side by side.
OTHER_STAIN = 12.0
FEW_REGIONS_OF_CLASS = 2
_LONGEST_NAME = 20


class Count(NamedTuple):
    """Nuclei, and the annotated regions that they are in."""

    nuclei: int
    regions: int


@dataclass(frozen=True, slots=True)
class Advice:
    """What a lesson holds, and what it lacks.

    Parameters
    ----------
    ready : bool
        Whether there is enough to learn from and enough to judge a new model by.
    sentences : tuple of str
        For people, at most `LONGEST` characters each: first what there is, then what to do next, the most useful first.
    counts : mapping of str to Count
        By role: ``teach`` and ``hold out``.
    """

    ready: bool
    sentences: tuple[str, ...]
    counts: Mapping[str, Count]


def advise(lesson: Lesson, classes: Mapping[int, str]) -> Advice:
    """Say how much there is to learn from, what is missing, and what to draw next.

    Parameters
    ----------
    lesson : Lesson
        What the projects hold.
    classes : mapping of int to str
        Names of the classes of nuclei by their number; 0 is "no class" and needs no name.
    """
    teach, held = by_role(lesson.examples)
    counts = {TEACH: _count(teach), HOLD_OUT: _count(held)}
    settings = FinetuneConfig()
    judged = count_nuclei(divide(lesson.examples, settings.folds, settings.seed).held) if teach else counts[HOLD_OUT][0]
    painted = sum(example.attention is not None for example in teach)
    enough = counts[TEACH].nuclei >= LEAST_TO_LEARN or painted > 0
    ready = enough and judged >= LEAST_NUCLEI
    nothing = not counts[TEACH].nuclei and not counts[HOLD_OUT].nuclei
    said = [] if nothing and painted else [_overview(counts, ready=ready)]
    said += _painted(counts, painted) if painted else _to_learn(counts)
    said += _left_out(lesson)
    if enough and not nothing:
        said += _to_judge(counts, judged)
        said += _variety(lesson.examples)
        said += _classes(teach, classes)
        if held:
            said += _colours_held(teach, held)
    return Advice(ready, tuple(said), counts)


def _count(examples: Sequence[Example]) -> Count:
    regions = {example.key for example in examples if example.region != LOOSE and example.known.any()}
    return Count(count_nuclei(examples), len(regions))


def _overview(counts: Mapping[str, Count], *, ready: bool) -> str:
    teach, held = counts[TEACH], counts[HOLD_OUT]
    if not teach.nuclei and not held.nuclei:
        return "Nothing has been corrected for teaching yet."
    where = f" in {_many(teach.regions, 'region')}" if teach.regions else ""
    more = f", {_many(held.nuclei, 'nucleus')} in {_many(held.regions, 'region')} held out" if held.regions else ""
    return f"{'Ready to teach' if ready else 'So far'}: {_many(teach.nuclei, 'nucleus')}{where}{more}."


def _painted(counts: Mapping[str, Count], places: int) -> list[str]:
    """Say that attention was painted, and what it cannot do."""
    said = [f"Attention is painted in {_many(places, 'place')}: the model learns to look there, or not to."]
    if not counts[TEACH].nuclei and not counts[HOLD_OUT].nuclei:
        said.append(f"To judge a new model, correct nuclei in a region, too: {LEAST_NUCLEI} or more.")
    return said


def _to_learn(counts: Mapping[str, Count]) -> list[str]:
    """What to do where there is too little to learn from."""
    nuclei, (_, held_regions) = counts[TEACH].nuclei, counts[HOLD_OUT]
    if nuclei >= LEAST_TO_LEARN:
        return []
    if not nuclei and held_regions > 1:
        return ["All regions are held out, so there is nothing to learn from. Change one of them to “teach”."]
    if not nuclei:
        return ["Draw a region around 20 to 50 nuclei, correct the nuclei in it, and mark it as done."]
    return [
        f"At least {LEAST_TO_LEARN} nuclei are needed. Correct more, best in a place where the model is often wrong."
    ]


def _left_out(lesson: Lesson) -> list[str]:
    """Name the first region that is not used, and say how many others there are."""
    said = [_fitting(sentence) for sentence in lesson.left_out[:1]]
    more = len(lesson.left_out) - 1
    if more > 0:
        said.append(f"{_many(more, 'other region')} {'is' if more == 1 else 'are'} left out, too.")
    return said


def _to_judge(counts: Mapping[str, Count], judged: int) -> list[str]:
    """What to do so that a better model can be told from a worse one."""
    held, regions = counts[HOLD_OUT], counts[TEACH].regions
    if held.regions and judged < LEAST_NUCLEI:
        few = f"Only {_many(judged, 'nucleus')} held out"
        return [f"{few}: too few to judge by. Hold out one more region, or a larger one ({LEAST_NUCLEI} or more)."]
    if held.regions:
        return []
    if judged < LEAST_NUCLEI:
        return [f"Too few nuclei to judge a new model by. Correct one more region with {LEAST_NUCLEI} nuclei or more."]
    if regions > 1:
        return [
            "No region is held out, so your regions take turns as the test. Holding one out gives a clearer answer."
        ]
    return []


def _variety(examples: Sequence[Example]) -> list[str]:
    """What to do where all regions are alike."""
    keys = {example.key for example in examples if example.region != LOOSE}
    if not keys:
        return [
            "Your nuclei lie outside of regions. In a region the model also learns what is not a nucleus: draw one."
        ]
    if len(keys) == 1:
        return ["All nuclei come from one region. A second one from another part of the slide will help most."]
    slides = {example.fingerprint or example.slide for example in examples}
    if len(slides) == 1:
        return ["All regions are of one slide. To use the model on others too, correct a region there as well."]
    if _spread(_colours(examples)) < OTHER_STAIN:
        return ["Your slides are all stained alike. If you have a paler or darker one, correct a region there as well."]
    return []


def _colours(examples: Iterable[Example]) -> list[np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
    """Return the mean colour of tissue (L, a, b) of each slide."""
    found: dict[str, list[np.ndarray[tuple[int, ...], np.dtype[np.float32]]]] = {}
    for example in examples:
        found.setdefault(example.fingerprint or example.slide, []).append(lab_statistics(example.image)[0])
    return [np.mean(colours, axis=0) for colours in found.values()]


def _spread(colours: Sequence[np.ndarray[tuple[int, ...], np.dtype[np.float32]]]) -> float:
    """Return the largest distance between any two."""
    values = np.stack(colours)
    return float(np.linalg.norm(values[:, None] - values[None], axis=-1).max())


def _colours_held(teach: Sequence[Example], held: Sequence[Example]) -> list[str]:
    """Say where the model is judged on a stain that it is not taught."""
    taught = np.stack(_colours(teach))
    apart = [float(np.linalg.norm(taught - colour, axis=-1).min()) for colour in _colours(held)]
    if max(apart) < OTHER_STAIN:
        return []
    return ["A region that you hold out is stained unlike all that you teach. Teach a region that looks like it, too."]


def _classes(teach: Sequence[Example], classes: Mapping[int, str]) -> list[str]:
    """Name the classes that regions show rarely or never; nothing where nobody uses classes."""
    regions: dict[int, set[tuple[str, int]]] = {number: set() for number in classes if number}
    for example in teach:
        for number in example.classes:
            if number in regions:
                regions[number].add(example.key)
    if not any(regions.values()):
        return []
    never = [classes[number] for number, seen in regions.items() if not seen]
    rare = [classes[number] for number, seen in regions.items() if 0 < len(seen) < FEW_REGIONS_OF_CLASS]
    said = []
    if rare:
        said.append(f"In one region only: {_list(rare)}. Correct another region that shows them.")
    if never:
        said.append(f"Not shown yet: {_list(never)}. Add a region with them if your slides have any.")
    return said


def _list(names: Sequence[str]) -> str:
    """Return names that fit into a sentence: two at most, and how many more."""
    shown = ", ".join(_short(name, _LONGEST_NAME) for name in names[:2])
    return shown if len(names) <= 2 else f"{shown} and {len(names) - 2} more"


def _fitting(sentence: str) -> str:
    """Return a text that fits: as it is, its first sentence, or what goes into the space."""
    if len(sentence) <= LONGEST:
        return sentence
    first = sentence.partition(". ")[0].rstrip(".") + "."
    return _short(first, LONGEST)


def _short(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 1].rstrip()}…"


def _many(number: int, noun: str) -> str:
    plural = {"nucleus": "nuclei"}.get(noun, f"{noun}s")
    return f"{number:,} {noun if number == 1 else plural}"

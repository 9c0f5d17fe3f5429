"""What is known of slides, from a CSV: the class of each, or when something happened; joined with their features."""

from __future__ import annotations

import csv
import io
import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from napari_nucleiseg.core.errors import DataError
from napari_nucleiseg.core.models.aggregators import CLASSES, SURVIVAL
from napari_nucleiseg.core.training.cohort.bags import ENDING, BagCard, name_of_bag, read_bag_card, read_bag_width

SLIDE, LABEL, TIME, EVENT, PATIENT = "slide", "label", "time", "event", "patient"
NEEDED = {CLASSES: (SLIDE, LABEL), SURVIVAL: (SLIDE, TIME, EVENT)}
_HAPPENED = {"1": True, "1.0": True, "true": True, "yes": True, "0": False, "0.0": False, "false": False, "no": False}
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Case:
    """A slide and what is known of it.

    Parameters
    ----------
    slide : str
        Name as the labels have it.
    patient : str
        Whose it is; the slide's own name where it is not said.
    label : str
        Class; empty for survival.
    time : float
        Until the event, or until last known without it, in whatever unit; NaN for classes.
    event : bool
        Whether it happened.
    path : Path or None
        Its file of features.
    """

    slide: str
    patient: str
    label: str = ""
    time: float = math.nan
    event: bool = False
    path: Path | None = None


@dataclass(frozen=True, slots=True)
class Cohort:
    """Slides that are both labelled and described.

    Parameters
    ----------
    task : {"classes", "survival"}
        What they are labelled for.
    cases : tuple of Case
        Each with its file of features, in the order of the files.
    card : BagCard
        Of the first file: all are of the same encoders.
    notes : tuple of str
        What was left out, as sentences.
    """

    task: str
    cases: tuple[Case, ...]
    card: BagCard
    notes: tuple[str, ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, numbers in their order, else by the alphabet."""
        names = {case.label for case in self.cases} - {""}
        whole = all(name.isdecimal() for name in names)
        return tuple(sorted(names, key=lambda name: (int(name), name) if whole else (0, name)))

    @property
    def paths(self) -> tuple[Path, ...]:
        """Files of features."""
        return tuple(case.path for case in self.cases if case.path is not None)


def read_labels(path: str | os.PathLike[str], task: str) -> tuple[Case, ...]:
    """Read the labels of slides.

    Parameters
    ----------
    path : path
        CSV with a row of names first, parted by commas, semicolons or tabs: ``slide`` and ``label`` for classes,
        ``slide``, ``time`` and ``event`` (1 or 0) for survival; ``patient`` where patients have several slides.
        Other columns are passed over, and so are slides whose label is empty.
    task : {"classes", "survival"}
        What to read.

    Raises
    ------
    DataError
        If it cannot be read, a column is missing, a slide is there twice, or a time or event is no such thing.
    """
    rows = _rows(Path(path), task)
    cases = [_case(row, number, Path(path), task) for number, row in rows]
    found = tuple(case for case in cases if case is not None)
    counts = Counter(case.slide for case in found)
    if twice := [slide for slide, count in counts.items() if count > 1]:
        raise DataError(f"{path} has {_listed(twice)} more than once; keep one row a slide")
    if not found:
        raise DataError(f"{path} labels no slide; give each slide a row with {', '.join(NEEDED[task])}")
    return found


def _rows(path: Path, task: str) -> list[tuple[int, Mapping[str, str]]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the labels {path} cannot be read as a CSV in UTF-8: {error}") from error
    first = text.partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    reader = csv.DictReader(io.StringIO(text), delimiter=delimiter, restval="")
    names = [(name or "").strip().lower() for name in reader.fieldnames or ()]
    if missing := [name for name in NEEDED[task] if name not in names]:
        raise DataError(
            f"{path} has no column {missing[0]}; the task {task} needs the columns {', '.join(NEEDED[task])} and may "
            f"have {PATIENT}, its first row has {', '.join(filter(None, names)) or 'none'}"
        )
    reader.fieldnames = names
    try:
        return [
            (reader.line_num, {key: (row[key] or "").strip() for key in names if isinstance(row[key], str)})
            for row in reader
        ]
    except csv.Error as error:
        raise DataError(f"{path} is no CSV from line {reader.line_num} on: {error}") from error


def _case(row: Mapping[str, str], line: int, path: Path, task: str) -> Case | None:
    """Return what a row says; None where it says nothing."""
    where = f"line {line} of {path}"
    slide, told = row.get(SLIDE, ""), [row.get(name, "") for name in NEEDED[task][1:]]
    if not slide or not any(told):
        return None
    patient = row.get(PATIENT, "") or slide
    if task == CLASSES:
        return Case(slide, patient, told[0])
    try:
        time = float(told[0])
    except ValueError:
        time = math.nan
    if not (math.isfinite(time) and time >= 0):
        raise DataError(f"{where}: the time of {slide} is {told[0] or 'empty'}; it must be a number of at least 0")
    if told[1].lower() not in _HAPPENED:
        raise DataError(
            f"{where}: the event of {slide} is {told[1] or 'empty'}; it must be 1 where it happened and 0 where it "
            "was not seen"
        )
    return Case(slide, patient, time=time, event=_HAPPENED[told[1].lower()])


def load_cohort(
    features: Sequence[Path], labels: str | os.PathLike[str], task: str, classes: Sequence[str] = ()
) -> Cohort:
    """Join files of features with labels.

    Parameters
    ----------
    features : sequence of Path
        See `bags.find_bags`.
    labels : path
        See `read_labels`; a slide goes by the name of its file, with or without ending.
    task : {"classes", "survival"}
        What the labels are for.
    classes : sequence of str
        Only these; default all. Nothing for survival.

    Raises
    ------
    DataError
        If labels or features cannot be read, they have no slide in common, no slide is of a class that is wanted, all
        are of one class or nothing happened to any, a label goes by a name that several slides have, or the features
        are of different encoders or widths.
    """
    cards = {path: read_bag_card(path) for path in features}
    cases = read_labels(labels, task)
    if classes and task == CLASSES:
        cases = _of_classes(cases, classes, labels)
    by_name = _by_name(cards, labels, cases)
    joined = [
        Case(case.slide, case.patient, case.label, case.time, case.event, by_name[case.slide])
        for case in cases
        if case.slide in by_name
    ]
    if not joined:
        raise DataError(
            f"{labels} labels none of the slides that have features: it has {_listed([case.slide for case in cases])}, "
            f"the features are of {_listed([card.slide for card in cards.values()])}. Write the names of the files"
        )
    if twice := [path for path, count in Counter(case.path for case in joined).items() if count > 1]:
        raise DataError(f"{labels} labels {cards[twice[0]].slide} twice, by two names; keep one row a slide")  # type: ignore[index]
    joined.sort(key=lambda case: str(case.path))
    used = [cards[case.path] for case in joined if case.path is not None]
    cohort = Cohort(
        task, tuple(joined), _common(used), _left_out(cases, cards, {case.path for case in joined}, by_name)
    )
    _must_differ(cohort)
    _must_be_as_wide(cohort.paths)
    return cohort


def _of_classes(cases: Sequence[Case], classes: Sequence[str], labels: str | os.PathLike[str]) -> tuple[Case, ...]:
    there = sorted({case.label for case in cases})
    if unknown := [name for name in classes if name not in there]:
        raise DataError(f"{labels} has no slide of the class {unknown[0]}; choose from {', '.join(there)}")
    return tuple(case for case in cases if case.label in classes)


def _by_name(cards: Mapping[Path, BagCard], labels: str | os.PathLike[str], cases: Sequence[Case]) -> dict[str, Path]:
    """Return files of features by the names that labels may go by.

    Raises
    ------
    DataError
        If a label goes by a name that several slides have.
    """
    paths: dict[str, list[Path]] = {}
    for path, card in cards.items():
        for name in dict.fromkeys((card.slide, name_of_bag(path))):
            paths.setdefault(name, []).append(path)
    for case in cases:
        # Files that say the same of themselves are copies: any of them will do.
        if len({cards[path] for path in paths.get(case.slide, ())}) > 1:
            own = [name_of_bag(path) for path in paths[case.slide]]
            rename = f"rename {case.slide}{ENDING} and " if case.slide in own else ""
            raise DataError(
                f"{labels} has {case.slide}, but {len(own)} slides with features are called so; {rename}write the "
                f"names of their files of features instead ({_listed(own)})"
            )
    return {name: found[-1] for name, found in paths.items()}


def _left_out(
    cases: Sequence[Case], cards: Mapping[Path, BagCard], used: set[Path | None], by_name: Mapping[str, Path]
) -> tuple[str, ...]:
    notes = []
    if unknown := [case.slide for case in cases if case.slide not in by_name]:
        notes.append(
            f"Labelled slides without features are left out ({len(unknown)}): {_listed(unknown)}. Make them with "
            "`napari-nucleiseg features`."
        )
    if missing := [card.slide for path, card in cards.items() if path not in used]:
        notes.append(f"Slides with features but without a label are left out ({len(missing)}): {_listed(missing)}.")
    return tuple(notes)


def _common(cards: Sequence[BagCard]) -> BagCard:
    """Return the first card if all are of the same encoders."""
    first = cards[0]
    for card in cards:
        if card.encoders != first.encoders:
            raise DataError(
                f"the features of {first.slide} are of {' and '.join(first.encoders)}, those of {card.slide} of "
                f"{' and '.join(card.encoders)}; run `napari-nucleiseg features` on all slides with the same encoders"
            )
    return first


def _must_differ(cohort: Cohort) -> None:
    if cohort.task == CLASSES and len(cohort.classes) < 2:
        raise DataError(
            f"all {len(cohort.cases)} slides are of the class {cohort.classes[0]}; label slides of at least two classes"
        )
    if cohort.task == SURVIVAL and not any(case.event for case in cohort.cases):
        raise DataError(f"none of the {len(cohort.cases)} slides has an event; label some with an event of 1")


def _must_be_as_wide(paths: Sequence[Path]) -> None:
    first, width = paths[0], read_bag_width(paths[0])
    for path in paths[1:]:
        if (other := read_bag_width(path)) != width:
            raise DataError(
                f"{first} has {width} features a place, {path} has {other}; run `napari-nucleiseg features` on all "
                "slides with the same encoders"
            )


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more

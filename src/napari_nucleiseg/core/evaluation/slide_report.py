"""What came of comparing a slide's nuclei with a reference: scores by region and class, and each nucleus' mistake."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.evaluation.folders import write_document
from napari_nucleiseg.core.evaluation.kinds import Kind
from napari_nucleiseg.core.evaluation.scores import ImageScores

# What nuclei are by a reference, in the order in which it is told, and of which side it is counted.
VERDICTS: Mapping[Kind, str] = {
    Kind.SAME: "correct",
    Kind.MISSED: "missed",
    Kind.ADDED: "added",
    Kind.SPLIT: "split",
    Kind.MERGED: "merged",
}


@dataclass(frozen=True, slots=True)
class Verdicts:
    """How many nuclei are right, and how many mistakes of each kind there are.

    Parameters
    ----------
    correct : int
        Nuclei of the reference that were found as they are.
    missed : int
        Nuclei of the reference that were not found.
    added : int
        Nuclei that were found where the reference has none.
    split : int
        Nuclei of the reference that were found as several.
    merged : int
        Nuclei that were found where the reference has several.
    """

    correct: int
    missed: int
    added: int
    split: int
    merged: int

    @classmethod
    def count(cls, truth: NDArray[np.uint8], pred: NDArray[np.uint8]) -> Verdicts:
        """Count codes (`Kind`) of `kinds.judged`: ``(n,)`` of the reference and ``(m,)`` of what was found."""
        side = {kind: pred if kind in {Kind.ADDED, Kind.MERGED} else truth for kind in VERDICTS}
        return cls(**{word: int(np.count_nonzero(side[kind] == kind)) for kind, word in VERDICTS.items()})

    def as_dict(self) -> dict[str, int]:
        """Return the counts by name."""
        return {word: getattr(self, word) for word in VERDICTS.values()}


@dataclass(frozen=True, slots=True)
class PartScores:
    """How well the nuclei of one part of the slide agree with the reference.

    Parameters
    ----------
    name : str
        Of the region; of all of them "total".
    role : str
        Of the region; empty for the total.
    scores : ImageScores
        All scores; distances in level-0 pixels.
    verdicts : Verdicts
        What the mistakes are.
    """

    name: str
    role: str
    scores: ImageScores
    verdicts: Verdicts

    def as_dict(self) -> dict[str, Any]:
        """Return all of it for a JSON document."""
        return {"name": self.name, "role": self.role, **self.scores.as_dict(), **self.verdicts.as_dict()}


@dataclass(frozen=True, slots=True)
class ClassScores:
    """How well the nuclei of one class of the reference are found.

    Parameters
    ----------
    name : str
        Of the class.
    scores : ImageScores
        Nuclei of this class on both sides; see `SlideReport.are_classes_compared`.
    found : float or None
        Share of the reference's nuclei of this class that are found with an IoU above 0.5, whatever class they were
        given, 0..1; None without any.
    """

    name: str
    scores: ImageScores
    found: float | None

    def as_dict(self) -> dict[str, Any]:
        """Return all of it for a JSON document."""
        return {"name": self.name, "found": self.found, **self.scores.as_dict()}


@dataclass(frozen=True, slots=True)
class Confusion:
    """Which class nuclei have that agree with one of the reference by more than half (IoU).

    Parameters
    ----------
    reference, predicted : tuple of str
        Names of the classes of either side, the last one of both that of nuclei without any.
    counts : tuple of tuple of int
        A row for each class of the reference.
    """

    reference: tuple[str, ...]
    predicted: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]

    @property
    def agreement(self) -> float | None:
        """Share of the pairs whose nucleus has a class in the reference that were given the same, 0..1; None: none."""
        total = sum(sum(row) for row in self.counts[:-1])
        columns = {name.casefold(): place for place, name in enumerate(self.predicted[:-1])}
        same = sum(
            row[columns[name.casefold()]]
            for name, row in zip(self.reference[:-1], self.counts, strict=False)
            if name.casefold() in columns
        )
        return same / total if total else None

    def as_dict(self) -> dict[str, Any]:
        """Return all of it for a JSON document."""
        return {
            "agreement": self.agreement,
            "counts": {
                name: dict(zip(self.predicted, row, strict=True))
                for name, row in zip(self.reference, self.counts, strict=True)
            },
        }


@dataclass(frozen=True, slots=True, eq=False)
class JudgedNuclei:
    """What each nucleus of one side is.

    Parameters
    ----------
    ids : ndarray of int64, shape (n,)
        Ascending, as in the label image of that side.
    kinds : ndarray of uint8, shape (n,)
        Codes (`Kind`): `Kind.SAME` is right.
    """

    ids: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    kinds: NDArray[np.uint8] = field(default_factory=lambda: np.zeros(0, np.uint8))

    def of(self, *kinds: Kind) -> NDArray[np.int64]:
        """Return the ids of some kinds, ascending."""
        return self.ids[np.isin(self.kinds, np.array(kinds, np.uint8))]


@dataclass(frozen=True, slots=True)
class SlideReport:
    """A slide's nuclei, scored against a reference.

    Parameters
    ----------
    slide, reference : str
        Names.
    total : PartScores
        All that was evaluated; a nucleus that lies in several regions counts once.
    regions : tuple of PartScores
        Each region; empty if all of the slide was evaluated.
    classes : tuple of ClassScores
        Each class of the reference; empty if it has none.
    confusion : Confusion or None
        Of classes; None if the reference has none.
    are_classes_compared : bool
        Whether nuclei that were found have classes, so that only those of the same class count for one. Else a nucleus
        that was found counts for the class of the nucleus of the reference that it shares most pixels with.
    notes : tuple of str
        What a person should know of the reference, each a sentence.
    truth, pred : JudgedNuclei
        Each nucleus that was evaluated, of the reference and of what was found.
    """

    slide: str
    reference: str
    total: PartScores
    regions: tuple[PartScores, ...] = ()
    classes: tuple[ClassScores, ...] = ()
    confusion: Confusion | None = None
    are_classes_compared: bool = False
    notes: tuple[str, ...] = ()
    truth: JudgedNuclei = field(default_factory=JudgedNuclei, repr=False, compare=False)
    pred: JudgedNuclei = field(default_factory=JudgedNuclei, repr=False, compare=False)

    def as_dict(self) -> dict[str, Any]:
        """Return the report as plain dicts and lists, fit for JSON; single nuclei are left out."""
        return {
            "slide": self.slide,
            "reference": self.reference,
            "total": self.total.as_dict(),
            "regions": [region.as_dict() for region in self.regions],
            "classes": [found.as_dict() for found in self.classes],
            "are_classes_compared": self.are_classes_compared,
            "confusion": None if self.confusion is None else self.confusion.as_dict(),
            "notes": list(self.notes),
        }

    def write_json(self, path: str | os.PathLike[str]) -> None:
        """Write `as_dict` to a file.

        Raises
        ------
        DataError
            If the file cannot be written.
        """
        write_document(self.as_dict(), path)

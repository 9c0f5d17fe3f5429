"""What came of an import: how much was taken, and what was not and why, as sentences."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

# Called with what is under way, parts done and parts in all.
ImportProgress = Callable[[str, int, int], None]

# Why something is left out; {n} is how many, {s} the plural.
REASONS: Mapping[str, str] = {
    "not_an_object": "{n} entr{ies} of the list are no features",
    "no_geometry": "{n} feature{s} without an outline",
    "points": "{n} point{s} or line{s}: a nucleus needs an outline",
    "geometry": "{n} feature{s} with a geometry that is neither Polygon nor MultiPolygon",
    "coordinates": "{n} feature{s} with coordinates that are no finite numbers",
    "outside": "{n} outline{s} beside the slide",
    "empty": "{n} outline{s} without a pixel inside",
    "too_large": "{n} outline{s} too large for a nucleus",
    "too_complicated": "{n} outline{s} that wind to and fro too often",
    "object_type": "{n} object{s} of a kind that is neither nucleus nor region (QuPath tiles, TMA cores)",
    "there_already": "{n} nucle{i} lie for more than half on others; choose overlap 'replace' to take them instead",
    "covered": "{n} nucle{i} lie wholly under others of the same file",
}


def no_import_progress(_stage: str, _done: int, _total: int) -> None:
    """Ignore the progress of an import."""


@dataclass(slots=True)
class ImportReport:
    """What came of an import; counts up while it goes on.

    Parameters
    ----------
    file : str
        What was read.
    nuclei, regions : int
        How many nuclei and annotated regions the project gained or had changed.
    ids_kept : int
        How many of the nuclei have the id that the file gives them; the others have new ones.
    overlapped : int
        How many nuclei met pixels of others, whether they took them or not.
    replaced : int
        How many nuclei that were there before had to go.
    clipped : int
        How many outlines reach over the rim of the slide; what is inside was taken.
    new_classes : tuple of str
        Names of classes that the project did not know.
    left_out : dict of str to int
        How many were not taken, by reason; see `REASONS` and `leave_out`.
    notes : tuple of str
        Further sentences.
    step : int or None
        Of the history, to undo the import; None if nothing was taken.
    """

    file: str
    nuclei: int = 0
    regions: int = 0
    ids_kept: int = 0
    overlapped: int = 0
    replaced: int = 0
    clipped: int = 0
    new_classes: tuple[str, ...] = ()
    left_out: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    step: int | None = None

    def leave_out(self, reason: str, number: int = 1) -> None:
        """Count what is not taken."""
        if number:
            self.left_out[reason] = self.left_out.get(reason, 0) + number

    def note(self, sentence: str) -> None:
        """Say something more."""
        self.notes += (sentence,)

    @property
    def sentences(self) -> tuple[str, ...]:
        """All of it for people, the most important first."""
        taken = f"{_counted(self.nuclei, 'nucleus', 'nuclei')} taken"
        if self.regions:
            taken += f" and {_counted(self.regions, 'annotated region', 'annotated regions')}"
        said = [f"{taken} from {self.file}."]
        if self.nuclei:
            said.append(f"{self.ids_kept:,} of them kept the id that the file gives, the others have a new one.")
        if self.overlapped:
            said.append(f"{_counted(self.overlapped, 'nucleus', 'nuclei')} met pixels of others.")
        if self.replaced:
            said.append(f"{_counted(self.replaced, 'nucleus that was', 'nuclei that were')} there gave way.")
        if self.clipped:
            said.append(f"{_counted(self.clipped, 'outline', 'outlines')} cut at the rim of the slide.")
        if self.new_classes:
            said.append(f"New classes: {', '.join(self.new_classes)}.")
        said.extend(f"Left out: {_why(reason, number)}." for reason, number in self.left_out.items())
        return (*said, *self.notes)

    def as_dict(self) -> dict[str, Any]:
        """Return this for a JSON document."""
        return {**asdict(self), "sentences": list(self.sentences)}


def _counted(number: int, one: str, many: str) -> str:
    return f"{number:,} {one if number == 1 else many}"


def _why(reason: str, number: int) -> str:
    many = number != 1
    return REASONS[reason].format(n=f"{number:,}", s="s" * many, ies="ies" if many else "y", i="i" if many else "us")

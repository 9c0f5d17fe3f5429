"""Nuclei that were scored by words get classes: one step of the history, after those that make new classes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_nucleiseg.core.store.classes import NucleusClass, put_classes, read_classes

if TYPE_CHECKING:
    from napari_nucleiseg.core.store.editor import Changed
    from napari_nucleiseg.core.store.project import Project

NEW_CLASS, NO_CLASS = -1, 0


@dataclass(frozen=True, slots=True)
class Taken:
    """Nuclei that get a class.

    Parameters
    ----------
    name, colour : str
        Of the class, if it is a new one.
    number : int
        Of a class that there is; `NEW_CLASS` for one of that name, which is made if there is none.
    ids : tuple of int
        The nuclei.
    """

    name: str
    colour: str
    number: int
    ids: tuple[int, ...]


@dataclass(slots=True)
class Told:
    """What became of it: how many nuclei have another class now, and how many classes are new."""

    nuclei: int = 0
    classes: int = 0


def accept(project: Project, taken: Sequence[Taken], told: Told) -> Iterator[Changed | None]:
    """Give classes to nuclei; those of all classes together are one step.

    Parameters
    ----------
    project : Project
        Open for writing.
    taken : sequence of Taken
        Which nuclei, which classes.
    told : Told
        Is told what became of it.

    Yields
    ------
    Changed or None
        What changed, part by part.

    Raises
    ------
    StoreError
        If it cannot be written.
    """
    known = list(read_classes(project.ledger.reader))
    before = len(known)
    numbers = []
    for one in taken:
        same = next((entry.number for entry in known if entry.name.casefold() == one.name.casefold()), 0)
        if one.number == NEW_CLASS and not same:
            same = next(number for number in range(1, len(known) + 2) if number not in {e.number for e in known})
            known.append(NucleusClass(same, one.name, one.colour))
        numbers.append(same if one.number == NEW_CLASS else one.number)
    if len(known) > before:
        told.classes = len(known) - before
        yield from put_classes(project, known)
    step = None
    for one, number in zip(taken, numbers, strict=True):
        changed = project.editor.classify(one.ids, number, step=step)
        if changed is not None:
            step, told.nuclei = changed.step, told.nuclei + len(changed.ids)
        yield changed

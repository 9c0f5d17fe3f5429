"""Accepted proposals become nuclei, or get a class: one step of the history."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.store.retouch import Attributes

if TYPE_CHECKING:
    from napari_nucleiseg.core.store.editor import Changed
    from napari_nucleiseg.core.store.project import Project
    from napari_nucleiseg.viewer.like_candidates import Candidates

KIND = "like"


@dataclass(slots=True)
class Accepted:
    """What became of proposals that were accepted.

    Parameters
    ----------
    new : set of int
        Ids of nuclei that were made.
    classified : int
        Nuclei that were there before and were given the class.
    hidden : int
        Proposals that were left out, because other nuclei lie there by now.
    """

    new: set[int]
    classified: int = 0
    hidden: int = 0


def accept(
    project: Project, candidates: Candidates, numbers: Collection[int], class_number: int, told: Accepted
) -> Iterator[Changed | None]:
    """Make nuclei of proposals that are none yet, and give all of them a class; all parts are one step.

    Parameters
    ----------
    project : Project
        Open for writing.
    candidates : Candidates
        All that could be proposed.
    numbers : collection of int
        Which of them are accepted.
    class_number : int
        0 gives no class to new nuclei, and changes none of the others.
    told : Accepted
        Is told what became of them.

    Yields
    ------
    Changed or None
        What changed, part by part.

    Raises
    ------
    StoreError
        If it cannot be written.
    """
    chosen = np.array(sorted(numbers), np.intp)
    ids = candidates.ids[chosen]
    fresh, there = chosen[ids == 0], ids[ids > 0].tolist()
    step = None
    if len(fresh):
        # Held from reading to writing: a model may be at work beside this.
        with project.changing():
            changed = _make(project, candidates, fresh, class_number, told)
        step = None if changed is None else changed.step
        yield changed
    if there and class_number:
        changed = project.editor.classify(there, class_number, step=step)
        told.classified = 0 if changed is None else len(changed.ids)
        yield changed


def _make(
    project: Project, candidates: Candidates, fresh: NDArray[np.intp], class_number: int, told: Accepted
) -> Changed | None:
    ys, xs = np.nonzero(np.isin(candidates.labels, fresh))
    box = Region.from_bounds(int(ys.min()), int(xs.min()), int(ys.max()) + 1, int(xs.max()) + 1)
    place = box.translate(candidates.region.y, candidates.region.x)
    wanted = candidates.labels[box.slices]
    wanted = np.where(np.isin(wanted, fresh), wanted, 0)
    now = project.labels.read(place)
    free = np.where(now == 0, wanted, 0)
    most = len(candidates) + 1
    total, got = (np.bincount(values.ravel(), minlength=most) for values in (wanted, free))
    taken = (2 * got >= total) & (got > 0)
    taken[0] = False
    told.hidden = len(fresh) - int(np.count_nonzero(taken))
    new_ids = np.zeros(most, np.uint32)
    for number in np.flatnonzero(taken).tolist():
        new_ids[number] = project.editor.new_id()
        told.new.add(int(new_ids[number]))
    after = np.where(new_ids[free] > 0, new_ids[free], now)
    attributes = dict.fromkeys(told.new, Attributes(class_number))
    return project.editor.paint(place, after, kind=KIND, attributes=attributes)

"""How held-out patches fared from measurement to measurement, and which step is kept: nothing is chosen by itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from napari_nucleiseg.core.teaching.heads.learner import Tensors
from napari_nucleiseg.core.teaching.heads.measure import Numbers

# A smaller gain of the score is none.
LEAST_GAIN = 0.01


@dataclass(eq=False)
class HeadCurve:
    """Measurements of one run.

    Parameters
    ----------
    patience : int
        See `HeadTeachConfig`.
    held : tuple of int
        Places of the patches measured on.
    before : ndarray, shape (len(held), 5)
        What the former head does there, as of `measure.measured`.
    """

    patience: int
    held: tuple[int, ...]
    before: Numbers
    steps: list[int] = field(default_factory=lambda: [0])
    rows: list[Numbers] = field(default_factory=list)
    free: list[float] = field(default_factory=list)
    best: Tensors = field(default_factory=dict)
    best_place: int = 0

    def __post_init__(self) -> None:
        self.rows.append(self.before)
        self.free.append(float(self.before[:, 0].mean()))

    def note(self, step: int, rows: Numbers, free: float, weights: Tensors) -> None:
        """Note a measurement; the weights are kept if they are the best so far.

        Parameters
        ----------
        step : int
            Steps done.
        rows : ndarray, shape (len(held), 5)
            Of the weights.
        free : float
            Mean score that the weights would have had without a limit to how far they may move.
        weights : dict of str to Tensor
            Those that were taught.
        """
        self.steps.append(step)
        self.rows.append(rows)
        self.free.append(free)
        if rows[:, 0].mean() > self.rows[self.best_place][:, 0].mean():
            self.best, self.best_place = weights, len(self.steps) - 1

    @property
    def is_over(self) -> bool:
        """Whether so many measurements brought nothing better that the run may stop."""
        return len(self.steps) - 1 - self.best_place >= self.patience

    def at(self, place: int) -> Numbers:
        """Return the rows of a measurement; of one that was not made any more, those of the last."""
        return self.rows[min(place, len(self.rows) - 1)]


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """What is kept of all runs, and how good that is.

    Parameters
    ----------
    step : int
        Steps after which the new head is taken; 0 keeps the former one.
    before, after : ndarray, shape (patches, 5)
        Of the former and the new head on all held-out patches. The step that a patch is judged at is chosen by patches
        of other places, so that the choice does not flatter what is judged.
    strayed : bool
        Whether heads that looked better were not taken because the encoder would have moved too far.
    """

    step: int
    before: Numbers
    after: Numbers
    strayed: bool


def choose(curves: Sequence[HeadCurve], groups: Mapping[int, str]) -> Choice:
    """Choose the step to keep.

    Parameters
    ----------
    curves : sequence of HeadCurve
        Of the runs in which patches were held out.
    groups : mapping of int to str
        Group of each held-out patch by its place.
    """
    steps = max((curve.steps for curve in curves), key=len)
    rows = np.stack([np.concatenate([curve.at(place) for curve in curves]) for place in range(len(steps))])
    names = np.array([groups[place] for curve in curves for place in curve.held])
    scores = rows[:, :, 0]
    chosen = []
    for number, name in enumerate(names):
        others = names != name if (names != name).any() else np.arange(len(names)) != number
        chosen.append(int(np.argmax(scores[:, others].mean(axis=1))) if others.any() else len(steps) - 1)
    best = int(np.argmax(scores.mean(axis=1)))
    free = float(np.mean([max(curve.free) for curve in curves]))
    strayed = free > float(scores[best].mean()) + LEAST_GAIN
    return Choice(steps[best], rows[0], rows[chosen, np.arange(len(names))], strayed)

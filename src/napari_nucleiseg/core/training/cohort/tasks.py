"""What slides are judged for: the loss of one slide, how slides are drawn, what is predicted, how it is scored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from napari_nucleiseg.core.models.aggregators import CLASSES, SURVIVAL
from napari_nucleiseg.core.training.cohort.config import CohortConfig
from napari_nucleiseg.core.training.cohort.labels import Cohort
from napari_nucleiseg.core.training.cohort.losses import (
    class_loss,
    hazard_loss,
    interval_of,
    quantile_edges,
    risk_of,
    survival_curve,
)
from napari_nucleiseg.core.training.cohort.metrics import Pairs, class_pairs, survival_pairs


class Task(Protocol):
    """Targets of all slides of a cohort, and what to do with them."""

    @property
    def metric(self) -> str:
        """What it is scored by, for people."""

    @property
    def outputs(self) -> int:
        """Logits of an aggregator."""

    @property
    def taught(self) -> dict[str, Any]:
        """What a weight file must say of its outputs."""

    @property
    def strata(self) -> tuple[str, ...]:
        """Kind of each slide, which every fold must hold alike."""

    def fitted_to(self, learned: NDArray[np.int64]) -> Self:
        """Return the task as it looks to who knows only these slides."""

    def order(self, learned: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
        """Return the slides of an epoch, as many as there are to learn from."""

    def loss(self, logits: Tensor, place: int) -> Tensor:
        """Return the loss of one slide."""

    def pairs(
        self, places: NDArray[np.int64], scores: NDArray[np.float64], folds: NDArray[np.int64] | None = None
    ) -> tuple[Pairs, ...]:
        """Return what to score with `metrics.score_of`; scores are rows of `scores_of` for these slides."""


@dataclass(frozen=True, slots=True, eq=False)
class ClassTask:
    """Which class each slide is of.

    Parameters
    ----------
    classes : tuple of str
        Names.
    labels : ndarray of int64, shape (n,)
        Class of each slide.
    balanced : bool
        Whether slides are drawn so that all classes come up alike (Chen et al. 2022).
    """

    classes: tuple[str, ...]
    labels: NDArray[np.int64]
    balanced: bool = True
    metric = "AUC"

    @property
    def outputs(self) -> int:
        """One a class."""
        return len(self.classes)

    @property
    def taught(self) -> dict[str, Any]:
        """Names of the classes."""
        return {"task": CLASSES, "classes": list(self.classes)}

    @property
    def strata(self) -> tuple[str, ...]:
        """The classes."""
        return tuple(f"the class {self.classes[label]}" for label in self.labels)

    def fitted_to(self, learned: NDArray[np.int64]) -> Self:  # noqa: ARG002 - classes are the same for all
        """Return the same task."""
        return self

    def order(self, learned: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
        """Draw slides with replacement, those of rare classes more often; or each once, if that is not wanted."""
        if not self.balanced:
            return rng.permutation(learned)
        own = self.labels[learned]
        weights = 1 / np.bincount(own, minlength=self.outputs)[own]
        return rng.choice(learned, size=len(learned), p=weights / weights.sum())

    def loss(self, logits: Tensor, place: int) -> Tensor:
        """Return the cross-entropy."""
        return class_loss(logits, int(self.labels[place]))

    def pairs(
        self, places: NDArray[np.int64], scores: NDArray[np.float64], folds: NDArray[np.int64] | None = None
    ) -> tuple[Pairs, ...]:
        """Return the pairs of each class against the rest."""
        return class_pairs(self.labels[places], scores, folds)


@dataclass(frozen=True, slots=True, eq=False)
class SurvivalTask:
    """When something happened to each slide's patient.

    Parameters
    ----------
    times : ndarray of float64, shape (n,)
        Until it happened, or until last known without it.
    events : ndarray of bool, shape (n,)
        Whether it happened.
    intervals : int
        Of time.
    edges : tuple of float
        Between intervals; known once it is fitted.
    """

    times: NDArray[np.float64]
    events: NDArray[np.bool_]
    intervals: int = 4
    edges: tuple[float, ...] = ()
    metric = "c-index"

    @property
    def outputs(self) -> int:
        """One an interval."""
        return self.intervals

    @property
    def taught(self) -> dict[str, Any]:
        """Times between intervals."""
        return {"task": SURVIVAL, "edges": list(self.edges)}

    @property
    def strata(self) -> tuple[str, ...]:
        """Whether it happened."""
        return tuple("an event" if event else "no event" for event in self.events)

    def fitted_to(self, learned: NDArray[np.int64]) -> Self:
        """Return the task with intervals that hold the same number of events of these slides.

        Raises
        ------
        DataError
            If they have too few.
        """
        return replace(self, edges=quantile_edges(self.times[learned], self.events[learned], self.intervals))

    def order(self, learned: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
        """Return each slide once, in a random order."""
        return rng.permutation(learned)

    def loss(self, logits: Tensor, place: int) -> Tensor:
        """Return the negative log likelihood of hazards."""
        return hazard_loss(logits, interval_of(self.times[place], self.edges), event=bool(self.events[place]))

    def pairs(
        self, places: NDArray[np.int64], scores: NDArray[np.float64], folds: NDArray[np.int64] | None = None
    ) -> tuple[Pairs, ...]:
        """Return the pairs of which is known who was first."""
        return survival_pairs(self.times[places], self.events[places], scores[:, -1], folds)


def task_of(cohort: Cohort, config: CohortConfig) -> ClassTask | SurvivalTask:
    """Return the task of a cohort."""
    if cohort.task == SURVIVAL:
        times = np.array([case.time for case in cohort.cases], np.float64)
        return SurvivalTask(times, np.array([case.event for case in cohort.cases], np.bool_), config.intervals)
    classes = cohort.classes
    labels = np.array([classes.index(case.label) for case in cohort.cases], np.int64)
    return ClassTask(classes, labels, config.balanced)


def scores_of(task: str, logits: Tensor) -> NDArray[np.float64]:
    """Return what logits ``(outputs,)`` of a slide mean, float64.

    Returns
    -------
    ndarray of float64
        For classes ``(classes,)``: probabilities. For survival ``(intervals + 1,)``: the probability of getting
        through each interval and all before, then the risk (larger is sooner).
    """
    logits = logits.detach().double().cpu()
    if task == CLASSES:
        return np.asarray(torch.softmax(logits, dim=0).numpy(), np.float64)
    return np.append(survival_curve(logits).numpy(), float(risk_of(logits)))


def score_names(task: str, classes: Sequence[str], edges: Sequence[float]) -> tuple[str, ...]:
    """Return what each number of `scores_of` is, as names of columns."""
    if task == CLASSES:
        return tuple(f"p_{name}" for name in classes)
    return (*(f"survival_to_{edge:g}" for edge in edges), "survival_beyond", "risk")

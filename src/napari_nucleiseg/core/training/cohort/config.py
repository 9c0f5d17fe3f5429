"""Every parameter of learning from labelled slides, declared once."""

from __future__ import annotations

import math
from dataclasses import dataclass

from napari_nucleiseg.core.models.aggregators import CLASSES, TASKS, aggregator_names
from napari_nucleiseg.core.training.fields import ANY, settings_problem

# Published for cohorts of some hundred patients. Of forty it would make one step an epoch, and nothing would be learnt.
_SURVIVORS_A_STEP, _STEPS_AN_EPOCH = 32, 10
_RANGES = {
    "folds": (2, math.inf),
    "epochs": (1, math.inf),
    "learning_rate": ANY,
    "weight_decay": ANY,
    "dropout": (0.0, 0.9),
    "accumulate": ANY,
    "intervals": (2, math.inf),
    "bootstrap": (10, math.inf),
    "seed": (0, 2**31 - 1),
}


@dataclass(frozen=True, slots=True)
class CohortConfig:
    """One comparison of aggregators on the same folds; the defaults are those of Chen et al. (CVPR 2022).

    Parameters
    ----------
    out : str
        Folder for the resulting weights, the table and what was predicted of slides held out.
    task : str
        What slides are labelled for: classes (a treatment's response is one, too) or survival.
    aggregators : tuple of str
        Which to train; default all.
    folds : int
        Parts that the patients are dealt into, each judged by networks that learnt from the others.
    epochs : int
        How often each slide is learned from.
    learning_rate, weight_decay : float
        Of Adam.
    dropout : float
        Share of activations left out while training.
    accumulate : int
        Slides whose gradients make one step; 0 takes 1 for classes and 32 for survival, or so many that an epoch has
        ten steps where it has fewer than 320 slides.
    balanced : bool
        Whether slides are drawn so that all classes come up alike.
    intervals : int
        Of time, for survival; each holds the same number of events.
    bootstrap : int
        Draws of patients for the intervals of scores.
    seed : int
        Of folds, weights, order and draws.
    device : str
        ``auto``, ``cpu``, ``cuda`` or ``mps``.
    """

    out: str = "cohort"
    task: str = CLASSES
    aggregators: tuple[str, ...] = ()
    folds: int = 5
    epochs: int = 20
    learning_rate: float = 2e-4
    weight_decay: float = 1e-5
    dropout: float = 0.25
    accumulate: int = 0
    balanced: bool = True
    intervals: int = 4
    bootstrap: int = 1000
    seed: int = 0
    device: str = "auto"

    @property
    def wanted(self) -> tuple[str, ...]:
        """Aggregators to train, in the order they were asked for."""
        return tuple(dict.fromkeys(self.aggregators)) or aggregator_names()

    def slides_a_step(self, slides: int) -> int:
        """Return how many of an epoch's slides make one step."""
        if self.accumulate:
            return self.accumulate
        return 1 if self.task == CLASSES else max(1, min(_SURVIVORS_A_STEP, slides // _STEPS_AN_EPOCH))

    def validation_error(self) -> str | None:
        """Return what is wrong as a sentence, or None."""
        if problem := settings_problem(self, _RANGES):
            return problem
        if not self.out:
            return "name a folder for what is learnt (out)"
        if self.task not in TASKS:
            return f"there is no task {self.task}; choose {' or '.join(TASKS)}"
        unknown = [name for name in self.aggregators if name not in aggregator_names()]
        if unknown:
            return f"there is no aggregator {unknown[0]}; choose from {', '.join(aggregator_names())}"
        return None

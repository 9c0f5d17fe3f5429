"""The curve on what is held out: the best weights so far, and whether to stop."""

from __future__ import annotations

from napari_nucleiseg.core.teaching.agreement import Agreement
from napari_nucleiseg.core.teaching.config import FinetuneConfig
from napari_nucleiseg.core.teaching.learner import Learner, Tensors


class Curve:
    """Follows one run.

    Parameters
    ----------
    config : FinetuneConfig
        How often it is measured, and how long it may stand still.
    limit : int
        Steps at most.

    Attributes
    ----------
    points : list of (int, float)
        Step and score of each measurement.
    best : dict of str to Tensor or None
        Weights of the best measurement.
    """

    def __init__(self, config: FinetuneConfig, limit: int) -> None:
        self.every, self.patience, self.limit = config.validate_every, config.patience, limit
        self.points: list[tuple[int, float]] = []
        self.best: Tensors | None = None

    def is_due(self, step: int) -> bool:
        """Whether to measure after `step`."""
        return step % self.every == 0 or step == self.limit

    def note(self, step: int, measured: Agreement | None, learner: Learner) -> None:
        """Take a measurement, and the weights if they are the best so far."""
        if measured is None:
            return
        best = max((score for _, score in self.points), default=-1.0)
        self.points.append((step, measured.choice))
        if measured.choice > best:
            self.best = learner.averaged()

    def is_over(self, step: int) -> bool:
        """Whether the run ends: at its limit, or if nothing better came for long."""
        if step >= self.limit:
            return True
        scores = [score for _, score in self.points]
        return len(scores) > self.patience and max(scores[-self.patience :]) <= max(scores[: -self.patience])

    def best_step(self, last: int) -> int:
        """Return the step of the best measurement; `last` where none was made."""
        return max(self.points, key=lambda point: (point[1], -point[0]))[0] if self.points else last

    def best_weights(self, learner: Learner) -> Tensors:
        """Return the weights of the best measurement; the last ones where none was made."""
        return learner.averaged() if self.best is None else self.best

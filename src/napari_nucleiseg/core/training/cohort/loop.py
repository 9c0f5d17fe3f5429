"""One network learns from some slides of a cohort: draw, forward, loss, backward, step, report."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from napari_nucleiseg.core.models.aggregators import Aggregator, AggregatorSpec, build_aggregator
from napari_nucleiseg.core.models.hardware import choose_device
from napari_nucleiseg.core.training.cohort.bags import Shelf
from napari_nucleiseg.core.training.cohort.config import CohortConfig
from napari_nucleiseg.core.training.cohort.tasks import ClassTask, SurvivalTask, scores_of

Cancelled = Callable[[], bool]


def never() -> bool:
    """Say that nobody has cancelled."""
    return False


@dataclass(frozen=True, slots=True, eq=False)
class FitStep:
    """What one slide reports.

    Parameters
    ----------
    step, total : int
        Slides done, slides of all epochs.
    epoch : int
        From 1.
    loss : float
        Of this slide.
    """

    step: int
    total: int
    epoch: int
    loss: float


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """A network that has learnt.

    Parameters
    ----------
    spec : AggregatorSpec
        What it is.
    network : Aggregator
        In eval mode, on the device it was trained on.
    task : ClassTask or SurvivalTask
        As it looked to the network.
    loss : float
        Mean of the last epoch.
    """

    spec: AggregatorSpec
    network: Aggregator
    task: ClassTask | SurvivalTask
    loss: float

    def scores(self, shelf: Shelf, places: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return what it says of slides, a row of `tasks.scores_of` each."""
        device = next(self.network.parameters()).device
        kind = str(self.task.taught["task"])
        with torch.inference_mode():
            return np.stack(
                [scores_of(kind, self.network(torch.from_numpy(shelf[int(place)]).to(device))[0]) for place in places]
            )


def fit(
    name: str,
    shelf: Shelf,
    task: ClassTask | SurvivalTask,
    learned: NDArray[np.int64],
    config: CohortConfig,
    *,
    cancelled: Cancelled = never,
) -> Generator[FitStep, None, Fitted | None]:
    """Train an aggregator on some slides, one slide at a time.

    Parameters
    ----------
    name : str
        Registry name of the aggregator.
    shelf : Shelf
        Features of all slides.
    task : ClassTask or SurvivalTask
        Targets of all slides.
    learned : ndarray of int64, shape (m,)
        Slides to learn from; of others nothing is looked at.
    config : CohortConfig
        The run; its seed alone decides weights and order.
    cancelled : callable
        Polled after each slide.

    Yields
    ------
    FitStep
        One a slide.

    Returns
    -------
    Fitted or None
        The network; None if it was cancelled.

    Raises
    ------
    DataError
        If the features cannot be read, or have too few events.
    ModelError
        If the device is not there.
    """
    device, task = choose_device(config.device), task.fitted_to(learned)
    torch.manual_seed(config.seed)
    rng = np.random.default_rng(config.seed)
    params = {"features": shelf[int(learned[0])].shape[1], "outputs": task.outputs, "dropout": config.dropout}
    spec, network = build_aggregator(name, params)
    network.to(device).train()
    optimiser = torch.optim.Adam(network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    total, step, losses, size = config.epochs * len(learned), 0, [0.0], config.slides_a_step(len(learned))
    for epoch in range(1, config.epochs + 1):
        losses = []
        for loss in _epoch(network, optimiser, shelf=shelf, task=task, order=task.order(learned, rng), size=size):
            step += 1
            losses.append(loss)
            yield FitStep(step, total, epoch, loss)
            if cancelled():
                return None
    return Fitted(spec, network.eval(), task, float(np.mean(losses)))


def _epoch(
    network: Aggregator,
    optimiser: torch.optim.Optimizer,
    *,
    shelf: Shelf,
    task: ClassTask | SurvivalTask,
    order: NDArray[np.int64],
    size: int,
) -> Iterator[float]:
    """Learn from each slide of an order, `size` of them a step, and iterate over their losses."""
    device = next(network.parameters()).device
    for number, place in enumerate(order):
        logits, _ = network(torch.from_numpy(shelf[int(place)]).to(device))
        loss = task.loss(logits, int(place))
        # The mean over its step, of which the last of an epoch may have fewer slides.
        (loss / min(size, len(order) - number // size * size)).backward()
        if (number + 1) % size == 0 or number + 1 == len(order):
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
        yield float(loss.detach())

"""What is measured on held-out slides: without labels, the loss and how far from collapse the features are."""

from __future__ import annotations

from typing import Protocol

from napari_nucleiseg.core.training.dino.views import Batch, BatchMaker, Samples
from napari_nucleiseg.core.training.view_config import ViewConfig

HELD_OUT_STREAM = 1


class Measured(Protocol):
    """What learns and can be measured."""

    def measure(self, batch: Batch, number: int) -> dict[str, float]:
        """Return loss and others, by name, of a batch that is not learned from, after step `number`."""


class Examination:
    """Views of what was held out, the same at each measurement.

    Parameters
    ----------
    samples : Samples
        Patches or regions that are not learned from.
    config : ViewConfig
        The run.
    """

    def __init__(self, samples: Samples, config: ViewConfig) -> None:
        # Few at a time: they need no more memory than a step does.
        self.size = max(2, min(config.measured, config.batch_size))
        maker = BatchMaker(samples, seed=config.seed, size=self.size, stream=HELD_OUT_STREAM)
        self.batches = [maker.batch(number) for number in range(max(1, config.measured // self.size))]

    def scores(self, learner: Measured, step: int) -> dict[str, float]:
        """Return the means of what `Measured.measure` says."""
        found = [learner.measure(batch, step) for batch in self.batches]
        return {name: sum(item[name] for item in found) / len(found) for name in found[0]}

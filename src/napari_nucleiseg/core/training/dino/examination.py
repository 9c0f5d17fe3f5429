"""What is measured on held-out slides: without labels, the loss and how far from collapse the features are."""

from __future__ import annotations

from napari_nucleiseg.core.training.dino.config import DinoConfig
from napari_nucleiseg.core.training.dino.learner import Learner
from napari_nucleiseg.core.training.dino.views import BatchMaker, Samples

HELD_OUT_STREAM = 1


class Examination:
    """Views of what was held out, the same at each measurement.

    Parameters
    ----------
    samples : Samples
        Patches or regions that are not learned from.
    config : DinoConfig
        The run.
    """

    def __init__(self, samples: Samples, config: DinoConfig) -> None:
        # Few at a time: they need no more memory than a step does.
        self.size = max(2, min(config.measured, config.batch_size))
        maker = BatchMaker(samples, seed=config.seed, size=self.size, stream=HELD_OUT_STREAM)
        self.batches = [maker.batch(number) for number in range(max(1, config.measured // self.size))]

    def scores(self, learner: Learner, step: int) -> dict[str, float]:
        """Return the means of what `Learner.measure` says."""
        found = [learner.measure(batch, step) for batch in self.batches]
        return {name: sum(item[name] for item in found) / len(found) for name in found[0]}

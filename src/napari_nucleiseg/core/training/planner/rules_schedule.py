"""Rules for steps, learning rate and validation: how long to learn, how fast, and how often to look."""

from __future__ import annotations

import math

from napari_nucleiseg.core.training.config import TrainConfig

_DEFAULT = TrainConfig()
_MOST_STEPS = 20_000
# Time that is not training: reading, validating, writing.
_SHARE_OF_TRAINING = 0.9


def steps(area_px: float, step_px: float, seconds_a_step: float, minutes: float) -> int:
    """See every annotated pixel about 200 times, at least 2000 steps, or as many as the time allows.

    With augmentation, what a set teaches is learnt by then; more only fits its noise. A small set needs the steps all
    the same: it is the weights that must move. A tenth of the time is left for validation and for writing.
    """
    wanted = max(200 * area_px / step_px, float(_DEFAULT.steps))
    if minutes:
        wanted = min(wanted, 60 * minutes * _SHARE_OF_TRAINING / seconds_a_step)
    return int(min(max(wanted, 1), _MOST_STEPS))


def learning_rate(step_px: float) -> float:
    """Scale the default rate by the square root of the pixels of a step, within half and one and a half of it.

    Adam's noise falls with the root of the batch, so what is as noisy may go as far (Malladi et al., NeurIPS 2022).
    """
    usual = _DEFAULT.batch_size * _DEFAULT.crop_px**2
    return _DEFAULT.learning_rate * min(max(math.sqrt(step_px / usual), 0.5), 1.5)


def warmup(total: int) -> int:
    """Warm up for a twentieth of the run, 10 to 200 steps: of a short run the default 100 would be most."""
    return min(max(total // 20, 10), 200, max(total // 2, 1))


def ema(total: int) -> float:
    """Average the weights over about the last fiftieth of the run, so that a short one does not remember its start."""
    return min(max(1 - 50 / max(total, 1), 0.9), 0.999)


def validate_every(total: int, step_px: float, validation_px: float) -> int:
    """Validate at most ten times, and no more often than costs a tenth of the training.

    A pixel is validated in a third of the time that it is trained in: no backward pass; decoding takes as long again.
    """
    affordable = 0.1 * total * step_px / max(0.7 * validation_px, 1.0)
    return max(1, math.ceil(total / min(max(affordable, 1.0), 10.0)))

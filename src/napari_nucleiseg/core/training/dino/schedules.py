"""What changes in the course of a run, as functions of the step alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

from napari_nucleiseg.core.training.dino.config import DinoConfig

_BATCH = 256  # that the learning rate is stated for


@dataclass(frozen=True, slots=True)
class Scheduled:
    """What holds for one step.

    Parameters
    ----------
    learning_rate, weight_decay : float
        Of AdamW.
    ema : float
        Share of the teacher that stays.
    teacher_temperature : float
        By which the teacher's outputs are divided.
    prototypes_frozen : bool
        Whether the last layer of the student's head stays as it is.
    """

    learning_rate: float
    weight_decay: float
    ema: float
    teacher_temperature: float
    prototypes_frozen: bool


def scheduled(config: DinoConfig, step: int) -> Scheduled:
    """Return what holds for a step, counted from 1."""
    done, steps = step - 1, config.steps
    return Scheduled(
        learning_rate=_rate(config, done),
        weight_decay=cosine(done, steps, config.weight_decay, config.last_weight_decay),
        ema=cosine(done, steps, config.ema, config.last_ema),
        teacher_temperature=_temperature(config, done),
        prototypes_frozen=done < round(config.freeze_last * steps),
    )


def cosine(done: int, steps: int, first: float, last: float) -> float:
    """Return a value that goes from `first` to `last` along half a cosine."""
    return last + 0.5 * (first - last) * (1 + math.cos(math.pi * done / max(steps, 1)))


def _rate(config: DinoConfig, done: int) -> float:
    highest = config.learning_rate * config.batch_size / _BATCH
    rising = round(config.warmup * config.steps)
    if done < rising:
        return highest * (done + 1) / rising
    return cosine(done - rising, config.steps - rising, highest, min(config.last_learning_rate, highest))


def _temperature(config: DinoConfig, done: int) -> float:
    first, last = config.first_teacher_temperature, config.teacher_temperature
    rising = round(config.temperature_warmup * config.steps)
    return last if done >= rising else first + (last - first) * done / rising

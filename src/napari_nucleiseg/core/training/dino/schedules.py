"""What changes in the course of a run, as functions of the step alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

from napari_nucleiseg.core.training.dino.config import DinoConfig
from napari_nucleiseg.core.training.view_config import ViewConfig

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
        learning_rate=risen(config, step, in_proportion(config)),
        weight_decay=cosine(done, steps, config.weight_decay, config.last_weight_decay),
        ema=cosine(done, steps, config.ema, config.last_ema),
        teacher_temperature=_temperature(config, done),
        prototypes_frozen=done < round(config.freeze_last * steps),
    )


def cosine(done: int, steps: int, first: float, last: float) -> float:
    """Return a value that goes from `first` to `last` along half a cosine."""
    return last + 0.5 * (first - last) * (1 + math.cos(math.pi * done / max(steps, 1)))


def in_proportion(config: ViewConfig) -> float:
    """Return the highest learning rate where it is stated for a batch of 256."""
    return config.learning_rate * config.batch_size / _BATCH


def risen(config: ViewConfig, step: int, highest: float) -> float:
    """Return the learning rate of a step, counted from 1: a rise to the highest, then half a cosine."""
    rising = round(config.warmup * config.steps)
    if step <= rising:
        return highest * step / rising
    return cosine(step - 1 - rising, config.steps - rising, highest, min(config.last_learning_rate, highest))


def _temperature(config: DinoConfig, done: int) -> float:
    first, last = config.first_teacher_temperature, config.teacher_temperature
    rising = round(config.temperature_warmup * config.steps)
    return last if done >= rising else first + (last - first) * done / rising

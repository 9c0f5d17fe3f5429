"""The loop of a run without labels that learns from views: self-distillation, warm starts, masked autoencoders."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import torch

from napari_nucleiseg.core.errors import DataError
from napari_nucleiseg.core.models.encoders import LoadedEncoder
from napari_nucleiseg.core.training.batches import prepared
from napari_nucleiseg.core.training.dino.examination import Examination
from napari_nucleiseg.core.training.dino.views import BatchMaker, Samples
from napari_nucleiseg.core.training.pretrain_checkpoint import PretrainCheckpoint, PretrainLearner
from napari_nucleiseg.core.training.view_config import ViewConfig

MakeSamples = Callable[[], Samples]


@dataclass(frozen=True, slots=True, eq=False)
class ViewStep:
    """What one step of a run without labels reports.

    Parameters
    ----------
    step, total : int
        Steps done, steps of the run.
    loss : float
        What is made small; see the recipe.
    parts : dict
        Of what it is made, and how far from collapse the features are, as the recipe has it.
    learning_rate, seconds : float
        Of this step; the time includes waiting for its views.
    held_out : dict or None
        The same on slides that were held out, where it was measured at this step.
    saved : bool
        Whether this step is a checkpoint.
    encoder : LoadedEncoder or None
        What was taught, at the last step, where the recipe gives it.
    """

    step: int
    total: int
    loss: float
    parts: dict[str, float] = field(default_factory=dict)
    learning_rate: float = 0.0
    seconds: float = 0.0
    held_out: dict[str, float] | None = None
    saved: bool = False
    encoder: LoadedEncoder | None = None


def prepare(problem: str | None, threads: int) -> None:
    """Begin a run: refuse a configuration that makes no sense, and set the threads of torch.

    Raises
    ------
    DataError
        With the `problem`, if there is one.
    """
    if problem:
        raise DataError(problem)
    if threads:
        torch.set_num_threads(threads)


def view_steps(
    config: ViewConfig,
    learner: PretrainLearner,
    checkpoint: PretrainCheckpoint[Any, Any],
    *,
    samples: MakeSamples,
    held_out: MakeSamples | None,
    rate: Callable[[int], float],
) -> Generator[ViewStep, None, None]:
    """Learn from views until all steps are done, from where the run was left; closing stops after the current step.

    Parameters
    ----------
    config
        The run.
    learner
        What learns.
    checkpoint : PretrainCheckpoint
        Keeps its state.
    samples, held_out : callable
        Read what to learn from and, on one of the processes, what to measure on; called only if steps are left.
    rate : callable
        Learning rate of a step, counted from 1.

    Yields
    ------
    ViewStep
        One a step.
    """
    start, processes = checkpoint.restore(), learner.processes
    if start >= config.steps:
        return
    part = processes.part_of(config.batch_size)
    maker = BatchMaker(samples(), seed=config.seed, size=config.batch_size, part=part)
    examination = Examination(held_out(), config) if held_out and processes.is_first else None
    made: Any = prepared(maker.batch, start, config.steps, workers=1)
    with checkpoint.left_whole(), closing(made) as batches:
        began = time.perf_counter()
        for step, batch in enumerate(batches, start=start + 1):
            parts = learner.step(batch, step)
            is_due = step == config.steps or step % config.measure_every == 0
            scores = examination.scores(learner, step) if examination and is_due else None
            saved = checkpoint.save(step, parts, scores)
            seconds = time.perf_counter() - began
            yield ViewStep(step, config.steps, parts.pop("loss"), parts, rate(step), seconds, scores, saved)
            began = time.perf_counter()

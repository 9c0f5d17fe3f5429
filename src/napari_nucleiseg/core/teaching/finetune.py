"""From corrections to a better model, step by step, or to the reason why the former one stays."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from napari_nucleiseg.core.models.weights import LoadedModel
from napari_nucleiseg.core.teaching.agreement import Agreement
from napari_nucleiseg.core.teaching.classroom import Batch, prepare
from napari_nucleiseg.core.teaching.collect import Lesson
from napari_nucleiseg.core.teaching.config import FinetuneConfig
from napari_nucleiseg.core.teaching.curve import Curve
from napari_nucleiseg.core.teaching.division import Run
from napari_nucleiseg.core.teaching.examiner import Preview
from napari_nucleiseg.core.teaching.learner import Learner, Tensors
from napari_nucleiseg.core.teaching.memory import does_not_fit, smaller
from napari_nucleiseg.core.teaching.notebook import Notebook
from napari_nucleiseg.core.teaching.verdict import Outcome


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """What one step reports.

    Parameters
    ----------
    run : str
        Which network is taught, for people.
    step, total : int
        Steps done of all runs together, and their number at most.
    loss : float
        Weighted sum of all losses of this step.
    parts : dict
        Loss of each head, and ``memory``.
    seconds : float
        Wall time of this step, its measurement left out.
    measured : Agreement or None
        On what is held out, where it was measured at this step.
    former : float or None
        Score (mean of AJI and PQ) of the former model on the same nuclei as `measured`.
    preview : Preview or None
        What the network now says of one held-out example, where it was measured.
    note : str
        A sentence for people; empty if there is nothing to say.
    outcome : Outcome or None
        Of the last step: the new model, and whether it is adopted.
    """

    run: str
    step: int
    total: int
    loss: float = 0.0
    parts: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    measured: Agreement | None = None
    former: float | None = None
    preview: Preview | None = None
    note: str = ""
    outcome: Outcome | None = None


def finetune(
    model: LoadedModel, lesson: Lesson, config: FinetuneConfig | None = None, folder: str | Path = ""
) -> Iterator[Step]:
    """Teach a model with what people corrected, and judge the new one by what it has not seen.

    Closing the generator stops after the current step. The former model is never changed.

    Parameters
    ----------
    model : LoadedModel
        The former model.
    lesson : Lesson
        Corrected regions of one or many slides, and tissue without labels.
    config : FinetuneConfig, optional
        Settings.
    folder : path, optional
        Where what was done is noted, so that the same call goes on from there after a crash; empty notes nothing.

    Yields
    ------
    Step
        One a step; the first says how good the former model is if anything is held out, the last has the `Outcome`.

    Raises
    ------
    TeachingError
        If there is not enough to learn from, or labels look wrong and are not to be trusted.
    ModelError
        If the device is not there or memory does not suffice for a single small crop.
    """
    room = prepare(model, lesson, config or FinetuneConfig())
    notebook = Notebook(folder, room.fingerprint)
    before = room.before if room.division.held else None
    yield Step("", 0, room.total, measured=before, preview=room.examiner.preview_of_former(), note=room.told)
    for run in room.division.runs:
        if not notebook.holds(run.name):
            yield from teach_run(room, run, notebook)
    yield Step("", room.total, room.total, outcome=room.judge(notebook.lessons(), notebook.seconds))
    notebook.close()


class Room(Protocol):
    """What one run needs: a `Classroom`, or its like for stacks."""

    @property
    def config(self) -> FinetuneConfig:
        """Settings."""

    @property
    def total(self) -> int:
        """Steps of all runs at most."""

    def steps_before(self, run: Run) -> int:
        """Steps at most of the runs before this one."""

    def limit(self, run: Run, notebook: Notebook) -> int:
        """Steps of a run at most."""

    def learner(self) -> Learner:
        """Return who learns, from the former weights on."""

    def fitting(self, learner: Learner) -> tuple[FinetuneConfig, str]:
        """Return settings whose steps fit into memory, and a sentence where they are others."""

    def batches(self, run: Run, config: FinetuneConfig, start: int) -> Generator[Batch, None, None]:
        """Yield batches from step `start` on."""

    def kept(self, weights: Tensors) -> Tensors:
        """Return what is kept of new weights."""

    def look(self, weights: Tensors, run: Run) -> tuple[Agreement | None, Preview | None]:
        """Measure weights on what is held out of a run; None where nothing is."""

    def former(self, run: Run) -> float | None:
        """Return the score of the former model there."""


def teach_run(room: Room, run: Run, notebook: Notebook) -> Iterator[Step]:
    """Teach one network until the curve on what is held out stops rising; note the best weights."""
    done_before, learner = room.steps_before(run), room.learner()
    curve = Curve(room.config, room.limit(run, notebook))
    step = notebook.restore(run.name, learner, curve)
    config, note = room.fitting(learner)
    if note:
        yield Step(run.name, done_before + step, room.total, note=note)
    batches = room.batches(run, config, step)
    try:
        while not curve.is_over(step):
            began = time.perf_counter()
            try:
                loss, parts = learner.step(*next(batches), step + 1)
            except (RuntimeError, MemoryError) as error:
                if not does_not_fit(error):
                    raise
                config, note = smaller(config, error)
                batches.close()
                learner.forget_gradients()
                batches = room.batches(run, config, step)
                yield Step(run.name, done_before + step, room.total, note=note)
                continue
            step += 1
            seconds = time.perf_counter() - began
            measured = preview = None
            if curve.is_due(step):
                measured, preview = room.look(room.kept(learner.averaged()), run)
            curve.note(step, measured, learner)
            notebook.note(run.name, step, learner, curve)
            former = None if measured is None else room.former(run)
            yield Step(run.name, done_before + step, room.total, loss, parts, seconds, measured, former, preview)
    finally:
        batches.close()
    notebook.finish(run.name, curve.best_weights(learner), curve.best_step(step))

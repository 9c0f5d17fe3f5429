"""Aggregators compared on the same folds, each slide judged by networks that never saw its patient; one table."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.errors import DataError, StoreError
from napari_nucleiseg.core.models.aggregators import SURVIVAL
from napari_nucleiseg.core.models.files import write_over
from napari_nucleiseg.core.models.weights import ModelCard, save_model
from napari_nucleiseg.core.training.cohort.bags import Shelf
from napari_nucleiseg.core.training.cohort.config import CohortConfig
from napari_nucleiseg.core.training.cohort.folds import stratified_folds
from napari_nucleiseg.core.training.cohort.labels import Case, Cohort
from napari_nucleiseg.core.training.cohort.loop import Cancelled, Fitted, fit, never
from napari_nucleiseg.core.training.cohort.memory import FoldJudged, Memory
from napari_nucleiseg.core.training.cohort.metrics import bootstrap_interval, score_of
from napari_nucleiseg.core.training.cohort.tasks import ClassTask, SurvivalTask, score_names, task_of

TABLE, PREDICTIONS = "table.json", "held_out.csv"
FINAL = "all slides"


@dataclass(frozen=True, slots=True)
class CohortStep:
    """Where a comparison stands.

    Parameters
    ----------
    aggregator : str
        That is being trained.
    part : str
        ``fold 2 of 5`` or `FINAL`.
    done, total : int
        Slides of all epochs, folds and aggregators.
    loss : float
        Of the last slide.
    """

    aggregator: str
    part: str
    done: int
    total: int
    loss: float


@dataclass(frozen=True, slots=True)
class Row:
    """How good an aggregator is on slides held out.

    Parameters
    ----------
    aggregator : str
        Which.
    folds : tuple of float
        Score of each fold; NaN where a fold cannot tell.
    mean, sd : float
        Of these; the standard deviation is that of a sample.
    pooled : float
        Score over all pairs of slides of one fold, of all folds together.
    low, high : float
        95 % interval of that by drawing patients anew.
    loss : float
        Mean of the last epoch of learning, over folds: what it makes of slides it knows.
    """

    aggregator: str
    folds: tuple[float, ...]
    mean: float
    sd: float
    pooled: float
    low: float
    high: float
    loss: float


@dataclass(frozen=True, slots=True)
class CohortTable:
    """What a comparison found.

    Parameters
    ----------
    metric : str
        ``AUC`` or ``c-index``.
    rows : tuple of Row
        One an aggregator.
    slides, patients : int
        How many there were.
    outputs : dict of str to str
        Weight file of each aggregator, fitted to all slides.
    notes : tuple of str
        What was left out, as sentences.
    """

    metric: str
    rows: tuple[Row, ...]
    slides: int
    patients: int
    outputs: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def deal(cohort: Cohort, config: CohortConfig) -> NDArray[np.int64]:
    """Return the fold of each slide of a cohort.

    Raises
    ------
    DataError
        If there are too few patients of a class, or with an event.
    """
    strata, patients = task_of(cohort, config).strata, [case.patient for case in cohort.cases]
    if cohort.task == SURVIVAL:
        without = {patient for patient, stratum in zip(patients, strata, strict=True) if stratum == "no event"}
        if len(without) < config.folds:  # so few that they need not be everywhere
            strata = ("an event",) * len(strata)
    return stratified_folds(strata, patients, config.folds, config.seed)


def train_cohort(
    cohort: Cohort, config: CohortConfig, *, cancelled: Cancelled = never
) -> Generator[CohortStep, None, CohortTable | None]:
    """Train aggregators fold by fold, judge what was held out, then fit each to all slides and save it.

    Parameters
    ----------
    cohort : Cohort
        Labelled slides.
    config : CohortConfig
        The run. ``<out>/<aggregator>.safetensors`` are the weights, ``table.json`` the scores, ``held_out.csv`` what
        was said of each slide by a network that had not seen its patient.
    cancelled : callable
        Polled after each slide; then nothing more is written. The same call goes on with the fold that was cut short.

    Yields
    ------
    CohortStep
        One a slide.

    Returns
    -------
    CohortTable or None
        The table; None if it was cancelled.

    Raises
    ------
    DataError
        If the settings make no sense, the labels do not suffice, or features cannot be read.
    ModelError
        If the device is not there.
    StoreError
        If results cannot be written.
    """
    if problem := config.validation_error():
        raise DataError(problem)
    if cohort.task != config.task:
        raise DataError(f"the labels are read for {cohort.task}, the run is for {config.task}; name the same task")
    folder, task, folds = Path(config.out), task_of(cohort, config), deal(cohort, config)
    memory = Memory(_made(folder), cohort, config, folds)
    run = _Run(cohort, config, task, folds, Shelf(cohort.paths), memory, cancelled)
    rows, outputs, judged = list[Row](), dict[str, str](), list[_Judged]()
    for name in config.wanted:
        found = _Judged(name, folds, np.full((len(folds), _columns(task)), math.nan))
        for fold in range(config.folds):
            said = yield from run.judged(name, fold)
            if said is None:
                return None
            found.scores[folds == fold] = said.scores
            found.losses.append(said.loss)
        judged.append(found)
        rows.append(_row(found, task, cohort, config))
        path = folder / f"{name}.safetensors"
        if not (yield from run.saved(name, path, rows[-1])):
            return None
        outputs[name] = str(path)
    table = CohortTable(task.metric, tuple(rows), len(folds), _patients(cohort), outputs, cohort.notes)
    _write(folder / TABLE, _document(table, config))
    _write(folder / PREDICTIONS, _sheet(cohort, judged))
    return table


@dataclass(frozen=True, slots=True, eq=False)
class _Judged:
    """What networks of one aggregator said of slides held out, a row of `tasks.scores_of` each."""

    name: str
    folds: NDArray[np.int64]
    scores: NDArray[np.float64]
    losses: list[float] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class _Run:
    """What all networks of a comparison share; `done` counts slides over all folds and aggregators."""

    cohort: Cohort
    config: CohortConfig
    task: ClassTask | SurvivalTask
    folds: NDArray[np.int64]
    shelf: Shelf
    memory: Memory
    cancelled: Cancelled
    done: int = 0

    @property
    def total(self) -> int:
        """Each slide is held out once, and learned from in all other folds and in the last fit."""
        return len(self.folds) * self.config.folds * self.config.epochs * len(self.config.wanted)

    def pass_over(self, slides: int) -> None:
        """Count what an earlier run has learned from."""
        self.done += slides * self.config.epochs

    def judged(self, name: str, fold: int) -> Generator[CohortStep, None, FoldJudged | None]:
        """Let a network that learnt from all other folds judge one, or remember what one said of it."""
        before = self.memory.find(name, fold)
        if before is not None:
            self.pass_over(int((self.folds != fold).sum()))
            return before
        part = f"fold {fold + 1} of {self.config.folds}"
        fitted = yield from self.fitted(name, np.flatnonzero(self.folds != fold), part)
        if fitted is None:
            return None
        judged = FoldJudged(fitted.scores(self.shelf, np.flatnonzero(self.folds == fold)), fitted.loss)
        self.memory.add(name, fold, judged)
        return judged

    def saved(self, name: str, path: Path, row: Row) -> Generator[CohortStep, None, bool]:
        """Fit to all slides and save that, unless an earlier run has; return whether it is there."""
        if self.memory.has_weights(path):
            self.pass_over(len(self.folds))
            return True
        fitted = yield from self.fitted(name, np.arange(len(self.folds)), FINAL)
        if fitted is not None:
            save_model(path, fitted.network, fitted.spec, _card(fitted, self, row), half=False)
        return fitted is not None

    def fitted(self, name: str, learned: NDArray[np.int64], part: str) -> Generator[CohortStep, None, Fitted | None]:
        """Train a network on some slides."""
        steps = fit(name, self.shelf, self.task, learned, self.config, cancelled=self.cancelled)
        while True:
            try:
                step = next(steps)
            except StopIteration as end:
                fitted: Fitted | None = end.value
                return fitted
            self.done += 1
            yield CohortStep(name, part, self.done, self.total, step.loss)


def _columns(task: ClassTask | SurvivalTask) -> int:
    return task.outputs + int(isinstance(task, SurvivalTask))


def _patients(cohort: Cohort) -> int:
    return len({case.patient for case in cohort.cases})


def _row(judged: _Judged, task: ClassTask | SurvivalTask, cohort: Cohort, config: CohortConfig) -> Row:
    folds, scores = judged.folds, judged.scores
    places = [np.flatnonzero(folds == fold) for fold in range(config.folds)]
    each = [score_of(task.pairs(own, scores[own])) for own in places]
    pairs = task.pairs(np.arange(len(folds)), scores, folds)
    patients = [case.patient for case in cohort.cases]
    low, high = bootstrap_interval(pairs, patients, rounds=config.bootstrap, seed=config.seed)
    told = [score for score in each if math.isfinite(score)]
    return Row(
        judged.name,
        tuple(each),
        float(np.mean(told)) if told else math.nan,
        float(np.std(told, ddof=1)) if len(told) > 1 else math.nan,
        score_of(pairs),
        low,
        high,
        float(np.mean(judged.losses)),
    )


def _card(fitted: Fitted, run: _Run, row: Row) -> ModelCard:
    """Return what weights that learnt from all slides say of themselves."""
    cohort, config, bag = run.cohort, run.config, run.cohort.card
    return ModelCard(
        name=f"{Path(config.out).resolve().name}-{fitted.spec.name}",
        network=fitted.spec.name,
        title=fitted.spec.title,
        licence=bag.licence,
        commercial_use=bag.commercial_use,
        training_data=(f"{len(cohort.cases)} slides of {_patients(cohort)} patients (labels of the user's own)",),
        metrics={"held out": {fitted.task.metric: row.pooled, "low": row.low, "high": row.high, "folds": row.folds}},
        notes=f"{config.epochs} epochs, seed {config.seed}; the scores are those of networks of {config.folds} folds",
        taught={
            **fitted.task.taught,
            "encoders": list(bag.encoders),
            "settings": asdict(config),
            "key": run.memory.key,
        },
        features_of=bag.encoder,
    )


def _document(table: CohortTable, config: CohortConfig) -> str:
    # JSON has no NaN.
    found = {**asdict(table), "settings": asdict(config)}
    return json.dumps(json.loads(json.dumps(found), parse_constant=lambda _: None), indent=2)


def _sheet(cohort: Cohort, judged: Sequence[_Judged]) -> str:
    """Return what was said of slides held out as a CSV, a row a slide and aggregator."""
    survival = cohort.task == SURVIVAL
    # Intervals differ between folds: only the risk can be set below each other.
    names = ("risk",) if survival else score_names(cohort.task, cohort.classes, ())
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(
        ("aggregator", "slide", "patient", "fold", *(("time", "event") if survival else ("label",)), *names)
    )
    for one in judged:
        for case, fold, said in zip(cohort.cases, one.folds, one.scores, strict=True):
            own = said[-1:] if survival else said
            numbers = (f"{value:.6f}" for value in own)
            writer.writerow((one.name, case.slide, case.patient, int(fold) + 1, *_truth(case, survival), *numbers))
    return file.getvalue()


def _truth(case: Case, survival: bool) -> tuple[object, ...]:
    # All digits of the time: it reads back as it was given.
    return (repr(case.time).removesuffix(".0"), int(case.event)) if survival else (case.label,)


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"the folder {folder} cannot be made ({error.strerror or error}); name another") from error
    return folder


def _write(path: Path, text: str) -> None:
    try:
        write_over(path, text.encode())
    except OSError as error:
        raise StoreError(f"{path} cannot be written ({error.strerror or error}); free some space") from error

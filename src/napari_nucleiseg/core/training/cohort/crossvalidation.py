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
from napari_nucleiseg.core.training.cohort.loop import Cancelled, FitStep, Fitted, fit, never
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
        Polled after each slide; then nothing more is written.

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
    task, folds, shelf = task_of(cohort, config), deal(cohort, config), Shelf(cohort.paths)
    folder = _made(Path(config.out))
    rows, outputs, judged = list[Row](), dict[str, str](), list[_Judged]()
    progress = _Progress(len(cohort.cases), config)
    for name in config.wanted:
        found = _Judged(name, folds, np.full((len(folds), _columns(task)), math.nan))
        for fold in range(config.folds):
            steps = fit(name, shelf, task, np.flatnonzero(folds != fold), config, cancelled=cancelled)
            fitted = yield from progress.told(steps, name, f"fold {fold + 1} of {config.folds}")
            if fitted is None:
                return None
            held_out = np.flatnonzero(folds == fold)
            found.scores[held_out] = fitted.scores(shelf, held_out)
            found.losses.append(fitted.loss)
        judged.append(found)
        rows.append(_row(found, task, cohort, config))
        steps = fit(name, shelf, task, np.arange(len(folds)), config, cancelled=cancelled)
        fitted = yield from progress.told(steps, name, FINAL)
        if fitted is None:
            return None
        outputs[name] = _save(folder, fitted, cohort, rows[-1], config)
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


@dataclass(slots=True)
class _Progress:
    """Counts slides over all folds and aggregators."""

    slides: int
    config: CohortConfig
    done: int = 0

    @property
    def total(self) -> int:
        # Each slide is held out once, and learned from in all other folds and in the last fit.
        return self.slides * self.config.folds * self.config.epochs * len(self.config.wanted)

    def told(
        self, steps: Generator[FitStep, None, Fitted | None], name: str, part: str
    ) -> Generator[CohortStep, None, Fitted | None]:
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


def _save(folder: Path, fitted: Fitted, cohort: Cohort, row: Row, config: CohortConfig) -> str:
    """Write the weights that all slides were learned for; return the path."""
    bag = cohort.card
    card = ModelCard(
        name=f"{folder.resolve().name}-{fitted.spec.name}",
        network=fitted.spec.name,
        title=fitted.spec.title,
        licence=bag.licence,
        commercial_use=bag.commercial_use,
        training_data=(f"{len(cohort.cases)} slides of {_patients(cohort)} patients (labels of the user's own)",),
        metrics={"held out": {fitted.task.metric: row.pooled, "low": row.low, "high": row.high, "folds": row.folds}},
        notes=f"{config.epochs} epochs, seed {config.seed}; the scores are those of networks of {config.folds} folds",
        taught={**fitted.task.taught, "encoders": list(bag.encoders), "settings": asdict(config)},
        features_of=bag.encoder,
    )
    path = folder / f"{fitted.spec.name}.safetensors"
    save_model(path, fitted.network, fitted.spec, card, half=False)
    return str(path)


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
    return (f"{case.time:g}", int(case.event)) if survival else (case.label,)


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

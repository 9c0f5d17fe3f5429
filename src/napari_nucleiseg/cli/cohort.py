"""``napari-nucleiseg cohort``: learn from labelled slides which are which, and judge others."""

from __future__ import annotations

import argparse
import math
from dataclasses import asdict
from typing import TYPE_CHECKING

from napari_nucleiseg.cli.console import INTERRUPTED, OK, Console

if TYPE_CHECKING:
    from collections.abc import Generator

    from napari_nucleiseg.core.training.cohort.crossvalidation import CohortStep, CohortTable

# As in `core.models.aggregators`, which loads torch.
_TASKS = ("classes", "survival")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what can be done, each with its own arguments."""
    doing = parser.add_subparsers(dest="doing", required=True, metavar="train | predict")
    train = doing.add_parser("train", help="learn from labelled slides, fold by fold", allow_abbrev=False)
    train.epilog = (
        "The labels are a CSV with the columns slide and label (a treatment's response is a class, too), or slide, "
        "time and event (1 or 0) for survival; a column patient keeps all slides of a patient in one fold. All "
        "aggregators are judged on the same slides, which they did not learn from. DIR gets their weights, fitted to "
        "all slides, table.json and held_out.csv."
    )
    train.add_argument("features", nargs="+", metavar="FEATURES", help="folder of files of features, or the files")
    train.add_argument("--labels", required=True, metavar="CSV", help="what is known of the slides")
    train.add_argument("--task", choices=_TASKS, required=True, help="what they are labelled for")
    train.add_argument("--out", required=True, metavar="DIR", help="folder for weights and table")
    train.add_argument("--aggregators", metavar="A,B", default="", help="mean, abmil, clam, hipt (default: all)")
    train.add_argument("--classes", metavar="A,B", default="", help="only slides of these classes (default: all)")
    train.add_argument("--folds", type=int, default=5, metavar="N", help="parts of the patients (default: 5)")
    train.add_argument("--epochs", type=int, default=20, metavar="N", help="times each slide is seen (default: 20)")
    train.add_argument("--intervals", type=int, default=4, metavar="N", help="of time, for survival (default: 4)")
    train.add_argument("--seed", type=int, default=0, metavar="N", help="of folds, weights and order (default: 0)")
    train.add_argument("--device", default="auto", help="auto, cuda, mps or cpu (default: auto)")
    train.add_argument("--json", action="store_true", help="print the table as JSON")
    predict = doing.add_parser("predict", help="judge slides, and show where was looked", allow_abbrev=False)
    predict.epilog = (
        "DIR gets predictions.csv, and for each slide NAME.attention.json: boxes (y0, x0, y1, x1 in full-resolution "
        "pixels) and the share that each had in the judgement."
    )
    predict.add_argument("features", nargs="+", metavar="FEATURES", help="folder of files of features, or the files")
    predict.add_argument("--model", required=True, metavar="FILE", help="weight file that `cohort train` wrote")
    predict.add_argument("--out", required=True, metavar="DIR", help="folder for the results")
    predict.add_argument("--accept-licence", action="store_true", help="accept a restrictive licence for this run")
    predict.add_argument("--json", action="store_true", help="print the predictions as JSON")


def run(options: argparse.Namespace, console: Console) -> int:
    """Do what was asked for."""
    return {"train": _train, "predict": _predict}[options.doing](options, console)


def _train(options: argparse.Namespace, console: Console) -> int:
    from napari_nucleiseg.core.errors import DataError
    from napari_nucleiseg.core.training.cohort.bags import find_bags
    from napari_nucleiseg.core.training.cohort.config import CohortConfig
    from napari_nucleiseg.core.training.cohort.crossvalidation import train_cohort
    from napari_nucleiseg.core.training.cohort.labels import load_cohort

    config = CohortConfig(
        out=options.out,
        task=options.task,
        aggregators=_listed(options.aggregators),
        folds=options.folds,
        epochs=options.epochs,
        intervals=options.intervals,
        seed=options.seed,
        device=options.device,
    )
    if problem := config.validation_error():
        raise DataError(problem)
    cohort = load_cohort(find_bags(options.features), options.labels, options.task, _listed(options.classes))
    for note in cohort.notes:
        console.say(note)
    table = _shown(train_cohort(cohort, config), console)
    if table is None:
        return INTERRUPTED
    _tell(table, console)
    return OK


def _listed(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _shown(steps: Generator[CohortStep, None, CohortTable | None], console: Console) -> CohortTable | None:
    """Run through a comparison and show how far it is."""
    with console.progress() as bars:
        while True:
            try:
                step = next(steps)
            except StopIteration as end:
                table: CohortTable | None = end.value
                return table
            bars.update("slides learned from", step.done, step.total, f"{step.aggregator}, {step.part}")


def _tell(table: CohortTable, console: Console) -> None:
    rows = [
        (
            row.aggregator,
            f"{_number(row.mean)} ± {_number(row.sd)}",
            f"{_number(row.pooled)} ({_number(row.low)} to {_number(row.high)})",
        )
        for row in table.rows
    ]
    title = f"{table.metric} on slides held out, {table.slides} slides of {table.patients} patients"
    console.table(title, ("aggregator", "mean ± sd over folds", "pooled (95 % interval)"), rows)
    console.say("Weights, fitted to all slides: " + ", ".join(table.outputs.values()))
    document = asdict(table)
    document["rows"] = [{name: _known(value) for name, value in row.items()} for row in document["rows"]]
    console.result(document)


def _known(value: object) -> object:
    """Return a value as JSON has it: without NaN."""
    if isinstance(value, tuple):
        return [_known(part) for part in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _number(value: float) -> str:
    return "not known" if math.isnan(value) else f"{value:.3f}"


def _predict(options: argparse.Namespace, console: Console) -> int:
    from napari_nucleiseg.core.models.aggregators import load_aggregator
    from napari_nucleiseg.core.training.cohort.bags import find_bags
    from napari_nucleiseg.core.training.cohort.prediction import SHEET, have_one_name, predict_slides

    aggregator = load_aggregator(options.model, accept_licence=options.accept_licence)
    files = find_bags(options.features)
    said = []
    with console.progress() as bars:
        for prediction in predict_slides(files, aggregator, options.out):
            said.append(prediction)
            bars.update("slides", len(said), len(files), prediction.slide)
    has_label, has_name = bool(aggregator.classes), have_one_name(said)
    columns = ("slide", *(("name",) * has_name), *(("prediction",) * has_label), *said[0].scores)
    rows = [
        (one.slide, *((one.name,) * has_name), *((one.label,) * has_label), *(f"{s:.4f}" for s in one.scores.values()))
        for one in said
    ]
    console.table(f"What {aggregator.version} says", columns, rows)
    console.say(f"{SHEET} and the attention to each slide are in {options.out}")
    console.result({"aggregator": aggregator.version, "slides": [asdict(one) for one in said]})
    return OK

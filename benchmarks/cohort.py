"""Slides judged by a bag of features, where it is known which of a bag's features carry the label.

    python benchmarks/cohort.py --slides 60 --folds 5

Every slide is a bag of 20 to 60 features of 192 numbers, noise of deviation 1. In a tenth of them, at least two, one
number is larger by 4 in all slides: these can be told from the others. Another number of theirs says of which class
the slide is (3 more or less), or how soon something happens (between these). The label is nowhere else. With shuffled
labels there is nothing to learn, and intervals must hold 0.5.

``best`` is what the planted number itself would score, because survival is part chance. ``attention`` is the share of
attention on the planted features of 20 slides that nobody learned from, by the weights that were fitted to all others;
a network that looks everywhere alike gives ``by chance``.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
import time
from pathlib import Path

import numpy as np

from measuring import one_thread
from napari_nucleiseg.core.models.aggregators import CLASSES, SURVIVAL, aggregator_names, load_aggregator
from napari_nucleiseg.core.training.cohort.bags import ENDING, Bag, BagCard, find_bags, write_bag
from napari_nucleiseg.core.training.cohort.config import CohortConfig
from napari_nucleiseg.core.training.cohort.crossvalidation import train_cohort
from napari_nucleiseg.core.training.cohort.labels import load_cohort
from napari_nucleiseg.core.training.cohort.metrics import score_of
from napari_nucleiseg.core.training.cohort.prediction import slide_attention
from napari_nucleiseg.core.training.cohort.tasks import task_of

WIDTH, MARK, SIGNAL = 192, 4.0, 3.0
FRESH = 20


def write_slide(folder, name, kind, rng):
    """Write a bag whose first features are planted; return its file and the share that they are of it."""
    count = int(rng.integers(20, 61))
    planted = max(2, round(count / 10))
    features = rng.normal(0, 1, (count, WIDTH)).astype(np.float32)
    features[:planted, 0] += MARK
    features[:planted, 1] += SIGNAL * kind
    path = folder / f"{name}{ENDING}"
    boxes = np.arange(count)[:, None] * 4096 + np.array([0, 0, 4096, 4096])
    write_bag(path, Bag(BagCard(f"{name}.svs", name, ("made@0",), "made", "CC0-1.0", True), features, boxes))
    return path, planted, planted / count


def kinds_of(task, count, rng):
    return rng.permutation(np.arange(count) % 2) * 2.0 - 1 if task == CLASSES else rng.uniform(-1, 1, count)


def rows_of(task, kinds, rng):
    """Return what is known of each slide; a third of the survivors is lost from sight."""
    if task == CLASSES:
        return [("response" if kind > 0 else "none",) for kind in kinds]
    times = 24 * np.exp(-2 * kinds) * rng.weibull(2.0, len(kinds))
    events = rng.random(len(kinds)) > 1 / 3
    times = np.where(events, times, times * rng.uniform(0.3, 1, len(kinds)))
    return [(f"{time:.3f}", int(event)) for time, event in zip(times, events, strict=True)]


def cohort_in(folder, task, count, *, shuffled, seed):
    rng = np.random.default_rng(seed)
    kinds = kinds_of(task, count, rng)
    for number, kind in enumerate(kinds):
        write_slide(folder, f"s{number:04d}", kind, rng)
    rows = rows_of(task, kinds, rng)
    order = rng.permutation(count) if shuffled else np.arange(count)
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("slide", "label") if task == CLASSES else ("slide", "time", "event"))
        writer.writerows((f"s{number:04d}", *rows[place]) for number, place in enumerate(order))
    cohort = load_cohort(find_bags([folder]), folder / "labels.csv", task)
    target = task_of(cohort, CohortConfig(task=task))
    known = np.stack((-kinds, kinds), axis=1)  # of two classes, or the last of them as a risk
    return cohort, score_of(target.pairs(np.arange(count), known))


def looked_at(table, task, folder, seed):
    """Return by aggregator the mean share of attention on what is planted in fresh slides, and the share by chance."""
    rng = np.random.default_rng(seed + 1000)
    fresh = folder / "fresh"
    fresh.mkdir()
    kinds = kinds_of(task, FRESH, rng)
    slides = [write_slide(fresh, f"f{number:04d}", kind, rng) for number, kind in enumerate(kinds)]
    found = {}
    for name, weights in table.outputs.items():
        aggregator = load_aggregator(weights)
        found[name] = np.mean([slide_attention(path, aggregator)[1][:planted].sum() for path, planted, _ in slides])
    return found, np.mean([share for _, _, share in slides])


def compare(task, options, *, shuffled):
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        cohort, best = cohort_in(folder, task, options.slides, shuffled=shuffled, seed=options.seed)
        config = CohortConfig(
            out=str(folder / "run"),
            task=task,
            aggregators=tuple(options.aggregator or ()),
            folds=options.folds,
            epochs=options.epochs,
            seed=options.seed,
        )
        start = time.perf_counter()
        steps = train_cohort(cohort, config)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                table = end.value
                break
        seconds = time.perf_counter() - start
        attention, chance = looked_at(table, task, folder, options.seed)
    kind = "shuffled" if shuffled else "planted"
    print(f"\n{task}, {kind}: {seconds:.0f} s, best {best:.3f}, attention by chance {chance:.2f}")
    print(f"| aggregator | {table.metric}, mean ± sd | pooled (95 %) | attention |\n|---|---|---|---|")
    for row in table.rows:
        pooled = f"{row.pooled:.3f} ({row.low:.3f} to {row.high:.3f})"
        print(
            f"| {row.aggregator} | {row.mean:.3f} ± {row.sd:.3f} | {pooled} | {attention[row.aggregator]:.2f} |",
            flush=True,
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=(CLASSES, SURVIVAL), action="append", help="default both")
    parser.add_argument("--aggregator", choices=aggregator_names(), action="append", help="default all")
    parser.add_argument("--slides", type=int, default=60)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    one_thread()
    print(f"{options.slides} slides, {options.folds} folds, {options.epochs} epochs, seed {options.seed}")
    for task in options.task or (CLASSES, SURVIVAL):
        for shuffled in (False, True):
            compare(task, options, shuffled=shuffled)


if __name__ == "__main__":
    main()

"""The guard under attack: corrected regions are spoilt, and no model taught with them may be adopted if it is worse.

    python benchmarks/teaching_guard.py --json guard.json

As `teaching.py`: same base, laboratories and simulated pathologist (four regions). Then some or all regions are spoilt:
labels shifted by 8 px (at 0.25 um/px), ids shuffled (each pixel of a nucleus gets the id of another; neighbours glued
together), regions emptied, everything one nucleus, all background in one region only, a region of ink whose blots are
outlined, outlines much too wide, and every second nucleus left out. Each run is judged on clean pictures that nobody
spoilt. "Worse by more than noise": the AJI falls by more than twice the standard error of its mean over pictures.
A run that is stopped by doubts about its labels costs a second or two; the others are taught to the end.

    python benchmarks/teaching_guard.py --only-doubts --seeds 10 [--base nuclei]

teaches nothing: it counts the lessons, correct and spoilt, about which there are doubts.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from measuring import one_thread
from napari_nucleiseg.core.errors import TeachingError
from napari_nucleiseg.core.models.weights import LoadedModel, load_model
from napari_nucleiseg.core.teaching.collect import Lesson
from napari_nucleiseg.core.teaching.config import FinetuneConfig
from napari_nucleiseg.core.teaching.division import divide
from napari_nucleiseg.core.teaching.doubts import doubts
from napari_nucleiseg.core.teaching.examiner import Examiner
from napari_nucleiseg.core.teaching.examples import UNKNOWN, Example
from teaching import BASE, MPP_UM, Laboratory, corrected, judged_each, laboratories, taught

SHIFT_PX = 8
REGIONS = 4
Spoil = Callable[[Example, np.random.Generator], Example]


def relabelled(example: Example, labels: NDArray[np.int32]) -> Example:
    """The same example with other labels where something is known."""
    return replace(example, labels=np.where(example.known, labels, UNKNOWN).astype(np.int32))


def shifted(example: Example, rng: np.random.Generator) -> Example:
    """Labels 8 px beside the nuclei, in any of eight directions."""
    step = round(SHIFT_PX * MPP_UM / example.mpp_um)
    dy, dx = [(1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1)][int(rng.integers(8))]
    moved = np.roll(np.maximum(example.labels, 0), (dy * step, dx * step), (0, 1))
    return replace(example, labels=np.where(example.known | (moved > 0), moved, UNKNOWN).astype(np.int32))


def shuffled(example: Example, rng: np.random.Generator) -> Example:
    """Every pixel of a nucleus gets the id of any nucleus."""
    labels = example.labels.copy()
    inside = labels > 0
    labels[inside] = rng.permutation(labels[inside])
    return relabelled(example, labels)


def glued(example: Example, rng: np.random.Generator) -> Example:
    """Nuclei get the ids of others at random, two and two."""
    ids = example.ids
    other = rng.permutation(ids)
    table = np.arange(int(ids.max(initial=0)) + 1)
    table[other[: len(other) // 2]] = other[len(other) // 2 : 2 * (len(other) // 2)]
    return relabelled(example, table[np.maximum(example.labels, 0)].astype(np.int32))


def emptied(example: Example, _rng: np.random.Generator) -> Example:
    """No nucleus at all."""
    return relabelled(example, np.zeros_like(example.labels))


def one_nucleus(example: Example, _rng: np.random.Generator) -> Example:
    """Everything one nucleus."""
    return relabelled(example, np.ones_like(example.labels))


def inked(example: Example, rng: np.random.Generator) -> Example:
    """Blots of ink over the picture, outlined as nuclei."""
    image, labels = example.image.copy(), np.zeros(example.labels.shape, np.int32)
    height, width = labels.shape
    for number in range(1, 25):
        centre = int(rng.integers(width)), int(rng.integers(height))
        axes = int(rng.integers(5, 14)), int(rng.integers(5, 14))
        cv2.ellipse(labels, centre, axes, float(rng.uniform(0, 180)), 0, 360, number, -1)
    image[cv2.dilate((labels > 0).astype(np.uint8), np.ones((3, 3))) > 0] = (25, 35, 110)
    return relabelled(replace(example, image=image), labels)


def widened(example: Example, _rng: np.random.Generator) -> Example:
    """Outlines two micrometres too wide."""
    labels = np.maximum(example.labels, 0).astype(np.float32)
    wide = cv2.dilate(labels, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (9, 9)))
    return relabelled(example, np.where(labels > 0, labels, wide).astype(np.int32))


def halved(example: Example, rng: np.random.Generator) -> Example:
    """Every second nucleus left out."""
    gone = rng.permutation(example.ids)[: len(example.ids) // 2]
    return relabelled(example, np.where(np.isin(example.labels, gone), 0, example.labels))


KINDS: dict[str, tuple[Spoil, int]] = {
    "all shifted by 8 px": (shifted, REGIONS),
    "two of four shifted by 8 px": (shifted, 2),
    "pixels get ids of other nuclei": (shuffled, REGIONS),
    "nuclei glued together": (glued, REGIONS),
    "all empty": (emptied, REGIONS),
    "two of four all background": (emptied, 2),
    "everything one nucleus": (one_nucleus, REGIONS),
    "one of four is ink": (inked, 1),
    "outlines much too wide": (widened, REGIONS),
    "every second nucleus left out": (halved, REGIONS),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", default=str(BASE))
    parser.add_argument("--dev", action="store_true", help="the pictures on which the guard was set up")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--trust", action="store_true", help="leave out the doubts: only the hold-out guards")
    parser.add_argument("--only-doubts", action="store_true", help="teach nothing, count doubts")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    one_thread()
    model = load_model(args.base, accept_licence=True)
    if args.only_doubts:
        print(doubted(model, laboratories(model.spec.mpp_um, dev=args.dev), args.seeds))
        return
    labs = laboratories(model.spec.mpp_um, dev=args.dev)
    clean = {lab.name: judged_each(model, lab.judge) for lab in labs}
    rows = []
    for kind, (spoil, count) in KINDS.items():
        for seed in range(args.seeds):
            lab = labs[seed % len(labs)]
            lesson = spoilt(lab, spoil, count, seed, model.spec.mpp_um)
            row = {"kind": kind, "seed": seed, "lab": lab.name, "adopted": False}
            try:
                outcome, _, _ = taught(model, lesson, FinetuneConfig(seed=seed, threads=1, trust_labels=args.trust))
            except TeachingError as error:
                row |= {"stopped": "doubts", "reason": str(error)}
            else:
                change = np.array(judged_each(outcome.model, lab.judge)) - np.array(clean[lab.name])
                row |= {"stopped": "" if outcome.adopted else "hold-out", "reason": outcome.reason}
                row |= {"adopted": outcome.adopted, "aji": change.mean(), "seen": outcome.gain.choice}
                row["noise"] = 2 * change.std(ddof=1) / np.sqrt(len(change))
            rows.append(row)
            print(f"{kind}, {lab.name}, seed {seed}: {told(row)}", flush=True)
    if args.json:
        args.json.write_text(json.dumps(rows, indent=1))
    print(table(rows))


def spoilt(lab: Laboratory, spoil: Spoil, count: int, seed: int, mpp_um: float) -> Lesson:
    """A lesson of which the first regions are spoilt."""
    rng = np.random.default_rng((seed, 77))
    lesson = corrected(lab.teach, REGIONS, mpp_um, rng)
    examples = [spoil(one, rng) if place < count else one for place, one in enumerate(lesson.examples)]
    return replace(lesson, examples=tuple(examples))


def doubted(model: LoadedModel, labs: list[Laboratory], seeds: int) -> str:
    """Of how many lessons there are doubts: one line a kind of sabotage, correct lessons first."""
    lines = [f"| labels | {' | '.join(lab.name for lab in labs)} |", "|---" * (len(labs) + 1) + "|"]
    for kind, (spoil, count) in {"correct": (lambda one, _rng: one, 0), **KINDS}.items():
        cells = []
        for lab in labs:
            found = 0
            for seed in range(seeds):
                lesson = spoilt(lab, spoil, count, seed, model.spec.mpp_um)
                examiner = Examiner(model, divide(lesson.examples, FinetuneConfig().folds, seed), "cpu")
                found += any(doubts(one, partial(examiner.first_look, one)) for one in lesson.examples)
            cells.append(f"{found} of {seeds}")
        lines.append(f"| {kind} | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    return "\n".join(lines)


def told(row: dict[str, object]) -> str:
    """One run for people."""
    if "aji" not in row:
        return f"stopped by {row['stopped']}"
    end = "ADOPTED" if row["adopted"] else "refused"
    return f"{end}, AJI {row['aji']:+.3f} (noise {row['noise']:.3f}), guard saw {row['seen']:+.3f}"


def table(rows: list[dict[str, object]]) -> str:
    """One line a kind of sabotage, and one over all."""
    lines = [
        "| sabotage | runs | stopped by doubts | by the hold-out | adopted | AJI of the adopted | worse than noise |",
        "|---|---|---|---|---|---|---|",
    ]
    for kind in (*dict.fromkeys(row["kind"] for row in rows), "all"):
        some = [row for row in rows if kind in {row["kind"], "all"}]
        taken = [row for row in some if row["adopted"]]
        harm = sum(row["aji"] < -row["noise"] for row in taken)
        by = [sum(row["stopped"] == how for row in some if "stopped" in row) for how in ("doubts", "hold-out")]
        change = ", ".join(f"{row['aji']:+.3f}" for row in taken) if kind != "all" else ""
        lines.append(f"| {kind} | {len(some)} | {by[0]} | {by[1]} | {len(taken)} | {change} | {harm} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()

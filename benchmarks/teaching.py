"""What teaching gives: a simulated pathologist corrects a few regions, and the taught model is judged on others.

    napari-nucleiseg train --config benchmarks/training/teaching-base.json
    python benchmarks/teaching.py gain --json gain.json

Base: a model trained by the default recipe on NuCLS and DSB 2018 alone (``training/teaching-base.json``), which has
seen no picture of the laboratories below. Corrected regions are 256 x 256 px at 0.25 um/px, cut at random from training
pictures where they show eight nuclei or more, with all their true nuclei. Laboratories: TNBC (taught on patients 01-03,
judged on 04-05) and organs of the Kumar set (taught on HoVer-Net's training pictures of an organ, judged on its test
pictures of that organ). What is forgotten is measured on test pictures of other organs. ``--dev`` takes other pictures
(TNBC 01-02 against 03, breast), on which the recipe was chosen. Nothing is chosen on the pictures that are judged on.

The table's "after" is what the user ends up with: where the guard refuses, that is the former model. "Offered" is the
new model whether or not it was adopted. Scores are means over pictures at the model's pixel size.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from measuring import one_thread
from napari_nucleiseg.core.decoders.base import decoder
from napari_nucleiseg.core.errors import TeachingError
from napari_nucleiseg.core.evaluation import ImageScores, mean_scores, scores
from napari_nucleiseg.core.inference.segment import default_options
from napari_nucleiseg.core.models.hardware import choose_device
from napari_nucleiseg.core.models.weights import LoadedModel, load_model
from napari_nucleiseg.core.teaching.collect import CONTEXT_PX, Lesson
from napari_nucleiseg.core.teaching.config import FinetuneConfig
from napari_nucleiseg.core.teaching.examples import UNKNOWN, Example
from napari_nucleiseg.core.teaching.finetune import finetune
from napari_nucleiseg.core.teaching.verdict import Outcome
from napari_nucleiseg.core.training.samples import read_labels, read_picture
from napari_nucleiseg.core.training.validation import picture_maps

DATA = Path(os.environ.get("NUCLEISEG_DATA", Path(__file__).parents[2] / "shared" / "data"))
BASE = Path(__file__).parents[1] / "runs" / "teaching-base" / "best.safetensors"
MPP_UM, REGION_PX = 0.25, 256
# Nobody corrects a region that shows next to none.
LEAST_NUCLEI = 8
# Places in a row at which no further region fits until there are no more.
TRIES = 2_000


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture with its true nuclei at the model's pixel size."""

    name: str
    image: NDArray[np.uint8]
    labels: NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Laboratory:
    """Pictures to correct, to be judged on, and of other tissue."""

    name: str
    teach: list[Picture]
    judge: list[Picture]
    other: list[Picture]


def read(folder: str, stems: Sequence[str], mpp_um: float) -> list[Picture]:
    """Read pictures and shrink them to a pixel size."""
    found = []
    for stem in stems:
        image = read_picture(DATA / folder / "images" / f"{stem}.png")
        labels = read_labels(DATA / folder / "labels" / f"{stem}.tif")
        size = tuple(round(side * pixel_um(stem) / mpp_um) for side in reversed(labels.shape))
        small = cv2.resize(labels.astype(np.float32), size, interpolation=cv2.INTER_NEAREST).astype(np.int32)
        found.append(Picture(stem, cv2.resize(image, size, interpolation=cv2.INTER_AREA), small))
    return found


def pixel_um(stem: str) -> float:
    """Micrometres per pixel; three pictures of kidney show nuclei at half their size (``training/``)."""
    return 2 * MPP_UM if stem.startswith("TCGA-HE-") else MPP_UM


def laboratories(mpp_um: float, *, dev: bool) -> list[Laboratory]:
    """All laboratories, read."""
    with (DATA / "kumar_train30" / "index.csv").open() as file:
        kumar = list(csv.DictReader(file))
    tnbc = sorted(path.stem for path in (DATA / "tnbc_dev" / "images").glob("*.png"))
    other = read(
        "kumar_train30", [row["stem"] for row in kumar if row["hovernet_kumar_split"] == "test_other_organ"], mpp_um
    )
    taught, judged = (("01", "02"), ("03",)) if dev else (("01", "02", "03"), ("04", "05"))
    found = [
        Laboratory(
            "TNBC",
            read("tnbc_dev", [stem for stem in tnbc if stem[:2] in taught], mpp_um),
            read("tnbc_dev", [stem for stem in tnbc if stem[:2] in judged], mpp_um),
            other,
        )
    ]
    for organ in ("Breast",) if dev else ("Liver", "Kidney", "Prostate"):
        of_organ = [row for row in kumar if row["organ"] == organ]
        taught_stems = [row["stem"] for row in of_organ if row["hovernet_kumar_split"] == "train"]
        judged_stems = [row["stem"] for row in of_organ if row["hovernet_kumar_split"] != "train"]
        found.append(
            Laboratory(
                organ, read("kumar_train30", taught_stems, mpp_um), read("kumar_train30", judged_stems, mpp_um), other
            )
        )
    return found


def corrected(pictures: Sequence[Picture], count: int, mpp_um: float, rng: np.random.Generator) -> Lesson:
    """Cut regions at random, as many as fit, with their true nuclei; all else is tissue without labels."""
    side = round(REGION_PX * MPP_UM / mpp_um)
    examples, covered, tried = [], {}, 0
    while len(examples) < count and (tried := tried + 1) < TRIES:
        picture = pictures[int(rng.integers(len(pictures)))]
        y, x = (int(rng.integers(max(length - side, 0) + 1)) for length in picture.labels.shape)
        taken = covered.setdefault(picture.name, np.zeros(picture.labels.shape, bool))
        here = picture.labels[y : y + side, x : x + side]
        if taken[y : y + side, x : x + side].mean() > 0.1 or len(np.unique(here)) <= LEAST_NUCLEI:
            continue
        taken[y : y + side, x : x + side] = True
        tried = 0
        examples.append(region_of(picture, (y, x), side, mpp_um, len(examples) + 1))
    rest = [unlabelled(picture, mpp_um) for picture in pictures if picture.name in covered]
    return Lesson(tuple(examples), tuple(rest))


def region_of(picture: Picture, corner: tuple[int, int], side: int, mpp_um: float, number: int) -> Example:
    """Cut one region with some context; nuclei that reach beyond it are whole."""
    (y, x), (height, width) = corner, picture.labels.shape
    frame = (slice(max(y - CONTEXT_PX, 0), min(y + side + CONTEXT_PX, height)),
             slice(max(x - CONTEXT_PX, 0), min(x + side + CONTEXT_PX, width)))  # fmt: skip
    inside = np.zeros(picture.labels.shape, bool)
    inside[y : y + side, x : x + side] = True
    ids = np.unique(picture.labels[inside])
    known = inside | np.isin(picture.labels, ids[ids > 0])
    labels = np.where(known, picture.labels, UNKNOWN)[frame].astype(np.int32)
    image = np.ascontiguousarray(picture.image[frame])
    return Example(picture.name, picture.name, f"Region {number}", number, "teach", image, labels, mpp_um)


def unlabelled(picture: Picture, mpp_um: float) -> Example:
    """A picture without its labels."""
    nothing = np.full(picture.labels.shape, UNKNOWN, np.int32)
    return Example(picture.name, picture.name, "", -1, "reference", picture.image, nothing, mpp_um)


def scored(model: LoadedModel, pictures: Sequence[Picture]) -> list[ImageScores]:
    """Scores of a model on each picture, with the threshold of its card."""
    options, device = default_options(model), choose_device("cpu")
    decode = decoder(model.spec.decoder).decode
    return [
        scores(
            picture.labels,
            decode(picture_maps(model.network, model.spec, picture.image, device), model.spec.mpp_um, options).labels,
            distances=False,
        )
        for picture in pictures
    ]


def judged(model: LoadedModel, pictures: Sequence[Picture]) -> ImageScores:
    """Mean scores of a model on pictures."""
    return mean_scores(scored(model, pictures))


def judged_each(model: LoadedModel, pictures: Sequence[Picture]) -> list[float]:
    """AJI of a model on each picture."""
    return [one.aji for one in scored(model, pictures)]


def taught(model: LoadedModel, lesson: Lesson, config: FinetuneConfig) -> tuple[Outcome, float, int]:
    """Fine-tune to the end: outcome, CPU seconds, steps."""
    began, last, steps = time.process_time(), None, 0
    for last in finetune(model, lesson, config):
        steps += last.seconds > 0
    return last.outcome, time.process_time() - began, steps


def run_gain(args: argparse.Namespace) -> None:
    model = load_model(str(args.base), accept_licence=True)
    rows = json.loads(args.json.read_text()) if args.json and args.json.exists() else []
    done = {(row["lab"], row["regions"], row["seed"]) for row in rows}
    for count in args.regions:
        for lab in laboratories(model.spec.mpp_um, dev=args.dev):
            if args.lab and lab.name not in args.lab:
                continue
            before = {"judge": judged(model, lab.judge), "other": judged(model, lab.other)}
            for seed in range(args.seeds):
                if (lab.name, count, seed) not in done:
                    lesson = corrected(lab.teach, count, model.spec.mpp_um, np.random.default_rng((seed, count)))
                    config = replace(args.config, seed=seed, threads=1)
                    row = {"lab": lab.name, "regions": count, "seed": seed}
                    rows.append(row | gain_of(model, lab, lesson, config, before))
                    print(told(rows[-1]), flush=True)
                    if args.json:
                        args.json.write_text(json.dumps(rows, indent=1))
    print(table(rows))


def gain_of(model, lab, lesson, config, before):
    """Teach and judge; what is refused for doubts about its labels offers nothing."""
    row = {"nuclei": sum(len(example.ids) for example in lesson.examples)}
    row |= {f"{name}_before": getattr(before["judge"], name) for name in ("aji", "pq", "f1")}
    row |= {"other_before": before["other"].aji}
    try:
        outcome, cpu, steps = taught(model, lesson, config)
    except TeachingError as error:
        offered = {name.replace("before", "offered"): value for name, value in row.items() if "before" in name}
        return row | offered | {"adopted": False, "cpu": 0.0, "steps": 0, "reason": str(error)}
    after = judged(outcome.model, lab.judge)
    row |= {f"{name}_offered": getattr(after, name) for name in ("aji", "pq", "f1")}
    return row | {
        "other_offered": judged(outcome.model, lab.other).aji,
        "adopted": outcome.adopted, "cpu": cpu, "steps": steps, "reason": outcome.reason,
        "seen_gain": outcome.gain.choice, "not_worse": outcome.gain.not_worse, "kept": outcome.kept,
        "share": outcome.model.card.taught.get("share"), "threshold": outcome.model.card.threshold,
    }  # fmt: skip


def told(row: dict[str, object]) -> str:
    """One line for people."""
    if not row["steps"]:
        return f"{row['lab']}, {row['regions']} regions, seed {row['seed']}: {row['reason']}"
    return (
        f"{row['lab']}, {row['regions']} regions, seed {row['seed']}: {row['nuclei']} nuclei, "
        f"{'adopted' if row['adopted'] else 'refused'}, offered AJI {row['aji_offered'] - row['aji_before']:+.3f} "
        f"PQ {row['pq_offered'] - row['pq_before']:+.3f}, other {row['other_offered'] - row['other_before']:+.3f}, "
        f"guard saw {row['seen_gain']:+.3f} ({row['not_worse']:.2f}), kept {row['kept'] or 0:.2f}, {row['cpu']:.0f} s, "
        f"{row['steps']} steps, share {row['share']}, threshold {row['threshold']}"
    )


HEADS = (
    "laboratory", "regions", "nuclei", "adopted", "AJI before", "after", "gain (90 % interval)", "offered", "PQ gain",
    "F1 gain", "forgotten AJI", "CPU s",
)  # fmt: skip


def table(rows: Sequence[dict[str, object]]) -> str:
    """One line a laboratory and number of regions, and one over all laboratories."""
    lines = [f"| {' | '.join(HEADS)} |", "|---" * len(HEADS) + "|"]
    for count in sorted({row["regions"] for row in rows}):
        for lab in (*dict.fromkeys(row["lab"] for row in rows), "all"):
            some = [row for row in rows if row["regions"] == count and lab in {row["lab"], "all"}]
            lines.append(f"| {' | '.join((lab, str(count), *summary(some)))} |")
    return "\n".join(lines)


def summary(some: Sequence[dict[str, object]]) -> list[str]:
    """The cells of one line of the table."""
    gain = {
        name: np.array([(row[f"{name}_offered"] - row[f"{name}_before"]) * row["adopted"] for row in some])
        for name in ("aji", "pq", "f1")
    }
    lost = np.mean([(row["other_before"] - row["other_offered"]) * row["adopted"] for row in some])
    draws = np.random.default_rng(0).choice(gain["aji"], (2000, len(some))).mean(axis=1)
    low, high = np.quantile(draws, (0.05, 0.95))
    before = np.mean([row["aji_before"] for row in some])
    return [
        f"{np.mean([row['nuclei'] for row in some]):.0f}",
        f"{sum(row['adopted'] for row in some)} of {len(some)}",
        f"{before:.3f}",
        f"{before + gain['aji'].mean():.3f}",
        f"{gain['aji'].mean():+.3f} ({low:+.3f} to {high:+.3f})",
        f"{np.mean([row['aji_offered'] - row['aji_before'] for row in some]):+.3f}",
        f"{gain['pq'].mean():+.3f}",
        f"{gain['f1'].mean():+.3f}",
        f"{lost:+.3f}",
        f"{np.mean([row['cpu'] for row in some]):.0f}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("gain",))
    parser.add_argument("--base", type=Path, default=BASE)
    parser.add_argument("--dev", action="store_true", help="the pictures on which the recipe was chosen")
    parser.add_argument("--lab", action="append", default=[])
    parser.add_argument("--regions", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="another setting of it")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    one_thread()
    fields = dict(item.split("=") for item in args.set)
    args.config = replace(FinetuneConfig(), **{name: json.loads(value) for name, value in fields.items()})
    run_gain(args)


if __name__ == "__main__":
    main()

"""The planner against the fixed default: equal time of one core, from scratch, the same pictures.

    python benchmarks/planner.py --minutes 3

Three data sets of ``$NUCLEISEG_DATA`` (default ``../shared/data``). The rules were tried on NuCLS only; DSB 2018 and
TNBC are new to them. Each is parted into pictures to train on, to choose the best weights by, and to report: NuCLS and
DSB by a hash of their names (3 : 1 : 1), TNBC by patient (01-03 in hashed parts to train and to choose, 04-05 to
report).

``default`` is `TrainConfig` as it stands but for its number of steps, which is what fits the time (2000 steps would
not end); ``planned`` is what ``napari-nucleiseg plan`` makes of the training pictures. Time is the processor's, so that
what else runs on the machine does not decide; both get the same, validation included, and a run that is not done by
then ends there. Seeds change weights, crops and augmentation. Scores are at the pictures' own pixel size, through the
functions of the viewer.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from napari_nucleiseg.core.evaluation import ImageScores, mean_scores, scores
from napari_nucleiseg.core.inference.segment import default_options, segment_picture
from napari_nucleiseg.core.models.weights import load_model
from napari_nucleiseg.core.slides.registry import open_slide
from napari_nucleiseg.core.training.config import DataSet, TrainConfig
from napari_nucleiseg.core.training.loop import train
from napari_nucleiseg.core.training.planner.machine import seconds_per_step
from napari_nucleiseg.core.training.planner.plan import Wishes, make_plan
from napari_nucleiseg.core.training.samples import picture_files, read_pair

DATA = Path(os.environ.get("NUCLEISEG_DATA", Path(__file__).parents[2] / "shared" / "data"))
SETS = {"nucls15": 0.2, "dsb2018_tissue": None, "tnbc_dev": 0.25}
TUNED_ON = "nucls15"
ARMS = ("default", "planned")
# As the planner's rule: the rest is for validation and for writing.
SHARE_OF_TRAINING = 0.9
Parts = tuple[DataSet, DataSet, DataSet]


def parts_of(name: str) -> Parts:
    """Pictures to train on, to choose by and to report of a data set."""
    whole = DataSet(str(DATA / name), SETS[name])
    stems = [path.stem for path in picture_files(whole)]
    reported = [stem for stem in stems if stem[:2] in {"04", "05"}] if name == "tnbc_dev" else []
    rest = sorted(
        (stem for stem in stems if stem not in reported), key=lambda stem: hashlib.sha256(stem.encode()).hexdigest()
    )
    reported = reported or rest[::5]
    rest = [stem for stem in rest if stem not in reported]
    chosen = rest[::4]
    taught = [stem for stem in rest if stem not in chosen]
    train_on, choose_by, report = (replace(whole, include=tuple(part)) for part in (taught, chosen, reported))
    return train_on, choose_by, report


def configuration(arm: str, parts: Parts, minutes: float, seed: int) -> TrainConfig:
    """The run of an arm."""
    if arm == "planned":
        wishes = Wishes(device="cpu", minutes=minutes, seed=seed, threads=1)
        return make_plan(parts[:1], parts[1:2], wishes, clock=time.process_time).config
    config = TrainConfig(train=parts[:1], validate=parts[1:2], seed=seed, device="cpu", threads=1)
    fitting = minutes * 60 * SHARE_OF_TRAINING / seconds_per_step(config, time.process_time)
    return replace(config, steps=max(1, int(fitting)))


def run(config: TrainConfig, report: DataSet, minutes: float) -> tuple[ImageScores, float, int]:
    """Train for the time and score what was kept; also the seconds it took and the steps done."""
    began, done = time.process_time(), 0
    with tempfile.TemporaryDirectory() as folder:
        steps = train(replace(config, out=folder))
        for step in steps:
            done = step.step
            # Ended too early there would be no weights of a run that never validated.
            if time.process_time() - began > 60 * minutes and (Path(folder) / "best.safetensors").exists():
                break
        steps.close()
        took = time.process_time() - began
        return scored(Path(folder) / "best.safetensors", report), took, done


def scored(weights: Path, report: DataSet) -> ImageScores:
    """Mean scores of weights on the pictures to report."""
    model = load_model(str(weights), accept_licence=True)
    found = []
    for path in picture_files(report):
        _, truth, mpp_um = read_pair(path, report)
        slide = open_slide(path, mpp_um=mpp_um)
        found.append(scores(truth, segment_picture(slide, model, default_options(model), "cpu"), distances=False))
        slide.close()
    return mean_scores(found)


def row(title: str, config: TrainConfig, minutes: float, report: DataSet) -> tuple[str, float]:
    """A line of the table and its PQ."""
    mean, took, done = run(config, report, minutes)
    values = " | ".join(f"{value:.3f}" for value in (mean.aji, mean.pq, mean.f1, mean.dice))
    setup = f"{config.network} {config.batch_size} x {config.crop_px} px, depth {config.params.get('depth', 4)}"
    return f"| {title} | {setup} | {done} | {values} | {took:.0f} |", mean.pq


def verdict(name: str, found: dict[str, list[float]]) -> str:
    """A sentence that says which arm is better on a data set."""
    gain = np.subtract(found["planned"], found["default"])
    better = (
        "better" if gain.min() > 0 else "not better" if gain.mean() <= 0 else "better in the mean, not in each seed"
    )
    how = "tuned on" if name == TUNED_ON else "not tuned on"
    return f"{name} ({how}): planned is {better}, PQ {gain.mean():+.3f} ({', '.join(f'{one:+.3f}' for one in gain)})"


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=3.0, help="of one core, each run")
    parser.add_argument("--seed", type=int, action="append", default=[], help="default: 0 and 1")
    parser.add_argument("--set", action="append", default=[], choices=list(SETS), help="default: all")
    args = parser.parse_args(words)
    torch.set_num_threads(1)
    print("| data set | arm | seed | run | steps | AJI | PQ | F1 | Dice | s |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    verdicts = []
    for name in args.set or SETS:
        parts, found = parts_of(name), {arm: [] for arm in ARMS}
        for seed in args.seed or (0, 1):
            for arm in ARMS:
                config = configuration(arm, parts, args.minutes, seed)
                line, pq = row(f"{name} | {arm} | {seed}", config, args.minutes, parts[2])
                print(line, flush=True)
                found[arm].append(pq)
        verdicts.append(verdict(name, found))
    print("\n" + "\n".join(verdicts))


if __name__ == "__main__":
    main()

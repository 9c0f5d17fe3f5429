"""What a warm start gives when few images are labelled: the same short training from it and from nothing.

    python benchmarks/warm_starts.py --minutes 1.5 --pretrain-minutes 10 --start simclr --start masked:network

Data: ``$NUCLEISEG_DATA`` (default ``../shared/data``). Warm starts see pixels only: TNBC patients 01-03, the permissive
pictures of ``unlabelled_he`` (pixel sizes of ``training/unlabelled.json``) and the slides of ``wsi`` that state theirs.
Labels: 1, 4 and all 15 images of TNBC patients 01-03, which images depends on the seed. Scored on the 12 images of
patients 04-05, which chose nothing here: neither settings nor the moment to stop; the last averaged weights are scored.
Minutes are CPU minutes of one thread. They are turned into steps once, so that every run of a kind has as many.
A start is a method, with ``:network`` where it teaches more than the encoder; ``nothing`` is always among them. For
each start and budget: means over the seeds, the least and the largest of them, and in how many of the seeds the start
was better than nothing with the same images. What is finished is kept in ``--out`` and not done again.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from accuracy import DATA, image_sets, with_model
from measuring import one_thread
from napari_nucleiseg.core.evaluation import mean_scores, scores
from napari_nucleiseg.core.inference.segment import default_options
from napari_nucleiseg.core.models.weights import load_model
from napari_nucleiseg.core.training.config import DataSet, TrainConfig
from napari_nucleiseg.core.training.loop import train
from napari_nucleiseg.core.training.samples import read_labels
from napari_nucleiseg.core.training.scales.config import SlideSet
from napari_nucleiseg.core.training.warm.config import WarmConfig
from napari_nucleiseg.core.training.warm.loop import pretrain

LABELLED, HELD_OUT = "TNBC 01-03", "TNBC 04-05"
NOTHING = "nothing"
_PROBED = 8


def unlabelled() -> tuple[SlideSet, ...]:
    """What warm starts are made from."""
    folder, mpp_um, stems = image_sets()[LABELLED]
    sets = [SlideSet(str(DATA / folder / "images"), mpp_um, tuple(stems), licence="CC-BY-4.0")]
    stated = json.loads((Path(__file__).parent / "training" / "unlabelled.json").read_text())["mpp_um"]
    pictures = DATA / "unlabelled_he" / "images"
    sets += [SlideSet(str(pictures / name), mpp) for name, mpp in stated.items()]
    sets += [SlideSet(str(DATA / "wsi" / name)) for name in ("cmu-1-small-region.svs", "OS-1-detail.ome.tif")]
    return tuple(sets)


def probed(steps_of, config, minutes: float) -> int:
    """How many steps of a run fit into CPU minutes; the first one, which warms up, is not counted."""
    with TemporaryDirectory() as folder:
        began = None
        for _ in steps_of(replace(config, out=folder, steps=_PROBED + 1)):
            began = began or time.process_time()
        return max(2, round(60 * minutes * _PROBED / (time.process_time() - began)))


def run_through(steps, title: str) -> None:
    """Run to the end, and say how it goes now and then."""
    told = time.monotonic()
    for step in steps:
        if time.monotonic() - told > 60 or step.step in {1, step.total}:
            told = time.monotonic()
            parts = "  ".join(f"{name} {value:.3f}" for name, value in step.parts.items())
            note = getattr(step, "note", "")
            print(f"# {title}: step {step.step} of {step.total}, {parts}{'; ' * bool(note)}{note}", flush=True)


def warm_start(start: str, params: dict, args: argparse.Namespace) -> Path:
    """Weights of a start, made if they are not there."""
    method, _, part = start.partition(":")
    config = WarmConfig(
        method=method,
        part=part or "encoder",
        params=params,
        slides=unlabelled(),
        hold_out=0.0,
        batch_size=args.pretrain_batch,
        patches=args.patches,
        threads=1,
        checkpoint_seconds=1e9,
    )
    out = args.out / start.replace(":", "-")
    noted = out / "steps.txt"
    if not noted.exists():
        steps = probed(pretrain, config, args.pretrain_minutes)
        out.mkdir(parents=True, exist_ok=True)
        noted.write_text(str(steps))
    run_through(pretrain(replace(config, out=str(out), steps=int(noted.read_text()))), start)
    return out / "warm.safetensors"


def training(params: dict, budget: int, seed: int) -> TrainConfig:
    """A short training with the labels of some images."""
    folder, mpp_um, stems = image_sets()[LABELLED]
    chosen = np.random.default_rng((seed, budget)).permutation(stems)[:budget]
    data = DataSet(str(DATA / folder), mpp_um, include=tuple(chosen.tolist()))
    return TrainConfig(params=params, train=(data,), crop_px=128, batch_size=8, ema=0.98, seed=seed, threads=1)


def measured(config: TrainConfig, title: str) -> dict[str, float]:
    """Train, segment what was held out, score it."""
    run_through(train(config), title)
    model = load_model(f"{config.out}/best.safetensors", accept_licence=True)
    segment = with_model(model, model.spec.decoder, default_options(model), "cpu")
    folder, mpp_um, stems = image_sets()[HELD_OUT]
    found = []
    for stem in stems:
        truth = read_labels(DATA / folder / "labels" / f"{stem}.tif")
        found.append(scores(truth, segment(DATA / folder / "images" / f"{stem}.png", mpp_um), distances=False))
    mean = mean_scores(found)
    return {"AJI": mean.aji, "PQ": mean.pq, "F1": mean.f1}


def kept(path: Path, make) -> dict[str, float]:
    """What was measured before, or is measured now."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(make()))
    return json.loads(path.read_text())


def table(results: dict[tuple[str, int, int], dict[str, float]]) -> None:
    """Print the means over seeds."""
    print("| start | images | AJI | PQ | F1 | better than nothing |\n|---|---|---|---|---|---|")
    for start, budget in dict.fromkeys((start, budget) for start, budget, _ in results):
        rows = {seed: item for (name, size, seed), item in results.items() if (name, size) == (start, budget)}
        cells = []
        for key in ("AJI", "PQ", "F1"):
            values = [item[key] for item in rows.values()]
            cells.append(f"{np.mean(values):.3f} [{min(values):.3f}, {max(values):.3f}]")
        better = sum(item["AJI"] > results[NOTHING, budget, seed]["AJI"] for seed, item in rows.items())
        cells.append("" if start == NOTHING else f"{better} of {len(rows)} (AJI)")
        print(f"| {start} | {budget} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--start", action="append", default=[], help="default: simclr and masked:network")
    parser.add_argument("--minutes", type=float, default=1.5, help="CPU minutes of each training with labels")
    parser.add_argument("--pretrain-minutes", type=float, default=10.0, help="CPU minutes of each warm start")
    parser.add_argument("--pretrain-batch", type=int, default=64)
    parser.add_argument("--patches", type=int, default=2000)
    parser.add_argument("--images", type=int, action="append", default=[], help="default: 1, 4, 15")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--width", type=int, default=32, help="of the network nuclei")
    parser.add_argument("--out", type=Path, default=Path("runs/warm-starts"))
    args = parser.parse_args()
    one_thread()
    params = {} if args.width == 32 else {"width": args.width, "widest": 6 * args.width}
    starts = {NOTHING: ""}
    for start in args.start or ["simclr", "masked:network"]:
        starts[start] = str(warm_start(start, params, args))
    budgets = args.images or [1, 4, 15]
    noted = args.out / "steps.txt"
    if not noted.exists():
        noted.write_text(str(probed(train, training(params, 1, 0), args.minutes)))
    steps = int(noted.read_text())
    results = {}
    for seed in range(args.seeds):
        for budget in budgets:
            for start, initial in starts.items():
                run = args.out / f"{start.replace(':', '-')}-{budget}-{seed}"
                config = replace(training(params, budget, seed), out=str(run), initial=initial, steps=steps)
                config = replace(config, warmup=steps // 10)
                title = f"{start}, {budget} images, seed {seed}"
                results[start, budget, seed] = kept(
                    run.with_suffix(".json"), lambda config=config, title=title: measured(config, title)
                )
    results = {(s, b, n): results[s, b, n] for s in starts for b in budgets for n in range(args.seeds)}
    print(f"{steps} steps of each training; warm starts: {steps_of_starts(args)}")
    table(results)


def steps_of_starts(args: argparse.Namespace) -> str:
    """How many steps each warm start had."""
    found = sorted(args.out.glob("*/steps.txt"))
    return ", ".join(f"{path.parent.name} {path.read_text()} steps" for path in found)


if __name__ == "__main__":
    main()

"""What each term of scale attention gives: the same short run with one of them switched off, or ours switched on.

    python benchmarks/attention_ablation.py benchmarks/training/scale-attention-permissive.json --steps 750

Every run sees the same crops in the same order and starts from the same weights; judged are the weights after the last
step, on TNBC 04-05 (``$NUCLEISEG_DATA``, default ``../shared/data``), whose labels score and nothing else. The level is
each picture's own by Otsu's threshold, because a run without sparsity has no other (told by shape it is 0); each tile
is seen in one position.
"Covered" is the share of pixels in nuclei that were found, beside it the share that annotated nuclei take up.
Runs are short: they tell terms apart, not how far the method gets.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from accuracy import DATA, image_sets
from measuring import one_thread
from napari_nucleiseg.core.evaluation import mean_scores, scores
from napari_nucleiseg.core.models.weights import LoadedModel
from napari_nucleiseg.core.training.samples import read_labels
from napari_nucleiseg.core.training.scales.config import SHAPED, ScaleConfig, load_scale_config
from napari_nucleiseg.core.training.scales.loop import pretrain
from selfsupervised import with_model

JUDGED = "TNBC 04-05"
PUBLISHED = {"scale": 1.0, "smoothness": 1.0, "equivariance": 1.0}
OURS = {"scale": 1.0, "smoothness": 0.3, "equivariance": 1.0, "haematoxylin": 1.0}
# A plain sigmoid around the median: half of the pixels exceed it, and none of them sharply.
FLAT = {"sparsity": 0.5, "sharpness": 1.0}


def without(losses: Mapping[str, float], term: str) -> dict[str, float]:
    """The other terms."""
    return {name: weight for name, weight in losses.items() if name != term}


RUNS: dict[str, tuple[dict[str, float], dict[str, float]]] = {
    "published terms": (PUBLISHED, {}),
    "... without scale": (without(PUBLISHED, "scale"), {}),
    "... without smoothness": (without(PUBLISHED, "smoothness"), {}),
    "... without equivariance": (without(PUBLISHED, "equivariance"), {}),
    "... without sparsity": (PUBLISHED, FLAT),
    "ours (haematoxylin, less smoothness)": (OURS, {}),
    "... without scale (ours)": (without(OURS, "scale"), {}),
    "... without haematoxylin (ours)": (without(OURS, "haematoxylin"), {}),
    "told by shape": (dict(SHAPED), {}),
    "... without scale (told by shape)": (without(SHAPED, "scale"), {}),
    "... without equivariance (told by shape)": (without(SHAPED, "equivariance"), {}),
}


def trained(config: ScaleConfig) -> tuple[LoadedModel, float]:
    """The network after the last step, and how often it told the magnification of held-out crops."""
    for step in pretrain(config):
        if step.model is not None:
            return step.model, (step.validation or {}).get("accuracy", float("nan"))
    raise RuntimeError("the run yielded no model")


def judged(model: LoadedModel) -> tuple[float, float, float, float]:
    """AJI, Dice, share of pixels in nuclei that were found, and in true ones."""
    folder, mpp_um, stems = image_sets()[JUDGED]
    segment = with_model(model, positions=False, own_level=not model.card.level_is_set)
    found, shares = [], []
    for stem in stems:
        pred = segment(DATA / folder / "images" / f"{stem}.png", mpp_um, 0)
        truth = read_labels(DATA / folder / "labels" / f"{stem}.tif")
        found.append(scores(truth, pred, distances=False))
        shares.append((np.mean(pred > 0), np.mean(truth > 0)))
    mean, (looked, nuclei) = mean_scores(found), np.mean(shares, axis=0)
    return mean.aji, mean.dice, float(looked), float(nuclei)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", type=Path)
    parser.add_argument("--steps", type=int, default=750)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--run", action="append", default=[], choices=list(RUNS))
    parser.add_argument("--out", type=Path, default=Path("runs/attention-ablation"))
    args = parser.parse_args()
    one_thread()
    base = replace(load_scale_config(str(args.config)), steps=args.steps, drops=(args.steps * 4 // 5,), threads=1)
    base = replace(base, validate_every=args.steps)
    print("| terms | seed | AJI | Dice | covered | nuclei | scale accuracy |")
    print("|---|---|---|---|---|---|---|")
    for place, (title, (losses, params)) in enumerate(RUNS.items()):
        if args.run and title not in args.run:
            continue
        for seed in range(args.seeds):
            out = args.out / f"{place}-{seed}"
            config = replace(base, losses=losses, params={**base.params, **params}, seed=seed, out=str(out))
            model, accuracy = trained(config)
            aji, dice, looked, nuclei = judged(model)
            print(
                f"| {title} | {seed} | {aji:.3f} | {dice:.3f} | {looked:.3f} | {nuclei:.3f} | {accuracy:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()

"""Clusters without labels (S3-Net) against annotated nuclei, and weights fitted once against weights fitted anew.

    python benchmarks/clustering.py --preset published --preset default

Data: pictures 01_1 to 01_3, 02_1 and 02_2 of TNBC (``$NUCLEISEG_DATA``, default ``../shared/data``), two patients on
parts of whose pictures the default settings were chosen. Pictures are scored as everywhere else: nuclei of the proposed
clusters against the truth at the pictures' own pixel size. Beside it stand two figures that look at the truth: the Dice
of the best single cluster, and that of the published protocol, which erases what lies away from the truth before it
scores and is comparable with nothing.
"""

from __future__ import annotations

import argparse
import os
import time
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np

from napari_nucleiseg.core.decoders.classical import segment_classically
from napari_nucleiseg.core.evaluation import best_cluster, foreground_scores, scores, scores_with_leaked_truth
from napari_nucleiseg.core.inference.segment import segment_picture
from napari_nucleiseg.core.slides.registry import open_slide
from napari_nucleiseg.core.training.clustering.choice import nuclei_of_clusters, proposed_clusters, ranked
from napari_nucleiseg.core.training.clustering.config import PRESETS, preset
from napari_nucleiseg.core.training.clustering.fit import Clustering, cluster
from napari_nucleiseg.core.training.clustering.fitted import fitted_model
from napari_nucleiseg.core.training.samples import read_labels, read_picture

DATA = Path(os.environ.get("NUCLEISEG_DATA", Path(__file__).parents[2] / "shared" / "data")) / "tnbc_dev"
MPP_UM, MODEL_UM = 0.25, 0.5


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """One picture, fitted: what its clusters are, its nuclei at level 0, and the seconds of CPU that it took."""

    result: Clustering
    chosen: tuple[int, ...]
    nuclei: np.ndarray
    seconds: float


def paths(count: int) -> list[str]:
    """Stems of the first pictures of each patient, the larger half of them of patient 01."""
    stems = sorted(path.stem for path in (DATA / "images").glob("*.png"))
    first, second = ([stem for stem in stems if stem.startswith(patient)] for patient in ("01", "02"))
    return [*first[: -(-count // 2)], *second[: count // 2]]


def enlarged(labels: np.ndarray, like: np.ndarray) -> np.ndarray:
    size = like.shape[1::-1]
    return cv2.resize(labels.astype(np.float32), size, interpolation=cv2.INTER_NEAREST).astype(np.int32)


def fitted(stem: str, name: str, seed: int) -> Fit:
    image = read_picture(DATA / "images" / f"{stem}.png")
    factor = MPP_UM / MODEL_UM
    small = np.asarray(cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA), np.uint8)
    began = time.process_time()
    *_, end = cluster(small, replace(preset(name), seed=seed))
    seconds = time.process_time() - began
    assert end.result is not None
    chosen = proposed_clusters(ranked(end.labels, small))
    nuclei = nuclei_of_clusters(end.labels, chosen, MODEL_UM)
    return Fit(end.result, chosen, enlarged(nuclei.labels, image), seconds)


def floor(stem: str) -> np.ndarray:
    return segment_classically(read_picture(DATA / "images" / f"{stem}.png"), MPP_UM).labels


def applied(fit: Fit, stem: str) -> np.ndarray:
    model = fitted_model(fit.result, fit.chosen, "fitted")
    slide = open_slide(DATA / "images" / f"{stem}.png", mpp_um=MPP_UM)
    with closing(slide):
        return segment_picture(slide, model, device="cpu")


def table(title: str, columns: str, rows: list[tuple[object, ...]]) -> None:
    """Print rows and their mean."""
    print(f"\n{title}\n| {columns} |\n|{'---|' * (columns.count('|') + 1)}")
    numbers = [[value for value in row if isinstance(value, float)] for row in rows]
    means = np.nanmean(np.array(numbers), axis=0)
    words = [value for value in rows[0] if not isinstance(value, float)]
    for row in [*rows, ("mean", *[""] * (len(words) - 1), *map(float, means))]:
        print("| " + " | ".join(f"{value:.3f}" if isinstance(value, float) else str(value) for value in row) + " |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", action="append", default=[], choices=tuple(PRESETS), help="default: all")
    parser.add_argument("--pictures", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    stems = paths(args.pictures)
    truths = {stem: read_labels(DATA / "labels" / f"{stem}.tif") for stem in stems}
    rows: list[tuple[object, ...]] = []
    for stem in stems:
        pred = floor(stem)
        found, fore = scores(truths[stem], pred, distances=False), foreground_scores(truths[stem], pred)
        rows.append((stem, found.dice, found.aji, found.pq, fore.hammoude, fore.xor))
    table("Classical floor", "picture | Dice | AJI | PQ | Hammoude | XOR", rows)
    for name in args.preset or PRESETS:
        fits = {stem: fitted(stem, name, args.seed) for stem in stems}
        rows = []
        for stem, fit in fits.items():
            truth, labels = truths[stem], enlarged(fit.result.labels, truths[stem])
            found, fore = scores(truth, fit.nuclei, distances=False), foreground_scores(truth, fit.nuclei)
            best = foreground_scores(truth, (labels == best_cluster(truth, labels)).astype(np.uint8))
            leaked = scores_with_leaked_truth(truth, labels)
            what = f"{len(np.unique(labels))}, {len(fit.chosen)} chosen"
            numbers = (found.dice, found.aji, found.pq, fore.hammoude, fore.xor, best.dice, leaked.dice, fit.seconds)
            rows.append((stem, what, *numbers))
        columns = "picture | clusters | Dice | AJI | PQ | Hammoude | XOR | Dice of best cluster (sees truth)"
        table(f"Preset {name}", f"{columns} | Dice of published protocol (truth leaks in) | CPU s", rows)
        if not next(iter(fits.values())).result.network.is_free:
            reuse(fits, truths, name)


def reuse(fits: dict[str, Fit], truths: dict[str, np.ndarray], name: str) -> None:
    """Each picture with the weights of the one before it, beside its own fit; two of five are of another patient."""
    rows: list[tuple[object, ...]] = []
    stems = list(fits)
    for place, stem in enumerate(stems):
        other = stems[place - 1]
        truth, own, again = truths[stem], fits[stem].nuclei, applied(fits[other], stem)
        anew, reused = (scores(truth, pred, distances=False) for pred in (own, again))
        between = scores(own, again, distances=False)
        rows.append((stem, other, anew.dice, reused.dice, anew.aji, reused.aji, between.dice))
    columns = "picture | weights of | Dice anew | Dice reused | AJI anew | AJI reused | Dice between the two"
    table(f"Weights reused, preset {name}", columns, rows)


if __name__ == "__main__":
    main()

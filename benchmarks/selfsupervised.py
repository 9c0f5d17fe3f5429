"""Nuclei without a single label: clusterings, attention from scale, and networks taught by the classical floor alone.

    python benchmarks/selfsupervised.py --cluster published --cluster default --model runs/label-free/best.safetensors

Data: as in `accuracy.py` (14 Kumar test images, TNBC 04-05, NuCLS 15; ``$NUCLEISEG_DATA``, default ``../shared/data``).
Labels are used for scoring and for nothing else: no weights, setting or moment to stop was chosen by them. What was
trained on pictures of these sets' training parts saw their pixels only.
Beside the classical floor stands what needs no learning either: nuclei by their shape, each at its own level of stain.
A clustering is fitted to each picture anew, with each seed; its nuclei are those of the clusters that it proposes
itself. Models of scale attention are shown with their running level and with each picture's own by Otsu's threshold
(those that were taught by shape have one level only), averaged over eight positions as published (``--once``: one).
Scores are means over pictures at their own pixel size; where there are several seeds the least and the largest mean
stand in brackets. AHD: mean distance of outlines; AHD as coded: the figure of the method's published code, which passes
over nuclei that were missed.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from accuracy import DATA, floor, image_sets
from clustering import enlarged
from measuring import one_thread
from napari_nucleiseg.core.decoders.component_tree import segment_by_shape
from napari_nucleiseg.core.evaluation import ImageScores, mean_scores, scores
from napari_nucleiseg.core.inference.segment import default_options, segment_picture
from napari_nucleiseg.core.models.scale_attention import ScaleAttention
from napari_nucleiseg.core.models.turned import turned
from napari_nucleiseg.core.models.weights import LoadedModel, load_model
from napari_nucleiseg.core.slides.registry import open_slide
from napari_nucleiseg.core.slides.stains import stain_densities
from napari_nucleiseg.core.training.clustering.choice import nuclei_of_clusters, proposed_clusters, ranked
from napari_nucleiseg.core.training.clustering.config import PRESETS, preset
from napari_nucleiseg.core.training.clustering.fit import cluster
from napari_nucleiseg.core.training.samples import read_labels, read_picture
from napari_nucleiseg.core.training.scales.adaptation import at_slide_level

# Every clustering sees this pixel size.
MODEL_UM = 0.5
K = 3
Segment = Callable[[Path, float, int], NDArray[np.int32]]


def shrunk(path: Path, mpp_um: float) -> NDArray[np.uint8]:
    """A picture at the pixel size of the clusterings."""
    image, factor = read_picture(path), mpp_um / MODEL_UM
    return np.asarray(cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA), np.uint8)


def nuclei_of(labels: NDArray[np.integer], image: NDArray[np.uint8], path: Path) -> NDArray[np.int32]:
    """Nuclei of the proposed clusters at the picture's own pixels."""
    found = nuclei_of_clusters(labels, proposed_clusters(ranked(labels, image)), MODEL_UM).labels
    return enlarged(found, read_picture(path))


def k_means(path: Path, mpp_um: float, seed: int) -> NDArray[np.int32]:
    """Pixels of like stain densities are one cluster."""
    image = shrunk(path, mpp_um)
    values = cv2.GaussianBlur(stain_densities(image)[..., :2], (0, 0), 1.0).reshape(-1, 2)
    cv2.setRNGSeed(seed)
    stop = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 50, 1e-4)
    _, labels, _ = cv2.kmeans(np.ascontiguousarray(values), K, None, stop, 3, cv2.KMEANS_PP_CENTERS)
    return nuclei_of(labels.reshape(image.shape[:2]).astype(np.int32), image, path)


def by_shape(path: Path, mpp_um: float, _seed: int) -> NDArray[np.int32]:
    """Plump regions of haematoxylin with sharp rims."""
    return segment_by_shape(read_picture(path), mpp_um).labels


def s3net(name: str) -> Segment:
    """S3-Net fitted to each picture."""

    def run(path: Path, mpp_um: float, seed: int) -> NDArray[np.int32]:
        image = shrunk(path, mpp_um)
        *_, end = cluster(image, replace(preset(name), seed=seed))
        return nuclei_of(end.labels, image, path)

    return run


def with_model(model: LoadedModel, *, positions: bool, own_level: bool = False) -> Segment:
    """A model as the command ``segment`` uses it."""

    def run(path: Path, mpp_um: float, _seed: int) -> NDArray[np.int32]:
        slide = open_slide(path, mpp_um=mpp_um)
        try:
            chosen = at_slide_level(model, slide, otsu=True) if own_level else model
            return segment_picture(slide, turned(chosen) if positions else chosen, default_options(model), "cpu")
        finally:
            slide.close()

    return run


def measured(segment: Segment, name: str, seeds: int) -> tuple[list[ImageScores], float]:
    """Mean scores of a set for each seed, and CPU seconds a megapixel."""
    folder, mpp_um, stems = image_sets()[name]
    means, pixels, spent = [], 0, 0.0
    for seed in range(seeds):
        found = []
        for stem in stems:
            truth = read_labels(DATA / folder / "labels" / f"{stem}.tif")
            began = time.process_time()
            pred = segment(DATA / folder / "images" / f"{stem}.png", mpp_um, seed)
            spent += time.process_time() - began
            pixels += truth.size
            found.append(scores(truth, pred))
        means.append(mean_scores(found))
    return means, spent / pixels * 1e6


def cell(values: list[float]) -> str:
    """A mean, with its range over seeds."""
    mean = f"{np.mean(values):.3f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.3f} to {max(values):.3f})"


def methods(args: argparse.Namespace) -> dict[str, tuple[Segment, int]]:
    """Title, what segments, and with how many seeds."""
    found: dict[str, tuple[Segment, int]] = {}
    if not args.no_floor:
        found["classical floor"] = (lambda path, mpp_um, _seed: floor(path, mpp_um), 1)
        found["nuclei by shape"] = (by_shape, 1)
        found[f"k-means, {K} clusters of stain"] = (k_means, args.seeds)
    for name in args.cluster:
        found[f"S3-Net, {name}"] = (s3net(name), args.seeds)
    for name in args.model:
        model = load_model(name, accept_licence=True)
        if isinstance(model.network, ScaleAttention) and not model.card.level_is_set:
            found[f"{model.version}, running level"] = (with_model(model, positions=not args.once), 1)
            found[f"{model.version}, level by Otsu"] = (with_model(model, positions=not args.once, own_level=True), 1)
        else:
            attends = isinstance(model.network, ScaleAttention)
            found[model.version] = (with_model(model, positions=attends and not args.once), 1)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", default=[], help="weights that were trained without labels")
    parser.add_argument("--cluster", action="append", default=[], choices=tuple(PRESETS), help="S3-Net, by preset")
    parser.add_argument("--set", action="append", default=[], choices=list(image_sets()))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--once", action="store_true", help="one position of each tile in place of eight")
    parser.add_argument("--no-floor", action="store_true")
    args = parser.parse_args()
    one_thread()
    names = ("aji", "pq", "f1", "dice", "ahd", "ahd_as_coded")
    print("| method | set | AJI | PQ | F1 | Dice | AHD px | AHD as coded px | CPU s per megapixel |")
    print("|---|---|---|---|---|---|---|---|---|")
    for title, (segment, seeds) in methods(args).items():
        for name in args.set or ["Kumar 14", "TNBC 04-05", "NuCLS 15"]:
            means, seconds = measured(segment, name, seeds)
            cells = [cell([float(getattr(mean, score)) for mean in means]) for score in names]
            print(f"| {title} | {name} | {' | '.join(cells)} | {seconds:.1f} |", flush=True)


if __name__ == "__main__":
    main()

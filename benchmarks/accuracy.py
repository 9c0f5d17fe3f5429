"""Agreement with annotated nuclei: classical floor, models and decoders in one table.

    python benchmarks/accuracy.py --model nuclei --model nuclei-research --accept-licence

Data: ``$NUCLEISEG_DATA`` (default ``../shared/data``): 14 test images of HoVer-Net's Kumar split (8 of organs seen in
training, 6 of others), TNBC patients 04-05 (validation: they chose the weights), NuCLS sample (trained on by the
shipped models: only meaningful for a model of a fold, see ``training/nuclei-fold.json``). Nothing is tuned on the Kumar
test images. On demand the 16 images of that split's training part, which tell how well ``nuclei-research`` fits what it
was trained on, and are new to ``nuclei``; and TNBC patients 01-03, which both were trained on.
Scores are at the images' own pixel size, through the same functions as the viewer and the command line.
"""

from __future__ import annotations

import argparse
import csv
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.decoders.base import DecodeOptions
from napari_nucleiseg.core.decoders.classical import segment_classically
from napari_nucleiseg.core.evaluation import ImageScores, mean_scores, scores
from napari_nucleiseg.core.inference.segment import default_options, segment_picture
from napari_nucleiseg.core.models.turned import turned
from napari_nucleiseg.core.models.weights import LoadedModel, load_model
from napari_nucleiseg.core.slides.registry import open_slide
from napari_nucleiseg.core.training.samples import read_labels

DATA = Path(os.environ.get("NUCLEISEG_DATA", Path(__file__).parents[2] / "shared" / "data"))
TRAINING_PART, DEVELOPMENT = "Kumar 16, training part", "TNBC 01-03"
Segment = Callable[[Path, float], NDArray[np.int32]]


def kumar(split: str) -> list[str]:
    """Stems of one part of HoVer-Net's split of the Kumar images."""
    with (DATA / "kumar_train30" / "index.csv").open() as file:
        return [row["stem"] for row in csv.DictReader(file) if row["hovernet_kumar_split"] == split]


def image_sets() -> dict[str, tuple[str, float, list[str]]]:
    """Name: folder, micrometres per pixel, stems."""
    same, other = kumar("test_same_organ"), kumar("test_other_organ")
    patients = sorted(p.stem for p in (DATA / "tnbc_dev" / "images").glob("*.png"))
    tnbc = [stem for stem in patients if stem[:2] in {"04", "05"}]
    nucls = sorted(p.stem for p in (DATA / "nucls15" / "images").glob("*.png"))
    return {
        "Kumar 14": ("kumar_train30", 0.25, same + other),
        "same organ 8": ("kumar_train30", 0.25, same),
        "other organ 6": ("kumar_train30", 0.25, other),
        "TNBC 04-05": ("tnbc_dev", 0.25, tnbc),
        "NuCLS 15": ("nucls15", 0.2, nucls),
        TRAINING_PART: ("kumar_train30", 0.25, kumar("train")),
        DEVELOPMENT: ("tnbc_dev", 0.25, [stem for stem in patients if stem not in tnbc]),
    }


def with_model(model: LoadedModel, decoder: str, options: DecodeOptions, device: str) -> Segment:
    """Make a function that segments a picture file with `model` and one of its decoders."""
    chosen = LoadedModel(replace(model.spec, decoder=decoder), model.card, model.network)

    def run(path: Path, mpp_um: float) -> NDArray[np.int32]:
        slide = open_slide(path, mpp_um=mpp_um)
        try:
            return segment_picture(slide, chosen, options, device)
        finally:
            slide.close()

    return run


def floor(path: Path, mpp_um: float) -> NDArray[np.int32]:
    """The classical floor."""
    slide = open_slide(path, mpp_um=mpp_um)
    return segment_classically(slide.read_region(slide.region), mpp_um).labels


def picture(folder: str, stem: str) -> Path:
    """Where an image lies; what `training/pack.py` unpacked is TIFF."""
    path = DATA / folder / "images" / f"{stem}.png"
    return path if path.exists() else path.with_suffix(".tif")


def score(segment: Segment, sets: Iterable[str], *, distances: bool) -> dict[str, ImageScores]:
    """Mean scores of each set; a picture that is in two sets is segmented once."""
    table = image_sets()
    found: dict[Path, ImageScores] = {}
    means = {}
    for name in sets:
        folder, mpp_um, stems = table[name]
        for stem in stems:
            path = picture(folder, stem)
            if path not in found:
                truth = read_labels(DATA / folder / "labels" / f"{stem}.tif")
                found[path] = scores(truth, segment(path, mpp_um), distances=distances)
        means[name] = mean_scores(found[picture(folder, stem)] for stem in stems)
    return means


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", default=[], help="name or file; may be given several times")
    parser.add_argument("--decoder", action="append", default=[], help="offsets, distance, border (default: all)")
    parser.add_argument("--set", action="append", default=[], choices=list(image_sets()), help="default: all test sets")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--accept-licence", action="store_true")
    parser.add_argument("--distances", action="store_true", help="also AHD (slow)")
    parser.add_argument("--no-floor", action="store_true")
    parser.add_argument("--thorough", action="store_true", help="mean of eight positions of every tile (8 x the time)")
    args = parser.parse_args()
    sets = args.set or [name for name in image_sets() if name not in {TRAINING_PART, DEVELOPMENT}]
    rows: list[tuple[str, Segment]] = [] if args.no_floor else [("classical floor", floor)]
    for name in args.model or ["nuclei"]:
        model = load_model(name, accept_licence=args.accept_licence)
        if args.thorough:
            model = turned(model)
        options = default_options(model)
        rows.extend(
            (
                f"{model.version} {decoder}",
                with_model(model, decoder, options, args.device),
            )
            for decoder in args.decoder or ["offsets", "distance", "border"]
        )
    print("| method | set | AJI | AJI+ | PQ | DQ | SQ | F1 | Dice | AHD px | nuclei | found | s |")
    print("|---|---|---|---|---|---|---|---|---|---|---|---|---|")
    for title, segment in rows:
        began = time.process_time()
        for name, mean in score(segment, sets, distances=args.distances).items():
            took = time.process_time() - began
            values = (mean.aji, mean.aji_plus, mean.pq, mean.dq, mean.sq, mean.f1, mean.dice)
            numbers = " | ".join(f"{value:.3f}" for value in values)
            print(
                f"| {title} | {name} | {numbers} | {mean.ahd:.2f} | {mean.truth_count} | {mean.pred_count} "
                f"| {took:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()

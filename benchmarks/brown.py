"""What the removal of brown is worth: H&E pictures with known nuclei whose eosin was turned into DAB.

    python benchmarks/brown.py [--set "Kumar 14"] [--model nuclei] [--pictures 6]

There are no immunostains with annotated nuclei among the data, so they are made: each picture is unmixed into
haematoxylin and eosin, and mixed again with half of the haematoxylin and, in eosin's place, DAB, as where cytoplasm and
membranes are stained. The vectors of the stains are drawn anew for each picture around the published ones, so that the
removal, which knows only those, is not right by construction. Real ones are dirtier. Take the differences.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from skimage.color import combine_stains, hed_from_rgb, rgb_from_hdx, separate_stains

from accuracy import DATA, image_sets, picture
from napari_nucleiseg.core.evaluation import mean_scores, scores
from napari_nucleiseg.core.inference.segment import segment_picture
from napari_nucleiseg.core.models.looking import looking
from napari_nucleiseg.core.models.weights import LoadedModel, load_model
from napari_nucleiseg.core.slides.registry import open_slide
from napari_nucleiseg.core.slides.sample import tissue_slide
from napari_nucleiseg.core.slides.tissue import tissue_mask
from napari_nucleiseg.core.training.samples import read_labels

SPREAD = 0.05
STRENGTHS = (1.0, 3.0, 6.0)
COUNTERSTAIN = 0.5
Picture = NDArray[np.uint8]
Change = Callable[[Picture, int], Picture]


def browned(strength: float, image: Picture, number: int) -> Picture:
    """Mix the picture of H&E with this number anew: so much DAB for each part of eosin, and a weaker counterstain."""
    rng = np.random.default_rng(number)
    stains = separate_stains(image, hed_from_rgb)
    vectors = rgb_from_hdx + rng.normal(0, SPREAD, (3, 3))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    mixed = np.stack([COUNTERSTAIN * stains[..., 0], strength * stains[..., 1], np.zeros(image.shape[:2])], axis=2)
    return np.rint(combine_stains(mixed, vectors) * 255).astype(np.uint8)


def judged(model: LoadedModel, name: str, most: int, change: Change) -> str:
    """Segment the changed pictures of a set; return AJI, PQ and number of nuclei."""
    folder, mpp_um, stems = image_sets()[name]
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        for number, stem in enumerate(stems[:most]):
            with closing(open_slide(picture(folder, stem), mpp_um=mpp_um)) as slide:
                image = slide.read_region(slide.region)
            path = Path(scratch) / f"{stem}.tif"
            tifffile.imwrite(path, change(image, number))
            with closing(open_slide(path, mpp_um=mpp_um)) as slide:
                said = segment_picture(slide, model, device="cpu")
            found.append(scores(read_labels(DATA / folder / "labels" / f"{stem}.tif"), said))
    mean = mean_scores(found)
    return f"{mean.aji:.3f} | {mean.pq:.3f} | {mean.pred_count} of {mean.truth_count}"


def told_brown() -> None:
    """Print how much of the tissue is brown in the H&E of the data, and in scikit-image's immunostain."""
    print("| set | pictures | largest share that is brown | called immunostained |\n|---|---|---|---|")
    slides = sorted(path for kind in ("*.svs", "*.tif") for path in (DATA / "wsi").glob(kind))
    folders = ("kumar_train30", "tnbc_dev", "nucls15", "dsb2018_tissue", "unlabelled_he")
    sets = {name: sorted((DATA / name / "images").glob("*.*")) for name in folders} | {"whole slides": slides}
    for name, paths in sets.items():
        found = []
        for path in paths:
            with closing(open_slide(path, mpp_um=0.5)) as slide:
                found.append(tissue_mask(slide))
        called = sum(tissue.looks_immunostained for tissue in found)
        print(f"| {name} | {len(found)} | {max(tissue.brown for tissue in found):.3f} | {called} |")
    sample = tissue_mask(tissue_slide())
    print(f"| scikit-image's immunostain | 1 | {sample.brown:.3f} | {int(sample.looks_immunostained)} |\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", action="append", default=[], choices=list(image_sets()))
    parser.add_argument("--model", default="nuclei")
    parser.add_argument("--pictures", type=int, default=99, help="most of each set")
    wanted = parser.parse_args()
    model = load_model(wanted.model)
    told_brown()
    print(f"| set | picture | {model.version} | AJI | PQ | nuclei |\n|---|---|---|---|---|---|")
    changes: dict[str, Change] = {"H&E": lambda image, _: image}
    for strength in STRENGTHS:
        changes[f"brown x {strength:g}"] = partial(browned, strength)
    for name in wanted.set or ["Kumar 14", "TNBC 04-05"]:
        for picture_title, change in changes.items():
            for title, used in (("as it is", model), ("ignore brown", looking(model, ignore_brown=True))):
                row = judged(used, name, wanted.pictures, change)
                print(f"| {name} | {picture_title} | {title} | {row} |", flush=True)


if __name__ == "__main__":
    main()

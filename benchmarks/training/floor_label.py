"""Label pictures without any learning, so that a network can be taught without a single label made by people.

    python benchmarks/training/floor_label.py benchmarks/training/label-free-pictures.json runs/floor
    python benchmarks/training/floor_label.py --by shape benchmarks/training/label-free-pictures.json runs/shape

The floor (haematoxylin, Otsu's threshold, distance watershed) errs in its own way: a network that sees many pictures
learns what its labels have in common, which is nuclei. What is plainly none is left unannotated (-1): regions too
small, too large, too ragged or too pale for a nucleus. By shape each nucleus has a threshold of its own, and what only
the floor calls one is left unannotated. No label is looked at.
The JSON lists folders with a pixel size, and which of their pictures.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray
from skimage.measure import regionprops

from napari_nucleiseg.core.decoders.classical import segment_classically
from napari_nucleiseg.core.training.samples import read_picture
from napari_nucleiseg.core.training.scales.shapes import instances_by_shape

MPP_UM = 0.5
# Square micrometres; share of its convex hull that a nucleus fills.
SMALLEST_UM2, LARGEST_UM2, PLUMPEST = 12.0, 220.0, 0.85
# Score below which a nucleus is hardly darker than what is around it.
LEAST_SCORE = 0.1


def label_by_shape(image: NDArray[np.uint8], mpp_um: float) -> NDArray[np.int32]:
    """The plump regions at the picture's own pixels; -1 where only the floor sees a nucleus."""
    return instances_by_shape(image, mpp_um)


def label_by_floor(image: NDArray[np.uint8], mpp_um: float) -> NDArray[np.int32]:
    """The floor's plausible nuclei at the picture's own pixels; -1 where it is not to be trusted."""
    found = segment_classically(image, mpp_um)
    labels = found.labels.copy()
    for nucleus in regionprops(labels):
        area = nucleus.area * mpp_um**2
        plausible = SMALLEST_UM2 <= area <= LARGEST_UM2 and nucleus.solidity >= PLUMPEST
        if not plausible or found.scores[nucleus.label - 1] < LEAST_SCORE:
            labels[nucleus.slice][nucleus.image] = -1
    return labels


WAYS = {"floor": label_by_floor, "shape": label_by_shape}


def resized(image: NDArray[np.uint8], labels: NDArray[np.int32], factor: float) -> tuple[np.ndarray, np.ndarray]:
    """Picture and labels with sides times `factor`."""
    size = tuple(max(64, round(side * factor)) for side in labels.shape[::-1])
    image = cv2.resize(image, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR)
    return image, cv2.resize(labels.astype(np.float32), size, interpolation=cv2.INTER_NEAREST).astype(np.int32)


def pictures(listed: dict[str, object]) -> dict[Path, float]:
    """Path and micrometres per pixel of each picture of one folder."""
    folder = Path(os.path.expandvars(str(listed["folder"])))
    size = listed["mpp_um"]
    if isinstance(size, dict):
        return {folder / name: mpp_um for name, mpp_um in size.items()}
    return {path: size for pattern in listed["include"] for path in sorted(folder.glob(f"{pattern}.png"))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", help="JSON: a list of folders")
    parser.add_argument("out", type=Path)
    parser.add_argument("--by", choices=tuple(WAYS), default="floor")
    args = parser.parse_args()
    for name in ("images", "labels"):
        (args.out / name).mkdir(parents=True, exist_ok=True)
    for listed in json.loads(Path(args.pictures).read_text()):
        for path, mpp_um in pictures(listed).items():
            image = read_picture(path)
            image, labels = resized(image, WAYS[args.by](image, mpp_um), mpp_um / MPP_UM)
            tifffile.imwrite(args.out / "images" / f"{path.stem}.tif", image, compression="zlib")
            tifffile.imwrite(args.out / "labels" / f"{path.stem}.tif", labels, compression="zlib")
            count = np.count_nonzero(np.unique(labels) > 0)
            print(f"{path.stem}: {count} nuclei, {np.mean(labels < 0):.1%} not trusted", flush=True)


if __name__ == "__main__":
    main()

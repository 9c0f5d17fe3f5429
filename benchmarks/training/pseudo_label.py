"""Label pictures that nobody annotated with a model's own confident nuclei; unsure pixels are left unannotated.

    python benchmarks/training/pseudo_label.py WEIGHTS.safetensors benchmarks/training/unlabelled.json OUT

Self-training with a noisy student (Xie et al., CVPR 2020): maps are averaged over the eight flips and rotations,
pixels of unsure probability and nuclei of low score are marked -1 (not annotated), and the result is a data set like
any other. With ``--shape`` a model that was taught by plump regions of haematoxylin (``floor_label.py --by shape``) is
less shy: what it is less sure of counts, too, and so do the regions that it does not plainly deny; where the two
disagree nothing is annotated.
The JSON names each picture's pixel size (measured by the typical size of its nuclei where the source does not say) and
lists only pictures whose licence permits it; or it is a list of folders as `floor_label.py` takes it.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import tifffile
import torch
from floor_label import pictures
from numpy.typing import NDArray

from napari_nucleiseg.core.decoders.base import DecodeOptions, decoder
from napari_nucleiseg.core.decoders.component_tree import segment_by_shape
from napari_nucleiseg.core.models.spec import ModelSpec
from napari_nucleiseg.core.models.weights import load_model
from napari_nucleiseg.core.training.samples import read_picture
from napari_nucleiseg.core.training.validation import picture_maps


@dataclass(frozen=True, slots=True)
class Limits:
    """Threshold of the nuclei, their least score, and between which probabilities a pixel is unsure."""

    threshold: float = 0.5
    score: float = 0.75
    sure: tuple[float, float] = (0.25, 0.75)


WITH_SHAPE = Limits(0.5, 0.65, (0.2, 0.75))
# Mean probability from which on a region of the right shape counts, where the model finds less than this share of it.
LEAST_BELIEF, MOST_COVERED = 0.5, 0.3
WINDOW_PX = 1024


def averaged_maps(
    network: torch.nn.Module, spec: ModelSpec, image: NDArray[np.uint8]
) -> dict[str, NDArray[np.float32]]:
    """Maps of a picture averaged over the eight symmetries of the square; offsets turn with the picture."""
    total: dict[str, NDArray[np.float32]] = {}
    for turns in range(4):
        for mirrored in (False, True):
            view = np.rot90(image[:, ::-1] if mirrored else image, turns)
            maps = picture_maps(network, spec, np.ascontiguousarray(view), torch.device("cpu"))
            for name, values in maps.items():
                back = np.rot90(values, -turns, (1, 2))
                if name == "offsets":
                    dy, dx = back
                    for _ in range(turns):
                        dy, dx = dx, -dy
                    back = np.stack([dy, -dx if mirrored else dx])
                total[name] = total.get(name, 0) + (back[:, :, ::-1] if mirrored else back) / 8
    return {name: np.ascontiguousarray(values, dtype=np.float32) for name, values in total.items()}


def label(
    network: torch.nn.Module, spec: ModelSpec, image: NDArray[np.uint8], shape: NDArray[np.int32] | None = None
) -> NDArray[np.int32]:
    """Instance map of the confident nuclei, and of regions `shape` the model agrees with; -1 where it is not sure."""
    limits = Limits() if shape is None else WITH_SHAPE
    maps = averaged_maps(network, spec, image)
    found = decoder(spec.decoder).decode(maps, spec.mpp_um, DecodeOptions(threshold=limits.threshold))
    keep = np.concatenate([[0], np.where(found.scores >= limits.score, np.arange(1, len(found) + 1), -1)])
    labels = keep[found.labels].astype(np.int32)
    probability = maps["nuclei"][0]
    if shape is not None:
        add_believed(labels, shape, probability)
        labels[(shape > 0) & (labels == 0)] = -1
    low, high = limits.sure
    unsure = (probability > low) & (probability < high) & (labels <= 0)
    labels[unsure] = -1
    labels[(probability >= high) & (labels == 0)] = -1
    return labels


def add_believed(labels: NDArray[np.int32], shape: NDArray[np.int32], probability: NDArray[np.float32]) -> None:
    """Add the regions that the model does not have yet but thinks possible; in place."""
    area = np.maximum(np.bincount(shape.ravel()), 1)
    belief = np.bincount(shape.ravel(), probability.ravel()) / area
    covered = np.bincount(shape.ravel(), (labels > 0).ravel()) / area
    believed = (belief >= LEAST_BELIEF) & (covered < MOST_COVERED)
    believed[0] = False
    new = believed[shape] & (labels <= 0)
    labels[new] = shape[new] + max(int(labels.max()), 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("pictures", help="JSON: folder, and mpp_um by file name; or a list")
    parser.add_argument("out")
    parser.add_argument("--shape", action="store_true", help="count regions of the right shape as well")
    args = parser.parse_args()
    model, out = load_model(args.model, accept_licence=True), Path(args.out)
    for name in ("images", "labels"):
        (out / name).mkdir(parents=True, exist_ok=True)
    listed = json.loads(Path(args.pictures).read_text())
    folders = listed if isinstance(listed, list) else [listed]
    for path, mpp_um in (item for folder in folders for item in pictures(folder).items()):
        image = read_picture(path)
        shape = segment_by_shape(image, mpp_um).labels if args.shape else None
        size = tuple(max(64, round(side * mpp_um / model.spec.mpp_um)) for side in image.shape[1::-1])
        shrinks = mpp_um < model.spec.mpp_um
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        if shape is not None:
            shape = cv2.resize(shape.astype(np.float32), size, interpolation=cv2.INTER_NEAREST).astype(np.int32)
        for y in range(0, image.shape[0], WINDOW_PX):
            for x in range(0, image.shape[1], WINDOW_PX):
                part = (slice(y, y + WINDOW_PX), slice(x, x + WINDOW_PX))
                window = np.ascontiguousarray(image[part])
                labels = label(model.network, model.spec, window, None if shape is None else shape[part])
                if min(window.shape[:2]) < 64 or np.mean(window.min(axis=2) < 215) < 0.2:
                    continue
                stem = f"{path.stem}_{y}_{x}"
                tifffile.imwrite(out / "images" / f"{stem}.tif", window, compression="zlib")
                tifffile.imwrite(out / "labels" / f"{stem}.tif", labels, compression="zlib")
                print(f"{stem}: {labels.max()} nuclei, {np.mean(labels < 0):.1%} unsure", flush=True)


if __name__ == "__main__":
    main()

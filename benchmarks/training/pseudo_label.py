"""Label pictures that nobody annotated with a model's own confident nuclei; unsure pixels are left unannotated.

    python benchmarks/training/pseudo_label.py WEIGHTS.safetensors benchmarks/training/unlabelled.json OUT

Self-training with a noisy student (Xie et al., CVPR 2020): maps are averaged over the eight flips and rotations,
pixels of unsure probability and nuclei of low score are marked -1 (not annotated), and the result is a data set like
any other.
The JSON names each picture's pixel size (measured by the typical size of its nuclei where the source does not say) and
lists only pictures whose licence permits it; or it is a list of folders as `floor_label.py` takes it.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import cv2
import numpy as np
import tifffile
import torch
from floor_label import pictures
from numpy.typing import NDArray

from napari_nucleiseg.core.decoders.base import DecodeOptions, decoder
from napari_nucleiseg.core.models.spec import ModelSpec
from napari_nucleiseg.core.models.weights import load_model
from napari_nucleiseg.core.training.samples import read_picture
from napari_nucleiseg.core.training.validation import picture_maps

SURE = (0.25, 0.75)
MIN_SCORE = 0.75
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


def label(network: torch.nn.Module, spec: ModelSpec, image: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Instance map of the confident nuclei; -1 where the model is not sure."""
    maps = averaged_maps(network, spec, image)
    found = decoder(spec.decoder).decode(maps, spec.mpp_um, DecodeOptions())
    keep = np.concatenate([[0], np.where(found.scores >= MIN_SCORE, np.arange(1, len(found) + 1), -1)])
    labels = keep[found.labels].astype(np.int32)
    probability = maps["nuclei"][0]
    unsure = (probability > SURE[0]) & (probability < SURE[1]) & (labels <= 0)
    labels[unsure] = -1
    labels[(probability >= SURE[1]) & (labels == 0)] = -1
    return labels


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("pictures", help="JSON: folder, and mpp_um by file name; or a list")
    parser.add_argument("out")
    args = parser.parse_args()
    model, out = load_model(args.model, accept_licence=True), Path(args.out)
    for name in ("images", "labels"):
        (out / name).mkdir(parents=True, exist_ok=True)
    listed = json.loads(Path(args.pictures).read_text())
    folders = listed if isinstance(listed, list) else [listed]
    for path, mpp_um in (item for folder in folders for item in pictures(folder).items()):
        image = read_picture(path)
        size = tuple(max(64, round(side * mpp_um / model.spec.mpp_um)) for side in image.shape[1::-1])
        shrinks = mpp_um < model.spec.mpp_um
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        for y in range(0, image.shape[0], WINDOW_PX):
            for x in range(0, image.shape[1], WINDOW_PX):
                window = np.ascontiguousarray(image[y : y + WINDOW_PX, x : x + WINDOW_PX])
                labels = label(model.network, model.spec, window)
                if min(window.shape[:2]) < 64 or np.mean(window.min(axis=2) < 215) < 0.2:
                    continue
                stem = f"{path.stem}_{y}_{x}"
                tifffile.imwrite(out / "images" / f"{stem}.tif", window, compression="zlib")
                tifffile.imwrite(out / "labels" / f"{stem}.tif", labels, compression="zlib")
                print(f"{stem}: {labels.max()} nuclei, {np.mean(labels < 0):.1%} unsure", flush=True)


if __name__ == "__main__":
    main()

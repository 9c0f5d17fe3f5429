"""Scores on whole validation pictures at the model's pixel size, used to choose the best weights."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from napari_nucleiseg.core.decoders.base import DecodeOptions, decoder
from napari_nucleiseg.core.evaluation.known import mostly_inside
from napari_nucleiseg.core.evaluation.scores import mean_scores, scores
from napari_nucleiseg.core.models.spec import ModelSpec
from napari_nucleiseg.core.training.config import TrainConfig
from napari_nucleiseg.core.training.samples import LabelledImage, load_data_set


class Validator:
    """Runs a network over the validation pictures and scores it with its own decoder; false if there are none.

    Parameters
    ----------
    config : TrainConfig
        Names the validation sets.
    spec : ModelSpec
        Pixel size, normalisation and decoder.
    """

    def __init__(self, config: TrainConfig, spec: ModelSpec) -> None:
        self.spec = spec
        self.options = DecodeOptions(config.threshold, config.min_area_um2)
        self.pictures = [
            _at_mpp(picture, spec.mpp_um) for item in config.validate for picture in load_data_set(item, 0.0, 1.0)
        ]

    def __bool__(self) -> bool:
        return bool(self.pictures)

    def scores(self, network: nn.Module, device: torch.device) -> dict[str, float]:
        """Return mean AJI, PQ, F1 and Dice, and ``choice`` = (AJI + PQ) / 2; where nobody annotated nothing counts."""
        was_training = network.training
        network.eval()
        found = []
        for image, labels in self.pictures:
            maps = picture_maps(network, self.spec, image, device)
            instances = decoder(self.spec.decoder).decode(maps, self.spec.mpp_um, self.options)
            seen = mostly_inside(instances.labels, labels >= 0)
            found.append(scores(np.maximum(labels, 0), seen, distances=False))
        network.train(was_training)
        mean = mean_scores(found)
        return {"aji": mean.aji, "pq": mean.pq, "f1": mean.f1, "dice": mean.dice, "choice": (mean.aji + mean.pq) / 2}


def _at_mpp(picture: LabelledImage, mpp_um: float) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    height, width = (max(1, round(side * picture.mpp_um / mpp_um)) for side in picture.labels.shape)
    image = cv2.resize(picture.image, (width, height), interpolation=cv2.INTER_AREA).astype(np.uint8)
    labels = cv2.resize(picture.labels.astype(np.float32), (width, height), interpolation=cv2.INTER_NEAREST)
    return image, labels.astype(np.int32)


def picture_maps(
    network: nn.Module, spec: ModelSpec, image: NDArray[np.uint8], device: torch.device
) -> dict[str, NDArray[np.float32]]:
    """Run `network` over a small picture ``(y, x, 3)`` at its own pixel size; mirrored at the borders.

    Returns
    -------
    dict of ndarray of float32
        Activated maps ``(channels, y, x)``.
    """
    height, width = image.shape[:2]
    lost = spec.output_margin_px
    extra = [spec.fitting_side(side) - side for side in (height, width)]
    padded = cv2.copyMakeBorder(image, lost, extra[0] + lost, lost, extra[1] + lost, cv2.BORDER_REFLECT_101)
    x = torch.from_numpy(np.ascontiguousarray(padded)).to(device).permute(2, 0, 1)[None].float() / 255
    mean, std = (torch.tensor(v, device=device).view(1, 3, 1, 1) for v in (spec.mean, spec.std))
    with torch.inference_mode():
        raw = network(((x - mean) / std).contiguous(memory_format=torch.channels_last))
    maps = {}
    for head in spec.heads:
        values = raw[head.name][0, :, :height, :width].float()
        maps[head.name] = (torch.sigmoid(values) if head.activation == "sigmoid" else values).cpu().numpy()
    return maps

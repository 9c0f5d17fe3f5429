"""What is measured on slides that were held out: can the scale be told, and what does the attention lie on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F  # noqa: N812 - the name everyone knows it by

from napari_nucleiseg.core.models.scale_attention import ScaleAttention, ScaleClassifier
from napari_nucleiseg.core.models.spec import ModelSpec
from napari_nucleiseg.core.slides.stains import stain_densities
from napari_nucleiseg.core.training.scales.config import ScaleConfig
from napari_nucleiseg.core.training.scales.samples import ScaleSampler, ScaleSource

HELD_OUT_STREAM = 1
_AT_ONCE = 16
_LOOKED_THROUGH = 8


@dataclass(frozen=True, slots=True, eq=False)
class Glance:
    """A fixed crop of the highest magnification and what is seen in it.

    Parameters
    ----------
    picture : ndarray of uint8, shape (y, x, 3)
        RGB.
    attention : ndarray of float32, shape (y, x)
        A, or how likely a pixel is one of a nucleus; 0..1.
    """

    picture: NDArray[np.uint8]
    attention: NDArray[np.float32]


class Examination:
    """The same crops at each measurement, their colours not jittered; false if there is nothing to measure on.

    Parameters
    ----------
    sources : sequence of ScaleSource
        Slides that were held out; of a run without any, what it learns from serves for the glance.
    config : ScaleConfig
        The run.
    spec : ModelSpec
        Normalisation of the network.
    held_out : bool
        Whether the slides were held out, so that a measurement means something.
    """

    def __init__(self, sources: Sequence[ScaleSource], config: ScaleConfig, spec: ModelSpec, *, held_out: bool) -> None:
        self.sampler = ScaleSampler(sources, config, spec, stream=HELD_OUT_STREAM, augmented=False)
        self.powers, self.crops = config.magnifications, config.validation_crops if held_out else 0
        self._finest = int(np.argmax(config.magnifications))

    def __bool__(self) -> bool:
        return self.crops > 0

    @torch.inference_mode()
    def scores(self, network: ScaleAttention, classifier: ScaleClassifier) -> dict[str, float]:
        """Return what was measured; both networks are used in eval mode and left as they were.

        Returns
        -------
        dict of str to float
            ``accuracy`` of the magnification (0..1), for each its own (``accuracy_40x``), ``loss`` (cross-entropy),
            ``covered`` (share of pixels with A above one half) and ``haematoxylin`` (how many times denser that stain
            is there than elsewhere). Where the loss asks for shapes also ``shape``: the Dice score of A above one half
            and what has the shape of a nucleus, 0..1.
        """
        was_training = network.training, classifier.training
        network.eval(), classifier.eval()
        device = network.tau.device
        right, losses, inside, stain = [], [], [], []
        overlap, both = 0.0, 0.0
        total = self.crops * len(self.powers)
        for start in range(0, total, _AT_ONCE):
            crops = [self.sampler.crop(n, stained=True) for n in range(start, min(start + _AT_ONCE, total))]
            image, level, density = (
                torch.from_numpy(np.stack([crop[key] for crop in crops])).to(device)
                for key in ("image", "level", "haematoxylin")
            )
            confidence = network.confidence(image)
            attention = torch.sigmoid(network.raw_map(confidence))
            own = network.taus_of(confidence) if self.sampler.config.looks_at_own_level else None
            logits = classifier(image, torch.sigmoid(network.raw_map(confidence, own)))
            right += (logits.argmax(dim=1) == level).float().tolist()
            losses.append(float(F.cross_entropy(logits, level, reduction="sum")))
            looked = (attention > 0.5).float()
            inside.append(float(looked.mean()) * len(crops))
            if "shape" in crops[0]:
                shape = torch.from_numpy(np.stack([crop["shape"] for crop in crops])).to(device)
                known = shape >= 0
                overlap += float((looked * (shape == 1)).sum())
                both += float((looked * known).sum() + (shape == 1).sum())
            stain.append([float((density * part).sum()) for part in (looked, 1 - looked)] + [float(looked.sum())])
        network.train(was_training[0]), classifier.train(was_training[1])
        pixels = total * self.sampler.config.crop_px**2
        (within, without, area) = np.sum(stain, axis=0)
        hits = np.array(right).reshape(-1, len(self.powers)).mean(axis=0)
        return {
            "accuracy": float(np.mean(right)),
            **{f"accuracy_{power:g}x": float(hit) for power, hit in zip(self.powers, hits, strict=True)},
            "loss": sum(losses) / total,
            "covered": sum(inside) / total,
            "haematoxylin": float(within / max(area, 1) / max(without / max(pixels - area, 1), 1e-6)),
            **({"shape": 2 * overlap / max(both, 1.0)} if self.sampler.config.weight("shape") else {}),
        }

    @cached_property
    def shown(self) -> int:
        """The crop that is shown: of a few of the highest magnification that with the most haematoxylin."""
        crops = range(self._finest, self._finest + _LOOKED_THROUGH * len(self.powers), len(self.powers))
        return max(crops, key=lambda number: float(stain_densities(self.sampler.picture(number)[0])[..., 0].mean()))

    @torch.inference_mode()
    def glance(self, network: ScaleAttention) -> Glance:
        """Return the fixed crop with the attention of `network` on it."""
        was_training = network.training
        network.eval()
        picture, _ = self.sampler.picture(self.shown)
        image = torch.from_numpy(self.sampler.normalised(picture))[None].to(network.tau.device)
        attention = torch.sigmoid(network(image)["attention"])[0, 0].float().cpu().numpy()
        network.train(was_training)
        return Glance(picture, attention)

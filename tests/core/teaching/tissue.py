"""Small pictures of painted tissue at the model's pixel size, with the labels a careful person would give."""

import cv2
import numpy as np
import torch

from napari_nucleiseg.core.geometry import YX
from napari_nucleiseg.core.models.registry import build_network, network_spec
from napari_nucleiseg.core.models.weights import LoadedModel, ModelCard
from napari_nucleiseg.core.slides.pyramid import Slide
from napari_nucleiseg.core.teaching.examples import Example

STROMA, NUCLEUS = (224, 170, 200), (88, 58, 128)


def painted(side=96, step=24, radius=6, seed=0):
    """Picture uint8 (y, x, 3) and labels int32 (y, x) of discs on a jittered grid, with some grain."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((side, side), np.int32)
    number = 0
    for y in range(step // 2, side, step):
        for x in range(step // 2, side, step):
            number += 1
            centre = (x + int(rng.integers(-2, 3)), y + int(rng.integers(-2, 3)))
            cv2.circle(labels, centre, radius, number, -1)
    image = np.where((labels > 0)[..., None], NUCLEUS, STROMA) + rng.normal(0, 6, (side, side, 1))
    return np.clip(image, 0, 255).astype(np.uint8), labels


def example(number=1, role="teach", slide="a.svs", seed=None, side=96, **more):
    image, labels = painted(side, seed=number if seed is None else seed)
    facts = {"image": image, "labels": labels, "mpp_um": 0.5, "classes": (0,)} | more
    return Example(slide, f"print of {slide}", f"Region {number}", number, role, **facts)


def small_model(seed=0):
    """A tiny network with random weights and a card."""
    torch.manual_seed(seed)
    spec = network_spec("nuclei", {"width": 8, "depth": 1, "widest": 8})
    return LoadedModel(
        spec, ModelCard("tiny", "nuclei", sha256="0" * 64, licence="CC0-1.0"), build_network(spec).eval()
    )


def painted_slide(path="/slides/a.svs", side=512, mpp=0.25):
    """A slide in memory, and its true nuclei at level 0."""
    image, labels = painted(side // 2, seed=3)
    large = [cv2.resize(plane, (side, side), interpolation=cv2.INTER_NEAREST) for plane in (image, labels)]
    return Slide(path, (large[0],), (YX(1, 1),), YX(mpp, mpp), fingerprint="f1"), large[1].astype(np.int32)

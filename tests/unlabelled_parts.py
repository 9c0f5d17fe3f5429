"""Slides of purple nuclei and an engine whose runs take a second, for the tests of training without labels."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import tifffile
import torch

from napari_nucleiseg.core.models import weights
from napari_nucleiseg.core.models.registry import build_network, network_spec
from napari_nucleiseg.core.models.weights import ModelCard, save_model
from napari_nucleiseg.core.training.by_shape.config import ByShapeConfig
from napari_nucleiseg.viewer.engine import Engine
from napari_nucleiseg.viewer.unlabelled_engine import UnlabelledEngine

MPP_UM = 0.25


def tissue_picture(seed, side=320):
    """Purple nuclei of 7 um on pink fibres."""
    rng = np.random.default_rng(seed)
    fibres = cv2.GaussianBlur(rng.normal(0, 1, (side, side)).astype(np.float32), (0, 0), sigmaX=6, sigmaY=1.5)
    image = np.array((225, 170, 205), np.float32) + (fibres * 60)[..., None]
    for y, x in rng.integers(0, side, (45, 2)):
        cv2.circle(image, (int(x), int(y)), 13, (95, 55, 140), -1)
    return np.clip(image + rng.normal(0, 5, image.shape), 0, 255).astype(np.uint8)


def write_slide(path, picture, mpp_um=MPP_UM):
    """Write a TIFF that states how large its pixels are, unless `mpp_um` is None."""
    told = {} if mpp_um is None else {"resolution": (1e4 / mpp_um,) * 2, "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(path, picture, photometric="rgb", **told)
    return path


def write_model(name="look"):
    """Keep a tiny model of attention among the user's own, as if it had been trained."""
    torch.manual_seed(0)
    spec = network_spec("scale-attention-fast", {"width": 2})
    card = ModelCard(name, spec.name, dict(spec.params), title="Look", licence="CC0-1.0", commercial_use=True)
    folder = weights.user_folder() / "models"
    folder.mkdir(parents=True, exist_ok=True)
    save_model(folder / f"{name}.safetensors", build_network(spec), spec, card, half=False)


class FolderEngine(Engine):
    """The real engine with its projects in a folder of the test, on one thread."""

    def __init__(self, folder):
        super().__init__()
        self.folder = folder

    def load(self, name):
        torch.set_num_threads(1)
        return super().load(name)

    def project_folder(self, slide, results_folder=""):
        return self.folder / f"{Path(slide.path).stem}.nucleiseg"


class TinyEngine(UnlabelledEngine):
    """Everything real, with the smallest networks."""

    def adjusted(self, config):
        if isinstance(config, ByShapeConfig):
            params = {"width": 8, "depth": 2, "widest": 16}
            return replace(config, params=params, crop_px=64, batch_size=2, windows=2, device="cpu")
        return replace(
            config,
            params={"width": 2, "sparsity": 0.3},
            classifier_width=2,
            crop_px=32,
            batch_size=3,
            validation_crops=2,
            checkpoint_every=50,
            device="cpu",
        )

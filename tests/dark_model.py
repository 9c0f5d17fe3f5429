"""A network that calls dark pixels nuclei, and pictures of dark discs: what comes out is known beforehand."""

import functools
import threading
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import nn

from napari_nucleiseg.core.errors import LicenceNotAcceptedError
from napari_nucleiseg.core.models.spec import HeadSpec, ModelSpec
from napari_nucleiseg.core.models.weights import LoadedModel, ModelCard
from napari_nucleiseg.viewer.engine import Engine

RADIUS_PX = 7
PITCH_PX = 32
SPEC = ModelSpec(
    name="dark",
    title="Dark discs",
    mpp_um=0.5,
    heads=(HeadSpec("separated", 1, "sigmoid", "Nucleus probability"),),
    decoder="border",
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
    tile_px=256,
    halo_px=32,
)
CARD = ModelCard(
    name="nuclei",
    network="dark",
    title="Nuclei in H&E",
    licence="CC0-1.0",
    commercial_use=True,
    training_data=("discs (CC0-1.0)",),
    sha256="d" * 64,
)
RESEARCH = ModelCard(
    name="research",
    network="dark",
    title="Nuclei, research only",
    licence="CC-BY-NC-SA-4.0",
    commercial_use=False,
    training_data=("kept discs (CC-BY-NC-SA-4.0)",),
    sha256="e" * 64,
)


class Dark(nn.Module):
    """Logit of being darker than the middle; counts its forwards and can be made slow or held."""

    def __init__(self) -> None:
        super().__init__()
        self.log = ForwardLog()

    def __deepcopy__(self, _memo):
        return self  # copies made for a device count together

    def forward(self, x):
        self.log.begin(len(x))
        return {"separated": (0.5 - x.mean(dim=1, keepdim=True)) * 24}


class ForwardLog:
    """What happened to the network."""

    def __init__(self) -> None:
        self.tiles = 0
        self.gate = threading.Event()
        self.hold_after = 10**9

    def begin(self, tiles):
        self.tiles += tiles
        if self.tiles > self.hold_after:
            assert self.gate.wait(60), "nobody opened the gate"


class DarkEngine(Engine):
    """The real engine but for the weights; projects lie in a folder of the test."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.network = Dark().eval()
        self.accepted = False

    @property
    def log(self) -> ForwardLog:
        return self.network.log

    def warm_up(self):
        """Everything is imported; what is searched for garbage is for `frozen` of `gui_parts` to say."""

    def models(self):
        return (CARD, RESEARCH)

    def preferred(self, family):
        return family

    def load(self, name):
        torch.set_num_threads(1)
        card = {"nuclei": CARD, "research": RESEARCH}[name]
        if not (card.commercial_use or self.accepted):
            raise LicenceNotAcceptedError("the weights research are not for commercial use")
        return LoadedModel(SPEC, card, self.network)

    def accept_licence(self, card):
        self.accepted = True

    def project_folder(self, slide, results_folder=""):
        return self.folder / f"{Path(slide.path).stem}.nucleiseg"


def disc_centres(shape):
    """Centres ``(y, x)`` of the discs of `disc_picture`."""
    ys = np.arange(PITCH_PX // 2, shape[0] - RADIUS_PX, PITCH_PX)
    xs = np.arange(PITCH_PX // 2, shape[1] - RADIUS_PX, PITCH_PX)
    return np.stack(np.meshgrid(ys, xs, indexing="ij"), axis=-1).reshape(-1, 2)


def disc_picture(shape):
    """Dark blue discs on pink, with texture so that it counts as tissue; the caller may change it."""
    return _disc_picture(tuple(shape)).copy()


@functools.lru_cache(maxsize=8)
def _disc_picture(shape):
    noise = np.random.default_rng(0).integers(-6, 7, (*shape, 1))
    picture = np.clip(np.array([214, 170, 205]) + noise, 0, 255).astype(np.uint8)
    for y, x in disc_centres(shape):
        cv2.circle(picture, (int(x), int(y)), RADIUS_PX, (70, 50, 120), -1)
    return picture

"""Synthetic z-stacks of bright balls, and a model that needs no training to find them."""

import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import tifffile
from scipy import ndimage
from torch import nn
from torch.nn import functional as F

from napari_nucleiseg.core.errors import LicenceNotAcceptedError, ModelError
from napari_nucleiseg.core.evaluation.scores import scores
from napari_nucleiseg.core.models.registry import network_spec
from napari_nucleiseg.core.models.weights import LoadedModel, ModelCard
from napari_nucleiseg.core.teaching.agreement import Agreement, compare
from napari_nucleiseg.core.teaching.finetune import Step
from napari_nucleiseg.core.teaching.verdict import Outcome
from napari_nucleiseg.core.teaching.versions import REFUSED, TAUGHT, Version
from napari_nucleiseg.viewer.stacks import StackEngine

VOXEL_UM = (1.0, 0.5, 0.5)
SHAPE = (28, 64, 64)


def balls(count=8, *, shape=SHAPE, voxel_um=VOXEL_UM, radius_um=3.5, gap_um=0.3, seed=0):
    """A grey stack (z, y, x) uint8 of bright balls with noise, and its labels int32."""
    rng = np.random.default_rng(seed)
    size = np.array(shape) * voxel_um
    centres = []
    while len(centres) < count:
        centre = rng.uniform(0.9 * radius_um, size - 0.9 * radius_um)
        if all(np.linalg.norm(centre - other) > 2 * radius_um + gap_um for other in centres):
            centres.append(centre)
    axes = [(np.arange(side) + 0.5) * step for side, step in zip(shape, voxel_um, strict=True)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1)
    labels = np.zeros(shape, np.int32)
    for number, centre in enumerate(centres, start=1):
        labels[np.linalg.norm(grid - centre, axis=-1) < radius_um * rng.uniform(0.85, 1.0)] = number
    image = ndimage.gaussian_filter((labels > 0) * 150.0, (0.5, 0.8, 0.8)) + 20 + rng.normal(0, 6, shape)
    return np.clip(image, 0, 255).astype(np.uint8), labels


class Bright(nn.Module):
    """Bright voxels are nuclei; the more of them are around, the farther is the border."""

    def forward(self, x):
        grey = x * 0.25 + 0.25
        nuclei = (grey - 0.5) * 20
        around = (grey > 0.5).float()
        for side in ((9, 1, 1), (1, 9, 1), (1, 1, 9)):
            around = F.avg_pool3d(around, side, 1, [one // 2 for one in side], count_include_pad=False)
        return {"nuclei": nuclei, "distance": (around - 0.75) * 20, "separated": nuclei}


def bright_model(tile_px=96, halo_px=16, **card):
    """A model for stacks that finds balls."""
    spec = replace(network_spec("unet-3d"), tile_px=tile_px, halo_px=halo_px)
    facts = {"title": "Bright balls", "licence": "CC0-1.0", "commercial_use": True, "sha256": "b" * 64}
    return LoadedModel(spec, ModelCard("bright", "unet-3d", **{**facts, **card}), Bright())


class BrightEngine(StackEngine):
    """The real engine but for the weights; blocks can be held."""

    def __init__(self):
        self.gate = threading.Event()
        self.gate.set()
        self.hold_after = 10**9
        self.accepted = True
        self.threads = []

    def models(self):
        return (bright_model().card,)

    def card(self, name):
        if name.endswith("broken.safetensors"):
            raise ModelError("this is no weight file")
        return ModelCard("mine", "unet-3d", title="Mine", threshold=0.4, min_area_um2=5.0)

    def load(self, name):
        if not self.accepted:
            raise LicenceNotAcceptedError("the licence must be accepted")
        return bright_model(tile_px=32, halo_px=8)

    def accept_licence(self, card):
        self.accepted = True

    def segment(self, volume, wish, labels, cancelled):
        for step in super().segment(volume, wish, labels, cancelled):
            self.threads.append(threading.current_thread())
            yield step
            if step.done >= self.hold_after:
                assert self.gate.wait(60)


class PupilEngine(BrightEngine):
    """Learns by a plan: how it comes out, after which step it is held, what goes wrong."""

    STEPS = 6

    def __init__(self):
        super().__init__()
        self.adopted, self.error, self.taken, self.ended = True, None, [], threading.Event()
        self.lessons, self.made = [], ()
        self.names = ("bright",)

    def models(self):
        return (*(bright_model(title="").card for _ in self.names), *self.made)

    def teach(self, model, lesson):
        self.lessons.append((model, lesson))
        self.load(model)
        if self.error is not None:
            raise self.error
        try:
            former = agreement(0.4) if model else None
            yield Step("", 0, self.STEPS, measured=former, note="Judged on a part of the planes.")
            for step in range(1, self.STEPS + 1):
                measured = None if step % 2 else agreement(0.4 + step / 20)
                yield Step("with your planes", step, self.STEPS, 1 / step, measured=measured, former=0.4)
                if step >= self.hold_after:
                    assert self.gate.wait(60)
            reason = "Better where it was judged." if self.adopted else "It may be chance."
            model = bright_model(title="Balls, plane 3")
            gain = compare([agreement(0.4)], [agreement(0.7)], 0)
            outcome = Outcome(model, agreement(0.4), agreement(0.7), gain, None, self.adopted, reason, "Told so.", 6)
            yield Step("", self.STEPS, self.STEPS, outcome=outcome)
        finally:
            self.ended.set()

    def keep(self, outcome):
        card = replace(outcome.model.card, name="bright-2")
        version = Version(card, Path("bright-2.safetensors"), TAUGHT if outcome.adopted else REFUSED, card.title)
        self.made = (card,) if outcome.adopted else ()
        return version

    def take(self, version):
        self.taken.append(version)
        self.made = (version.card,)
        return version


def agreement(score):
    """Twenty nuclei of which so many pixels agree, in as many places."""
    return Agreement(np.tile([100 * score, 100, score, 1, 0], (20, 1)), 20, 1)


def stack_scores(truth, found):
    """Scores of labels (z, y, x)."""
    width = truth.shape[-1]
    return scores(truth.reshape(-1, width), found.reshape(-1, width), distances=False)


def write_stack(path, image, voxel_um=VOXEL_UM):
    """Write a grey stack as OME-TIFF or, if it is not called .ome.tif, as ImageJ does."""
    z, y, x = voxel_um
    if path.name.endswith(".ome.tif"):
        sizes = {"PhysicalSizeZ": z, "PhysicalSizeY": y, "PhysicalSizeX": x}
        tifffile.imwrite(path, image, metadata={"axes": "ZYX", **sizes})
    else:
        facts = {"axes": "ZYX", "spacing": z, "unit": "um"}
        tifffile.imwrite(path, image, imagej=True, metadata=facts, resolution=(1 / x, 1 / y))
    return path


def write_labelled(folder, seeds, weights=None):
    """Write a data set of stacks; `weights` makes the weights of each from its labels."""
    for name in ("images", "labels", *(["weights"] if weights else [])):
        (folder / name).mkdir(parents=True)
    for seed in seeds:
        image, labels = balls(seed=seed)
        write_stack(folder / "images" / f"{seed}.tif", image)
        tifffile.imwrite(folder / "labels" / f"{seed}.tif", labels)
        if weights:
            tifffile.imwrite(folder / "weights" / f"{seed}.tif", weights(labels))
    return folder

"""Tiny transformers in the user's folder, a slide of dark discs for them to look at, and heads without a window."""

import threading
from dataclasses import replace

import numpy as np
import tifffile
import torch

from dark_model import DarkEngine, disc_picture
from napari_nucleiseg.core.models.encoders import build_encoder, own_encoders_folder
from napari_nucleiseg.core.models.weights import ModelCard, save_model
from napari_nucleiseg.state import Session
from napari_nucleiseg.viewer.controller import Controller
from napari_nucleiseg.viewer.head_parts import HeadParts
from napari_nucleiseg.viewer.heads_engine import HeadsEngine

MPP_UM, PATCH_PX, TOKEN_PX = 0.5, 64, 16
HEIGHT, WIDTH = 256, 320
ROWS, COLUMNS = HEIGHT // PATCH_PX, WIDTH // PATCH_PX
ALL = ROWS * COLUMNS
SIDE = PATCH_PX // TOKEN_PX
PATCH = {"embed": 24, "depth": 2, "heads": 3, "input_px": PATCH_PX, "patch_px": TOKEN_PX, "grid": 4}
WIDE = {**PATCH, "embed": 32, "heads": 2, "depth": 1}
REGION = {"features": 24, "embed": 8, "depth": 2, "heads": 2, "input_px": PATCH_PX, "grid": 4}
# Fresh weights are so small that all tokens look alike.
GAIN = 8.0
FREE = {"licence": "CC0-1.0", "commercial_use": True}
BOUND = {"licence": "CC-BY-NC-4.0", "commercial_use": False}


def write_encoder(name, network_name="hipt-256", params=None, seed=0, **card):
    """Keep an encoder with random weights among the user's own."""
    torch.manual_seed(seed)
    spec, network = build_encoder(network_name, params or PATCH)
    with torch.no_grad():
        for value in network.parameters():
            if value.dim() == 2:
                value.mul_(GAIN)
    folder = own_encoders_folder()
    folder.mkdir(parents=True, exist_ok=True)
    told = replace(ModelCard(name, spec.name, dict(spec.params)), **{**FREE, **card})
    save_model(folder / f"{name}.safetensors", network, spec, told, half=False)


def use_home(monkeypatch, folder):
    """Have the user's folder in one of the test, with no encoder in it nor any that is shipped; heads can be held."""
    monkeypatch.setattr("platformdirs.user_data_dir", lambda *_a, **_k: str(folder / "home"))
    monkeypatch.setattr("napari_nucleiseg.core.models.encoders.SHIPPED_FOLDER", folder / "none")
    monkeypatch.setattr("napari_nucleiseg.viewer.heads.HeadsEngine", HeldHeads)


def write_encoders():
    """Keep two encoders of patches and one of regions, which reads the features of the first."""
    write_encoder("tiny")
    write_encoder("wide", params=WIDE, seed=1)
    write_encoder("tiny-region", "hipt-4k", REGION, seed=2)


def write_discs(path, mpp_um=MPP_UM, shape=(HEIGHT, WIDTH)):
    """Write a slide of dark discs, each in one token; without `mpp_um` it does not say how large its pixels are."""
    told = {} if mpp_um is None else {"resolution": (1e4 / mpp_um,) * 2, "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(path, np.roll(disc_picture(shape), -8, axis=(0, 1)), photometric="rgb", **told)
    return path


class HeldHeads(HeadsEngine):
    """The real engine; counts patches that were computed, and waits after each step while a test holds it."""

    def __init__(self):
        super().__init__()
        self.gate = threading.Event()
        self.gate.set()
        self.steps = 0
        self.lesson = None

    def look(self, *arguments, **options):
        for looks in super().look(*arguments, **options):
            self.steps += 1
            yield looks
            assert self.gate.wait(60), "nobody opened the gate"

    def teach(self, slides, name, **options):
        yield from super().teach(slides, name, **options) if self.lesson is None else self.lesson(name, **options)


class Windowless:
    """Heads of a viewer without a window; a test takes their answers from `pump`."""

    def __init__(self, viewer, pump, folder):
        self.viewer, self.pump = viewer, pump
        self.controller = Controller(viewer, Session(), DarkEngine(folder), pump.jobs)
        self.controller.start()
        self.parts = HeadParts(self.controller)
        self.heads, self.wishes = self.parts.heads, self.parts.heads.wishes
        self.engine = self.heads.engine
        self.said, self.questions = [], []
        self.heads.said.connect(lambda hint: self.said.append(hint.text))
        self.controller.question_asked.connect(self.questions.append)

    def settle(self):
        self.pump.run_for(0.02)
        self.pump.run_until(lambda: self.pump.calls.empty() and self.pump.jobs.is_settled(0.6), 30)

    def open(self, path):
        """Open a slide and see all of it."""
        self.controller.open_slides([str(path)])
        self.settle()
        self.viewer.reset_view()
        self.settle()
        return self.controller.display.shelf.now

    def look(self):
        self.heads.look()
        self.settle()

    def layers(self):
        return [layer for layer in self.viewer.layers if layer.metadata.get("nucleiseg_role") == "attention heads"]

    def close(self):
        self.parts.close()
        self.controller.close()
        self.controller.join()

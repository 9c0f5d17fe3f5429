"""A shell that calls `main`, a home without the user's own models, and what runs without labels are given."""

import json
from dataclasses import dataclass

import cv2
import imagecodecs
import numpy as np
import pytest
import tifffile
import torch

from dark_model import CARD, SPEC, Dark, disc_picture
from napari_nucleiseg.cli import main
from napari_nucleiseg.core.models.weights import LoadedModel


@dataclass(frozen=True)
class Answer:
    status: int
    out: str
    err: str

    @property
    def document(self):
        return json.loads(self.out)


@pytest.fixture
def shell(capsys):
    """Call the program as a shell would; what it prints comes back with its exit status."""

    def call(*words):
        capsys.readouterr()
        try:
            status = main([str(word) for word in words])
        except SystemExit as leave:  # argparse leaves so
            status = leave.code
        printed = capsys.readouterr()
        return Answer(status, printed.out, printed.err)

    return call


@pytest.fixture(autouse=True)
def _own_home(monkeypatch, tmp_path_factory):
    """No test sees the models of whoever runs it, or accepts a licence in their name."""
    monkeypatch.setattr("platformdirs.user_data_dir", lambda *_a, **_k: str(tmp_path_factory.mktemp("home")))


@pytest.fixture
def _dark_model(monkeypatch):
    """The model called nuclei calls dark pixels so."""
    torch.set_num_threads(1)
    monkeypatch.setattr(
        "napari_nucleiseg.core.batch.segmentation.load_model",
        lambda _name, accept_licence: LoadedModel(SPEC, CARD, Dark().eval()),
    )


@pytest.fixture
def png(tmp_path):
    """A picture of dark discs; PNG does not say how large its pixels are."""
    path = tmp_path / "a.png"
    path.write_bytes(imagecodecs.png_encode(disc_picture((192, 256))))
    return path


@pytest.fixture
def slides(tmp_path):
    """Folder of two pictures of purple discs."""
    folder = tmp_path / "slides"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(2):
        image = np.full((160, 160, 3), (225, 170, 205), np.uint8)
        for _ in range(20):
            cv2.circle(image, tuple(int(v) for v in rng.integers(0, 160, 2)), 10, (95, 55, 140), -1)
        image = np.clip(image + rng.normal(0, 8, image.shape), 0, 255).astype(np.uint8)
        tifffile.imwrite(folder / f"p{number}.tif", image, photometric="rgb")
    return folder


@pytest.fixture
def quick(request, tmp_path):
    """The flags of a run that takes a second: settings are the module's ``QUICK``."""
    path = tmp_path / "quick.json"
    path.write_text(json.dumps(request.module.QUICK))
    return ("--config", path, "--out", tmp_path / "run")

"""A shell that calls `main`, and a home without the user's own models."""

import json
from dataclasses import dataclass

import imagecodecs
import pytest
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

"""Encoders from the shell: listed, got after their licence was accepted, made of checkpoints."""

import hashlib
from dataclasses import replace

import pytest
import torch

from napari_nucleiseg.core.models import published
from napari_nucleiseg.core.models.download import Source
from napari_nucleiseg.core.models.encoders import build_encoder, load_encoder
from napari_nucleiseg.core.models.published import PUBLISHED

SMALL = {"embed": 12, "depth": 2, "heads": 3, "patch_px": 8, "input_px": 32, "grid": 3}
SIZES = ",".join(f"{key}={value}" for key, value in SMALL.items())


@pytest.fixture(autouse=True)
def _one_home(monkeypatch, tmp_path):
    """Commands of one test see what the former has kept."""
    monkeypatch.setattr("platformdirs.user_data_dir", lambda *_a, **_k: str(tmp_path / "home"))
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda *_a, **_k: str(tmp_path / "cache"))
    monkeypatch.setattr("napari_nucleiseg.core.models.encoders.SHIPPED_FOLDER", tmp_path / "none")


@pytest.fixture
def checkpoint(tmp_path):
    """A checkpoint of DINO with a small network."""
    torch.manual_seed(0)
    teacher = build_encoder("hipt-256", SMALL)[1].state_dict()
    torch.save({"teacher": {f"module.backbone.{key}": value for key, value in teacher.items()}}, tmp_path / "ours.pth")
    return tmp_path / "ours.pth"


@pytest.fixture
def _served(web, checkpoint, monkeypatch):
    """That checkpoint is what the authors of HIPT publish."""
    folder, address = web
    content = checkpoint.read_bytes()
    (folder / "vit.pth").write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    source = Source("the weights of HIPT", f"{address}/vit.pth", digest[:12], digest[-5:], len(content))
    changed = {**PUBLISHED, "hipt-256": replace(PUBLISHED["hipt-256"], source=source)}
    monkeypatch.setattr(published, "PUBLISHED", changed)
    monkeypatch.setattr(published, "build_encoder", lambda name, _params: build_encoder(name, SMALL))


def test_published_encoders_are_listed_before_they_are_here(shell):
    answer = shell("models", "encoders")
    assert answer.status == 0
    assert "after: napari-nucleiseg models get hipt-256" in answer.out
    document = shell("models", "encoders", "--json").document
    assert document["encoders"] == []
    assert [one["name"] for one in document["published"]] == ["hipt-256", "hipt-4k"]
    assert "Commons" in document["published"][0]["licence"]


@pytest.mark.usefixtures("_served")
def test_an_encoder_is_got_after_its_licence_is_accepted(shell, tmp_path):
    refused = shell("models", "get", "hipt-256")
    assert refused.status == 1
    assert "under Apache-2.0 WITH Commons-Clause" in refused.err
    assert "--accept-licence" in refused.err
    assert not (tmp_path / "cache").exists()
    answer = shell("models", "get", "hipt-256", "--accept-licence", "--json")
    assert answer.status == 0, answer.err
    assert answer.document["version"] == load_encoder("hipt-256").version
    assert answer.document["licence_accepted"]
    listed = shell("models", "encoders", "--json").document
    assert [one["name"] for one in listed["encoders"]] == ["hipt-256"]
    assert [one["name"] for one in listed["published"]] == ["hipt-4k"]
    assert "yes, not commercially" in shell("models", "encoders").out


def test_a_checkpoint_of_ones_own_is_converted_shown_and_accepted(shell, checkpoint):
    answer = shell("models", "convert-encoder", checkpoint, "--as", "hipt-256", "--sizes", SIZES, "--json")
    assert answer.status == 0, answer.err
    assert (answer.document["name"], answer.document["params"]) == ("ours", SMALL)
    assert "is not the file that its authors published; its licence is not known" in answer.err
    assert "after: napari-nucleiseg models accept ours" in answer.err
    assert not shell("models", "show", "ours", "--json").document["licence_accepted"]
    assert shell("models", "accept", "ours").status == 0
    assert load_encoder("ours").spec.params == SMALL
    named = shell("models", "convert-encoder", checkpoint, "--as", "hipt-256", "--sizes", SIZES, "--name", "again")
    assert named.status == 0
    assert load_encoder("again", accept_licence=True).card.name == "again"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("get",), "say which encoder to get; there are hipt-256, hipt-4k"),
        (("get", "uni"), "nobody publishes an encoder called uni; there are hipt-256, hipt-4k"),
        (("convert-encoder",), "write: napari-nucleiseg models convert-encoder FILE --as ENCODER"),
        (("convert-encoder", "ours.pth"), "ENCODER is one of hipt-256, hipt-4k, timm"),
        (("convert-encoder", "nothing.pth", "--as", "hipt-256"), "there is no weight file nothing.pth"),
        (("convert-encoder", "nothing.pth", "--as", "vit"), "there is no encoder called vit"),
        (("show", "nothing"), "there is no model called nothing"),
    ],
)
def test_what_is_missing_is_said(shell, words, sentence):
    answer = shell("models", *words)
    assert answer.status == 1
    assert sentence in answer.err


def test_a_checkpoint_that_does_not_fit_is_said(shell, checkpoint):
    answer = shell("models", "convert-encoder", checkpoint, "--as", "hipt-4k")
    assert answer.status == 1
    assert "holds a transformer of patches, and hipt-4k is none; convert it as hipt-256" in answer.err

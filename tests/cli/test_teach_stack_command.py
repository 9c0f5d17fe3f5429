"""``teach-stack`` makes a model for stacks of corrected planes, and teaches one that is there."""

import json
from dataclasses import replace

import numpy as np
import pytest
import tifffile

from napari_nucleiseg.core.errors import TeachingError
from napari_nucleiseg.core.teaching.stacks import teach
from napari_nucleiseg.core.teaching.versions import all_versions, find_version
from stack_parts import balls, write_stack

QUICK = ("--steps", 2, "--crop-px", 32, "--batch-size", 1, "--validate-every", 2, "--threads", 1, "--device", "cpu")


@pytest.fixture(autouse=True)
def _one_home(monkeypatch, tmp_path):
    monkeypatch.setattr("platformdirs.user_data_dir", lambda *_a, **_k: str(tmp_path / "home"))


@pytest.fixture(autouse=True)
def _narrow(monkeypatch):
    pytest.importorskip("monai", reason="the extra zoo is not installed")
    monkeypatch.setattr(teach.new_model, "__defaults__", ("unet-3d", 4))


@pytest.fixture
def stack(tmp_path):
    image, labels = balls(40, shape=(26, 96, 96), radius_um=3.0, seed=4)
    tifffile.imwrite(tmp_path / "labels.tif", labels)
    return write_stack(tmp_path / "cells.ome.tif", image), tmp_path / "labels.tif"


def test_a_first_model_is_taught_and_then_taught_on(shell, stack, tmp_path):
    path, labels = stack
    answer = shell("teach-stack", path, "--labels", labels, "--planes", "6,10,14-18", "--json", *QUICK)
    assert answer.status == 0, answer.err
    assert answer.document["adopted"]
    assert answer.document["former"] == ""
    assert answer.document["gain"]["aji"] == 0
    assert "A first model for stacks" in answer.err + answer.out
    name = answer.document["name"]
    assert find_version(name).card.taught["slides"][0]["name"] == "cells"
    out = tmp_path / "found.tif"
    assert shell("segment-stack", path, "--model", name, "--out", out).status == 0

    again = shell("teach-stack", path, "--labels", labels, "--planes", "6,10", "--model", name, *QUICK)
    assert again.status in (0, 3)
    assert len([one for one in all_versions() if one.card.parent == find_version(name).card.version]) == 1
    taken = shell(
        "teach-stack", path, "--labels", labels, "--planes", "6,10", "--model", name, "--take-anyway",
        "--name", "mine", "--learning-rate", "0.1", "--json", *QUICK,
    )  # fmt: skip
    assert taken.status == 0
    assert taken.document["name"] == "mine"
    assert taken.document["former"] == find_version(name).card.version


def test_what_does_not_fit_is_said(shell, stack, tmp_path):
    path, labels = stack
    broken, floats = tmp_path / "broken.tif", tmp_path / "floats.tif"
    broken.write_bytes(b"no picture")
    tifffile.imwrite(floats, np.zeros((26, 96, 96), np.float32))
    for given, told in (
        (("--labels", labels), "Say which planes are right"),
        (("--labels", labels, "--planes", "30"), "no plane 30"),
        (("--labels", labels, "--planes", "x"), "is no plane"),
        (("--labels", broken, "--planes", "3"), "cannot be read as labels"),
        (("--labels", floats, "--planes", "3"), "whole numbers"),
        (("--labels", labels, "--planes", "6", "--model", "nuclei"), "is for slides and pictures"),
    ):
        answer = shell("teach-stack", path, *given, *QUICK)
        assert answer.status == 1
        assert told in answer.err
        assert len(answer.err.splitlines()) < 4
    assert not [one for one in all_versions() if one.card.network == "unet-3d"]


def test_what_was_taught_goes_to_other_programs_and_comes_back(shell, stack, tmp_path):
    path, labels = stack
    name = shell("teach-stack", path, "--labels", labels, "--planes", "6,10", "--json", *QUICK).document["name"]
    package = tmp_path / "stacks.zip"
    answer = shell("models", "export", name, "--as", "bioimageio", "--out", package)
    assert answer.status == 0, answer.err
    assert "it says the same as the model" in answer.err
    back = shell("models", "import", package, "--name", "back", "--json")
    assert back.status == 0, back.err
    assert back.document["network"] == "unet-3d"
    assert "for stacks" in back.document["told"]


def test_a_file_of_fields_changes_no_others(shell, stack, tmp_path, monkeypatch):
    path, labels = stack
    taught = []

    def note(_model, _lesson, config, _folder):
        taught.append(config)
        raise TeachingError("enough")

    monkeypatch.setattr(teach, "teach_stack", note)
    file = tmp_path / "fields.json"
    file.write_text(json.dumps({"seed": 3}))
    shell("teach-stack", path, "--labels", labels, "--planes", "6", "--config", file, "--patience", 2)
    assert taught == [replace(teach.LEARNING, seed=3, patience=2)]

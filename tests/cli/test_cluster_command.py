"""``cluster`` from the shell: label map, nuclei and weights that ``segment`` takes; bad input gives sentences."""

import argparse
import json
from dataclasses import fields

import imagecodecs
import numpy as np
import pytest
import tifffile
import torch

from napari_nucleiseg.cli.cluster import add_arguments
from napari_nucleiseg.core.models.weights import read_card
from napari_nucleiseg.core.training.clustering.config import ClusterConfig

FAST = ("--width", 8, "--blocks", 1, "--iterations", 5, "--min-clusters", 3, "--device", "cpu", "--mpp", 0.5)


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Threads that wait for each other take longer than these small pictures."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def stained(height=120, width=140):
    """Blue discs of 10 px on pink, 20 px apart."""
    y, x = np.mgrid[:height, :width]
    mask = ((y % 20 - 10) ** 2 + (x % 20 - 10) ** 2) <= 25
    image = np.where(mask[..., None], (92, 66, 140), (226, 160, 196))
    return (image + np.random.default_rng(0).normal(0, 5, image.shape)).clip(0, 255).astype(np.uint8)


def write(path, image):
    path.write_bytes(imagecodecs.png_encode(image))
    return path


@pytest.fixture
def picture(tmp_path):
    return write(tmp_path / "a.png", stained())


def test_a_region_becomes_clusters_nuclei_and_weights(shell, picture, tmp_path):
    answer = shell("cluster", picture, "--region", "20,0,80,100", "--out", tmp_path / "out", *FAST, "--json")
    assert answer.status == 0, answer.err
    document = answer.document
    labels, nuclei = (tifffile.imread(document["outputs"][name]) for name in ("labels", "nuclei"))
    assert labels.shape == nuclei.shape == (80, 100)
    assert set(np.unique(labels)) == {item["cluster"] for item in document["clusters"]}
    assert len(np.unique(nuclei)) - 1 == document["nuclei"] > 0
    assert document["region"] == {"y": 20, "x": 0, "height": 80, "width": 100}
    assert [item["cluster"] for item in document["clusters"] if item["proposed"]] == document["chosen"]
    assert read_card(document["outputs"]["weights"]).network == "s3net"
    record = json.loads((tmp_path / "out" / "a-clusters.json").read_text())
    assert record["settings"]["width"] == 8
    assert "step   1" in answer.err


def test_the_weights_segment_the_rest(shell, picture, tmp_path):
    first = shell("cluster", picture, "--region", "0,0,120,70", "--out", tmp_path / "out", *FAST, "--json").document
    weights = first["outputs"]["weights"]
    answer = shell("segment", picture, "--model", weights, "--mpp", 0.5, "--out", tmp_path / "all", "--device", "cpu")
    assert answer.status == 0, answer.err
    assert tifffile.imread(tmp_path / "all" / "a.tif")[:, 80:].max() > 5


def test_other_clusters_can_be_chosen_and_are_told(shell, picture, tmp_path):
    first = shell("cluster", picture, "--out", tmp_path / "one", *FAST, "--json").document
    last = first["clusters"][-1]["cluster"]
    answer = shell("cluster", picture, "--out", tmp_path / "two", *FAST, "--chosen", last, "--name", "pale")
    assert answer.status == 0
    assert (tmp_path / "two" / "pale.safetensors").exists()
    chosen = [line for line in answer.out.splitlines() if "yes" in line]
    assert len(chosen) == 1
    assert chosen[0].split()[1] == str(last)
    answer = shell("cluster", picture, "--out", tmp_path / "two", *FAST, "--chosen", 255)
    assert answer.status == 1
    assert "there is no cluster 255 in this region; choose among" in answer.err


def test_free_offsets_leave_no_weights_and_say_so(shell, picture, tmp_path):
    answer = shell("cluster", picture, "--out", tmp_path / "out", "--preset", "published", *FAST, "--iterations", 2)
    assert answer.status == 0, answer.err
    assert "free offsets cannot be applied to other pictures" in answer.err
    assert not list((tmp_path / "out").glob("*.safetensors"))
    assert json.loads((tmp_path / "out" / "a-clusters.json").read_text())["settings"]["affine"] == "rotation"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (("--region", "500,500,50,50"), "lies beside that. Give one on the slide"),
        (("--region", "0,0,16,16"), "too small to be clustered"),
        (("--iterations", 0), "iterations must be between 1"),
        (("--affine", "none"), "affine must be learned or rotation, not none"),
        (("--min-area", -1), "smallest area cannot be negative"),
    ],
)
def test_what_cannot_be_done_is_said(shell, picture, tmp_path, change, sentence):
    answer = shell("cluster", picture, "--out", tmp_path / "out", *FAST, *change)
    assert answer.status == 1
    assert sentence in answer.err


@pytest.mark.parametrize(
    ("colour", "sentence"), [((245, 244, 246), r"white (glass)"), ((120, 60, 90), "of one colour")]
)
def test_a_region_of_nothing_is_said(shell, tmp_path, colour, sentence):
    path = write(tmp_path / "plain.png", np.full((80, 80, 3), colour, np.uint8))
    answer = shell("cluster", path, "--out", tmp_path / "out", *FAST)
    assert answer.status == 1
    assert f"the region is {sentence}: there is nothing to tell apart; choose one with tissue" in answer.err


def test_a_picture_without_a_pixel_size_is_asked_for_it(shell, picture, tmp_path):
    answer = shell("cluster", picture, "--out", tmp_path / "out")
    assert answer.status == 1
    assert "--mpp" in answer.err


def test_a_region_too_large_for_memory_is_refused(shell, picture, tmp_path, monkeypatch):
    monkeypatch.setattr("napari_nucleiseg.core.batch.clustering.LARGEST_REGION_PX", 1000)
    answer = shell("cluster", picture, "--out", tmp_path / "out", *FAST)
    assert answer.status == 1
    assert "too large to be clustered" in answer.err


def test_a_folder_that_cannot_be_made_is_said(shell, picture, tmp_path):
    (tmp_path / "file").write_text("")
    answer = shell("cluster", picture, "--out", tmp_path / "file" / "out", *FAST)
    assert answer.status == 1
    assert "cannot be made" in answer.err


def test_every_field_of_the_settings_has_a_flag():
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    text = parser.format_help()
    assert [item.name for item in fields(ClusterConfig) if f"--{item.name.replace('_', '-')}" not in text] == []


def test_the_help_says_that_several_clusters_are_proposed():
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    text = " ".join(parser.format_help().split())
    assert "may be given several times (default: those proposed, as marked in the table)" in text

"""``pretrain contrastive`` and ``pretrain masked`` from the shell: a warm start, and a training from it."""

import cv2
import numpy as np
import pytest
import tifffile

from napari_nucleiseg.core.models.weights import read_card
from torchvision_shim import import_timm

QUICK = {
    "params": {"width": 4, "depth": 1, "widest": 8},
    "patches": 10,
    "patch_px": 40,
    "view_px": 32,
    "hidden": 8,
    "projection": 4,
    "memory": 16,
    "mask_px": 8,
    "batch_size": 4,
    "steps": 2,
    "measured": 4,
    "measure_every": 2,
    "device": "cpu",
    "threads": 1,
}


@pytest.fixture(autouse=True)
def _libraries():
    import_timm()


@pytest.fixture
def tissue(tmp_path):
    """A data set of two pictures of purple discs; without its labels, slides."""
    rng = np.random.default_rng(0)
    for name in ("images", "labels"):
        (tmp_path / "set" / name).mkdir(parents=True)
    for number in range(2):
        labels = np.zeros((128, 128), np.uint16)
        for count in range(1, 21):
            cv2.circle(labels, tuple(int(v) for v in rng.integers(0, 128, 2)), 8, count, -1)
        image = np.where(labels[..., None] > 0, (95, 55, 140), (225, 170, 205)) + rng.normal(0, 8, (128, 128, 3))
        image = np.clip(image, 0, 255).astype(np.uint8)
        tifffile.imwrite(tmp_path / "set" / "images" / f"p{number}.tif", image, photometric="rgb")
        tifffile.imwrite(tmp_path / "set" / "labels" / f"p{number}.tif", labels)
    return tmp_path / "set"


@pytest.fixture
def quick(quick):
    return (*quick, "--mpp", 0.5, "--licence", "CC0-1.0")


@pytest.mark.parametrize(
    ("words", "method"),
    [
        (("contrastive",), "simclr"),
        (("contrastive", "--method", "moco"), "moco"),
        (("contrastive", "--method", "swin-unetr"), "swin-unetr"),
        (("masked",), "masked"),
        (("masked", "--part", "network"), "masked"),
    ],
)
def test_slides_become_a_warm_start(shell, tissue, quick, tmp_path, words, method):
    command = ("pretrain", *words, tissue / "images", *quick)
    answer = shell(*command, "--json")
    assert answer.status == 0, answer.err
    weights = tmp_path / "run" / "warm.safetensors"
    assert answer.document["weights"] == str(weights)
    assert answer.document["method"] == method
    assert set(answer.document["last"]) >= {"loss", "rank", "held_out"}
    assert f"Start a training from it: --network nuclei --initial {weights}" in answer.err
    assert "held out:" in answer.err
    assert read_card(weights).taught["warm_start"]["method"] == method
    assert "Nothing left to do" in shell(*command).err


def test_a_training_says_what_it_took(shell, tissue, quick, tmp_path):
    assert shell("pretrain", "masked", tissue / "images", *quick).status == 0
    words = ("--train", f"{tissue},mpp_um=0.5", "--params", "width=4,depth=1,widest=8", "--steps", 1, "--crop-px", 64)
    words = (*words, "--batch-size", 1, "--threads", 1, "--device", "cpu", "--out", tmp_path / "trained")
    answer = shell("train", *words, "--initial", tmp_path / "run" / "warm.safetensors")
    assert answer.status == 0, answer.err
    assert "tensors of run@" in answer.err
    assert "of the network stay fresh" in answer.err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("contrastive",), "name at least one slide"),
        (("contrastive", "missing.svs"), "missing.svs does not exist"),
        (("contrastive", "SLIDES", "--method", "masked"), "method must be simclr or moco or swin-unetr here"),
        (("masked", "SLIDES", "--method", "moco"), "method must be masked here, not moco"),
        (("contrastive", "SLIDES", "--part", "network"), "teaches the encoder only"),
        (("contrastive", "SLIDES", "--view-px", "40"), "next side that fits is 64"),
        (("masked", "SLIDES", "--network", "nothing"), "no network called nothing"),
        (("masked", "SLIDES", "--network", "hipt-256"), "teach it with pretrain mae"),
    ],
)
def test_what_is_wrong_is_said(shell, tissue, quick, words, sentence):
    answer = shell("pretrain", *(word.replace("SLIDES", str(tissue / "images")) for word in words), *quick)
    assert answer.status == 1
    assert sentence in answer.err


def test_the_recipes_are_listed_and_explain_their_flags(shell):
    listed = shell("pretrain", "--help").out
    assert "contrastive" in listed
    assert "masked" in listed
    told = shell("pretrain", "contrastive", "--help").out
    assert all(flag in told for flag in ("--method", "--memory", "--momentum", "--view-px"))

"""A training with labels starts from a warm start: the encoder arrives, the rest is fresh, and the card says so."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import tifffile
import torch

from napari_nucleiseg.core.errors import WeightsError
from napari_nucleiseg.core.models.registry import build_network, network_spec
from napari_nucleiseg.core.models.starts import start_from, taught_tensors
from napari_nucleiseg.core.models.weights import load_tensors, read_card
from napari_nucleiseg.core.training.config import DataSet, TrainConfig
from napari_nucleiseg.core.training.loop import train
from napari_nucleiseg.core.training.warm.loop import pretrain


@pytest.fixture
def labelled(tmp_path):
    """One picture of discs with its labels, at 0.5 micrometres per pixel."""
    rng = np.random.default_rng(0)
    labels = np.zeros((128, 128), np.uint16)
    for number, (y, x) in enumerate(rng.integers(8, 120, (20, 2)), start=1):
        cv2.circle(labels, (int(x), int(y)), 6, number, -1)
    image = np.full((128, 128, 3), (230, 190, 215), np.uint8)
    image[labels > 0] = (90, 50, 130)
    for name, array in (("images", image), ("labels", labels)):
        (tmp_path / "set" / name).mkdir(parents=True)
        tifffile.imwrite(tmp_path / "set" / name / "p0.tif", array)
    return DataSet(str(tmp_path / "set"), 0.5, licence="CC-BY-4.0", name="discs")


@pytest.fixture
def training(config, labelled, tmp_path):
    """Two steps from a warm start in which nothing is learned."""
    list(pretrain(config))
    return TrainConfig(
        out=str(tmp_path / "trained"),
        params=config.params,
        train=(labelled,),
        initial=f"{config.out}/warm.safetensors",
        steps=2,
        batch_size=2,
        crop_px=64,
        warmup=0,
        seed=1,
        learning_rate=0.0,
        device="cpu",
        threads=1,
    )


def weights_of(run):
    return torch.load(f"{run.out}/last.pt", weights_only=True)["network"]


def test_the_encoder_arrives_and_the_rest_is_fresh(config, training):
    steps = list(train(training))
    warm, found = load_tensors(training.initial), weights_of(training)
    taught = taught_tensors(read_card(training.initial))
    torch.manual_seed(training.seed)
    fresh = build_network(network_spec("nuclei", config.params)).state_dict()
    weights = [name for name in found if found[name].ndim == 4]
    assert all(torch.equal(found[name], (warm if name in taught else fresh)[name]) for name in weights)
    assert not torch.equal(found["stem.0.weight"], fresh["stem.0.weight"])
    assert not torch.equal(warm["decoder.0.first.0.weight"], fresh["decoder.0.first.0.weight"])
    count = len(taught)
    assert f"{count} of {count} tensors of run@" in steps[0].note
    assert f"{len(found) - count} of the network stay fresh" in steps[0].note
    assert steps[1].note == ""


def test_the_card_names_the_warm_start_and_its_licence(config, training):
    list(train(training))
    card = read_card(f"{training.out}/best.safetensors")
    version = read_card(training.initial).version
    assert card.licence == "CC-BY-4.0 AND CC0-1.0"
    assert card.commercial_use
    assert card.training_data == ("discs (CC-BY-4.0)", f"warm start {version}, no labels (CC0-1.0)")


def test_slides_of_unknown_licence_are_not_made_free_by_labels(config, training, tmp_path):
    slides = tuple(replace(item, licence="") for item in config.slides)
    unknown = replace(config, out=str(tmp_path / "unknown"), slides=slides, steps=1)
    list(pretrain(unknown))
    begun = replace(training, initial=f"{unknown.out}/warm.safetensors")
    run = train(begun)
    next(run)
    run.close()
    list(train(replace(begun, steps=2)))
    assert read_card(f"{begun.out}/best.safetensors").commercial_use is False


def test_another_network_takes_what_fits_and_says_how_much(config, training, tmp_path):
    wider = replace(training, params={**config.params, "widest": 16}, out=str(tmp_path / "wider"))
    taken, offered = map(int, next(train(wider)).note.split(" tensors")[0].split(" of "))
    assert 0 < taken < offered
    other = replace(wider, out=str(tmp_path / "other"))
    with pytest.raises(WeightsError, match="none of its"):
        next(train(replace(other, network="unet-2015-padded", params={"width": 2}, losses={"separated": 1.0})))


@pytest.mark.parametrize(
    ("network", "params", "method", "stem"),
    [
        ("deeplab-v3plus", {"encoder": "resnet18", "channels": 8}, "moco", "body.encoder.conv1.weight"),
        ("unet-se", {"width": 4, "depth": 2, "widest": 8}, "masked", "stem.0.weight"),
        ("high-resolution-swin", {"width": 12, "streams": 2}, "swin-unetr", "body.stem.weight"),
    ],
)
def test_encoders_of_the_zoo_are_warmed_too(config, tmp_path, network, params, method, stem):
    config = replace(config, network=network, params=params, method=method, steps=2, batch_size=4, view_px=64)
    steps = list(pretrain(replace(config, patch_px=96, hold_out=0.0)))
    assert all(np.isfinite(step.loss) for step in steps)
    torch.manual_seed(9)
    begun = build_network(network_spec(network, params))
    start = start_from(begun, f"{config.out}/warm.safetensors", network)
    assert start.taken == start.offered
    assert torch.equal(begun.state_dict()[stem], load_tensors(f"{config.out}/warm.safetensors")[stem])

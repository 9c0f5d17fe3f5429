"""Normalisation, decoder and decode options of a run end up in its validation and its weights; old runs have none."""

import json
from dataclasses import fields, replace

import numpy as np
import pytest

from labelled_discs import disc_labels, write_discs
from napari_nucleiseg.core.decoders.base import DecodeOptions
from napari_nucleiseg.core.errors import DataError, ModelError
from napari_nucleiseg.core.inference.segment import default_options
from napari_nucleiseg.core.models.registry import network_spec
from napari_nucleiseg.core.models.spec import as_trained
from napari_nucleiseg.core.models.weights import ModelCard, card_from_json, load_model
from napari_nucleiseg.core.training.batches import BatchMaker
from napari_nucleiseg.core.training.config import DataSet, TrainConfig, load_config
from napari_nucleiseg.core.training.loop import train, trained_spec
from napari_nucleiseg.core.training.validation import Validator

NEW = ("mean", "std", "decoder", "threshold", "min_area_um2")
MEAN, STD = (0.6, 0.5, 0.4), (0.1, 0.2, 0.3)


@pytest.fixture
def config(tmp_path):
    data = DataSet(str(write_discs(tmp_path / "data", disc_labels())), 0.5)
    params = {"width": 4, "depth": 2, "widest": 8}
    return TrainConfig(
        str(tmp_path / "run"), params=params, train=(data,), validate=(data,), crop_px=64, batch_size=1, threads=1,
        steps=1, device="cpu",
    )  # fmt: skip


def test_a_configuration_of_old_loads_and_trains_what_it_did(tmp_path, config):
    (tmp_path / "old.json").write_text(json.dumps({"network": "nuclei", "steps": 5}))
    old = load_config(str(tmp_path / "old.json"))
    assert {name: getattr(old, name) for name in NEW} == {
        "mean": (), "std": (), "decoder": "", "threshold": DecodeOptions().threshold,
        "min_area_um2": DecodeOptions().min_area_um2,
    }  # fmt: skip
    assert trained_spec(replace(old, train=config.train)) == network_spec("nuclei")


def test_a_card_of_old_means_the_networks_own():
    card = card_from_json(json.dumps({"name": "old", "network": "nuclei"}))
    assert (card.mean, card.std) == ((), ())
    known = {item.name for item in fields(ModelCard)}
    assert {"mean", "std", "decoder", "threshold", "min_area_um2"} <= known


def test_what_a_run_was_set_to_is_in_its_weights(config):
    run = replace(config, mean=MEAN, std=STD, decoder="distance", threshold=0.45, min_area_um2=3.0)
    (step,) = train(run)
    assert step.is_best
    model = load_model(f"{config.out}/best.safetensors", accept_licence=True)
    assert (model.spec.mean, model.spec.std, model.spec.decoder) == (MEAN, STD, "distance")
    assert default_options(model) == DecodeOptions(0.45, 3.0)


def test_crops_are_normalised_as_the_run_says(config):
    usual, own = (
        BatchMaker(run, trained_spec(run)).crop(0)["image"] for run in (config, replace(config, mean=MEAN, std=STD))
    )
    spec = network_spec("nuclei")
    as_rgb = [
        image * np.array(std)[:, None, None] + np.array(mean)[:, None, None]
        for image, mean, std in ((usual, spec.mean, spec.std), (own, MEAN, STD))
    ]
    assert not np.allclose(usual, own)
    assert np.allclose(*as_rgb, atol=1e-5)


def test_validation_decodes_as_the_weights_will_be(config):
    assert Validator(replace(config, threshold=0.4, min_area_um2=2.0), trained_spec(config)).options == DecodeOptions(
        0.4, 2.0
    )


def test_what_is_left_out_stays_the_networks():
    spec = network_spec("nuclei")
    assert as_trained(spec, "", (), ()) is spec
    assert as_trained(spec, "distance", (), ()) == replace(spec, decoder="distance")
    assert as_trained(spec, "", MEAN, STD) == replace(spec, mean=MEAN, std=STD)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"mean": MEAN}, "three numbers each"),
        ({"mean": (0.5,), "std": (0.5,)}, "three numbers each"),
        ({"mean": MEAN, "std": (0.1, 0.2, 0.0)}, "std above 0"),
        ({"mean": (180.0, 140.0, 180.0), "std": STD}, "within 0..1"),
        ({"threshold": 1.0}, "threshold must be between 0.01 and 0.99, not 1.0"),
        ({"min_area_um2": -1.0}, "min_area_um2 must be at least 0"),
    ],
)
def test_what_makes_no_sense_is_refused(config, changes, sentence):
    assert sentence in (replace(config, **changes).validation_error() or "")


def test_a_decoder_that_the_network_cannot_feed_is_refused(config):
    with pytest.raises(ModelError, match="there is no decoder called magic"):
        trained_spec(replace(config, decoder="magic"))
    wrong = replace(config, network="unet-2015-padded", params={"width": 4}, losses={"separated": 1.0})
    with pytest.raises(DataError, match="decoder distance needs distance, nuclei, which unet-2015-padded lacks"):
        trained_spec(replace(wrong, decoder="distance"))

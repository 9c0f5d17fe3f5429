"""A network starts from another run's weights: all of them, or of a warm start those that fit."""

from dataclasses import replace

import pytest
import torch

from napari_nucleiseg.core.errors import WeightsError
from napari_nucleiseg.core.models.registry import build_network, network_spec
from napari_nucleiseg.core.models.starts import start_from, taught_tensors, warm_start_note
from napari_nucleiseg.core.models.weights import ModelCard, save_model

PARAMS = {"width": 4, "depth": 2, "widest": 8}


def made(**params):
    spec = network_spec("nuclei", {**PARAMS, **params})
    return spec, build_network(spec)


@pytest.fixture
def encoder_names():
    return [name for name in made()[1].state_dict() if name.startswith(("stem", "encoder"))]


@pytest.fixture
def warm(tmp_path, encoder_names):
    """A warm start of the encoder, and its network."""
    torch.manual_seed(1)
    spec, network = made()
    card = ModelCard("warm", "nuclei", licence="CC0-1.0", taught=warm_start_note("simclr", encoder_names))
    return tmp_path / "warm.safetensors", network, save_model(tmp_path / "warm.safetensors", network, spec, card)


def test_of_a_warm_start_the_taught_tensors_are_taken_and_the_rest_stays_fresh(warm, encoder_names):
    path, taught, card = warm
    torch.manual_seed(2)
    _, network = made()
    fresh = {name: value.clone() for name, value in network.state_dict().items()}
    start = start_from(network, path, "nuclei")
    for name, value in network.state_dict().items():
        source = taught.state_dict()[name] if name in encoder_names else fresh[name]
        assert torch.equal(value, source.half().to(value.dtype) if name in encoder_names else source), name
    assert (start.taken, start.offered) == (len(encoder_names), len(encoder_names))
    assert start.fresh == len(fresh) - len(encoder_names)
    assert start.card == card
    told = f"{start.taken} of {start.offered} tensors of {card.version} fitted; {start.fresh} of the network stay fresh"
    assert start.told == told


def test_what_fits_another_network_is_taken_and_counted(warm, encoder_names):
    path, _, _ = warm
    _, deeper = made(depth=3)
    start = start_from(deeper, path, "nuclei")
    assert start.taken == start.offered == len(encoder_names)
    _, wider = made(widest=16)  # its last stage is wider
    start = start_from(wider, path, "nuclei")
    assert 0 < start.taken < start.offered
    assert start.taken + start.fresh == len(wider.state_dict())
    fine = build_network(network_spec("nuclei-fine", {**PARAMS, "detail": 4}))
    assert start_from(fine, path, "nuclei-fine").taken == len(encoder_names)


def test_a_warm_start_of_which_nothing_fits_is_refused(warm):
    path, _, _ = warm
    other = build_network(network_spec("unet-2015-padded", {"width": 2}))
    with pytest.raises(WeightsError, match="none of its 43 tensors fits network unet-2015-padded"):
        start_from(other, path, "unet-2015-padded")


def test_any_other_file_must_belong_to_the_network(tmp_path):
    spec, network = made()
    path = tmp_path / "whole.safetensors"
    save_model(path, network, spec, ModelCard("whole", "nuclei"))
    _, with_detail = made(detail=4)
    start = start_from(with_detail, path, "nuclei")
    assert (start.taken, start.is_warm) == (len(network.state_dict()), False)
    assert start.card.licence == "unknown"
    assert start.fresh == len(with_detail.state_dict()) - start.taken
    with pytest.raises(WeightsError, match="does not fit network nuclei as it is set up"):
        start_from(made(width=5)[1], path, "nuclei")
    with pytest.raises(WeightsError, match="made for another network than nuclei"):
        start_from(made(depth=1)[1], path, "nuclei")


def test_cards_of_other_weights_name_no_taught_tensors():
    card = ModelCard("plain", "nuclei", taught={"slides": []})
    assert taught_tensors(card) is None
    assert taught_tensors(replace(card, taught=warm_start_note("moco", ["b", "a"]))) == ("a", "b")

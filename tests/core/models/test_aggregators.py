"""Aggregators: what they are made of, what attention means, and what their weight files must say."""

import numpy as np
import pytest
import torch
from torch import nn

from napari_nucleiseg.core.errors import LicenceNotAcceptedError, ModelError, WeightsError
from napari_nucleiseg.core.models.aggregators import aggregator_names, build_aggregator, load_aggregator
from napari_nucleiseg.core.models.weights import ModelCard, save_model

SIZES = {"features": 10, "outputs": 3}
TAUGHT = {"task": "classes", "classes": ["a", "b", "c"]}


def built(name, **changes):
    torch.manual_seed(0)
    spec, network = build_aggregator(name, {**SIZES, **changes})
    return spec, network.eval()


def saved(path, name="clam", **changes):
    spec, network = built(name)
    facts = {"licence": "CC0-1.0", "commercial_use": True, "taught": TAUGHT, "features_of": "regions@1", **changes}
    return network, save_model(path, network, spec, ModelCard("mine", name, **facts), half=False)


def test_the_registry_starts_with_the_simplest():
    assert aggregator_names() == ("mean", "abmil", "clam", "hipt")


@pytest.mark.parametrize("name", aggregator_names())
@pytest.mark.parametrize("count", [1, 7])
def test_a_bag_of_any_size_gives_logits_and_attention_that_adds_up(name, count):
    spec, network = built(name)
    logits, attention = (part.detach() for part in network(torch.randn(count, 10)))
    assert (spec.name, spec.features, spec.outputs) == (name, 10, 3)
    assert logits.shape == (3,)
    assert attention.shape == (count,)
    assert float(attention.min()) >= 0
    assert float(attention.sum()) == pytest.approx(1)


@pytest.mark.parametrize("name", aggregator_names())
def test_the_order_of_a_bag_does_not_matter(name):
    _, network = built(name)
    bag, order = torch.randn(9, 10), torch.randperm(9)
    logits, attention = network(bag)
    other, turned = network(bag[order])
    torch.testing.assert_close(other, logits)
    torch.testing.assert_close(turned, attention[order])


@pytest.mark.parametrize(("name", "gated"), [("abmil", False), ("clam", True)])
def test_attention_is_that_of_the_papers(name, gated):
    _, network = built(name)
    bag = torch.randn(5, 10)
    hidden = torch.relu(network.embed[0](bag))
    scores = torch.tanh(network.scores.value(hidden))
    if gated:
        scores = scores * torch.sigmoid(network.scores.gate(hidden))
    expected = torch.softmax(scores @ network.scores.weight.weight[0] + network.scores.weight.bias, dim=0)
    logits, attention = network(bag)
    torch.testing.assert_close(attention, expected)
    torch.testing.assert_close(logits, network.head((expected[:, None] * hidden).sum(dim=0)))


def test_the_mean_looks_everywhere_alike():
    _, network = built("mean")
    bag = torch.randn(4, 10)
    logits, attention = network(bag)
    torch.testing.assert_close(attention, torch.full((4,), 0.25))
    torch.testing.assert_close(logits, network.head(torch.relu(network.embed[0](bag)).mean(dim=0)))


def test_hipt_has_the_published_layers():
    _, network = built("hipt", features=192)
    layer = network.mixing.layers[0]
    assert len(network.mixing.layers) == 2
    assert not layer.norm_first
    assert (layer.self_attn.num_heads, layer.self_attn.embed_dim, layer.linear1.out_features) == (3, 192, 192)
    assert layer.activation is nn.functional.relu
    assert [part.p for part in network.modules() if isinstance(part, nn.Dropout)] == [0.25] * 8
    linear = 192 * 192 + 192
    normalisations, attention = 2 * 2 * 192, 3 * linear + linear
    transformer = 2 * (attention + 2 * linear + normalisations)
    gate, classifier = 2 * linear + 193, linear + 3 * 192 + 3
    assert sum(part.numel() for part in network.parameters()) == linear + transformer + gate + classifier


@pytest.mark.parametrize(
    ("name", "params", "said"),
    [
        ("best", SIZES, "there are mean, abmil, clam, hipt"),
        ("mean", {"features": 3}, "outputs"),
        ("hipt", {**SIZES, "width": 100}, "cannot be built"),
    ],
)
def test_what_cannot_be_built_is_told(name, params, said):
    with pytest.raises(ModelError, match=said):
        build_aggregator(name, params)


@pytest.mark.parametrize("name", aggregator_names())
def test_a_saved_aggregator_says_the_same(tmp_path, name):
    network, card = saved(tmp_path / "a.safetensors", name)
    loaded = load_aggregator(tmp_path / "a.safetensors")
    bag = torch.randn(6, 10)
    for one, other in zip(loaded.network(bag), network(bag), strict=True):
        np.testing.assert_array_equal(one.detach().numpy(), other.detach().numpy())
    assert loaded.version == card.version
    assert (loaded.task, loaded.classes, loaded.edges) == ("classes", ("a", "b", "c"), ())
    assert loaded.card.features_of == "regions@1"
    assert not loaded.network.training


def test_survival_needs_one_edge_less_than_outputs(tmp_path):
    saved(tmp_path / "a.safetensors", taught={"task": "survival", "edges": [1.5, 2.5]})
    loaded = load_aggregator(tmp_path / "a.safetensors")
    assert (loaded.task, loaded.classes, loaded.edges) == ("survival", (), (1.5, 2.5))


@pytest.mark.parametrize("taught", [{}, {"task": "classes", "classes": ["a"]}, {"task": "survival", "edges": [1.0]}])
def test_a_card_that_does_not_say_what_outputs_mean_is_refused(tmp_path, taught):
    saved(tmp_path / "a.safetensors", taught=taught)
    with pytest.raises(WeightsError, match="does not say what its 3 outputs mean"):
        load_aggregator(tmp_path / "a.safetensors")


def test_other_networks_and_restricted_weights_are_refused(tmp_path):
    spec, network = built("mean")
    saved(tmp_path / "nc.safetensors", licence="CC-BY-NC-4.0", commercial_use=False)
    with pytest.raises(LicenceNotAcceptedError):
        load_aggregator(tmp_path / "nc.safetensors")
    assert load_aggregator(tmp_path / "nc.safetensors", accept_licence=True).task == "classes"
    other = type(spec)("unet-2015", "", 10, 3)
    save_model(tmp_path / "u.safetensors", network, other, ModelCard("u", "unet-2015", commercial_use=True))
    with pytest.raises(ModelError, match="judges no slides"):
        load_aggregator(tmp_path / "u.safetensors")

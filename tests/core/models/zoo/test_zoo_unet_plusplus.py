"""U-Net++ has the published size, learns at four depths and can be pruned."""

import sys

import pytest
import torch

from napari_nucleiseg.core.errors import MissingDependencyError, ModelError
from napari_nucleiseg.core.models.registry import build_network, network_spec
from zoo_parts import SLIM, made_linear, seen_px

pytest.importorskip("monai", reason="monai is not installed (the extra zoo)")

NAME = "unet-plusplus"


def built(**params):
    torch.manual_seed(0)
    return build_network(network_spec(NAME, SLIM[NAME] | params))


@pytest.mark.parametrize(("height", "width"), [(16, 16), (32, 48), (80, 64)])
def test_maps_are_as_large_as_the_picture(height, width):
    spec = network_spec(NAME)
    maps = built().eval()(torch.randn(2, 3, height, width))
    assert {name: tuple(found.shape) for name, found in maps.items()} == {
        head.name: (2, head.channels, height, width) for head in spec.heads
    }


def test_it_has_the_published_number_of_parameters():
    count = sum(p.numel() for p in build_network(network_spec(NAME)).parameters())
    assert count == pytest.approx(9.04e6, rel=0.01)


def test_shallower_nodes_are_side_outputs_while_it_learns():
    network = built().train()
    x = torch.randn(2, 3, 32, 32)
    maps = network(x)
    names = [head.name for head in network_spec(NAME).heads]
    assert list(maps) == [*names, *(f"{name}/{level}" for level in (1, 2, 3) for name in names)]
    nodes = network.body(x)
    assert torch.allclose(maps["nuclei"], nodes[3][:, :1], atol=1e-5)
    assert torch.allclose(maps["nuclei/3"], nodes[0][:, :1], atol=1e-5)
    assert list(built(deep_supervision=False).train()(x)) == names


def test_a_pruned_network_answers_with_a_shallower_node():
    x = torch.randn(1, 3, 32, 32)
    whole, pruned = built().eval(), built(depth=2).eval()
    assert torch.equal(pruned(x)["nuclei"], whole.body(x)[1][:, :1])
    assert not torch.allclose(pruned(x)["nuclei"], whole(x)["nuclei"])


def test_one_pixel_sees_what_the_spec_states():
    seen = seen_px(made_linear(built().eval()), stride=16, height=16, width=512)
    assert seen == network_spec(NAME).receptive_field_px


@pytest.mark.parametrize("params", [{"norm": "group"}, {"depth": 5}, {"depth": 0}])
def test_what_it_does_not_have_is_refused(params):
    with pytest.raises(ModelError, match="norm batch or instance and depth 1 to 4"):
        built(**params)


def test_normalisation_of_instances_has_weights_too():
    network = built(norm="instance").train()
    network(torch.randn(1, 3, 32, 32))["nuclei"].sum().backward()
    (norm,) = {type(m) for m in network.modules() if "Norm" in type(m).__name__}
    assert norm is torch.nn.InstanceNorm2d
    assert all(m.weight.requires_grad for m in network.modules() if isinstance(m, norm))


def test_without_monai_a_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "monai.networks.nets", None)
    with pytest.raises(MissingDependencyError, match=r"needs monai: install the extra zoo"):
        built()

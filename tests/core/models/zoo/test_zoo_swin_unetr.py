"""Swin UNETR on pictures takes sides of multiples of 32 and refuses what it cannot be built with."""

import sys

import pytest
import torch
from torch import nn

from napari_nucleiseg.core.errors import MissingDependencyError, ModelError
from napari_nucleiseg.core.models.registry import build_network, network_spec
from zoo_parts import SLIM

pytest.importorskip("monai", reason="monai is not installed (the extra zoo)")

NAME = "swin-unetr"


@pytest.fixture
def _einops():
    pytest.importorskip("einops", reason="einops is not installed (the extra zoo)")


def built(**params):
    torch.manual_seed(0)
    return build_network(network_spec(NAME, SLIM[NAME] | params))


@pytest.mark.usefixtures("_einops")
@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 96), (160, 128)])
def test_maps_are_as_large_as_the_picture(height, width):
    maps = built().eval()(torch.randn(2, 3, height, width))
    assert {key: tuple(found.shape) for key, found in maps.items()} == {
        head.name: (2, head.channels, height, width) for head in network_spec(NAME).heads
    }


@pytest.mark.usefixtures("_einops")
@pytest.mark.parametrize("shape", [(32, 96), (160, 128)])  # maps smaller than a window, and larger ones
def test_its_stages_are_those_of_the_library(shape):
    """What MONAI's own class says with the same weights, which have the same names."""
    from monai.networks.nets import SwinUNETR

    network = built().eval()
    theirs = SwinUNETR(
        3,
        network.body.out.conv.conv.out_channels,
        feature_size=12,
        num_heads=(3, 6, 12, 24),
        norm_name="batch",
        spatial_dims=2,
    )
    theirs.load_state_dict(network.body.state_dict())
    x = torch.randn(2, 3, *shape)
    with torch.no_grad():
        assert torch.equal(network.body(x), theirs.eval()(x))


@pytest.mark.usefixtures("_einops")
def test_sides_fit_in_steps_of_32_and_no_smaller_ones():
    network = built().eval()
    assert network_spec(NAME).size_multiple == 32
    with pytest.raises(ValueError, match="divisible"):
        network(torch.zeros(1, 3, 48, 64))


@pytest.mark.usefixtures("_einops")
@pytest.mark.parametrize(("params", "millions"), [({}, 6.3), ({"features": 48}, 25.1)])
def test_it_has_the_parameters_of_the_library_in_two_dimensions(params, millions):
    count = sum(p.numel() for p in build_network(network_spec(NAME, params)).parameters())
    assert count == pytest.approx(millions * 1e6, rel=0.005)


@pytest.mark.usefixtures("_einops")
def test_it_learns_in_half_precision_with_channels_last():
    network = built(drop_path=0.1).train().to(memory_format=torch.channels_last)
    x = torch.randn(2, 3, 64, 64).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        maps = network(x)
    sum(found.square().mean() for found in maps.values()).backward()
    assert all(found.dtype == torch.float32 for found in maps.values())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.usefixtures("_einops")
@pytest.mark.parametrize(("norm", "kind"), [("batch", nn.BatchNorm2d), ("instance", nn.InstanceNorm2d)])
def test_convolutions_are_normalised_as_asked(norm, kind):
    found = {type(m) for m in built(norm=norm).modules() if isinstance(m, nn.BatchNorm2d | nn.InstanceNorm2d)}
    assert found == {kind}


@pytest.mark.parametrize("params", [{"features": 20}, {"norm": "group"}, {"heads": 5}])
def test_what_it_does_not_have_is_refused(params):
    with pytest.raises(ModelError, match="multiple of 12 and of its heads, and norm batch or instance"):
        built(**params)


@pytest.mark.parametrize(("module", "package"), [("monai.networks.nets", "monai"), ("einops", "einops")])
def test_without_a_library_a_sentence_says_what_to_install(monkeypatch, module, package):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependencyError, match=f"needs {package}: install the extra zoo"):
        built()

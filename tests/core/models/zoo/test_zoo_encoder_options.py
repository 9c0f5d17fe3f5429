"""Options of the encoder do what their papers say, and all else of the network is the default's."""

import sys

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import torchvision_shim
from napari_nucleiseg.core.errors import MissingDependencyError, ModelError
from napari_nucleiseg.core.models.deformable import PredictedDeformation
from napari_nucleiseg.core.models.nuclei_unet import NucleiUNet
from napari_nucleiseg.core.models.pooled_norm import PooledBatchNorm
from napari_nucleiseg.core.models.programs import torchscript_allowed
from napari_nucleiseg.core.models.registry import build_network, network_spec
from napari_nucleiseg.core.models.zoo.encoder_options import SEEN_PX, DynamicConv2d, EncoderOptionUNet
from zoo_parts import SLIM, made_linear, seen_px

NAMES = ("unet-se", "unet-sk", "unet-dynamic", "unet-deformable")


@pytest.fixture(scope="module", autouse=True)
def _timm():
    torchvision_shim.import_timm()


def built(name, **params):
    torch.manual_seed(0)
    return build_network(network_spec(name, SLIM[name] | params))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 96), (96, 32)])
def test_maps_are_as_large_as_the_picture(name, height, width):
    maps = built(name).eval()(torch.randn(2, 3, height, width))
    assert {key: tuple(found.shape) for key, found in maps.items()} == {
        head.name: (2, head.channels, height, width) for head in network_spec(name).heads
    }


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("batch", [1, 2])
def test_it_learns_in_half_precision_with_channels_last(name, batch):
    network = built(name).train().to(memory_format=torch.channels_last)
    x = torch.randn(batch, 3, 64, 64).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        maps = network(x)
    sum(found.square().mean() for found in maps.values()).backward()
    assert all(found.dtype == torch.float32 for found in maps.values())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_all_but_the_encoder_is_the_default_network(name):
    plain = NucleiUNet(**SLIM[name]).state_dict()
    option = built(name).state_dict()
    assert {key for key in plain if not key.startswith("encoder.")} == {
        key for key in option if not key.startswith("encoder.")
    }
    assert option.keys() != plain.keys() or any(option[key].shape != plain[key].shape for key in plain)


def test_without_an_option_it_is_the_default_network():
    torch.manual_seed(0)
    plain = NucleiUNet(width=8)
    network = EncoderOptionUNet(None, width=8)
    network.load_state_dict(plain.state_dict())
    x = torch.randn(1, 3, 32, 32)
    assert torch.equal(network.eval()(x)["nuclei"], plain.eval()(x)["nuclei"])


def test_the_option_begins_at_the_level_that_was_asked_for():
    network = built("unet-deformable", first_level=3)
    bent = [any(isinstance(m, PredictedDeformation) for m in block.modules()) for block in network.encoder]
    assert bent == [False, False, False, True, True]
    with pytest.raises(ModelError, match="first_level must be 0 to 4"):
        built("unet-deformable", first_level=5)


def test_channels_are_weighed_by_the_mean_of_the_picture():
    block = built("unet-se", width=16).encoder[0].eval()
    excite = block.second[-1]
    x = torch.randn(2, 16, 8, 8)
    squeezed = F.relu(excite.fc1(x.mean(dim=(2, 3), keepdim=True)))
    assert torch.allclose(excite(x), x * torch.sigmoid(excite.fc2(squeezed)), atol=1e-6)
    assert excite.fc1.out_channels == 8, "a sixteenth, but 8 at least"
    assert built("unet-se", width=32, reduction=2).encoder[0].second[-1].fc1.out_channels == 16


def test_channels_choose_among_two_kernels_whose_shares_sum_to_one():
    kernel = built("unet-sk", width=16).encoder[0].first.eval()
    assert [(path.conv.kernel_size[0], path.conv.dilation[0]) for path in kernel.paths] == [(3, 1), (3, 2)]
    assert kernel.attn.fc_reduce.out_channels == 32
    assert isinstance(kernel.attn.bn, PooledBatchNorm)
    x = torch.randn(2, 16, 8, 8)
    paths = torch.stack([path(x) for path in kernel.paths], dim=1)
    shares = kernel.attn(paths)
    assert torch.allclose(shares.sum(dim=1), torch.ones(2, 16, 1, 1))
    assert torch.allclose(kernel(x), (paths * shares).sum(dim=1), atol=1e-6)
    assert built("unet-sk", width=16, groups=32).encoder[0].first.paths[0].conv.groups == 16, "as far as they divide"


def cooled(passes, steps=2):
    """A dynamic convolution after so many forward passes of training."""
    torch.manual_seed(0)
    layer = DynamicConv2d(4, 6, cooling_steps=steps).train()
    for _ in range(passes):
        layer(torch.zeros(1, 4, 2, 2))
    return layer


def test_the_temperature_falls_from_34_to_1_in_steps_of_3():
    layer = cooled(0)
    found = []
    for _ in range(26):
        found.append(int(layer.temperature))
        layer(torch.zeros(1, 4, 2, 2))
    assert found[::2] == [34, 31, 28, 25, 22, 19, 16, 13, 10, 7, 4, 1, 1]
    assert found[1::2] == found[::2]


def test_a_network_that_is_used_does_not_cool_and_its_temperature_is_saved():
    layer = cooled(3)
    layer.eval()(torch.zeros(1, 4, 2, 2))
    assert int(layer.temperature) == 31
    other = cooled(0)
    other.load_state_dict(layer.state_dict())
    assert int(other.temperature) == 31


def test_hot_shares_are_alike_and_cold_ones_differ():
    x = torch.randn(3, 4, 8, 8) * 30
    hot, cold = cooled(0), cooled(30)
    assert torch.allclose(hot.shares(x).sum(dim=1), torch.ones(3))
    assert hot.shares(x).std(dim=1).mean() < cold.shares(x).std(dim=1).mean() / 4


def test_each_picture_has_a_kernel_of_its_own():
    layer = cooled(30).eval()
    with torch.no_grad():
        layer.bias.normal_()
    x = torch.randn(3, 4, 8, 8) * 5
    shares = layer.shares(x)
    kernels = torch.einsum("bk,koiyx->boiyx", shares, layer.weight.view(4, 6, 4, 3, 3))
    assert min(float((kernels[i] - kernels[j]).detach().abs().max()) for i, j in ((0, 1), (0, 2), (1, 2))) > 1e-3
    expected = [
        F.conv2d(one[None], kernel, share @ layer.bias, padding=1)
        for one, kernel, share in zip(x, kernels, shares, strict=True)
    ]
    assert torch.allclose(layer(x), torch.cat(expected), atol=1e-5)


def test_squeezed_channels_and_kernels_are_the_papers():
    layer = DynamicConv2d(32, 8)
    assert [m.out_features for m in layer.attention if isinstance(m, nn.Linear)] == [8, 4]
    with pytest.raises(ModelError, match="at least one kernel"):
        built("unet-dynamic", kernels=0)


def test_a_traced_network_takes_another_number_of_pictures():
    network = built("unet-dynamic").eval()
    with torchscript_allowed(), torch.no_grad():
        traced = torch.jit.trace(network, torch.zeros(2, 3, 32, 64), check_trace=False, strict=False)
        x = torch.randn(3, 3, 64, 32)
        assert torch.allclose(traced(x)["nuclei"], network(x)["nuclei"], atol=1e-5)


def test_deformable_kernels_reach_as_far_as_asked():
    network = built("unet-deformable", reach_px=3.0)
    bent = [m for m in network.modules() if isinstance(m, PredictedDeformation)]
    assert [m.reach_px for m in bent] == [3.0] * 3


def test_one_pixel_sees_what_the_spec_states(monkeypatch):
    monkeypatch.setattr(F, "max_pool2d", F.avg_pool2d)  # what a maximum can be of
    plain = made_linear(EncoderOptionUNet(None, width=4, widest=8).eval())
    assert seen_px(plain, stride=32, height=32, width=768) == SEEN_PX
    # Bent kernels reach 8 px further to each side at strides of 8, 16 and 32 px; what is pooled sees the whole tile.
    assert network_spec("unet-deformable").receptive_field_px == SEEN_PX + 2 * 8 * 56
    assert {network_spec(name).receptive_field_px for name in ("unet-se", "unet-sk", "unet-dynamic")} == {0}


@pytest.mark.parametrize("name", ["unet-se", "unet-sk"])
def test_without_timm_a_sentence_says_what_to_install(monkeypatch, name):
    monkeypatch.setitem(sys.modules, "timm.layers", None)
    with pytest.raises(MissingDependencyError, match="needs timm: install the extra zoo"):
        built(name)

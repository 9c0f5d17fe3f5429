"""Networks keep their published sizes and the contract of the registry."""

import pytest
import torch

from napari_nucleiseg.core.errors import ModelError
from napari_nucleiseg.core.models.registry import build_network, network_names, network_spec, register_model
from napari_nucleiseg.core.models.unet_2015 import UNet2015
from zoo_parts import zoo_names


# Those of the zoo have a test of their own, tests/core/models/zoo/test_zoo_registry.py.
@pytest.mark.parametrize("name", sorted(set(network_names()) - set(zoo_names()) - set(zoo_names(3))))
def test_every_head_is_returned_with_its_channels(name):
    spec = network_spec(name, {"width": 8})
    side = 188 + 16 * 3 if spec.output_margin_px else 2 * spec.size_multiple
    maps = build_network(spec).eval()(torch.zeros(2, 3, side, side + 32))
    assert list(maps) == [head.name for head in spec.heads]
    lost = 2 * spec.output_margin_px
    for head in spec.heads:
        assert maps[head.name].shape == (2, head.channels, side - lost, side + 32 - lost)


@pytest.mark.parametrize("name", network_names())
def test_tiles_fit_the_network(name):
    spec = network_spec(name)
    side = spec.tile_px + 2 * (spec.halo_px + spec.output_margin_px)
    if spec.output_margin_px:
        assert (side - 188) % 16 == 0
    else:
        assert side % spec.size_multiple == 0


def test_original_unet_has_the_published_number_of_parameters():
    assert sum(p.numel() for p in UNet2015(in_channels=1).parameters()) == 31_030_658


def test_original_unet_has_the_published_sizes():
    network = UNet2015(in_channels=1, width=2).eval()
    sizes = []
    for block in network.down:
        block.register_forward_hook(lambda _m, _i, out: sizes.append(out.shape[-1]))
    out = network(torch.zeros(1, 1, 572, 572))["separated"]
    assert sizes == [568, 280, 136, 64, 28]
    assert out.shape[-2:] == (388, 388)


@pytest.mark.parametrize("k", [0, 1, 7])
def test_original_unet_loses_184_pixels(k):
    side = 188 + 16 * k
    out = UNet2015(in_channels=1, width=2).eval()(torch.zeros(1, 1, side, side))["separated"]
    assert out.shape[-1] == side - 184


def test_sigmoid_of_the_map_is_the_softmax_of_the_classes():
    torch.manual_seed(0)
    network = UNet2015(width=2).eval()
    x = torch.randn(1, 3, 188, 188)
    softmax = torch.softmax(network.class_logits(x), dim=1)[:, 1:]
    assert torch.allclose(torch.sigmoid(network(x)["separated"]), softmax, atol=1e-6)


@pytest.mark.parametrize("detail", [0, 16])
def test_default_network_is_small_and_moves_with_the_image(detail):
    network = build_network(network_spec("nuclei", {"detail": detail})).eval()
    parameters = sum(p.numel() for p in network.parameters())
    assert 1e6 < parameters < 4e6
    torch.manual_seed(0)
    x = torch.randn(1, 3, 640, 640)
    with torch.inference_mode():
        whole = network(x)["nuclei"][..., 288:352, 288:352]
        moved = network(torch.roll(x, (32, -32), (2, 3)))["nuclei"][..., 320:384, 256:320]
    assert whole.std() > 0
    assert torch.allclose(whole, moved, atol=float(whole.std()) * 0.05)


def test_the_path_at_full_resolution_says_nothing_until_it_is_trained():
    torch.manual_seed(0)
    plain = build_network(network_spec("nuclei", {"width": 8})).eval()
    fine = build_network(network_spec("nuclei", {"width": 8, "detail": 4})).eval()
    assert fine.load_state_dict(plain.state_dict(), strict=False).unexpected_keys == []
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        assert all(torch.equal(plain(x)[name], values) for name, values in fine(x).items())
        torch.nn.init.ones_(fine.detail.last.weight)
        changed = (fine(x)["nuclei"] - plain(x)["nuclei"])[0, 0]
    assert changed.std() > 0
    assert (changed[:, ::2] != changed[:, 1::2]).any()  # finer than the stem


def test_unknown_network_names_those_there_are():
    with pytest.raises(ModelError, match="unet-2015"):
        network_spec("no-such-network")


def test_wrong_parameters_are_explained():
    with pytest.raises(ModelError, match="cannot be built with"):
        build_network(network_spec("nuclei", {"depht": 3}))


@pytest.mark.parametrize("name", ["nuclei", "nuclei-fine"])
@pytest.mark.parametrize("depth", [5, -1])
def test_a_depth_that_tiles_are_not_made_for_is_refused(name, depth):
    with pytest.raises(ModelError, match="depth must lie between 0 and 4"):
        build_network(network_spec(name, {"depth": depth, "width": 4, "widest": 4}))


def test_a_name_is_registered_once():
    def build():
        return torch.nn.Identity()

    build.__module__ = "another.package"
    with pytest.raises(ModelError, match="two packages"):
        register_model(network_spec("nuclei"))(build)

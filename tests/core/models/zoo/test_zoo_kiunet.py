"""KiU-Net: one branch pools, the other enlarges eightfold, each is given what the other sees."""

import torch

from napari_nucleiseg.core.exchange.networks.formats import export_model
from napari_nucleiseg.core.models.registry import build_network, network_spec
from napari_nucleiseg.core.models.zoo.kiunet import CrossFusion
from zoo_parts import full_size, made_linear, seen_px, slim_model, weights_in

NAME = "kiu-net"


def test_it_has_the_published_widths():
    network = full_size(NAME)
    assert [step[0].out_channels for step in network.u_down] == [16, 32, 64]
    assert [step[0].out_channels for step in network.ki_down] == [32, 16, 8]
    assert weights_in(network) == 216_493  # the published code makes another pair of convolutions and never uses it


def test_one_branch_shrinks_eightfold_and_the_other_grows_eightfold():
    network = slim_model(NAME).network
    sizes = {}
    for name, steps in (("small", network.u_down), ("large", network.ki_up)):
        for step in steps:
            step.register_forward_hook(
                lambda _m, _x, made, name=name: sizes.setdefault(name, []).append(made.shape[2:])
            )
    with torch.inference_mode():
        network(torch.randn(1, 3, 16, 24))
    assert sizes["small"] == [(8, 12), (4, 6), (2, 3)]
    assert sizes["large"] == [(32, 48), (64, 96), (128, 192)]


def test_each_branch_is_given_what_the_other_sees():
    torch.manual_seed(0)
    fuse = CrossFusion(2, 16).eval()
    small, large = torch.rand(1, 2, 3, 4), torch.rand(1, 2, 48, 64)
    with torch.inference_mode():
        both_small, both_large = fuse(small, large)
        of_none, _ = fuse(small, torch.zeros_like(large))
        _, into_none = fuse(torch.zeros_like(small), large)
    assert both_small.shape == small.shape
    assert both_large.shape == large.shape
    assert torch.equal(of_none, small)  # a residual: nothing is added where nothing is seen
    assert torch.equal(into_none, large)
    assert (both_small - small).max() > 0
    assert (both_large - large).max() > 0


def test_a_tile_is_small_because_features_take_64_times_its_area():
    spec = network_spec(NAME)
    assert spec.tile_px + 2 * spec.halo_px == 128
    assert "64 times" in spec.good_for


def test_a_pixel_sees_what_the_spec_says():
    spec = network_spec(NAME)
    network = made_linear(build_network(network_spec(NAME, {"width": 1})).eval())
    assert seen_px(network, spec.stride, 8, 160) == spec.receptive_field_px


def test_it_is_exported(tmp_path):
    assert export_model(slim_model(NAME, width=1), tmp_path / "a", "torchscript").stat().st_size > 1000

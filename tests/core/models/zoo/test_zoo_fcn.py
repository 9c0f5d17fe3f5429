"""FCN: VGG16's weights, bilinear enlargement, scores of the poolings added, what a pixel can see."""

import pytest
import torch
from torch.nn import functional

from napari_nucleiseg.core.exchange.networks.formats import export_model
from napari_nucleiseg.core.models.registry import build_network, network_spec
from napari_nucleiseg.core.models.zoo.contract import OUTPUTS
from napari_nucleiseg.core.models.zoo.fcn import Enlarge
from zoo_parts import full_size, made_linear, seen_px, slim_model, weights_in

NAMES = ("fcn-32s", "fcn-16s", "fcn-8s")


@pytest.mark.parametrize("name", NAMES)
def test_it_has_the_weights_of_vgg16_made_convolutional(name):
    network = full_size(name, batch_norm=False)
    assert weights_in(network.stages) == 14_714_688  # the 13 convolutions of VGG16
    assert weights_in(network.hidden) == 102_764_544 + 16_781_312  # its fully connected layers of 4096
    assert weights_in(network.score) == 4097 * OUTPUTS


def test_finer_ones_have_a_score_more_each():
    extra = [weights_in(full_size(name).skip_scores) for name in NAMES]
    assert extra == [0, 513 * OUTPUTS, (513 + 257) * OUTPUTS]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(32, 32), (64, 96), (160, 32)])
def test_without_batch_normalisation_every_side_divisible_by_32_keeps_its_size(name, shape):
    network = build_network(network_spec(name, {"width": 1, "batch_norm": False})).eval()
    with torch.inference_mode():
        assert network(torch.randn(1, 3, *shape))["offsets"].shape == (1, 2, *shape)


@pytest.mark.parametrize("factor", [2, 8, 32])
def test_enlarging_starts_as_bilinear_interpolation(factor):
    torch.manual_seed(0)
    x = torch.randn(1, 3, 5, 6)
    with torch.inference_mode():
        found = Enlarge(3, factor)(x)
    expected = functional.interpolate(x, scale_factor=float(factor), mode="bilinear", align_corners=False)
    inner = slice(factor, -factor)  # what lies outside counts as zero
    assert found.shape == expected.shape
    assert torch.allclose(found[..., inner, inner], expected[..., inner, inner], atol=1e-5)


def test_scores_of_the_poolings_are_added():
    network = slim_model("fcn-8s").network
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        whole = network(x)["nuclei"]
        for score in (network.score, *network.skip_scores):
            score.weight.zero_()
        silent = network(x)["nuclei"]
        again = torch.zeros_like(silent)
        for score in (network.score, *network.skip_scores):
            fresh = slim_model("fcn-8s").network
            for other in (fresh.score, *fresh.skip_scores):
                if other.weight.shape != score.weight.shape:
                    other.weight.zero_()
            part = fresh(x)["nuclei"]
            assert part.std() > 0
            again += part
    assert silent.abs().max() == 0
    assert torch.allclose(again, whole, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_a_pixel_sees_what_the_spec_says(name):
    spec = network_spec(name)
    network = made_linear(build_network(network_spec(name, {"width": 1})).eval())
    assert seen_px(network, spec.stride, 32, 1024) == spec.receptive_field_px


@pytest.mark.parametrize("name", NAMES)
def test_it_is_exported(name, tmp_path):
    assert export_model(slim_model(name), tmp_path / "a", "torchscript").stat().st_size > 1000

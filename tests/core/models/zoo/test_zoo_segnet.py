"""SegNet: 13 convolutions there and back, values go back where the maxima were, what a pixel can see."""

import pytest
import torch
from torch import nn

from napari_nucleiseg.core.exchange.networks.formats import export_model
from napari_nucleiseg.core.models.programs import torchscript_allowed
from napari_nucleiseg.core.models.registry import build_network, network_spec
from napari_nucleiseg.core.models.zoo.segnet import Unpool
from zoo_parts import full_size, made_linear, seen_px, slim_model, weights_in


def convolutions(module):
    return [part for part in module.modules() if isinstance(part, nn.Conv2d)]


def test_there_are_13_convolutions_of_vgg16_and_13_back():
    network = full_size("segnet")
    there, back = convolutions(network.encoder), convolutions(network.decoder)
    assert len(there) == len(back) == 13
    assert sum(one.weight.numel() for one in there) == 14_710_464  # VGG16's, without biases
    # The way back begins with 512 channels and ends with those of the heads.
    assert [one.out_channels for one in back if one.out_channels != one.in_channels] == [5, 64, 128, 256]
    assert weights_in(network) == 29_437_957


def test_values_go_back_where_the_maxima_were():
    network = slim_model("segnet").network
    seen = []
    network.unpool.register_forward_hook(lambda _module, given, made: seen.append((*given, made)))
    with torch.inference_mode():
        network(torch.randn(2, 3, 64, 96))
    assert len(seen) == 5
    for values, where, made in seen:
        assert torch.equal(made.flatten(2).gather(2, where.flatten(2)), values.flatten(2))
        assert int((made != 0).sum()) <= values.numel()
    # Each stage of the decoder is given the places of the encoder's stage of its size: the finest last.
    assert [made.shape[-1] for *_, made in seen] == [6, 12, 24, 48, 96]


def test_the_places_matter():
    network = slim_model("segnet").network
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        said = network(x)["nuclei"]
        # The same values in the first corner of each window.
        network.unpool.forward = lambda values, _where: (
            nn.functional.interpolate(values, scale_factor=2.0)
            * torch.tensor([[1.0, 0.0], [0.0, 0.0]]).repeat(values.shape[2:])
        )
        elsewhere = network(x)["nuclei"]
    assert (said - elsewhere).std() > 0.1 * said.std()


def test_what_is_exported_unpools_alike():
    values, where = nn.functional.max_pool2d(torch.randn(2, 3, 8, 12), 2, return_indices=True)
    with torchscript_allowed():
        traced = torch.jit.trace(Unpool(), nn.functional.max_pool2d(torch.randn(1, 2, 4, 4), 2, return_indices=True))
    assert torch.equal(traced(values, where), Unpool()(values, where))


def test_a_pixel_sees_what_the_spec_says():
    spec = network_spec("segnet")
    network = made_linear(build_network(network_spec("segnet", {"width": 1})).eval())
    assert seen_px(network, spec.stride, 32, 1024) == spec.receptive_field_px


def test_it_is_exported(tmp_path):
    assert export_model(slim_model("segnet"), tmp_path / "a", "torchscript").stat().st_size > 1000


@pytest.mark.slow
def test_it_is_exported_as_onnx(tmp_path):
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    assert export_model(slim_model("segnet", width=2), tmp_path / "a", "onnx").stat().st_size > 1000

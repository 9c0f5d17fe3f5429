"""ScaleFormer: attention along both axes, biases for any size, tokens of the same place across scales."""

import pytest
import torch

from napari_nucleiseg.core.errors import ModelError
from napari_nucleiseg.core.exchange.networks.formats import export_model
from napari_nucleiseg.core.models.registry import build_network, network_spec
from napari_nucleiseg.core.models.zoo.scaleformer import AmongScales, AxisWeights, DualAxisAttention
from zoo_parts import full_size, slim_model, weights_in

NAME = "scaleformer"
SURE = 60.0  # a bias that leaves nothing for the others


def axis(length, pooled=3):
    """Weights that nothing but the biases decides."""
    torch.manual_seed(0)
    weights = AxisWeights(8, length, pooled)
    torch.nn.init.zeros_(weights.query_heads.weight)
    torch.nn.init.zeros_(weights.query_heads.bias)
    return weights


def test_it_has_the_published_widths():
    network = full_size(NAME)
    assert [block.both[0][0].out_channels for block in network.encoder] == [64, 128, 256, 512, 1024]
    assert [len(scale) for scale in network.scales] == [2, 2, 2, 1]
    biases = [scale[0].attend[1].rows.bias.shape for scale in network.scales]
    assert biases == [(1, 8, side, side) for side in (56, 28, 14, 7)]
    assert [into.in_channels for into in network.among.into] == [256, 512, 1024, 1024]
    assert network.among.out.in_features == 256
    assert weights_in(network) == 113_739_029


@torch.inference_mode()
def test_biases_of_the_size_they_were_learned_for_stay_as_they_are():
    weights = axis(7)
    torch.nn.init.normal_(weights.bias)
    found = weights(torch.randn(1, 8, 7, 5))
    assert torch.allclose(found, torch.softmax(weights.bias, dim=3), atol=1e-6)


@pytest.mark.parametrize("length", [4, 8, 10, 24])
@torch.inference_mode()
def test_biases_belong_to_relative_places(length):
    weights = axis(8)
    weights.bias[:, :, :, :4] = SURE  # everything attends to the first half
    weights.bias[:, :, :, 4:] = -SURE
    found = weights(torch.randn(1, 8, length, 5))
    assert found.shape == (1, 8, length, length)
    assert torch.allclose(found.sum(dim=3), torch.ones(1, 8, length), atol=1e-5)
    assert found[..., : length // 2].sum(dim=3).min() > 0.999


@torch.inference_mode()
def test_rows_attend_to_rows_and_columns_to_columns():
    torch.manual_seed(0)
    attention = DualAxisAttention(16, 6)
    attention.rows.bias.copy_(torch.full((6, 6), -SURE).fill_diagonal_(SURE))
    attention.columns.bias.copy_(torch.full((6, 6), -SURE).fill_diagonal_(SURE))
    x = torch.randn(2, 16, 6, 6)
    own = attention.out(attention.value(x))
    assert torch.allclose(attention(x), own, atol=1e-5)  # each place to itself
    attention.rows.bias.fill_(-SURE)
    attention.rows.bias[..., 2] = SURE
    assert torch.allclose(attention(x), own[:, :, 2:3].expand_as(own), atol=1e-5)  # all rows to the third
    attention.rows.bias.copy_(torch.full((6, 6), -SURE).fill_diagonal_(SURE))
    attention.columns.bias.fill_(-SURE)
    attention.columns.bias[..., 4] = SURE
    assert torch.allclose(attention(x), own[..., 4:5].expand_as(own), atol=1e-5)  # all columns to the fifth


@torch.inference_mode()
def test_scales_tell_each_other_of_the_same_place_alone():
    torch.manual_seed(0)
    among = AmongScales((4, 8, 16, 16), 16).eval()
    scales = [torch.randn(1, channels, side, 2 * side) for channels, side in ((4, 8), (8, 4), (16, 2), (16, 1))]
    before = among(scales)
    assert [made.shape for made in before] == [given.shape for given in scales]
    scales[0][..., -1, -1] += 3.0  # the finest scale, in the right one of two windows
    for scale, (one, other) in enumerate(zip(before, among(scales), strict=True)):
        half = one.shape[3] // 2
        assert torch.allclose(one[..., :half], other[..., :half], atol=1e-5)
        assert (one[..., half:] - other[..., half:]).abs().max() > 1e-4, f"scale {scale} was told nothing"


def test_a_pixel_sees_the_whole_picture():
    assert network_spec(NAME).receptive_field_px == 0
    network = slim_model(NAME).network
    x = torch.randn(1, 3, 96, 160, requires_grad=True)
    network(x)["nuclei"][0, 0, 3, 3].backward()
    assert x.grad[0, :, -8:, -8:].abs().max() > 0


def test_a_tile_makes_pictures_as_large_as_crops_of_training():
    spec = network_spec(NAME)
    assert spec.tile_px + 2 * spec.halo_px == 256


def test_a_width_that_the_heads_cannot_share_is_refused():
    with pytest.raises(ModelError, match="width must be even"):
        build_network(network_spec(NAME, {"width": 3}))


def test_it_is_exported(tmp_path):
    assert export_model(slim_model(NAME, width=2), tmp_path / "a", "torchscript").stat().st_size > 1000

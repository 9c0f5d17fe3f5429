"""The transformers say what the published ones say, and their attention is what their features are made of."""

import json

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from napari_nucleiseg.core.errors import ModelError
from napari_nucleiseg.core.models.encoders import build_encoder
from napari_nucleiseg.core.models.vit import VisionTransformer
from torchvision_shim import import_timm

SMALL = {"embed": 24, "depth": 3, "heads": 4}


def lively(network):
    """Give a network weights under which no part of it does as good as nothing."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for value in network.parameters():
            value.copy_(torch.randn(value.shape, generator=generator) * (0.06 if value.ndim > 1 else 0.1))
        for module in network.modules():
            if isinstance(module, nn.LayerNorm):
                module.weight.add_(1)
    return network.eval()


def pixels(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def on_pixels():
    return lively(VisionTransformer(**SMALL, patch_px=4, grid=3))


@pytest.fixture
def on_features():
    return lively(VisionTransformer(**SMALL, features=10, grid=3))


def explicit_layers(network, x):
    """Attention of all tokens to all, layer by layer, as written down in the papers; and the tokens at the end."""
    x, _ = network.embedded(x)
    found = []
    for block in network.blocks:
        normed = block.norm1(x)
        batch, count, embed = x.shape
        q, k, v = block.attn.qkv(normed).reshape(batch, count, 3, network.heads, -1).permute(2, 0, 3, 1, 4)
        weights = ((q @ k.mT) / (embed // network.heads) ** 0.5).softmax(-1)
        x = x + block.attn.proj((weights @ v).transpose(1, 2).reshape(batch, count, embed))
        x = x + block.mlp.fc2(F.gelu(block.mlp.fc1(block.norm2(x))))
        found.append(weights)
    return torch.stack(found, 1), network.norm(x)


@pytest.mark.parametrize(("name", "parameters"), [("hipt-256", 21_665_664), ("hipt-4k", 2_781_504)])
def test_the_networks_have_their_published_size(name, parameters):
    _, network = build_encoder(name)
    assert sum(value.numel() for value in network.parameters()) == parameters


@pytest.mark.parametrize(("name", "file"), [("hipt-256", "hipt_vit256_small"), ("hipt-4k", "hipt_vit4k_xs")])
def test_tensors_are_called_and_shaped_as_in_the_published_files(shared_data, name, file):
    published = json.loads((shared_data / "weights_info" / f"{file}.json").read_text())["keys"]
    _, network = build_encoder(name)
    own = {key: [list(value.shape), str(value.dtype)] for key, value in network.state_dict().items()}
    assert own == published


@torch.inference_mode()
def test_a_patch_transformer_says_what_that_of_timm_says():
    timm = import_timm()
    _, ours = build_encoder("hipt-256")
    lively(ours)
    theirs = timm.create_model("vit_small_patch16_224", num_classes=0, img_size=256).eval()
    assert [block.norm1.eps for block in theirs.blocks] == [1e-6] * 12
    # As the authors interpolate: a tenth of a token is added before the factor is taken.
    square = ours.pos_embed[:, 1:].reshape(1, 14, 14, 384).permute(0, 3, 1, 2)
    wide = F.interpolate(square, scale_factor=((16 + 0.1) / 14,) * 2, mode="bicubic").flatten(2).mT
    theirs.load_state_dict({**ours.state_dict(), "pos_embed": torch.cat((ours.pos_embed[:, :1], wide), 1)})
    seen = []
    theirs.blocks[-1].attn.fused_attn = False
    theirs.blocks[-1].attn.attn_drop.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    x = pixels(2, 3, 256, 256)
    said, expected = ours.attend(x), theirs(x)
    assert expected.std() > 0.5
    torch.testing.assert_close(said.features, expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(said.attention[:, -1].flatten(2), seen[0][:, :, 0, 1:], atol=1e-4, rtol=1e-4)
    # The attention looks somewhere: were it even, this test could not fail.
    assert seen[0][:, :, 0, 1:].max() > 3 / 257


@torch.inference_mode()
@pytest.mark.parametrize("query", [0, 4])
@pytest.mark.parametrize("rollout", [False, True])
def test_attention_is_what_the_features_are_made_of(on_pixels, query, rollout):
    x = pixels(2, 3, 16, 20)
    layers, tokens = explicit_layers(on_pixels, x)
    said = on_pixels.attend(x, query=query, rollout=rollout)
    assert said.attention.shape == (2, 3, 4, 4, 5)
    torch.testing.assert_close(said.attention.flatten(3), layers[:, :, :, query, 1:], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(said.features, tokens[:, 0], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(said.tokens.flatten(2).mT, tokens[:, 1:], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(on_pixels(x), said.features, atol=1e-5, rtol=1e-4)
    missing = 1 - layers[:, :, :, query, 0]
    torch.testing.assert_close(said.attention.sum((-2, -1)), missing, atol=1e-5, rtol=1e-4)


@torch.inference_mode()
@pytest.mark.parametrize("query", [0, 7])
def test_rollout_is_the_product_of_all_layers(on_pixels, query):
    x = pixels(2, 3, 12, 16)
    layers, _ = explicit_layers(on_pixels, x)
    product = torch.eye(13).expand(2, 13, 13)
    for weights in layers.mean(2).unbind(1):
        product = (0.5 * weights + 0.5 * torch.eye(13)) @ product
    said = on_pixels.attend(x, query=query, rollout=True).rollout
    torch.testing.assert_close(said.flatten(1), product[:, query, 1:], atol=1e-6, rtol=1e-4)
    assert on_pixels.attend(x).rollout is None


def test_positions_of_its_own_grid_are_those_that_were_learned(on_pixels):
    assert on_pixels.positions(3, 3) is on_pixels.pos_embed


@torch.inference_mode()
def test_positions_of_other_grids_keep_rows_and_columns_apart():
    network = VisionTransformer(embed=2, depth=1, heads=1, patch_px=4, grid=14)
    rows, columns = torch.meshgrid(torch.arange(14.0), torch.arange(14.0), indexing="ij")
    network.pos_embed[0, 1:] = torch.stack((rows, columns), -1).reshape(-1, 2)
    network.pos_embed[0, 0] = torch.tensor([-5.0, -6.0])
    found = network.positions(7, 28)
    assert found.shape == (1, 1 + 7 * 28, 2)
    assert found[0, 0].tolist() == [-5, -6]
    grid = found[0, 1:].reshape(7, 28, 2)
    torch.testing.assert_close(grid[:, :1, 0].expand(7, 28), grid[..., 0], atol=1e-4, rtol=0)
    torch.testing.assert_close(grid[:1, :, 1].expand(7, 28), grid[..., 1], atol=1e-4, rtol=0)
    # Inside, position is place in the learned grid: a cell of 7 covers two of 14, one of 28 half of one.
    assert grid[3, 0, 0] == pytest.approx((3 + 0.5) * 14 / 7.1 - 0.5, abs=0.05)
    assert grid[0, 10, 1] == pytest.approx((10 + 0.5) * 14 / 28.1 - 0.5, abs=0.05)


@torch.inference_mode()
@pytest.mark.parametrize(("rows", "columns"), [(10, 20), (1, 1), (14, 14), (16, 3)])
def test_a_region_transformer_reads_grids_of_any_shape(rows, columns):
    _, network = build_encoder("hipt-4k")
    lively(network)
    said = network.attend(pixels(1, 384, rows, columns), rollout=True)
    assert said.features.shape == (1, 192)
    assert said.tokens.shape == (1, 192, rows, columns)
    assert said.attention.shape == (1, 6, 6, rows, columns)
    assert said.rollout.shape == (1, rows, columns)
    assert torch.isfinite(said.features).all()
    torch.testing.assert_close(network(pixels(1, 384, rows, columns)), said.features, atol=1e-5, rtol=1e-4)


@torch.inference_mode()
def test_a_grid_of_features_is_read_row_by_row(on_features):
    x = pixels(1, 10, 3, 3)
    flat = on_features.phi(x[0].reshape(10, 9).T) + on_features.pos_embed[0, 1:]
    tokens, grid = on_features.embedded(x)
    assert grid == (3, 3)
    torch.testing.assert_close(tokens[0, 1:], flat)


def test_a_query_that_is_not_there_is_refused(on_pixels):
    with pytest.raises(ValueError, match="there is no token 10 among 9 patches"):
        on_pixels.attend(pixels(1, 3, 12, 12), query=10)


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"embed": 25}, "25 cannot be divided among 6 heads"),
        ({"depths": 2}, "cannot be built with"),
        ({"input_px": 250}, "no multiple of its patches"),
    ],
)
def test_sizes_that_do_not_fit_together_are_said(wrong, sentence):
    with pytest.raises(ModelError, match=sentence):
        build_encoder("hipt-256", wrong)


def test_samples_skip_branches_only_while_training():
    torch.manual_seed(0)
    network = lively(VisionTransformer(**SMALL, patch_px=4, grid=3, drop_path=0.5))
    x = pixels(1, 3, 12, 12)
    assert torch.equal(network(x), network(x))
    network.train()
    assert not torch.equal(network(x), network(x))

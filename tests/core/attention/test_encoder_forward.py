"""Encoders run as their networks say, in batches that fit, with every head of every layer coming out."""

import copy

import numpy as np
import pytest
import torch

from napari_nucleiseg.core.attention.forward import EncoderForward
from napari_nucleiseg.core.errors import ModelError
from napari_nucleiseg.core.models.vit import VisionTransformer
from tiny_encoders import SIDE, noise, patch_encoder, region_encoder

PIXELS = np.stack([noise(SIDE, SIDE, seed) for seed in range(7)])
# What is kept has half precision.
HALF = {"rtol": 1e-3, "atol": 1e-6}


@pytest.fixture(scope="module")
def encoder():
    return patch_encoder()


@pytest.fixture(scope="module")
def forward(encoder):
    return EncoderForward(encoder, "cpu", exact=True)


def normalised(pixels):
    return (torch.from_numpy(pixels).float() / 127.5 - 1).permute(0, 3, 1, 2)


@torch.inference_mode()
def full_attention(network, pixels):
    """All queries of every layer, ``(layers, heads, tokens, tokens)``, written out."""
    x, _ = network.embedded(normalised(pixels[None]))
    found = []
    for block in network.blocks:
        queries, keys, _ = block.attn.split(block.norm1(x))
        found.append(torch.softmax(queries @ keys.transpose(-2, -1) / queries.shape[-1] ** 0.5, -1)[0])
        x = block(x)
    return torch.stack(found).numpy()


def test_patches_say_what_the_network_says(encoder, forward):
    with torch.inference_mode():
        said = encoder.network.attend(normalised(PIXELS), rollout=True)
    found = forward.patches(PIXELS)
    assert len(found) == len(PIXELS)
    for number, tokens in enumerate(found):
        np.testing.assert_allclose(tokens.features, said.features[number], rtol=2e-3, atol=2e-3)
        np.testing.assert_allclose(tokens.attention, said.attention[number], **HALF)
        np.testing.assert_allclose(tokens.rollout, said.rollout[number], **HALF)
        assert tokens.attention.shape == (3, 3, 4, 4)
        assert {each.dtype for each in (tokens.features, tokens.attention, tokens.rollout)} == {np.dtype(np.float16)}
    assert np.ptp(said.attention.numpy()) > 0.05  # there is something to tell apart


def test_the_class_token_attends_as_its_row_of_all_attention_says(encoder, forward):
    full = full_attention(encoder.network, PIXELS[0])[:, :, 0, 1:].reshape(3, 3, 4, 4)
    np.testing.assert_allclose(forward.patches(PIXELS[:1])[0].attention, full, **HALF)


@pytest.mark.parametrize("token", [0, 1, 7, 16])
def test_a_token_that_is_asked_attends_as_its_row_of_all_attention_says(encoder, forward, token):
    full = full_attention(encoder.network, PIXELS[2])[:, :, token, 1:].reshape(3, 3, 4, 4)
    found = forward.query(PIXELS[2], token)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, full, **HALF)


def test_there_are_no_more_tokens_than_there_are(forward):
    with pytest.raises(ValueError, match="there is no token 17"):
        forward.query(PIXELS[0], 17)


def test_features_alone_are_the_same(forward):
    alone = forward.features(PIXELS)
    assert alone.shape == (7, 12)
    np.testing.assert_allclose(
        alone, np.stack([each.features for each in forward.patches(PIXELS)]), rtol=2e-3, atol=2e-3
    )
    assert forward.features(PIXELS[:0]).shape == (0, 12)
    assert forward.patches(PIXELS[:0]) == []


def test_a_region_is_read_row_by_row():
    loaded = region_encoder()
    grid = np.random.default_rng(0).normal(size=(3, 5, 12)).astype(np.float32)
    for token in (0, 9):
        with torch.inference_mode():
            said = loaded.network.attend(torch.from_numpy(grid).permute(2, 0, 1)[None], query=token, rollout=True)
        found = EncoderForward(loaded, "cpu", exact=True).region(grid, token)
        assert found.attention.shape == (2, 2, 3, 5)
        np.testing.assert_allclose(found.attention, said.attention[0], **HALF)
        np.testing.assert_allclose(found.rollout, said.rollout[0], **HALF)
        np.testing.assert_allclose(found.features, said.features[0], rtol=2e-3, atol=2e-3)


def test_features_of_another_encoder_are_refused():
    with pytest.raises(ModelError, match="reads 12 features of a patch, not 384; use it with the encoder"):
        EncoderForward(region_encoder(), "cpu").region(np.zeros((2, 2, 384), np.float32))


def test_the_default_precision_says_nearly_the_same(encoder, forward):
    default = EncoderForward(encoder, "cpu")
    for one, other in zip(default.patches(PIXELS), forward.patches(PIXELS), strict=True):
        np.testing.assert_allclose(one.attention, other.attention, atol=0.03)


class Full:
    """A memory that holds so many patches, and what was asked of it."""

    def __init__(self, monkeypatch, room, message="DefaultCPUAllocator: can't allocate memory: you tried"):
        self.sizes, attend = [], VisionTransformer.attend

        def attend_if_it_fits(network, x, **options):
            self.sizes.append(len(x))
            if len(x) > room:
                raise RuntimeError(message)
            return attend(network, x, **options)

        monkeypatch.setattr(VisionTransformer, "attend", attend_if_it_fits)


def test_a_full_memory_halves_the_batch_and_loses_nothing(encoder, forward, monkeypatch):
    wanted = forward.patches(PIXELS)
    full, said = Full(monkeypatch, room=1), []
    small = EncoderForward(encoder, "cpu", exact=True, on_message=said.append)
    found = small.patches(PIXELS)
    assert full.sizes == [4, 2, *[1] * 7]
    assert said == [f"The cpu memory is full: going on with {n} patches at a time." for n in (2, 1)]
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(one.attention, other.attention, **HALF)


def test_a_memory_without_room_for_one_patch_is_told(encoder, monkeypatch):
    Full(monkeypatch, room=0)
    with pytest.raises(ModelError, match="not enough memory to run hipt-256; close other programs"):
        EncoderForward(encoder, "cpu", on_message=lambda _: None).patches(PIXELS)


def test_a_network_that_fails_is_told(encoder, monkeypatch):
    Full(monkeypatch, room=0, message="the sizes do not match")
    with pytest.raises(ModelError, match="hipt-256 cannot run: the sizes do not match"):
        EncoderForward(encoder, "cpu").patches(PIXELS)


def test_the_encoder_itself_stays_as_it_is(encoder):
    before = copy.deepcopy(encoder.network.state_dict())
    EncoderForward(encoder, "cpu").patches(PIXELS)
    assert all(value.requires_grad for value in encoder.network.parameters())
    assert all(torch.equal(before[name], value) for name, value in encoder.network.state_dict().items())

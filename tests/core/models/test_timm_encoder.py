"""Transformers of timm say what they attend to, as our own do; those that cannot are refused."""

import builtins
import subprocess
import sys

import pytest
import torch

from napari_nucleiseg.core.errors import MissingDependencyError, ModelError, WeightsError
from napari_nucleiseg.core.models import encoders, weights
from napari_nucleiseg.core.models.encoders import build_encoder, encoder_names, encoder_spec, load_encoder
from napari_nucleiseg.core.models.published import convert
from napari_nucleiseg.core.models.weights import ModelCard, save_model
from torchvision_shim import import_timm

TINY = {"model_name": "vit_tiny_patch16_224", "img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 3}
TINY |= {"num_heads": 4, "init_values": 0.5, "mpp_um": 0.25}
REGISTERS = {**TINY, "reg_tokens": 3}


@pytest.fixture(autouse=True, scope="module")
def timm():
    return import_timm()


def tiny(params):
    torch.manual_seed(0)
    spec, network = build_encoder("timm", params)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for value in network.parameters():
            value.add_(torch.randn(value.shape, generator=generator) * 0.1)
    return spec, network.eval()


def picture(batch=2, side=32):
    return torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(1))


def explicit(vit, x):
    """Attention of all tokens in every layer, made outside of timm."""
    x = vit.norm_pre(vit._pos_embed(vit.patch_embed(x)))
    found = []
    for block in vit.blocks:
        count, heads = x.shape[1], block.attn.num_heads
        q, k, _ = block.attn.qkv(block.norm1(x)).reshape(len(x), count, 3, heads, -1).permute(2, 0, 3, 1, 4)
        found.append((q @ k.mT * q.shape[-1] ** -0.5).softmax(-1))
        x = block(x)
    return torch.stack(found, 1), vit.norm(x)


def test_the_spec_is_read_off_the_model():
    spec, _ = tiny(TINY)
    assert (spec.embed, spec.depth, spec.heads, spec.input_px, spec.patch_px, spec.side) == (24, 3, 4, 32, 8, 4)
    assert (spec.mpp_um, spec.mean, spec.std) == (0.25, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert spec.params == TINY
    assert encoder_spec("timm", TINY) == spec
    other, _ = build_encoder(
        "timm", {"model_name": "vit_small_patch14_reg4_dinov2", "img_size": 28, "embed_dim": 24, "depth": 1}
    )
    assert other.mean == (0.485, 0.456, 0.406)
    assert (other.std, other.patch_px) == ((0.229, 0.224, 0.225), 14)


@torch.inference_mode()
@pytest.mark.parametrize(("params", "prefix"), [(TINY, 1), (REGISTERS, 4)])
@pytest.mark.parametrize("query", [0, 1, 6])
def test_attention_is_that_over_patches_alone(params, prefix, query):
    _, network = tiny(params)
    layers, tokens = explicit(network.vit, picture())
    said = network.attend(picture(), query=query, rollout=True)
    token = query + prefix - 1 if query else 0
    assert said.attention.shape == (2, 3, 4, 4, 4)
    torch.testing.assert_close(said.attention.flatten(3), layers[:, :, :, token, prefix:], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(said.tokens.flatten(2).mT, tokens[:, prefix:], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(said.features, tokens[:, 0], atol=1e-5, rtol=1e-4)
    product = torch.eye(16 + prefix).expand(2, -1, -1)
    for mean in layers.mean(2).unbind(1):
        product = (0.5 * mean + 0.5 * torch.eye(16 + prefix)) @ product
    torch.testing.assert_close(said.rollout.flatten(1), product[:, token, prefix:], atol=1e-6, rtol=1e-4)
    # Patches differ, or none of this could fail.
    assert said.attention.flatten(3).std(-1).min() > 1e-5


@torch.inference_mode()
def test_looking_leaves_the_model_as_it_was():
    _, network = tiny(REGISTERS)
    before, fused = network(picture()), [block.attn.fused_attn for block in network.vit.blocks]
    said = network.attend(picture())
    assert said.rollout is None
    torch.testing.assert_close(said.features, before, atol=1e-5, rtol=1e-4)
    assert [block.attn.fused_attn for block in network.vit.blocks] == fused == [True] * 3
    assert not any(block.attn.attn_drop._forward_pre_hooks for block in network.vit.blocks)
    with pytest.raises(AssertionError):
        network.attend(picture(side=40))  # timm itself refuses sizes that it was not built for
    assert [block.attn.fused_attn for block in network.vit.blocks] == fused
    assert not any(block.attn.attn_drop._forward_pre_hooks for block in network.vit.blocks)


def test_a_query_that_is_not_there_is_refused():
    _, network = tiny(REGISTERS)
    with pytest.raises(ValueError, match="there is no token 17 among 16 patches"):
        network.attend(picture(), query=17)


@pytest.mark.parametrize(
    "model_name",
    [
        "swin_tiny_patch4_window7_224",  # windows
        "resnet18",  # no transformer
        "vit_base_patch16_siglip_224",  # no class token
        "vit_tiny_r_s16_p8_224",  # tokens of a convolutional network
        "deit_tiny_distilled_patch16_224",  # two class tokens
        "eva02_tiny_patch14_224",  # pooled
    ],
)
def test_models_without_a_class_token_that_attends_are_refused(model_name):
    with pytest.raises(ModelError, match=f"timm's {model_name} has no class token that attends"):
        build_encoder("timm", {"model_name": model_name})


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"model_name": "vit_huge_of_nobody"}, "has no model called vit_huge_of_nobody"),
        ({"model_name": "hf-hub:somebody/something"}, "has no model called hf-hub"),
        ({"checkpoint_path": "evil.pth"}, "not built with checkpoint_path"),
        ({"pretrained": True}, "not built with pretrained"),
        ({"embed_dim": 25}, "cannot be built with"),
        ({"img_size": 36}, "no multiple of its patches"),
    ],
)
def test_what_timm_cannot_or_must_not_build_is_said(wrong, sentence):
    with pytest.raises(ModelError, match=sentence):
        build_encoder("timm", {**TINY, **wrong})


def test_weights_come_back_by_their_card(tmp_path):
    spec, network = tiny(REGISTERS)
    save_model(tmp_path / "x.safetensors", network, spec, ModelCard("x", "", commercial_use=True), half=False)
    loaded = load_encoder(tmp_path / "x.safetensors")
    assert loaded.spec == spec
    assert torch.equal(loaded.network(picture()), network(picture()))


def test_a_state_of_timm_is_converted_and_its_positions_resampled(tmp_path, monkeypatch):
    for module in (weights, encoders):
        monkeypatch.setattr(module, "user_folder", lambda: tmp_path / "home")
    _, network = tiny(REGISTERS)
    state = network.vit.state_dict()
    torch.save({**state, "head.weight": torch.zeros(2, 24)}, tmp_path / "their.pth")
    card = convert(tmp_path / "their.pth", "timm", name="theirs", params=REGISTERS)
    assert (card.network, card.licence, card.commercial_use) == ("timm", "unknown", False)
    loaded = load_encoder("theirs", accept_licence=True)
    assert torch.equal(loaded.network(picture()), network(picture()))
    larger = convert(tmp_path / "their.pth", "timm", name="larger", params={**REGISTERS, "img_size": 48})
    said = load_encoder(larger.name, accept_licence=True).encoder.attend(picture(side=48))
    assert said.attention.shape == (2, 3, 4, 6, 6)
    with pytest.raises(WeightsError, match="does not fit the network timm"):
        convert(tmp_path / "their.pth", "timm", name="deeper", params={**REGISTERS, "depth": 4})


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (ImportError("No module named timm"), "install the extra zoo"),
        (RuntimeError("operator torchvision::nms does not exist"), "Install a torchvision of the same build"),
    ],
)
def test_without_timm_the_sentence_says_what_to_install(monkeypatch, error, sentence):
    real = builtins.__import__

    def refuse(name, *rest):
        if name == "timm":
            raise error
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingDependencyError, match=sentence):
        build_encoder("timm", TINY)
    assert "timm" in encoder_names()


def test_timm_is_not_imported_before_it_is_asked_for():
    code = (
        "import sys; from napari_nucleiseg.core.models.encoders import build_encoder as build, encoder_names as names; "
        "assert 'timm' in names(); build('hipt-4k'); print(*sys.modules)"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "napari_nucleiseg.core.models.timm_encoder" in answer.stdout.split()
    assert {"timm", "torchvision"} & set(answer.stdout.split()) == set()

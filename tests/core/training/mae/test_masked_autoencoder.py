"""What a masked autoencoder sees, fills and is judged by."""

import sys

import pytest
import torch
from torch import nn

from napari_nucleiseg.core.errors import MissingDependencyError, ModelError
from napari_nucleiseg.core.models.encoders import build_encoder
from napari_nucleiseg.core.training.mae.autoencoder import (
    MaskedAutoencoder,
    normalised,
    sine_positions,
    squares,
    taken,
)
from napari_nucleiseg.core.training.mae.config import MaeConfig
from torchvision_shim import import_timm

OURS = ("hipt-256", {"embed": 16, "depth": 2, "heads": 2, "patch_px": 8, "input_px": 32, "grid": 4})
THEIRS = (
    "timm",
    {"model_name": "vit_tiny_patch16_224", "img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2}
    | {"num_heads": 4, "reg_tokens": 3},
)
SMALL = MaeConfig(view_px=32, decoder_embed=16, decoder_depth=1, decoder_heads=2)


@pytest.fixture(params=[OURS, THEIRS], ids=["ours", "timm"])
def built(request):
    """An autoencoder, and the spec of its encoder."""
    if request.param is THEIRS:
        import_timm()
        pytest.importorskip("lightly", reason="the extra zoo is not installed")
    torch.manual_seed(0)
    spec, encoder = build_encoder(*request.param)
    return MaskedAutoencoder(encoder, spec, SMALL).eval(), spec


def pictures(count=3):
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def test_a_quarter_is_seen_and_all_is_filled(built):
    network, spec = built
    assert (network.count, network.seen) == (16, 4)
    looked = []
    own = network._look
    network._look = lambda x, seen: looked.append(seen) or own(x, seen)
    torch.manual_seed(3)
    loss, features = network(pictures())
    assert features.shape == (3, spec.embed)
    assert loss.isfinite()
    (seen,) = looked
    assert seen.shape == (3, 4)
    assert all(len(set(row)) == 4 for row in seen.tolist())
    assert not torch.equal(seen[0].sort().values, seen[1].sort().values)


def test_what_is_left_out_is_not_seen(built):
    """Pixels of tokens that are left out change the loss, but nothing that the encoder says."""
    network, _ = built
    found, painted = [], []
    for change in (0.0, 5.0):
        x = pictures(1)
        x[:, :, 24:, 24:] += change  # the last token
        found.append(network._look(x, torch.tensor([[0, 5, 7]])))
        painted.append(network._filled(found[-1], torch.tensor([[0, 5, 7]])))
    assert found[0].shape[1] == 4
    assert torch.equal(found[0], found[1])
    assert torch.equal(painted[0], painted[1])
    assert not torch.equal(network._look(x, torch.tensor([[0, 5, 15]])), found[1])


def test_with_all_tokens_the_encoder_says_what_it_always_says(built):
    network, _ = built
    x = pictures()
    everything = torch.arange(16).expand(3, -1)
    tokens = network._look(x, everything)
    attended = network.encoder.attend(x)
    assert torch.allclose(tokens[:, 0], attended.features, atol=1e-5)
    assert torch.allclose(tokens[:, 1:], attended.tokens.flatten(2).transpose(1, 2), atol=1e-5)


def test_tokens_keep_their_place(built):
    """The order in which tokens are named does not matter."""
    network, _ = built
    x = pictures(1)
    one, other = torch.tensor([[2, 9, 14]]), torch.tensor([[14, 2, 9]])
    assert torch.allclose(
        network._filled(network._look(x, one), one), network._filled(network._look(x, other), other), atol=1e-5
    )


def test_everything_learns(built):
    network, _ = built
    network.train()(pictures())[0].backward()
    assert [name for name, value in network.named_parameters() if value.grad is None] == []


def test_the_loss_is_of_missing_tokens_alone(built):
    network, _ = built
    x = pictures(2)
    torch.manual_seed(5)
    order = torch.rand(2, 16).argsort(dim=1)
    wanted = normalised(squares(x, 8))
    network._filled = lambda _found, _seen: wanted.scatter(1, order[:, :4, None].expand(-1, -1, 192), 99.0)
    torch.manual_seed(5)
    assert float(network(x)[0]) == 0.0
    network._filled = lambda _found, _seen: torch.zeros_like(wanted)
    assert float(network(x)[0]) == pytest.approx(1.0, abs=1e-3)  # that of the mean of each token


def test_squares_are_the_pixels_of_tokens_row_by_row():
    x = torch.zeros(1, 3, 16, 24)
    x[:, :, 8:, 16:] = 7.0  # the last of 2 by 3
    found = squares(x, 8)
    assert found.shape == (1, 6, 192)
    assert found.sum(dim=2).tolist() == [[0, 0, 0, 0, 0, 7 * 192]]
    flat = normalised(torch.full((1, 1, 192), 3.0))
    assert torch.equal(flat, torch.zeros_like(flat))  # bare glass
    assert taken(found, torch.tensor([[5]])).sum() == 7 * 192


def test_positions_tell_all_tokens_apart():
    found = sine_positions(5, 16)
    assert found.shape == (1, 25, 16)
    assert torch.cdist(found[0], found[0]).add(torch.eye(25)).min() > 0.1
    assert torch.equal(found[0, 0, :4], torch.zeros(4))
    assert torch.equal(found[0, 1, :8], found[0, 0, :8])  # the same row
    assert torch.equal(found[0, 5, 8:], found[0, 0, 8:])  # the same column


def test_a_network_of_another_kind_is_refused():
    spec, _ = build_encoder(*OURS)
    with pytest.raises(ModelError, match="choose hipt-256, or a transformer of timm"):
        MaskedAutoencoder(nn.Identity(), spec, SMALL)


def test_a_missing_library_is_named(monkeypatch):
    import_timm()
    spec, encoder = build_encoder(*THEIRS)
    monkeypatch.setitem(sys.modules, "lightly.models.modules", None)
    with pytest.raises(MissingDependencyError, match="masked autoencoder of a timm encoder needs lightly"):
        MaskedAutoencoder(encoder, spec, SMALL)

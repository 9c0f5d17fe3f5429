"""S3-Net has the published sizes, sees no farther than it says, and calls chosen clusters nuclei."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_nucleiseg.core.decoders.base import decoder
from napari_nucleiseg.core.errors import ModelError
from napari_nucleiseg.core.models.registry import build_network, network_spec
from napari_nucleiseg.core.models.s3net import AttentionBlock, InceptionAttention, S3Net, receptive_radius_px


def parameters(module):
    return sum(p.numel() for p in module.parameters())


def lively(seed=0, **settings_):
    """A small network whose offsets and statistics are not those of its beginning."""
    torch.manual_seed(seed)
    network = S3Net(width=6, **settings_).eval()
    for name, parameter in network.named_parameters():
        if "where" in name:
            torch.nn.init.normal_(parameter, std=0.5)
    return network


def test_an_attention_and_a_block_have_the_published_numbers_of_parameters():
    assert parameters(InceptionAttention(64)) == 19_520
    assert parameters(AttentionBlock(64)) == 27_840


def test_nearly_all_published_parameters_are_free_offsets_and_masks():
    network = S3Net(free_height=256, free_width=256)
    free = network.deformed[0]
    assert parameters(network) == pytest.approx(1.87e6, rel=0.005)
    assert free.offset.numel() + free.mask.numel() == 27 * 256 * 256


@pytest.mark.parametrize(("branch", "extent"), [(0, 7), (1, 13), (2, 23)])
def test_branches_reach_as_far_as_published(branch, extent):
    attention = InceptionAttention(2)
    x = torch.zeros(1, 2, 41, 41, requires_grad=True)
    attention.branches[branch](attention.near(x))[0, :, 20, 20].sum().backward()
    rows = x.grad.abs().sum((0, 1, 3)).nonzero()
    assert int(rows.max() - rows.min()) + 1 == extent


@pytest.mark.parametrize(("blocks", "reach"), [(1, 0.0), (1, 2.5), (2, 8.0)])
def test_nothing_beyond_the_receptive_field_matters(blocks, reach):
    network = lively(blocks=blocks, reach_px=reach)
    radius = receptive_radius_px(blocks, reach)
    side = 2 * radius + 9
    torch.manual_seed(1)
    x = torch.randn(1, 3, side, side)
    changed = x.clone()
    middle = side // 2
    changed[:, :, : middle - radius] += 5
    changed[:, :, :, middle + radius + 1 :] -= 5
    with torch.inference_mode():
        one, other = (network.cluster_logits(picture)[0, :, middle, middle] for picture in (x, changed))
    assert torch.allclose(one, other, atol=1e-5)


def test_the_halo_holds_the_receptive_field():
    spec = network_spec("s3net")
    assert spec.halo_px >= receptive_radius_px(blocks=2, reach_px=8.0)
    assert decoder(spec.decoder).heads[0].name in {head.name for head in spec.heads}


@settings(max_examples=20, deadline=None)
@given(chosen=st.sets(st.integers(0, 5), min_size=1, max_size=5), seed=st.integers(0, 100))
def test_a_pixel_is_a_nucleus_exactly_where_the_highest_cluster_is_chosen(chosen, seed):
    network = lively(seed)
    network.choose(tuple(chosen))
    x = torch.randn(1, 3, 12, 13)
    with torch.inference_mode():
        highest = network.cluster_logits(x).argmax(1)
        nuclei = network(x)["nuclei"][:, 0] > 0
    expected = torch.zeros_like(nuclei)
    for cluster in chosen:
        expected |= highest == cluster
    assert torch.equal(nuclei, expected)


def test_with_no_or_every_cluster_chosen_there_are_none_or_only_nuclei():
    network, x = lively(), torch.randn(1, 3, 8, 8)
    network.choose(())
    assert not torch.sigmoid(network(x)["nuclei"]).any()
    network.choose(tuple(range(6)))
    assert (torch.sigmoid(network(x)["nuclei"]) == 1).all()


def test_a_cluster_that_is_none_is_refused():
    with pytest.raises(ModelError, match="no cluster 6; clusters are numbered 0 to 5"):
        lively().choose((1, 6))


def test_it_can_be_trained_with_labels_like_any_other_network():
    torch.manual_seed(0)
    network, x = S3Net(width=6, blocks=1).train(), torch.randn(1, 3, 16, 16)
    target = (x[:, :1] > 0).float()
    optimiser = torch.optim.Adam(network.parameters(), 0.02)
    losses = []
    for _ in range(30):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(network(x)["nuclei"], target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]


def test_a_smooth_start_looks_at_colour_and_not_at_relief():
    network = lively()
    before = float(network.deformed[0].weight.detach().std())
    network.begin_smooth()
    for kernel in (network.stem[0].weight, network.deformed[0].weight):
        assert torch.equal(kernel, kernel[:, :, :1, :1].expand_as(kernel))
    assert 0.3 * before < float(network.deformed[0].weight.detach().std()) < 3 * before


def test_both_branches_have_a_channel_for_each_cluster():
    said = build_network(network_spec("s3net", {"width": 5})).clusters(torch.randn(2, 3, 9, 11))
    assert said.main.shape == said.auxiliary.shape == said.features.shape == (2, 5, 9, 11)

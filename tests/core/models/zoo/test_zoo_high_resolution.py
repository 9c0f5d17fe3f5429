"""High-resolution networks: windows attend as published, streams keep their sizes, all streams count."""

import sys

import pytest
import torch
from torch import nn

import torchvision_shim
from napari_nucleiseg.core.errors import MissingDependencyError, ModelError
from napari_nucleiseg.core.models.programs import torchscript_allowed
from napari_nucleiseg.core.models.registry import build_network, network_spec
from napari_nucleiseg.core.models.zoo.high_resolution import Expanding, Fusion, Merging, SwinBlock, WindowAttention
from zoo_parts import SLIM, made_linear, seen_px

SWIN, HRNET = "high-resolution-swin", "hrnet"


@pytest.fixture
def _timm():
    torchvision_shim.import_timm()


def built(name, **params):
    torch.manual_seed(0)
    return build_network(network_spec(name, SLIM[name] | params))


@pytest.mark.usefixtures("_timm")
@pytest.mark.parametrize("name", [SWIN, HRNET])
@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 96), (160, 128)])
def test_maps_are_as_large_as_the_picture(name, height, width):
    maps = built(name).eval()(torch.randn(2, 3, height, width))
    assert {key: tuple(found.shape) for key, found in maps.items()} == {
        head.name: (2, head.channels, height, width) for head in network_spec(name).heads
    }


@pytest.mark.usefixtures("_timm")
@pytest.mark.parametrize("name", [SWIN, HRNET])
def test_it_learns_in_half_precision_with_channels_last(name):
    network = built(name).train().to(memory_format=torch.channels_last)
    x = torch.randn(2, 3, 64, 64).contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        maps = network(x)
    sum(found.square().mean() for found in maps.values()).backward()
    assert all(found.dtype == torch.float32 for found in maps.values())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def explicit_attention(attention, tokens):
    """What one window's attention is by the book, head by head."""
    side = int(len(tokens) ** 0.5)
    query, key, value = attention.query_key_value(tokens).chunk(3, dim=-1)
    size = tokens.shape[-1] // attention.heads
    found = []
    for head in range(attention.heads):
        part = slice(head * size, (head + 1) * size)
        scores = query[:, part] @ key[:, part].T / size**0.5
        for i in range(len(tokens)):
            for j in range(len(tokens)):
                dy, dx = i // side - j // side + side - 1, i % side - j % side + side - 1
                scores[i, j] += attention.bias[head, dy * (2 * side - 1) + dx]
        found.append(torch.softmax(scores, dim=-1) @ value[:, part])
    return attention.last(torch.cat(found, dim=-1))


def test_attention_in_a_window_is_that_of_the_paper():
    torch.manual_seed(0)
    attention = WindowAttention(channels=8, heads=2, window=3)
    x = torch.randn(1, 2, 9, 8)
    with torch.no_grad():
        attention.bias.normal_()
        found = attention(x, torch.zeros(2, 9, 9, dtype=torch.bool))
        expected = torch.stack([explicit_attention(attention, window) for window in x[0]])
    assert torch.allclose(found[0], expected, atol=1e-5)


def reached(block, height, width, row, column):
    """Which tokens change if one does, ``(y, x)`` bool."""
    torch.manual_seed(0)
    x = torch.randn(1, height, width, 8)
    with torch.no_grad():
        before = block(x)
        x[0, row, column] = torch.randn(8)
        return (block(x) - before).abs().amax(dim=-1)[0] > 1e-7


@pytest.mark.parametrize("shifted", [False, True])
def test_windows_are_shifted_by_half_their_side_and_do_not_go_round_the_edge(shifted):
    block = SwinBlock(8, 2, 4, shifted=shifted).eval()
    inner = reached(block, 12, 12, 5, 5).nonzero()
    first = 2 if shifted else 4
    assert inner.amin(dim=0).tolist() == [first, first]
    assert inner.amax(dim=0).tolist() == [first + 3, first + 3]
    corner = reached(block, 12, 12, 0, 0).nonzero()
    assert corner.amax(dim=0).tolist() == ([1, 1] if shifted else [3, 3])


@pytest.mark.parametrize("shifted", [False, True])
def test_padding_changes_nothing_for_real_tokens(shifted):
    """Tokens of whole windows are the same whether or not the map ends within the next window."""
    block = SwinBlock(8, 2, 4, shifted=shifted).eval()
    torch.manual_seed(0)
    x = torch.randn(1, 8, 11, 8)
    with torch.no_grad():
        block.attention.query_key_value.bias.normal_()
        padded = block(x)
        grown = block(nn.functional.pad(x, (0, 0, 0, 5), value=7.0))
        assert torch.allclose(padded[:, :, :6], grown[:, :, :6], atol=1e-5)
        # The last window by itself: what pads it takes no part.
        alone = block(x[:, :, 8:11]) if not shifted else padded[:, :, 8:11]
        assert torch.allclose(padded[:, :, 8:11], alone, atol=1e-5)


def test_branches_are_skipped_only_while_it_learns():
    block = SwinBlock(8, 2, 4, shifted=False, drop_path=0.5)
    x = torch.randn(64, 4, 4, 8)
    torch.manual_seed(0)
    with torch.no_grad():
        learned = (block.train()(x) - x).abs().amax(dim=(1, 2, 3))
        assert 5 < (learned == 0).sum() < 28, "both branches are skipped in a quarter of the pictures"
        assert ((block.eval()(x) - x).abs().amax(dim=(1, 2, 3)) > 0).all()


def test_streams_are_merged_and_expanded_to_each_others_size():
    torch.manual_seed(0)
    streams = [torch.randn(1, 16 // 2**s, 24 // 2**s, 4 * 2**s) for s in range(3)]
    found = Fusion(4, 3, 4)(streams)
    assert [tuple(x.shape) for x in found] == [(1, 16, 24, 4), (1, 8, 12, 8), (1, 4, 6, 16), (1, 2, 3, 32)]
    # What one coarse token becomes lies where it lay; four neighbours become the one between them.
    x = torch.zeros(1, 4, 4, 4)
    x[0, 1, 2] = torch.tensor([3.0, -1.0, 2.0, 0.5])
    with torch.no_grad():
        finer, coarser = Expanding(4, 2)(x), Merging(4)(x)
    assert (finer.abs().amax(dim=-1)[0] > 0).nonzero().tolist() == [[2, 4], [2, 5], [3, 4], [3, 5]]
    assert (coarser.abs().amax(dim=-1)[0] > 0).nonzero().tolist() == [[0, 1]]


@pytest.mark.parametrize("streams", [2, 3, 4])
def test_there_are_as_many_streams_as_asked_and_all_of_them_count(streams):
    network = built(SWIN, streams=streams).eval()
    stages = network.body.stages
    assert [len(stage) for stage in stages] == list(range(1, streams + 1))
    sizes = []
    for stream in stages[-1]:
        stream.register_forward_hook(lambda _m, _i, out: sizes.append(out.shape[1:]))
    x = torch.randn(1, 3, 64, 96)
    maps = network(x)
    assert sizes == [(16 // 2**s, 24 // 2**s, 12 * 2**s) for s in range(streams)]
    maps["nuclei"].square().mean().backward()
    assert all(p.grad.abs().max() > 0 for p in stages[-1][-1].parameters() if p.requires_grad)


def test_published_figures_are_the_defaults():
    network = build_network(network_spec(SWIN)).body
    blocks = [block for stream in network.stages[-1] for block in stream]
    assert [block.attention.heads for block in blocks[::2]] == [3, 6, 12, 24]
    assert [block.before.normalized_shape[0] for block in blocks[::2]] == [96, 192, 384, 768]
    assert [block.shift for block in blocks] == [0, 3] * 4
    assert [block.drop_path for block in blocks] == pytest.approx([0.2] * 8)
    assert {block.window for block in blocks} == {7}


@pytest.mark.parametrize("params", [{"streams": 5}, {"streams": 1}, {"heads": 5}])
def test_what_it_does_not_have_is_refused(params):
    with pytest.raises(ModelError, match="2 to 4 streams and a width that its heads divide"):
        built(SWIN, **params)


def test_a_traced_network_takes_other_sizes_and_numbers():
    network = built(SWIN, streams=2).eval()
    with torchscript_allowed(), torch.no_grad():
        traced = torch.jit.trace(network, torch.zeros(2, 3, 64, 96), check_trace=False, strict=False)
        x = torch.randn(1, 3, 160, 128)
        assert torch.allclose(traced(x)["nuclei"], network(x)["nuclei"], atol=1e-6)


@pytest.mark.usefixtures("_timm")
@pytest.mark.parametrize(("variant", "millions"), [("hrnet_w18_small", 1.5), ("hrnet_w18_small_v2", 3.9)])
def test_hrnet_has_the_published_number_of_parameters(variant, millions):
    count = sum(p.numel() for p in built(HRNET, variant=variant).parameters())
    assert count == pytest.approx(millions * 1e6, rel=0.05)


@pytest.mark.usefixtures("_timm")
def test_one_pixel_of_hrnet_sees_what_the_spec_states():
    network = made_linear(built(HRNET, variant="hrnet_w18_small_v2").eval())
    seen = seen_px(network, stride=1, height=32, width=1280)  # one place: others see a little more or less
    stated = network_spec(HRNET).receptive_field_px
    assert stated - 32 <= seen <= stated


@pytest.mark.usefixtures("_timm")
def test_all_streams_of_hrnet_reach_the_maps():
    network = built(HRNET).eval()
    x = torch.randn(1, 3, 64, 96)
    streams = [s.detach().requires_grad_() for s in network.body.trunk(x)]
    assert [tuple(s.shape[2:]) for s in streams] == [(16, 24), (8, 12), (4, 6), (2, 3)]
    network.body.trunk = nn.Identity()
    network(streams)["nuclei"].sum().backward()
    assert all(s.grad.abs().max() > 0 for s in streams)


@pytest.mark.usefixtures("_timm")
def test_an_unknown_hrnet_is_answered_with_those_that_exist():
    with pytest.raises(ModelError, match="timm has no hrnet_w19; there are hrnet_w18, hrnet_w18_small"):
        built(HRNET, variant="hrnet_w19")


def test_without_timm_a_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingDependencyError, match="needs timm: install the extra zoo"):
        built(HRNET)

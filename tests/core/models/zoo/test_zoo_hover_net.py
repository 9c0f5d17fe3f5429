"""HoVer-Net has the published size, is walked over as monai does, and learns distances by default."""

import sys

import pytest
import torch
from torch import nn

from napari_nucleiseg.core.decoders.base import decoder
from napari_nucleiseg.core.errors import MissingDependencyError
from napari_nucleiseg.core.models.registry import build_network, network_spec
from napari_nucleiseg.core.models.zoo import hover_net
from napari_nucleiseg.core.training.batches import target_sources
from napari_nucleiseg.core.training.config import TrainConfig
from napari_nucleiseg.core.training.loop import total_loss
from zoo_parts import SLIM, made_linear, seen_px, tiny_batch

nets = pytest.importorskip("monai.networks.nets", reason="monai is not installed (the extra zoo)")

NAME = "hover-net"
# 37.6 million are published with the branch that names five kinds of cells, which is left out here.
PUBLISHED, OURS = 37_639_561, 33_625_412


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return build_network(network_spec(NAME, SLIM[NAME])).eval()


def parameters(network):
    return sum(value.numel() for value in network.parameters())


def test_it_has_the_published_number_of_parameters_less_those_of_kinds():
    with torch.device("meta"):
        whole = nets.HoVerNet(mode="fast", out_classes=5)
        ours = build_network(network_spec(NAME))
        kinds = whole.type_prediction
    assert parameters(whole) == PUBLISHED
    assert parameters(ours) == OURS == PUBLISHED - parameters(kinds)
    assert ours.body.state_dict().keys() <= whole.state_dict().keys()


def test_maps_are_as_large_as_the_picture():
    spec = network_spec(NAME)
    with torch.device("meta"):
        maps = build_network(spec)(torch.empty(2, 3, 72, 104))
    shapes = {name: tuple(found.shape) for name, found in maps.items()}
    assert shapes == {"nuclei": (2, 1, 72, 104), "hover": (2, 2, 72, 104)}
    assert list(maps) == [head.name for head in spec.heads]


def test_branches_say_what_those_of_monai_say_away_from_the_border(network):
    """Unpadded, monai's branches lose 46 pixels on each side; coarse pixels repeated as in the authors' code."""
    torch.manual_seed(1)
    with torch.device("meta"):
        plain = nets.HoVerNet(mode="fast")
    plain = plain.to_empty(device="cpu").eval()
    plain.load_state_dict(network.body.state_dict())
    finer = nn.Upsample(scale_factor=2.0, mode="nearest")
    plain.upsample = plain.nucleus_prediction.upsample = plain.horizontal_vertical.upsample = finer
    side = 104
    x = torch.randn(1, 3, side, side)
    with torch.inference_mode():
        found = network(x)
        features, skips = plain.conv0(x), []
        for block in plain.res_blocks:
            features = block(features)
            skips.append(features)
        features = plain.upsample(plain.bottleneck(features))
        classes = plain.nucleus_prediction(features, skips[:3])
        away = plain.horizontal_vertical(features, skips[:3])
    assert away.shape[-1] == side - 2 * 46
    # The last convolution of 3 pixels is padded in monai's as well.
    inner, innermost = (..., slice(47, -47), slice(47, -47)), (..., slice(1, -1), slice(1, -1))
    torch.testing.assert_close(found["hover"][inner], away[innermost], atol=1e-5, rtol=1e-4)
    # A sigmoid of the difference is the softmax of both.
    softmax = torch.softmax(classes, dim=1)[:, 1:][innermost]
    torch.testing.assert_close(torch.sigmoid(found["nuclei"][inner]), softmax, atol=1e-5, rtol=1e-4)


def test_skips_reach_the_answer(network):
    """monai leaves them out of padded decoders."""
    skips = [torch.zeros(1, channels, side, side) for channels, side in ((256, 32), (512, 16), (1024, 8))]
    branch, bottom = network.body.horizontal_vertical, torch.zeros(1, 1024, 8, 8)
    with torch.inference_mode():
        plain = hover_net.decoded(branch, bottom, skips)
        for level, skip in enumerate(skips):
            changed = [*skips[:level], torch.ones_like(skip), *skips[level + 1 :]]
            assert not torch.allclose(hover_net.decoded(branch, bottom, changed), plain)


def test_distances_are_trained_by_default_and_made_for_this_network_only():
    losses = TrainConfig().losses
    assert target_sources(losses, network_spec(NAME)) == ["hover", "offsets"]
    assert target_sources(losses, network_spec("nuclei")) == ["border", "distance", "offsets"]
    assert network_spec(NAME).decoder == "hover"
    assert network_spec(NAME).heads == decoder("hover").heads


def test_it_learns():
    torch.manual_seed(0)
    network = build_network(network_spec(NAME, SLIM[NAME])).train()
    batch = tiny_batch(64)
    labels = [(batch["nuclei"][index, 0] > 0).int().numpy() for index in range(2)]
    batch["hover"] = torch.stack([torch.from_numpy(decoder("hover").targets(one)["hover"]) for one in labels])
    batch = {key: value[..., :32, :32] for key, value in batch.items()}
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3)
    course = []
    for _ in range(5):
        loss, parts = total_loss(network(batch["image"]), batch, TrainConfig())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        course.append(parts)
    assert set(course[0]) == {"nuclei", "hover"}
    for name in course[0]:
        assert course[-1][name] < 0.9 * course[0][name]
    assert all(value.grad is not None for value in network.parameters())


def test_without_monai_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "monai.networks.nets", None)
    with pytest.raises(MissingDependencyError, match=r"needs monai.*napari-nucleiseg\[zoo\]"):
        build_network(network_spec(NAME))


class _OneMap(nn.Module):
    """The branch of distances alone: of positive weights the difference of two classes would say nothing."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        return {"nuclei": self.network(x)["hover"]}


@pytest.mark.slow
def test_one_pixel_sees_what_the_spec_states():
    linear = made_linear(build_network(network_spec(NAME)).eval())
    seen = seen_px(_OneMap(linear), stride=8, height=8, width=256)
    assert seen == network_spec(NAME).receptive_field_px

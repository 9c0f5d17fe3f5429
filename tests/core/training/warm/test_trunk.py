"""The part of a network that a warm start teaches is found, whatever the network calls it."""

import pytest
import torch
from torch import nn

from napari_nucleiseg.core.errors import ModelError
from napari_nucleiseg.core.models.registry import build_network, network_spec
from napari_nucleiseg.core.training.warm.methods import Painter, blocks
from napari_nucleiseg.core.training.warm.trunk import Trunk


def network_of(name, **params):
    return build_network(network_spec(name, params))


@pytest.mark.parametrize(
    ("name", "params", "side", "end", "shape"),
    [
        ("nuclei", {"width": 4, "depth": 2, "widest": 8}, 32, "encoder.2", (8, 4)),
        ("nuclei-fine", {"width": 4, "depth": 3, "widest": 8}, 32, "encoder.3", (8, 2)),
        ("unet-2015-padded", {"width": 2}, 32, "down.4", (32, 2)),
        ("unet-2015", {"width": 2}, 188, "down.4", (32, 4)),
        ("segnet", {}, 64, "encoder.4", (512, 4)),
    ],
)
def test_the_encoder_ends_with_its_coarsest_maps(name, params, side, end, shape):
    network = network_of(name, **params)
    trunk = Trunk(network, name, "encoder", side)
    assert (trunk.end, trunk.channels, trunk.side) == (end, *shape)
    assert trunk(torch.zeros(2, 3, side, side)).shape == (2, shape[0], shape[1], shape[1])
    assert all(item.split(".")[0] in {"stem", "encoder", "down"} for item in trunk.taught)
    assert {item.ndim for item in trunk.learned()} <= {1, 4}


def test_the_network_ends_before_its_last_convolution():
    trunk = Trunk(network_of("nuclei", width=4, depth=2, widest=8), "nuclei", "network", 32)
    assert (trunk.end, trunk.channels, trunk.side) == ("head.1", 4, 16)
    assert set(trunk.network.state_dict()) - trunk.taught == {"head.1.weight", "head.1.bias"}


def test_the_statistics_of_normalisations_belong_to_what_is_taught():
    trunk = Trunk(network_of("nuclei", width=4, depth=1, widest=8), "nuclei", "encoder", 32)
    assert {"stem.1.running_mean", "stem.1.num_batches_tracked"} <= trunk.taught
    assert not any(name.startswith(("decoder", "reduce", "head")) for name in trunk.taught)


def test_looking_for_it_changes_nothing():
    network = network_of("nuclei", width=4, depth=1, widest=8).train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    Trunk(network, "nuclei", "encoder", 32)
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(item.grad is None for item in network.parameters())


class Broken(nn.Module):
    """A decoder that must not be asked."""

    def forward(self, x):
        if x.requires_grad:
            raise AssertionError("what comes after the encoder was computed")
        return x


def test_what_comes_after_is_not_computed():
    network = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1)), nn.Upsample(scale_factor=2))
    network.append(Broken())
    trunk = Trunk(network, "own", "encoder", 16)
    assert trunk.end == "0"
    trunk(torch.zeros(1, 3, 16, 16)).sum().backward()
    assert network[0][0].weight.grad is not None


class Pyramid(nn.Module):
    """An encoder in the manner of libraries: a list of maps and a pooled one, the widest inside the last stage."""

    def __init__(self, *, channels_last):
        super().__init__()
        self.channels_last = channels_last
        self.first, self.second = nn.Conv2d(3, 4, 2, stride=2), nn.Conv2d(4, 6, 2, stride=2)

    def forward(self, x):
        maps = [self.first(x)]
        maps.append(self.second(maps[0]))
        pooled = maps[1].mean(dim=(2, 3), keepdim=True)
        if self.channels_last:
            maps = [item.permute(0, 2, 3, 1) for item in maps]
        return {"maps": maps, "pooled": pooled.flatten(1)}


class Scored(nn.Module):
    """A network around it."""

    def __init__(self, *, channels_last=False):
        super().__init__()
        self.backbone, self.score = Pyramid(channels_last=channels_last), nn.Conv2d(6, 1, 1)

    def forward(self, x):
        found = self.backbone(x)["maps"][1]
        return self.score(found.permute(0, 3, 1, 2) if self.backbone.channels_last else found)


@pytest.mark.parametrize("channels_last", [False, True])
def test_maps_in_lists_and_with_channels_last_are_seen(channels_last):
    trunk = Trunk(Scored(channels_last=channels_last), "scored", "encoder", 16)
    assert (trunk.end, trunk.channels, trunk.side) == ("backbone", 6, 4)
    assert trunk.taught == {f"backbone.{layer}.{kind}" for layer in ("first", "second") for kind in ("weight", "bias")}


def test_scores_are_no_features():
    network = nn.Sequential(nn.Conv2d(3, 8, 2, stride=2), nn.ReLU(), nn.Conv2d(8, 1, 1))
    assert Trunk(network, "plain", "encoder", 16).end == "1"


def test_a_network_without_coarser_maps_is_refused():
    with pytest.raises(ModelError, match="network flat has no map of features that is coarser"):
        Trunk(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1)), "flat", "encoder", 16)


def test_the_same_share_of_every_picture_is_covered_in_blocks():
    torch.manual_seed(0)
    found = blocks(5, 32, 8, 0.5)
    assert found.shape == (5, 1, 32, 32)
    assert found.flatten(1).sum(dim=1).tolist() == [512] * 5
    small = found[:, :, ::8, ::8]
    assert torch.equal(found, small.repeat_interleave(8, 2).repeat_interleave(8, 3))
    assert not torch.equal(found[0], found[1])


def test_a_painter_lays_channels_out_as_pixels():
    trunk = Trunk(network_of("nuclei", width=4, depth=2, widest=8), "nuclei", "encoder", 32)
    painter = Painter(trunk, 32)
    assert painter.stride == 8
    assert painter(trunk(torch.zeros(2, 3, 32, 32))).shape == (2, 3, 32, 32)

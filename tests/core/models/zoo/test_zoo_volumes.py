"""Networks for stacks: sizes, heads, learning, weight files; and nobody takes them for networks of slides."""

import numpy as np
import pytest
import torch

from napari_nucleiseg.core.errors import ModelError
from napari_nucleiseg.core.models.registry import build_network, network_spec
from napari_nucleiseg.core.models.spec import STACK_NETWORKS
from napari_nucleiseg.core.models.weights import ModelCard, load_model, save_model
from napari_nucleiseg.core.models.zoo import volumes
from napari_nucleiseg.core.training.config import TrainConfig
from napari_nucleiseg.core.training.loop import total_loss
from zoo_parts import made_linear, zoo_names

SLIM = {"unet-3d": {"width": 4}, "v-net": {}}


def slim(name):
    torch.manual_seed(0)
    spec = network_spec(name, SLIM[name])
    return spec, build_network(spec)


def test_lists_that_import_no_network_know_which_are_for_stacks():
    assert zoo_names(dimensions=3) == STACK_NETWORKS


@pytest.mark.parametrize("name", STACK_NETWORKS)
def test_every_head_is_there_whatever_the_sides(name):
    spec, network = slim(name)
    network.eval()
    step = spec.size_multiple
    for sides in ((step, step, 2 * step), (2 * step, step, step)):
        with torch.inference_mode():
            maps = network(torch.randn(1, 1, *sides))
        assert list(maps) == [head.name for head in spec.heads] == ["nuclei", "distance", "separated"]
        assert all(values.shape == (1, 1, *sides) for values in maps.values())
    assert (spec.tile_px + 2 * spec.halo_px) % step == 0
    assert spec.paper
    assert spec.good_for.endswith(".")


def test_they_have_the_published_channels():
    _, unet = slim("unet-3d")
    wide = build_network(network_spec("unet-3d"))
    widths = {module.out_channels for module in wide.modules() if isinstance(module, torch.nn.Conv3d)}
    assert {64, 128, 256, 512} <= widths
    assert sum(p.numel() for p in unet.parameters()) < 1e5
    _, vnet = slim("v-net")
    kernels = {m.kernel_size for m in vnet.modules() if isinstance(m, torch.nn.Conv3d) and m.stride == (1, 1, 1)}
    assert kernels == {(5, 5, 5), (1, 1, 1)}
    assert sum(p.numel() for p in vnet.parameters()) == 45_605_525


def test_v_net_leaves_nothing_out_unless_told_to():
    _, network = slim("v-net")
    assert {layer.p for layer in network.modules() if isinstance(layer, torch.nn.Dropout3d)} == {0.0}
    with pytest.raises(ModelError, match="dropout must be at least 0 and below 1"):
        build_network(network_spec("v-net", {"dropout": 1.0}))


def test_the_unet_sees_as_far_as_it_says():
    spec, network = slim("unet-3d")
    network = made_linear(network)
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, torch.nn.BatchNorm3d | torch.nn.ReLU):
                setattr(module, name, torch.nn.Identity())
    for module in network.modules():
        if isinstance(module, torch.nn.Conv3d | torch.nn.ConvTranspose3d):
            torch.nn.init.constant_(module.weight, 1 / module.weight[0].numel())
    x = torch.ones(1, 1, 8, 8, 160, dtype=torch.float64, requires_grad=True)
    line = network.body(x)[0, 0, 4, 4]
    widest = 0
    for place in range(80, 88):
        (gradient,) = torch.autograd.grad(line[place], x, retain_graph=True)
        seen = gradient[0, 0].abs().sum((0, 1)).nonzero().flatten()
        widest = max(widest, int(seen[-1] - seen[0]) + 1)
    assert widest == spec.receptive_field_px


def test_it_learns_a_tiny_batch():
    _, network = slim("unet-3d")
    z, y, x = np.mgrid[:16, :16, :16]
    inside = torch.from_numpy((z - 8) ** 2 + (y - 7) ** 2 + (x - 9) ** 2 < 25).float()[None, None]
    ones = torch.ones_like(inside)
    batch = {"nuclei": inside, "distance": inside, "separated": inside, "known": ones, "weights": 0 * ones}
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-2)
    losses = []
    for _ in range(8):
        loss, parts = total_loss(network(inside - 0.5), batch, TrainConfig())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert parts.keys() == {"nuclei", "distance", "separated"}
    assert losses[-1] < 0.8 * losses[0]


def test_a_weight_file_gives_the_same_network_and_only_for_stacks(tmp_path):
    spec, network = slim("unet-3d")
    path = tmp_path / "mine.safetensors"
    save_model(path, network.eval(), spec, ModelCard("mine", "unet-3d", licence="MIT", commercial_use=True), half=False)
    loaded = load_model(str(path), dimensions=3)
    x = torch.randn(1, 1, 8, 8, 16)
    with torch.inference_mode():
        assert torch.equal(loaded.network(x)["nuclei"], network(x)["nuclei"])
    with pytest.raises(ModelError, match=r"unet-3d is for z-stacks, not for slides .* segment-stack"):
        load_model(str(path))
    with pytest.raises(ModelError, match=r"nuclei is for slides and pictures, not for z-stacks\. Train one"):
        load_model("nuclei", dimensions=3)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "monai.networks.nets", None)
    with pytest.raises(Exception, match="needs monai: install the extra zoo"):
        volumes.build_unet_3d()

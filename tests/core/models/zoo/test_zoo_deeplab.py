"""DeepLab has the papers' rates, the published size, and maps that do not move with the size of the tile."""

import sys

import pytest
import torch
from torch import nn

import torchvision_shim
from napari_nucleiseg.core.errors import MissingDependencyError, ModelError
from napari_nucleiseg.core.models.registry import build_network, network_spec
from zoo_parts import SLIM

NAMES = ("deeplab-v3", "deeplab-v3plus")


@pytest.fixture(scope="module", autouse=True)
def _library():
    torchvision_shim.import_timm()
    pytest.importorskip("segmentation_models_pytorch", reason="the extra zoo is not installed")


def built(name, **params):
    torch.manual_seed(0)
    return build_network(network_spec(name, SLIM[name] | params))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("height", "width"), [(32, 32), (48, 80), (96, 64)])
def test_maps_are_as_large_as_the_picture(name, height, width):
    maps = built(name).eval()(torch.randn(2, 3, height, width))
    assert {key: tuple(found.shape) for key, found in maps.items()} == {
        head.name: (2, head.channels, height, width) for head in network_spec(name).heads
    }


@pytest.mark.parametrize("name", NAMES)
def test_rates_and_output_stride_are_the_papers(name):
    network = built(name)
    decoder = network.body.decoder
    dilated = [m.dilation[0] for m in decoder.modules() if isinstance(m, nn.Conv2d) and m.dilation[0] > 1]
    assert dilated == [6, 12, 18]
    features = network.body.encoder(torch.zeros(2, 3, 64, 64))
    assert features[-1].shape[-2:] == (4, 4)


def test_v3_has_the_parameters_that_torchvision_states():
    network = build_network(network_spec("deeplab-v3"))
    # torchvision states 42,004,074 for 21 classes, of which an auxiliary head has 2,365,205.
    classes = 21 * 257
    assert sum(p.numel() for p in network.parameters()) - 5 * 257 == 42_004_074 - 2_365_205 - classes


@pytest.mark.parametrize("name", NAMES)
def test_maps_do_not_move_with_the_size_of_the_tile(name):
    network = built(name).eval()
    x = torch.randn(1, 3, 128, 256)
    with torch.inference_mode():
        whole = network.body.segmentation_head[-2](torch.ones(1, 5, 4, 16).cumsum(-1))
        part = network.body.segmentation_head[-2](torch.ones(1, 5, 4, 8).cumsum(-1))
        moved = network(torch.roll(x, 64, 3))["nuclei"]
        still = network(x)["nuclei"]
    inside = part.shape[-1] * 3 // 4
    assert torch.allclose(whole[..., :inside], part[..., :inside], atol=1e-5)
    assert still.std() > 0
    # Around the middle of what is rolled the surroundings are the same but for padding far away.
    distance = (torch.roll(still, 64, 3) - moved)[..., 112:208].abs().mean()
    assert distance < 0.5 * still.std()


@pytest.mark.parametrize("name", NAMES)
def test_it_learns_from_a_single_picture(name):
    network = built(name, dropout=0.0).train()
    loss = sum(found.square().mean() for found in network(torch.randn(1, 3, 64, 64)).values())
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_an_unknown_encoder_is_answered_with_some_that_exist():
    with pytest.raises(ModelError, match="no encoder called resnet51; resnet50, resnet18"):
        built("deeplab-v3", encoder="resnet51")


def test_without_the_library_a_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)
    with pytest.raises(MissingDependencyError, match=r"needs segmentation-models-pytorch: install the extra zoo"):
        built("deeplab-v3")

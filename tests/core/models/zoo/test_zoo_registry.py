"""Every network of the zoo keeps the contract: sizes, heads, learning, weight files; so does one of another package."""

import copy
import sys

import numpy as np
import pytest
import torch

from dark_model import disc_centres, disc_picture
from napari_nucleiseg.core.errors import MissingDependencyError
from napari_nucleiseg.core.inference.segment import segment_picture
from napari_nucleiseg.core.models import registry
from napari_nucleiseg.core.models.registry import build_network, network_names, network_spec
from napari_nucleiseg.core.models.weights import ModelCard, load_model, save_model
from napari_nucleiseg.core.training.config import TrainConfig
from napari_nucleiseg.core.training.loop import total_loss
from tiny_encoders import slide_of
from torchvision_shim import import_timm
from zoo_parts import SLIM, tiny_batch, zoo_names

STEPS = 6
_built = {}
THEIR_CODE = """
from torch import nn

from napari_nucleiseg.core.models.registry import register_model
from napari_nucleiseg.core.models.spec import HeadSpec, ModelSpec


class Darker(nn.Module):
    def __init__(self, gain):
        super().__init__()
        self.tell = nn.Conv2d(3, 1, 1)
        nn.init.constant_(self.tell.weight, -gain / 3)
        nn.init.constant_(self.tell.bias, gain / 2)

    def forward(self, x):
        return {"separated": self.tell(x)}


@register_model(
    ModelSpec(
        name="their-darker",
        title="Dark is a nucleus",
        mpp_um=0.5,
        heads=(HeadSpec("separated"),),
        decoder="border",
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        tile_px=64,
        halo_px=32,
    )
)
def build(gain: float = 1.0) -> Darker:
    return Darker(gain)
"""


def spec_of(name):
    """The spec of a network with the parameters that make it slim."""
    return network_spec(name, SLIM[name])


def slim(name):
    """A slim network with random weights, a new one each time; skips where what it needs is not installed."""
    if name not in _built:
        spec = spec_of(name)
        if spec.needs:
            import_timm()
        torch.manual_seed(0)
        try:
            _built[name] = build_network(spec)
        except MissingDependencyError as error:
            _built[name] = str(error)
    if isinstance(_built[name], str):
        pytest.skip(_built[name])
    return copy.deepcopy(_built[name])


def least(spec):
    """The smallest fitting side of an output from 64 pixels on."""
    return spec.fitting_side(64)


def test_every_network_has_slim_parameters():
    assert set(zoo_names()) <= SLIM.keys(), "add those that lack to SLIM in tests/zoo_parts.py"


@pytest.mark.parametrize("name", zoo_names())
def test_its_spec_says_what_people_must_know(name):
    spec = network_spec(name)
    assert spec.title
    assert spec.paper
    assert spec.licence
    assert spec.good_for.endswith(".")
    assert spec.stride >= 1
    assert spec.receptive_field_px >= 0
    assert spec.fitting_side(256) == 256, "crops of training are 256 pixels unless a person says otherwise"


@pytest.mark.parametrize("name", zoo_names())
def test_every_head_is_there_at_three_sizes(name):
    spec, network = spec_of(name), slim(name).eval()
    side, step, lost = least(spec), spec.size_multiple, 2 * spec.output_margin_px
    for batch, height, width in ((1, side, side), (2, side, side + step), (1, side + 2 * step, side)):
        with torch.inference_mode():
            maps = network(torch.randn(batch, 3, height + lost, width + lost))
        assert list(maps) == [head.name for head in spec.heads], "side outputs are for training"
        for head in spec.heads:
            assert maps[head.name].shape == (batch, head.channels, height, width)
            assert maps[head.name].dtype == torch.float32


@pytest.mark.parametrize("name", zoo_names())
def test_it_runs_in_half_precision_with_channels_last(name):
    spec, network = spec_of(name), slim(name).eval()
    side = least(spec) + 2 * spec.output_margin_px
    x = torch.randn(1, 3, side, side)
    with torch.inference_mode():
        exact = network(x)
        network.to(memory_format=torch.channels_last)
        x = x.contiguous(memory_format=torch.channels_last)
        same = network(x)
        with torch.autocast("cpu", torch.bfloat16):
            half = network(x)
    for head, values in exact.items():
        assert torch.allclose(same[head], values, atol=1e-3 * float(values.abs().max()))
        assert half[head].dtype == torch.float32
        # Rounding may choose another of two nearly equal maxima, so single pixels tell nothing.
        assert (half[head] - values).abs().mean() < 0.3 * values.abs().mean() + 1e-3


@pytest.mark.parametrize("name", zoo_names())
def test_it_learns_a_tiny_batch(name):
    spec, network = spec_of(name), slim(name).train()
    batch = tiny_batch(least(spec), spec.output_margin_px)
    config = TrainConfig()
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-2)
    torch.manual_seed(1)
    losses = []
    for _ in range(STEPS):
        loss, parts = total_loss(network(batch["image"]), batch, config)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert {head.name for head in spec.heads} & config.losses.keys() <= parts.keys()
    assert np.isfinite(losses).all()
    assert losses[-1] < 0.95 * losses[0], losses


@pytest.mark.parametrize("name", zoo_names())
def test_a_weight_file_gives_the_same_network_again(name, tmp_path):
    spec, network = spec_of(name), slim(name).eval()
    path = tmp_path / f"{name}.safetensors"
    save_model(path, network, spec, ModelCard(name, name, licence="MIT", commercial_use=True), half=False)
    loaded = load_model(str(path))
    assert loaded.spec == spec
    side = least(spec) + 2 * spec.output_margin_px
    x = torch.randn(1, 3, side, side)
    with torch.inference_mode():
        before, after = network(x), loaded.network(x)
    assert all(torch.equal(after[head], before[head]) for head in before)


@pytest.fixture
def their_package(tmp_path, monkeypatch):
    """A package of others as pip installs it: a module, and a folder of facts that names an entry point."""
    (tmp_path / "their_networks.py").write_text(THEIR_CODE)
    facts = tmp_path / "their_networks-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: their-networks\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text(f"[{registry.ENTRY_POINT_GROUP}]\ndarker = their_networks\n")
    monkeypatch.syspath_prepend(tmp_path)
    registry._fill.cache_clear()
    yield
    registry._registry.pop("their-darker", None)
    sys.modules.pop("their_networks", None)
    registry._fill.cache_clear()


def test_a_network_of_another_package_is_found_saved_loaded_and_segments(their_package, tmp_path):
    assert "their-darker" in network_names()
    spec = network_spec("their-darker", {"gain": 24.0})
    path = tmp_path / "theirs.safetensors"
    save_model(path, build_network(spec), spec, ModelCard("theirs", "", licence="MIT", commercial_use=True), half=False)
    model = load_model(str(path))
    assert model.card.network == "their-darker"
    shape = (128, 192)
    labels = segment_picture(slide_of(disc_picture(shape)), model, device="cpu")
    centres = disc_centres(shape)
    found = labels[centres[:, 0], centres[:, 1]]
    assert labels.max() == len(centres)
    assert sorted(found) == list(range(1, len(centres) + 1))


def test_without_that_package_its_network_is_unknown():
    assert "their-darker" not in network_names()

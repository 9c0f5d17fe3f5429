"""The catalogue of networks: nothing is left out, nothing is built for it, and what is counted is what is built."""

import json
import sys

import pytest
import torch
from torch import nn

from napari_nucleiseg.core.errors import MissingDependencyError, ModelError
from napari_nucleiseg.core.models import catalogue, counting
from napari_nucleiseg.core.models.catalogue import (
    PIP_LINE,
    measured_networks,
    network_entries,
    network_entry,
    parameters_of,
)
from napari_nucleiseg.core.models.counting import count_parameters
from napari_nucleiseg.core.models.registry import build_network, network_names, network_spec
from napari_nucleiseg.core.models.weights import ModelCard
from torchvision_shim import import_timm
from zoo_parts import made_linear, seen_px

ROW = {"network": "nuclei", "parameters": 7, "mp_per_s": 1.5, "aji": 0.5, "pq": 0.4, "steps": 100, "seconds": 120.0}


@pytest.fixture
def table(tmp_path, monkeypatch):
    """Writes another table of what was measured."""
    path = tmp_path / "table.json"
    monkeypatch.setattr(catalogue, "_TABLE", str(path))
    yield lambda rows: (path.write_text(json.dumps(rows)), measured_networks.cache_clear())
    measured_networks.cache_clear()


def test_every_network_is_there_with_all_that_people_ask():
    entries = network_entries()
    assert tuple(entry.spec.name for entry in entries) == network_names()
    for entry in entries:
        spec = entry.spec
        assert spec.title, spec.name
        assert spec.paper, spec.name
        assert spec.good_for.endswith("."), spec.name
        assert spec.stride >= 1
        assert entry.allows_commercial_use, spec.name
        assert entry.command.startswith("napari-nucleiseg ")


def test_it_names_the_weights_there_are():
    cards = (ModelCard("mine", "hover-net"), ModelCard("ours", "nuclei"), ModelCard("mine-2", "hover-net"))
    weights = {entry.spec.name: entry.weights for entry in network_entries(cards)}
    assert weights["hover-net"] == ("mine", "mine-2")
    assert weights["segnet"] == ()
    assert "nuclei" in network_entry("nuclei").weights


def test_a_name_that_no_network_has_is_refused():
    with pytest.raises(ModelError, match="there is no network called x; there are"):
        network_entry("x")


def test_a_missing_library_is_told_with_the_line_that_installs_it(monkeypatch, table):
    table([])  # what was measured need not be counted
    monkeypatch.setattr(catalogue, "find_spec", lambda name: None if name == "segmentation_models_pytorch" else "here")
    monkeypatch.setattr(counting, "count_parameters", lambda _name: pytest.fail("it would be built"))
    entry = network_entry("deeplab-v3")
    assert not entry.is_installed
    assert entry.missing == f"It needs segmentation-models-pytorch, which is not installed: {PIP_LINE}"
    assert parameters_of(entry) == entry.missing
    assert network_entry("hover-net").missing == network_entry("segnet").missing == ""


def test_looking_for_a_library_does_not_import_it(monkeypatch):
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    assert network_entry("hrnet").spec.needs == "timm"
    assert "timm" not in sys.modules


def test_a_library_that_does_not_fit_is_told(monkeypatch, table):
    table([])

    def refuse(_name):
        raise MissingDependencyError("timm is installed but cannot be imported.")

    monkeypatch.setattr(counting, "count_parameters", refuse)
    assert parameters_of(network_entry("hrnet")) == "timm is installed but cannot be imported."


def test_what_was_measured_is_not_counted(table):
    table([ROW])
    entry = network_entry("nuclei")
    assert (entry.measured.mp_per_s, entry.measured.aji, entry.measured.steps) == (1.5, 0.5, 100)
    assert parameters_of(entry) == 7
    assert network_entry("segnet").measured is None


def test_the_shipped_table_is_of_networks_there_are():
    for name, measured in measured_networks().items():
        entry = network_entry(name)
        assert entry.measured is measured
        assert 0 <= measured.aji <= 1
        assert 0 <= measured.pq <= 1
        assert measured.mp_per_s > 0
        if not entry.spec.needs:
            assert measured.parameters == count_parameters(name)


@pytest.mark.parametrize("name", network_names())
def test_parameters_are_counted_without_numbers(name):
    if network_spec(name).needs:
        import_timm()
    before = torch.get_rng_state()
    try:
        count = count_parameters(name)
    except MissingDependencyError as error:
        pytest.skip(str(error))
    assert count > 100_000
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", ["nuclei", "kiu-net", "scale-attention", "s3net", "unet-deformable"])
def test_what_is_counted_is_what_is_built(name):
    built = build_network(network_spec(name))
    assert count_parameters(name) == sum(parameter.numel() for parameter in built.parameters())


def test_rates_that_libraries_read_from_tensors_are_real():
    pytest.importorskip("monai")
    import_timm()
    built = build_network(network_spec("swin-unetr"))
    assert count_parameters("swin-unetr") == sum(parameter.numel() for parameter in built.parameters())


class FirstMap(nn.Module):
    """Calls the first map of a network ``nuclei``."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        return {"nuclei": next(iter(self.network(x).values()))}


def test_the_default_network_sees_as_far_as_it_states():
    network = made_linear(build_network(network_spec("nuclei", {"width": 4, "widest": 8})))
    spec = network_spec("nuclei")
    assert seen_px(network, spec.stride, 64, 640) == spec.receptive_field_px


def test_the_network_of_2015_sees_as_far_as_it_states():
    network = made_linear(build_network(network_spec("unet-2015-padded", {"width": 2})))
    nn.init.zeros_(network.classes.weight[:1])  # its map is the difference of two classes
    spec = network_spec("unet-2015-padded")
    assert seen_px(FirstMap(network), spec.stride, 64, 512) == spec.receptive_field_px

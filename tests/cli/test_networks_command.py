"""``models`` and ``models networks`` from the shell: no network is left out, and each says what it takes."""

import json
import shlex

import pytest

from napari_nucleiseg import cli
from napari_nucleiseg.core.models import catalogue
from napari_nucleiseg.core.models.catalogue import PIP_LINE, network_entries
from napari_nucleiseg.core.models.registry import network_names

STATED = {"title", "good_for", "paper", "licence", "mpp_um", "receptive_field_px", "stride", "dimensions", "needs"}


@pytest.fixture
def uncounted(monkeypatch):
    """Libraries are not imported for numbers of parameters."""
    monkeypatch.setattr(catalogue, "parameters_of", lambda entry: entry.missing or 1_234_567)


def test_every_network_is_among_the_models(shell):
    out = shell("models").out
    assert [name for name in network_names() if name not in out] == []
    assert "nuclei-research" in out
    assert "napari-nucleiseg models networks" in out
    document = shell("models", "--json").document
    assert tuple(document["networks"]) == network_names()
    assert "nuclei" in {model["name"] for model in document["models"]}


@pytest.mark.usefixtures("uncounted")
def test_networks_say_what_each_is_good_for(shell):
    out = " ".join(shell("models", "networks").out.split())
    for entry in network_entries():
        assert entry.spec.name in out
        assert entry.spec.licence in out
    assert "1.2 M" in out
    found = {one["name"]: one for one in shell("models", "networks", "--json").document["networks"]}
    assert tuple(found) == network_names()
    for entry in network_entries():
        one = found[entry.spec.name]
        assert {key: one[key] for key in STATED} == {key: getattr(entry.spec, key) for key in STATED}
        assert one["weights"] == list(entry.weights)
    assert found["nuclei"]["parameters"] == 1_234_567


def test_one_network_says_all(shell):
    answer = shell("models", "networks", "segnet")
    for part in ("29,437,957", "404 px", "arXiv 1511.00561", "train --network segnet"):
        assert part in answer.out
    (one,) = shell("models", "networks", "segnet", "--json").document["networks"]
    assert one["parameters"] == 29_437_957


def test_what_was_measured_is_shown(shell, tmp_path, monkeypatch):
    row = {"network": "segnet", "parameters": 5, "mp_per_s": 2.5, "aji": 0.5, "pq": 0.25, "steps": 90, "seconds": 120}
    (tmp_path / "table.json").write_text(json.dumps([row]))
    monkeypatch.setattr(catalogue, "_TABLE", str(tmp_path / "table.json"))
    catalogue.measured_networks.cache_clear()
    try:
        out = shell("models", "networks", "segnet").out
    finally:
        catalogue.measured_networks.cache_clear()
    assert "2.50 megapixels a second on one core; AJI 0.500, PQ 0.250" in out


def test_a_missing_library_is_told_with_what_to_type(shell, monkeypatch):
    monkeypatch.setattr(catalogue, "find_spec", lambda _name: None)
    assert "timm (not installed)" in shell("models").out
    out = " ".join(shell("models", "networks", "hrnet").out.split())
    assert f"It needs timm, which is not installed: {PIP_LINE}" in out
    (one,) = shell("models", "networks", "hrnet", "--json").document["networks"]
    assert not one["is_installed"]
    assert one["missing"].endswith(PIP_LINE)


def test_a_network_without_weights_is_no_model(shell):
    answer = shell("models", "show", "segnet")
    assert answer.status == 1
    assert "segnet is a network without weights; napari-nucleiseg models networks segnet" in answer.err
    answer = shell("models", "networks", "x")
    assert (answer.status, "there is no network called x; there are" in answer.err) == (1, True)


@pytest.mark.parametrize("entry", network_entries(), ids=lambda entry: entry.spec.name)
def test_the_line_that_trains_it_is_understood(entry):
    words = shlex.split(entry.command.replace("UM", "0.25").replace("Y,X,H,W", "0,0,64,64"))[1:]
    options = cli._parser(words).parse_args(words)
    assert options.command in {"train", "pretrain", "cluster"}

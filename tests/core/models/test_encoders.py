"""Encoders are found by name or file, their weights load strictly, and other packages plug theirs in."""

import re
import sys
import types

import pytest
import torch
from safetensors.torch import load_file, save_file

from napari_nucleiseg.core.errors import LicenceNotAcceptedError, ModelError, WeightsError
from napari_nucleiseg.core.models import encoders, weights
from napari_nucleiseg.core.models.encoders import (
    EncoderSpec,
    available_encoders,
    build_encoder,
    encoder_names,
    load_encoder,
    own_encoders_folder,
    register_encoder,
)
from napari_nucleiseg.core.models.registry import build_network, network_spec
from napari_nucleiseg.core.models.vit import VisionTransformer
from napari_nucleiseg.core.models.weights import CARD_KEY, ModelCard, save_model

SMALL = {"embed": 12, "depth": 2, "heads": 3, "patch_px": 8, "input_px": 32, "grid": 3}


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    for module in (weights, encoders):
        monkeypatch.setattr(module, "user_folder", lambda: tmp_path / "home")
    monkeypatch.setattr("napari_nucleiseg.core.models.encoders.SHIPPED_FOLDER", tmp_path / "none")
    own_encoders_folder().mkdir(parents=True)
    return tmp_path / "home"


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch):
    """What a test registers is gone after it."""
    encoder_names()
    monkeypatch.setattr(encoders, "_registry", dict(encoders._registry))
    yield
    encoders._fill.cache_clear()


def kept(path, **card):
    torch.manual_seed(1)
    spec, network = build_encoder("hipt-256", SMALL)
    facts = {"name": path.stem, "network": "", "licence": "CC0-1.0", "commercial_use": True}
    return network.eval(), save_model(path, network, spec, ModelCard(**{**facts, **card}), half=False)


def test_an_encoder_is_loaded_by_name_and_by_file():
    path = own_encoders_folder() / "ours.safetensors"
    network, card = kept(path)
    x = torch.randn(1, 3, 32, 32)
    for name in ("ours", str(path), path):
        loaded = load_encoder(name)
        assert loaded.version == card.version == f"ours@{card.sha256[:12]}"
        assert loaded.spec.params == SMALL
        assert (loaded.spec.embed, loaded.spec.side) == (12, 4)
        assert not loaded.network.training
        assert torch.equal(loaded.network(x), network(x))
        assert torch.allclose(loaded.encoder.attend(x).features, network(x), atol=1e-6)
    assert [one.name for one in available_encoders()] == ["ours"]


def test_a_file_called_otherwise_is_found_by_the_name_on_its_card():
    kept(own_encoders_folder() / "best.safetensors", name="ours")
    assert load_encoder("ours").card.sha256 == load_encoder("best").card.sha256


def test_restricted_weights_are_asked_for_first():
    _, card = kept(own_encoders_folder() / "theirs.safetensors", licence="CC-BY-NC-4.0", commercial_use=False)
    with pytest.raises(LicenceNotAcceptedError, match=re.escape("theirs are under CC-BY-NC-4.0")):
        load_encoder("theirs")
    assert load_encoder("theirs", accept_licence=True).version == card.version
    weights.remember_acceptance(card)
    assert load_encoder("theirs").version == card.version


def test_a_model_that_finds_nuclei_is_no_encoder(tmp_path):
    spec = network_spec("nuclei", {"width": 8, "depth": 2, "widest": 16})
    card = ModelCard("mine", "nuclei", commercial_use=True)
    save_model(tmp_path / "mine.safetensors", build_network(spec), spec, card)
    with pytest.raises(
        ModelError, match="holds weights of nuclei, which is no encoder; there are hipt-256, hipt-4k, timm"
    ):
        load_encoder(tmp_path / "mine.safetensors")


def test_unknown_names_are_answered_with_those_there_are(tmp_path):
    kept(own_encoders_folder() / "ours.safetensors")
    with pytest.raises(ModelError, match=r"no model called hipt; there are ours"):
        load_encoder("hipt")
    with pytest.raises(ModelError, match=r"no encoder called hipt; there are hipt-256, hipt-4k, timm"):
        build_encoder("hipt")
    with pytest.raises(WeightsError, match="there is no weight file"):
        load_encoder(tmp_path / "nothing.safetensors")


def test_damaged_files_are_refused_and_not_listed():
    path = own_encoders_folder() / "ours.safetensors"
    kept(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(WeightsError, match="not a readable weight file"):
        load_encoder("ours")
    assert available_encoders() == ()
    torch.save({}, path)
    with pytest.raises(WeightsError, match="could run foreign code"):
        load_encoder("ours")


@pytest.mark.parametrize("change", ["missing", "foreign", "cropped"])
def test_tensors_that_do_not_fit_exactly_are_refused(tmp_path, change):
    kept(tmp_path / "ours.safetensors")
    from safetensors import safe_open

    with safe_open(str(tmp_path / "ours.safetensors"), framework="numpy") as file:
        card = file.metadata()[CARD_KEY]
    tensors = load_file(tmp_path / "ours.safetensors")
    if change == "missing":
        del tensors["norm.bias"]
    elif change == "foreign":
        tensors["head.weight"] = torch.zeros(3)
    else:
        tensors["pos_embed"] = tensors["pos_embed"][:, :5].contiguous()
    save_file(tensors, tmp_path / "ours.safetensors", {CARD_KEY: card})
    with pytest.raises(WeightsError, match="does not fit the network hipt-256"):
        load_encoder(tmp_path / "ours.safetensors")


class Entry:
    """An entry point of another package, whose module registers when it is imported."""

    def __init__(self, name, module):
        self.name, self.module = name, module

    def load(self):
        def build(*, embed=6):
            spec = EncoderSpec(self.name, "of others", "patch", embed, 1, 2, 0.5, input_px=16, patch_px=8)
            return spec, VisionTransformer(embed=embed, depth=1, heads=2, patch_px=8, grid=2)

        build.__module__ = self.module
        register_encoder(self.name)(build)
        return sys.modules.setdefault(self.module, types.ModuleType(self.module))


@pytest.fixture
def plugged(monkeypatch):
    """Install packages of others: (name, module) each."""

    def install(*entries):
        found = [Entry(*entry) for entry in entries]
        monkeypatch.setattr(
            encoders, "entry_points", lambda *, group: found if group == "napari_nucleiseg.encoders" else []
        )
        for _, module in entries:
            monkeypatch.setitem(sys.modules, module, types.ModuleType(module))
        encoders._fill.cache_clear()

    return install


def test_an_encoder_of_another_package_is_found_built_and_loaded(plugged, tmp_path):
    plugged(("foreign-vit", "their_package"))
    assert "foreign-vit" in encoder_names()
    spec, network = build_encoder("foreign-vit", {"embed": 8})
    assert (spec.embed, spec.params) == (8, {"embed": 8})
    card = ModelCard("theirs", "", commercial_use=True)
    save_model(tmp_path / "theirs.safetensors", network, spec, card, half=False)
    loaded = load_encoder(tmp_path / "theirs.safetensors")
    assert loaded.card.network == "foreign-vit"
    x = torch.randn(1, 3, 16, 16)
    assert torch.equal(loaded.network(x), network.eval()(x))


@pytest.mark.parametrize("entries", [[("hipt-256", "theirs_a")], [("vit", "theirs_a"), ("vit", "theirs_b")]])
def test_two_packages_with_one_name_are_told_apart_by_a_sentence(plugged, entries):
    plugged(*entries)
    for _ in range(2):  # it is said as long as both are installed
        with pytest.raises(
            ModelError, match=f"two packages register an encoder called {entries[0][0]}; rename or uninst"
        ):
            encoder_names()


def test_parameters_that_an_encoder_does_not_take_are_said():
    with pytest.raises(ModelError, match=r"hipt-256 cannot be built with \{'width': 3\}"):
        build_encoder("hipt-256", {"width": 3})

"""Weight files: written whole, read without unpickling, refused with a sentence when they do not fit."""

import json
import pickle
import re
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load, save_file

from napari_nucleiseg.core.errors import LicenceNotAcceptedError, ModelError, WeightsError
from napari_nucleiseg.core.models import weights
from napari_nucleiseg.core.models.registry import build_network, network_spec
from napari_nucleiseg.core.models.weights import ModelCard, load_model, read_card, save_model

SPEC = network_spec("nuclei", {"width": 8, "depth": 2, "widest": 16})


@pytest.fixture
def user_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(weights, "user_folder", lambda: tmp_path / "user")
    return tmp_path / "user"


def make(path, **card):
    torch.manual_seed(1)
    network = build_network(SPEC)
    defaults = {"name": "mine", "network": "nuclei", "licence": "CC0-1.0", "commercial_use": True}
    return network, save_model(path, network, SPEC, ModelCard(**{**defaults, **card}))


@pytest.mark.usefixtures("user_folder")
def test_saved_model_comes_back_the_same(tmp_path):
    network, card = make(tmp_path / "mine.safetensors")
    loaded = load_model(str(tmp_path / "mine.safetensors"))
    assert loaded.spec == SPEC
    assert loaded.version == card.version == f"mine@{card.sha256[:12]}"
    for key, value in loaded.network.state_dict().items():
        assert torch.allclose(value.float(), network.state_dict()[key].float(), atol=2e-3, rtol=1e-3), key
    assert not loaded.network.training


def test_version_changes_with_the_weights(tmp_path):
    network, first = make(tmp_path / "a.safetensors")
    with torch.no_grad():
        next(network.parameters()).add_(0.1)
    second = save_model(tmp_path / "b.safetensors", network, SPEC, ModelCard(name="mine", network="nuclei"))
    assert first.version != second.version


def test_users_models_are_found_by_name(user_folder):
    (user_folder / "models").mkdir(parents=True)
    make(user_folder / "models" / "mine.safetensors")
    assert load_model("mine").card.name == "mine"
    assert "mine" in [card.name for card in weights.available_models()]


def test_a_file_called_otherwise_than_its_model_is_found_by_the_name_it_is_listed_by(user_folder):
    (user_folder / "models").mkdir(parents=True)
    make(user_folder / "models" / "best.safetensors")
    assert "mine" in [card.name for card in weights.available_models()]
    assert load_model("mine").card.sha256 == load_model("best").card.sha256


@pytest.mark.usefixtures("user_folder")
def test_non_commercial_weights_are_asked_for_first(tmp_path):
    path = str(tmp_path / "research.safetensors")
    make(path, name="research", licence="CC-BY-NC-SA-4.0", commercial_use=False)
    with pytest.raises(LicenceNotAcceptedError, match=re.escape("CC-BY-NC-SA-4.0")):
        load_model(path)
    assert load_model(path, accept_licence=True).card.name == "research"
    weights.remember_acceptance(read_card(path))
    assert load_model(path).card.name == "research"
    # Another licence under the same name is asked for again.
    assert not weights.licence_accepted(ModelCard(name="research", network="nuclei", licence="other"))


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("the pickle was executed",))


@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_pickles_are_refused_and_never_run(tmp_path, how):
    path = tmp_path / "evil.safetensors"
    if how == "torch":
        torch.save({"a": Bomb()}, path)
    else:
        path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(WeightsError, match="foreign code"):
        load_model(str(path))


@pytest.mark.parametrize("start", [b"\x80", b"PK"])
def test_a_header_as_long_as_a_pickles_mark_is_no_pickle(tmp_path, start):
    path = tmp_path / "mine.safetensors"
    _, card = make(path)
    former = path.read_bytes()
    tried = ((letters, weights.with_card(former, replace(card, notes="x" * letters))) for letters in range(40_000))
    letters, content = next(one for one in tried if one[1].startswith(start))
    path.write_bytes(content)
    assert read_card(path).notes == "x" * letters


def test_another_card_leaves_the_tensors_as_they_are(tmp_path):
    path = tmp_path / "mine.safetensors"
    _, card = make(path)
    former, tensors = path.read_bytes(), load(path.read_bytes())
    for title in ("", "a", "ähnlich", '“\\"\n', "x" * 999):
        path.write_bytes(weights.with_card(former, replace(card, title=title)))
        assert read_card(path) == replace(card, title=title)
        assert all(torch.equal(value, tensors[key]) for key, value in load(path.read_bytes()).items())


@pytest.mark.parametrize("field", ["metrics", "taught", "params"])
def test_a_card_with_odd_fields_is_damaged(field):
    with pytest.raises(WeightsError, match="is damaged"):
        weights.card_from_json(json.dumps({"name": "a", "network": "b", field: 3}))


def test_foreign_tensors_are_counted_in_the_message(tmp_path):
    path = tmp_path / "foreign.safetensors"
    card = {"name": "foreign", "network": "nuclei", "commercial_use": True}
    save_file({"conv.weight": torch.zeros(3)}, path, {"card": json.dumps(card)})
    with pytest.raises(WeightsError, match="1 are foreign"):
        load_model(str(path))


def test_file_without_a_card_is_refused(tmp_path):
    path = tmp_path / "bare.safetensors"
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(WeightsError, match="no card"):
        load_model(str(path))


@pytest.mark.parametrize("content", [b"", b"hello", b"\xff" * 64])
def test_damaged_files_are_refused(tmp_path, content):
    path = tmp_path / "damaged.safetensors"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="not a readable weight file"):
        load_model(str(path))


@pytest.mark.usefixtures("user_folder")
def test_missing_file_and_unknown_name(tmp_path):
    with pytest.raises(WeightsError, match="there is no weight file"):
        load_model(str(tmp_path / "nothing.safetensors"))
    with pytest.raises(ModelError, match="there is no model called nothing"):
        load_model("nothing")


def test_interrupted_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "mine.safetensors"
    make(path)
    before = path.read_bytes()

    def full(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(weights.os, "replace", full)
    with pytest.raises(WeightsError, match="No space left"):
        make(path, name="other")
    assert path.read_bytes() == before

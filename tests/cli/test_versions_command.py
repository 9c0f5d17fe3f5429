"""``models`` from the shell: the tree of versions, and what is done to one."""

from dataclasses import replace

import pytest
import torch

from napari_nucleiseg.core.models.registry import build_network, network_spec
from napari_nucleiseg.core.models.weights import ModelCard, load_model, save_model
from napari_nucleiseg.core.teaching import versions

SPEC = network_spec("nuclei", {"width": 8, "depth": 1, "widest": 8})
SCORES = {"before": {"aji": 0.5, "pq": 0.4}, "held out": {"aji": 0.61, "pq": 0.52}}


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The user's folder: one model, one taught from it, and one refused."""
    folder = tmp_path / "home"
    monkeypatch.setattr("platformdirs.user_data_dir", lambda *_a, **_k: str(folder))
    (folder / "models" / "refused").mkdir(parents=True)
    torch.manual_seed(0)
    network = build_network(SPEC)
    card = ModelCard("tiny", "nuclei", title="Tiny", licence="CC0-1.0", commercial_use=True)
    first = save_model(folder / "models" / "tiny.safetensors", network, SPEC, card)
    taught = replace(card, parent=first.version, taught={"family": "tiny"})
    for where, name, adopted in (("models", "tiny-2", True), ("models/refused", "tiny-3", False)):
        metrics = {**SCORES, "adopted": adopted, "reason": "Too few nuclei."}
        save_model(folder / where / f"{name}.safetensors", network, SPEC, replace(taught, name=name, metrics=metrics))
    return folder


@pytest.mark.usefixtures("home")
def test_the_tree_is_shown_with_what_teaching_gained(shell):
    versions.prefer(versions.find_version("tiny-2"))
    lines = [line for line in shell("models", "tree").out.splitlines() if "tiny" in line]
    assert ["  tiny-2 " in lines[1], "0.500 → 0.610" in lines[1], "opens by default" in lines[1]] == [True] * 3
    assert ["  tiny-3 " in lines[2], "refused" in lines[2]] == [True] * 2
    told = {one["name"]: one for one in shell("models", "tree", "--json").document["versions"]}
    assert [(told[name]["depth"], told[name]["kind"]) for name in ("tiny", "tiny-2", "tiny-3")] == [
        (0, "own"), (1, "taught"), (1, "refused"),
    ]  # fmt: skip
    assert (told["tiny-2"]["preferred"], told["tiny-3"]["reason"]) == (True, "Too few nuclei.")


@pytest.mark.usefixtures("home")
def test_a_refused_one_is_shown_but_not_among_those_that_can_be_used(shell):
    assert "tiny-3" not in shell("models").out
    assert "Too few nuclei." in shell("models", "show", "tiny-3").out
    answer = shell("models", "take", "tiny-3")
    assert (answer.status, "The guard had refused it: Too few nuclei." in answer.err) == (0, True)
    assert load_model("tiny-3").card.metrics["adopted"] is False
    assert "refused, taken anyway" in shell("models", "tree").out


def test_rename_export_prefer_and_delete(shell, home, tmp_path):
    assert shell("models", "rename", "tiny-2", "Liver, Monday").status == 0
    assert shell("models", "show", "tiny-2", "--json").document["title"] == "Liver, Monday"
    answer = shell("models", "export", "tiny-2", tmp_path / "out", "--json")
    assert answer.document["file"] == str(tmp_path / "out.safetensors")
    assert load_model(answer.document["file"]).card.title == "Liver, Monday"
    assert shell("models", "export", "tiny-2", tmp_path / "out").status == 1
    assert shell("models", "prefer", "tiny-2").status == 0
    assert versions.preferred("tiny").name == "tiny-2"
    answer = shell("models", "delete", "tiny")
    assert "Taught from it, and still there: tiny-2, tiny-3." in answer.err
    assert not (home / "models" / "tiny.safetensors").exists()
    assert "which is no longer there" in " ".join(shell("models", "tree").out.split())


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("rename", "tiny"), "write: napari-nucleiseg models rename tiny TITLE"),
        (("export", "tiny"), "write: napari-nucleiseg models export tiny FILE"),
        (("delete", "tiny", "tiny-2"), "write: napari-nucleiseg models delete tiny"),
        (("delete",), "say which model to delete; there are nuclei"),
        (("delete", "nuclei"), "nuclei comes with the program and cannot be deleted."),
        (("prefer", "tiny-3"), "The guard refused tiny-3: Too few nuclei. Take it anyway first."),
        (("take", "tiny"), "the guard did not refuse it"),
        (("prefer", "x"), "there is no model called x; there are nuclei"),
    ],
)
def test_what_cannot_be_done_is_said(shell, words, sentence):
    answer = shell("models", *words)
    assert (answer.status, sentence in answer.err) == (1, True), answer.err

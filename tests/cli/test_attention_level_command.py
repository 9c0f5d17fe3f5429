"""``--attention-level`` of ``segment`` and ``finetune``: the slide's level unless the model's own is asked for."""

import pytest

from dark_attention import dark_attention, keep
from napari_nucleiseg.core.models.weights import load_model
from napari_nucleiseg.core.slides.registry import open_slide
from napari_nucleiseg.core.store.project import Project
from napari_nucleiseg.core.store.regions import HOLD_OUT, TEACH, AnnotatedRegion, put_region
from napari_nucleiseg.core.training.scales.slide_level import model_for_slide
from unlabelled_parts import tissue_picture, write_slide


@pytest.fixture
def model(tmp_path, monkeypatch):
    monkeypatch.setattr("platformdirs.user_data_dir", lambda *_a, **_k: str(tmp_path / "home"))
    made = dark_attention()
    keep(made)
    return made


@pytest.fixture
def picture(tmp_path):
    return write_slide(tmp_path / "a.tif", tissue_picture(1, 400))


def versions(folder):
    with Project.open(folder, writable=False) as project:
        return [row[0] for row in project.ledger.reader.execute("SELECT model_version FROM runs")]


def test_the_level_of_the_slide_is_the_default(shell, picture, model, tmp_path):
    answer = shell("segment", picture, "--out", tmp_path / "out", "--model", "look", "--format", "csv", "--json")
    assert answer.status == 0
    assert answer.document["slides"][0]["nuclei"] > 20
    assert versions(tmp_path / "out" / "a.nucleiseg") == [model_for_slide(model, open_slide(picture)).version]


def test_the_models_own_level_is_used_if_asked_for(shell, picture, model, tmp_path):
    words = ("--model", "look", "--format", "csv", "--attention-level", "model", "--json")
    answer = shell("segment", picture, "--out", tmp_path / "out", *words)
    assert answer.document["slides"][0]["nuclei"] == 0
    assert versions(tmp_path / "out" / "a.nucleiseg") == [model.version]


def test_a_level_that_was_set_from_the_command_line_is_kept(shell, picture, model, tmp_path):
    file = tmp_path / "set.safetensors"
    words = ("--model", "look", "--share", "0.9", "--out", file, "--json")
    assert shell("pretrain", "scale-attention-tau", picture, *words).status == 0
    explicit = load_model(str(file))
    assert explicit.card.level_is_set
    answer = shell("segment", picture, "--out", tmp_path / "out", "--model", file, "--format", "csv", "--json")
    assert answer.status == 0
    assert versions(tmp_path / "out" / "a.nucleiseg") == [explicit.version]


def test_a_level_that_there_is_not_is_status_two(shell, picture, tmp_path):
    answer = shell("segment", picture, "--out", tmp_path, "--attention-level", "otsu")
    assert answer.status == 2
    assert "choose from" in answer.err


def test_it_is_taught_at_the_level_people_have_seen(shell, picture, model, tmp_path):
    out = tmp_path / "out"
    shell("segment", picture, "--out", tmp_path, "--model", "look", "--format", "csv")
    (version,) = versions(tmp_path / "a.nucleiseg")
    with Project.open(tmp_path / "a.nucleiseg") as project:
        for role, x in ((TEACH, 0), (HOLD_OUT, 200)):
            corners = ((0.0, x), (0.0, x + 200.0), (400.0, x + 200.0), (400.0, x))
            put_region(project, AnnotatedRegion(0, "", role, corners, done=True))
    quick = ("--steps", 1, "--validate-every", 1, "--crop-px", 64, "--batch-size", 1, "--threads", 1, "--device", "cpu")
    words = ("--model", "look", "--trust-labels", "--no-prefer", "--json")
    taught = shell("finetune", tmp_path / "a.nucleiseg", *quick, *words).document
    new = load_model(taught["weights"], accept_licence=True)
    assert version.endswith(f"+level{float(new.network.tau):.3f}")
    assert (new.card.parent, taught["former"]) == (model.version, model.version)
    # At its own level it would have found none of the nuclei that its outlines became labels of.
    assert taught["before"]["aji"] > 0.5
    assert new.card.level_is_set
    shell("segment", picture, "--out", out, "--model", taught["weights"], "--format", "csv")
    assert versions(out / "a.nucleiseg") == [new.version]


def test_the_level_is_never_written_over_the_model_it_is_of(shell, picture, model, tmp_path):
    mine = tmp_path / "mine.safetensors"
    assert shell("pretrain", "scale-attention-tau", picture, "--model", "look", "--out", mine).status == 0
    before = mine.read_bytes()
    answer = shell("pretrain", "scale-attention-tau", picture, "--model", mine, "--out", mine, "--share", "0.9")
    assert answer.status == 1
    assert "is what is read here and would be lost" in answer.err
    assert mine.read_bytes() == before

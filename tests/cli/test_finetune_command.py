"""``finetune`` from the shell: from slides to a new version, or to the reason why the former one stays."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch

from dark_model import disc_picture
from napari_nucleiseg.core.errors import ModelError, WeightsError
from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.models.registry import build_network, network_spec
from napari_nucleiseg.core.models.weights import ModelCard, load_model, save_model
from napari_nucleiseg.core.store.attention import LOOK_HERE, paint_attention
from napari_nucleiseg.core.store.project import Project
from napari_nucleiseg.core.store.regions import (
    HOLD_OUT,
    TEACH,
    AnnotatedRegion,
    put_region,
    read_regions,
    remove_region,
)
from napari_nucleiseg.core.teaching import notebook, versions
from napari_nucleiseg.core.teaching.learner import Learner

SPEC = network_spec("nuclei", {"width": 8, "depth": 1, "widest": 8})
CARD = ModelCard("tiny", "nuclei", title="Tiny", licence="CC0-1.0", commercial_use=True)
QUICK = (
    "--steps", 2, "--validate-every", 1, "--crop-px", 64, "--batch-size", 1, "--threads", 1, "--device", "cpu",
    "--trust-labels",
)  # fmt: skip


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The user's folder with a tiny model."""
    folder = tmp_path / "home"
    monkeypatch.setattr("platformdirs.user_data_dir", lambda *_a, **_k: str(folder))
    (folder / "models").mkdir(parents=True)
    torch.manual_seed(0)
    save_model(folder / "models" / "tiny.safetensors", build_network(SPEC), SPEC, CARD)
    return folder


def annotate(folder):
    """Draw a region to learn from and one to be judged by, both done."""
    with Project.open(folder) as project:
        for role, x in ((TEACH, 0), (HOLD_OUT, 192)):
            corners = ((0.0, x), (0.0, x + 160.0), (160.0, x + 160.0), (160.0, x))
            put_region(project, AnnotatedRegion(0, "", role, corners, done=True))


@pytest.fixture
def projects(home, tmp_path, monkeypatch, shell, _dark_model):
    """Two slides, each segmented and annotated."""
    folders = []
    for name, height in (("a", 224), ("b", 256)):
        facts = f"Aperio Image Library v1\r\n384x{height} |AppMag = 20|MPP = 0.5"
        image, path = disc_picture((height, 384)), tmp_path / "slides" / f"{name}.svs"
        path.parent.mkdir(exist_ok=True)
        tifffile.imwrite(
            path, image, tile=(128, 128), photometric="rgb", compression="zlib", description=facts, metadata=None
        )
        assert shell("segment", path, "--out", path.parent, "--no-tissue-mask").status == 0
        folders.append(path.with_suffix(".nucleiseg"))
        annotate(folders[-1])
    return folders


def adopt(monkeypatch):
    """The guard lets everything through."""
    monkeypatch.setattr("napari_nucleiseg.core.teaching.classroom.verdict", lambda *_args: (True, "Better."))


def test_two_projects_teach_one_model(shell, projects, home, monkeypatch):
    adopt(monkeypatch)
    before = (home / "models" / "tiny.safetensors").read_bytes()
    answer = shell("finetune", *projects, "--model", "tiny", "--title", "Both slides", "--json", *QUICK)
    assert answer.status == 0, answer.err
    told = answer.document
    assert (told["adopted"], told["reason"], told["name"], told["title"]) == (True, "Better.", "tiny-2", "Both slides")
    assert told["gain"].keys() >= {"aji", "pq", "low", "high"}
    assert told["before"]["regions"] == told["after"]["regions"] == 2
    assert told["seconds"] > 0
    loaded = load_model("tiny-2")
    assert loaded.card.version == told["version"]
    assert loaded.card.parent == told["former"]
    assert [slide["name"] for slide in loaded.card.taught["slides"]] == ["a.svs", "b.svs"]
    assert loaded.card.taught["settings"]["steps"] == 2
    assert (home / "models" / "tiny.safetensors").read_bytes() == before
    assert versions.preferred("tiny").name == "tiny-2"
    assert "before: AJI " in answer.err
    assert "step    2 of 2, with your regions: loss " in answer.err
    assert "tiny-2 opens by default from now on. To go back: napari-nucleiseg models prefer tiny" in answer.err
    assert list((home / "teaching").iterdir()) == []


def test_a_refusal_has_a_status_of_its_own_and_keeps_the_new_model_apart(shell, projects, home):
    answer = shell("finetune", projects[0], "--model", "tiny", *QUICK)
    assert answer.status == 3
    assert answer.out.startswith("Refused. ")
    assert "to use it all the same: napari-nucleiseg models take tiny-2" in " ".join(answer.out.split())
    assert [path.name for path in (home / "models" / "refused").iterdir()] == ["tiny-2.safetensors"]
    assert versions.preferred("tiny") is None
    with pytest.raises(ModelError, match="there is no model called tiny-2"):
        load_model("tiny-2")


def test_a_refusal_is_overridden_on_request(shell, projects, home):
    words = ("finetune", projects[0], "--model", "tiny", "--take-anyway", "--no-prefer", "--json", "--name", "mine")
    answer = shell(*words, *QUICK)
    assert answer.status == 0
    assert (answer.document["adopted"], answer.document["taken_anyway"]) == (False, True)
    assert load_model("mine").card.metrics["adopted"] is False
    assert versions.preferred("tiny") is None
    again = shell(*words, *QUICK)
    assert again.status == 1
    assert "there is a model called mine already" in again.err


def test_a_project_may_be_named_by_its_slide_or_lie_elsewhere(shell, projects, tmp_path):
    slide = projects[0].with_suffix(".svs")
    assert shell("finetune", slide, projects[0], "--model", "tiny", *QUICK).status == 3
    moved = tmp_path / "elsewhere" / "a.nucleiseg"
    moved.parent.mkdir()
    projects[0].rename(moved)
    answer = shell("finetune", moved, "--model", "tiny", *QUICK)
    assert answer.status == 1
    assert "The slide a.svs of " in answer.err
    assert "Say where it is with --slide PATH." in answer.err
    renamed = slide.rename(slide.with_name("renamed.svs"))
    assert shell("finetune", moved, "--slide", renamed, "--model", "tiny", *QUICK).status == 3
    other = projects[1].with_suffix(".svs")
    answer = shell("finetune", moved, "--slide", renamed, "--slide", other, "--model", "tiny", *QUICK)
    assert f"{other} belongs to none of these projects" in answer.err


def test_a_renamed_slide_beside_its_project_is_found(shell, projects):
    slide = projects[0].with_suffix(".svs")
    slide.rename(slide.with_name("renamed.svs"))
    assert shell("finetune", projects[0], "--model", "tiny", *QUICK).status == 3


def test_a_slide_is_found_where_it_was_segmented(shell, projects, tmp_path):
    out = tmp_path / "results"
    assert shell("segment", projects[0].with_suffix(".svs"), "--out", out, "--no-tissue-mask").status == 0
    annotate(out / "a.nucleiseg")
    assert shell("finetune", out / "a.nucleiseg", "--model", "tiny", *QUICK).status == 3


def test_a_project_that_somebody_works_on_is_only_looked_at(shell, projects):
    with Project.open(projects[0]) as project:
        before = project.ledger.reader.execute("SELECT count(*) FROM edits").fetchone()
        assert shell("finetune", projects[0], "--model", "tiny", *QUICK).status == 3
        assert project.ledger.reader.execute("SELECT count(*) FROM edits").fetchone() == before


def test_settings_come_from_a_file_and_flags_override_it(shell, projects, tmp_path):
    file = tmp_path / "config.json"
    file.write_text(json.dumps({"steps": 50, "seed": 7}))
    answer = shell("finetune", projects[0], "--model", "tiny", "--config", file, "--json", *QUICK)
    settings = versions.find_version(answer.document["name"]).card.taught["settings"]
    assert (settings["steps"], settings["seed"]) == (2, 7)
    file.write_text('{"paces": 3}')
    answer = shell("finetune", projects[0], "--config", file)
    assert answer.status == 1
    assert "does not describe a fine-tune: it has unknown fields: paces" in answer.err
    answer = shell("finetune", projects[0], "--model", "tiny", *QUICK, "--folds", 1)
    assert (answer.status, "folds must be between 2 and 20, not 1" in answer.err) == (1, True)


def test_a_licence_is_asked_for_and_inherited(shell, projects, home):
    card = replace(CARD, name="study", licence="CC-BY-NC-4.0", commercial_use=False)
    save_model(home / "models" / "study.safetensors", build_network(SPEC), SPEC, card)
    words = ("finetune", projects[0], "--model", "study", "--json", *QUICK)
    answer = shell(*words)
    assert (answer.status, answer.document["kind"]) == (1, "LicenceNotAcceptedError")
    assert shell(*words, "--accept-licence").document["licence"] == "CC-BY-NC-4.0"


def test_what_there_is_too_little_of_is_said(shell, projects):
    with Project.open(projects[0]) as project:
        for region in read_regions(project.ledger.reader):
            remove_region(project, region)
    answer = shell("finetune", projects[0], "--model", "tiny", *QUICK)
    assert answer.status == 1
    assert "no corrected nuclei to learn from" in answer.err
    answer = shell("finetune", projects[0].with_name("none.nucleiseg"), "--model", "tiny")
    assert "does not exist. Check the name." in answer.err


def test_an_interruption_leaves_the_former_model(shell, projects, home, monkeypatch):
    step, before = Learner.step, (home / "models" / "tiny.safetensors").read_bytes()

    def interrupted(self, *words):
        if words[-1] == 2:
            raise KeyboardInterrupt
        return step(self, *words)

    monkeypatch.setattr(Learner, "step", interrupted)
    answer = shell("finetune", projects[0], "--model", "tiny", *QUICK)
    assert answer.status == 130
    assert "Stopped. tiny stays as it was." in answer.err
    assert (home / "models" / "tiny.safetensors").read_bytes() == before
    assert [path.name for path in (home / "models").iterdir()] == ["tiny.safetensors"]


def test_where_the_new_model_cannot_be_kept_the_same_command_need_not_teach_again(shell, projects, monkeypatch):
    def full(*_args, **_options):
        raise WeightsError("The disk is full.")

    with monkeypatch.context() as patch:
        patch.setattr(versions, "keep", full)
        answer = shell("finetune", projects[0], "--model", "tiny", *QUICK)
        assert (answer.status, "The disk is full." in answer.err) == (1, True)
    monkeypatch.setattr(Learner, "step", full)
    assert shell("finetune", projects[0], "--model", "tiny", *QUICK).status == 3


# A process that is killed once its first notes are on the disk.
SLOW_PROGRAM = """
import sys, time
import platformdirs, torch
home = sys.argv.pop(1)
platformdirs.user_data_dir = lambda *_a, **_k: home
torch.set_num_threads(1)
from napari_nucleiseg.core.teaching import notebook
from napari_nucleiseg.core.teaching.learner import Learner
notebook.EVERY_SECONDS = 0.0
step = Learner.step
def slow(self, *words):
    if words[-1] == 3:
        print("two steps are noted", file=sys.stderr, flush=True)
        time.sleep(600)
    return step(self, *words)
Learner.step = slow
from napari_nucleiseg.cli import main
sys.exit(main())
"""


@pytest.mark.skipif(os.name == "nt", reason="signals are sent as POSIX does")
def test_killed_the_same_command_goes_on(shell, projects, home, monkeypatch):
    words = ["finetune", projects[0], "--model", "tiny", *QUICK, "--steps", 4]
    program = [sys.executable, "-c", SLOW_PROGRAM, home, *words]
    with subprocess.Popen([str(word) for word in program], stderr=subprocess.PIPE, text=True) as process:
        end = time.monotonic() + 120
        said = []
        while "two steps are noted\n" not in said:
            assert time.monotonic() < end
            assert process.poll() is None
            said.append(process.stderr.readline())
        assert any("step    2 of 4" in line for line in said)
        process.send_signal(signal.SIGKILL)
    (notes,) = (home / "teaching").iterdir()
    assert (notes / notebook.FILE).exists()
    assert [path.name for path in Path(home / "models").iterdir()] == ["tiny.safetensors"]
    answer = shell(*words)
    assert answer.status == 3
    assert [line.split()[1] for line in answer.err.splitlines() if line.startswith("step ")] == ["3", "4"]
    assert not notes.exists()


def test_painted_attention_alone_is_taught_and_the_guard_keeps_the_former_model(shell, projects, home):
    look = network_spec("scale-attention-fast", {"width": 4})
    card = ModelCard("look", look.name, dict(look.params), licence="CC0-1.0", commercial_use=True)
    save_model(home / "models" / "look.safetensors", build_network(look), look, card)
    folder = projects[0]
    with Project.open(folder) as project:
        for region in read_regions(project.ledger.reader):
            remove_region(project, region)
        place = Region(100, 100, 30, 40)
        paint_attention(project, place, np.full((30, 40), LOOK_HERE, np.uint8))
    answer = shell("finetune", folder, "--model", "look", "--attention", 2, "--json", *QUICK[:-1])
    assert answer.status == 3, answer.err
    assert "no corrected nuclei to judge by" in answer.document["reason"]
    new = load_model(answer.document["weights"])
    assert new.card.training_data[-1] == "0 corrected nuclei and painted attention of a.svs"
    former = load_model("look").network.state_dict()
    assert any(not torch.equal(value, former[key]) for key, value in new.network.state_dict().items())
    # A model that does not say where it looks has nothing to learn from it.
    answer = shell("finetune", folder, "--model", "tiny", *QUICK)
    assert answer.status not in {0, 3}
    assert "no corrected nuclei" in answer.err

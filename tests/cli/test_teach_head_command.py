"""``teach-head`` from the shell: from painted projects to a new encoder, or to the reason why not."""

import json

import numpy as np
import pytest
import tifffile

from blob_encoder import blobs, encoder
from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.models.encoders import load_encoder, own_encoders_folder
from napari_nucleiseg.core.models.weights import save_model
from napari_nucleiseg.core.slides.registry import open_slide
from napari_nucleiseg.core.store.attention import DO_NOT_LOOK, LOOK_HERE, paint_attention
from napari_nucleiseg.core.store.project import Project

SIDE, PATCH = 1024, 128  # the encoder's pixel size is the slide's
QUICK = (
    "--head", 0, "--steps", 20, "--validate-every", 10, "--device", "cpu", "--threads", 1, "--feature-anchor", 2,
    "--most-change", 0.2,
)  # fmt: skip


@pytest.fixture
def home(tmp_path, monkeypatch):
    """The user's folder with a small encoder."""
    folder = tmp_path / "home"
    monkeypatch.setattr("platformdirs.user_data_dir", lambda *_a, **_k: str(folder))
    own_encoders_folder().mkdir(parents=True)
    loaded = encoder()
    save_model(own_encoders_folder() / "blobs.safetensors", loaded.network, loaded.spec, loaded.card, half=False)
    return folder


@pytest.fixture
def slide_of(tmp_path):
    """Make a slide with its project, and paint every third patch of some rows."""

    def make(name, seed, rows=(0, 3, 6), *, senseless=False):
        image, dark = blobs(seed, SIDE, 200)
        path = tmp_path / "slides" / f"{name}.svs"
        path.parent.mkdir(exist_ok=True)
        facts = f"Aperio Image Library v1\r\n{SIDE}x{SIDE} |AppMag = 20|MPP = 0.5"
        tifffile.imwrite(
            path, image, tile=(128, 128), photometric="rgb", compression="zlib", description=facts, metadata=None
        )
        slide = open_slide(str(path))
        if senseless:
            dark = np.random.default_rng(0).permutation(dark.ravel()).reshape(dark.shape)
        with Project.create(path.with_suffix(".nucleiseg"), slide) as project:
            for row in rows:
                for column in range(0, SIDE // PATCH, 3):
                    box = Region(row * PATCH, column * PATCH, PATCH, PATCH)
                    paint_attention(project, box, np.where(dark[box.slices], LOOK_HERE, DO_NOT_LOOK).astype(np.uint8))
        slide.close()
        return path.with_suffix(".nucleiseg")

    return make


def test_two_painted_slides_teach_one_head(shell, home, slide_of):
    former = (own_encoders_folder() / "blobs.safetensors").read_bytes()
    projects = slide_of("a", 1), slide_of("b", 2, rows=(1,))
    answer = shell("teach-head", *projects, "--encoder", "blobs", "--title", "On blobs", "--json", *QUICK)
    assert answer.status == 0, answer.err
    told = answer.document
    assert (told["adopted"], told["name"], told["title"], told["patches"]) == (True, "blobs-2", "On blobs", 12)
    assert told["after"]["look"] > told["before"]["look"]
    assert told["after"]["auroc"] > 0.55
    assert 0 < told["drift"]["change"] <= 0.2
    loaded = load_encoder("blobs-2")
    assert loaded.card.parent == told["former"]
    assert [slide["name"] for slide in loaded.card.taught["slides"]] == ["a.svs", "b.svs"]
    assert (own_encoders_folder() / "blobs.safetensors").read_bytes() == former
    assert "Judged on all 12 painted places, each by a network that did not learn from it (12 patches)." in answer.err
    assert "before: score 0." in answer.err
    assert "step   20 of 100, part 1 of 4: loss " in answer.err


def test_a_refusal_has_a_status_of_its_own_and_can_be_overridden(shell, home, slide_of):
    project = slide_of("a", 1, senseless=True)
    answer = shell("teach-head", project, "--encoder", "blobs", *QUICK)
    assert answer.status == 3
    assert answer.out.startswith("Refused. ")
    assert "blobs stays. The new one is kept apart as blobs-2" in answer.out
    assert [path.stem for path in (own_encoders_folder() / "refused").iterdir()] == ["blobs-2"]
    answer = shell("teach-head", project, "--encoder", "blobs", "--take-anyway", "--name", "mine", *QUICK)
    assert answer.status == 0
    assert "Taken anyway, as you asked: the new encoder is mine" in answer.out
    assert "To go back, use blobs again." in answer.out
    assert load_encoder("mine").card.metrics["adopted"] is False


def test_a_slide_without_paint_is_left_out_and_none_at_all_is_an_error(shell, home, slide_of):
    answer = shell("teach-head", slide_of("a", 1, rows=()), "--encoder", "blobs", *QUICK)
    assert answer.status == 1
    assert "is left out: nothing is painted on it." in answer.err
    assert "Nothing is painted. Paint where this head should look" in answer.err


def test_the_slide_may_be_named_instead_and_must_be_found(shell, home, slide_of, tmp_path):
    project = slide_of("a", 1)
    words = "--encoder", "blobs", "--json", *QUICK
    answer = shell("teach-head", project.with_suffix(".svs"), *words)
    assert answer.document["patches"] == 9
    away = tmp_path / "away"
    away.mkdir()
    project.with_suffix(".svs").rename(away / "a.svs")
    answer = shell("teach-head", project, *words)
    assert answer.status == 1
    assert "Say where it is with --slide PATH" in answer.err
    assert shell("teach-head", project, "--slide", away / "a.svs", *words).document["patches"] == 9


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--encoder", "blobs"), "say which head is to learn: --head N, counted from 0"),
        (("--encoder", "blobs", "--head", 7), "there is no head 7: each layer of hipt-256 has heads 0 to 1"),
        (("--encoder", "blobs", "--head", 0, "--name", "blobs"), "there is an encoder called blobs already"),
        (("--encoder", "nobody", "--head", 0), "nobody"),
    ],
)
def test_what_makes_no_sense_is_said_before_anything_is_read(shell, home, tmp_path, words, said):
    answer = shell("teach-head", tmp_path / "no.nucleiseg", *words)
    assert answer.status == 1
    assert said in answer.err


def test_an_interrupted_lesson_keeps_nothing(shell, home, slide_of, monkeypatch):
    def interrupted(*_args):
        raise KeyboardInterrupt

    monkeypatch.setattr("napari_nucleiseg.core.teaching.heads.learner.HeadLearner.step", interrupted)
    answer = shell("teach-head", slide_of("a", 1), "--encoder", "blobs", *QUICK)
    assert answer.status == 130
    assert "Stopped. Nothing is kept, and blobs stays as it was." in answer.err
    assert [path.name for path in own_encoders_folder().iterdir()] == ["blobs.safetensors"]


def test_a_file_of_fields_must_name_the_head_too(shell, home, tmp_path):
    file = tmp_path / "fields.json"
    words = ("teach-head", tmp_path / "no.nucleiseg", "--encoder", "blobs", "--config", file)
    file.write_text(json.dumps({"steps": 5}))
    assert "say which head is to learn: --head N" in shell(*words).err
    assert "there is no head 7" in shell(*words, "--head", 7).err
    file.write_text(json.dumps({"head": 7}))
    assert "there is no head 7" in shell(*words).err

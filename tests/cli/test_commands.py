"""``evaluate``, ``models``, ``train`` and ``doctor`` from the shell."""

import json
import subprocess

import cv2
import numpy as np
import pytest
import tifffile

from napari_nucleiseg.cli import diagnosis
from napari_nucleiseg.cli.diagnosis import BAD, GOOD, POOR, Check
from napari_nucleiseg.core.evaluation import evaluate_folders
from napari_nucleiseg.core.models.registry import build_network, network_spec
from napari_nucleiseg.core.models.weights import ModelCard, load_model, read_card, save_model

# ---------------------------------------------------------------------- evaluate


@pytest.fixture
def scored(tmp_path):
    """Folders of true and predicted labels with a known mean: one perfect, one missed."""
    for folder in ("truth", "pred"):
        (tmp_path / folder).mkdir()
    labels = np.zeros((20, 20), np.uint16)
    labels[5:10, 5:10] = 1
    for stem, pred in (("a", labels), ("b", np.zeros_like(labels))):
        tifffile.imwrite(tmp_path / "truth" / f"{stem}.tif", labels)
        np.save(tmp_path / "pred" / f"{stem}.npy", pred)
    return ("evaluate", "--pred", tmp_path / "pred", "--truth", tmp_path / "truth")


def test_scores_are_printed_by_image_and_in_the_mean(shell, scored):
    answer = shell(*scored)
    assert answer.status == 0
    rows = {words[1]: words for words in (line.split() for line in answer.out.splitlines()) if len(words) > 3}
    assert rows["a"][3] == rows["a"][9] == "1.000"
    assert rows["b"][3] == "0.000"
    assert rows["mean"][3] == "0.500"


def test_scores_go_to_stdout_or_a_file_as_json(shell, scored, tmp_path):
    expected = evaluate_folders(scored[2], scored[4]).as_dict()
    assert shell(*scored, "--json").document == expected
    answer = shell(*scored, "--json", tmp_path / "scores.json")
    assert json.loads((tmp_path / "scores.json").read_text()) == expected
    assert "mean" in answer.out


@pytest.mark.parametrize("place", ["truth/a.tif", "pred/b.npy", "truth", "link.json"])
def test_scores_are_not_written_over_label_images(shell, scored, tmp_path, place):
    (tmp_path / "link.json").symlink_to(tmp_path / "truth" / "a.tif")
    before = (tmp_path / "truth" / "a.tif").read_bytes(), (tmp_path / "pred" / "b.npy").read_bytes()
    answer = shell(*scored, "--json", tmp_path / place)
    assert answer.status == 1
    assert f"{tmp_path / place} is what is read here and would be lost. Choose another name" in answer.err
    assert "mean" not in answer.out
    assert before == ((tmp_path / "truth" / "a.tif").read_bytes(), (tmp_path / "pred" / "b.npy").read_bytes())


def test_what_does_not_fit_together_is_said(shell, scored, tmp_path):
    (tmp_path / "pred" / "b.npy").unlink()
    answer = shell(*scored)
    assert answer.status == 1
    assert "holds no prediction for b; each true label image needs one of the same name" in answer.err


# ---------------------------------------------------------------------- models


@pytest.fixture
def research(tmp_path, monkeypatch):
    """Weights in the user's folder that may not be used commercially."""
    home = tmp_path / "home"
    (home / "models").mkdir(parents=True)
    monkeypatch.setattr("platformdirs.user_data_dir", lambda *_a, **_k: str(home))
    spec = network_spec("nuclei")
    card = ModelCard("research", "nuclei", licence="CC-BY-NC-SA-4.0", commercial_use=False, training_data=("x (NC)",))
    return save_model(home / "models" / "research.safetensors", build_network(spec), spec, card)


def test_models_are_listed_with_their_licence(shell, research):
    listed = {model["name"]: model for model in shell("models", "--json").document["models"]}
    assert listed["nuclei"]["commercial_use"]
    assert not listed["research"]["licence_accepted"]
    assert listed["research"]["version"] == research.version
    assert "napari-nucleiseg models accept research" in shell("models").out


@pytest.mark.usefixtures("research")
def test_a_licence_is_accepted_once_for_all(shell):
    answer = shell("models", "accept", "research")
    assert answer.status == 0
    assert "research is under CC-BY-NC-SA-4.0; you have accepted that" in answer.err
    assert load_model("research").card.name == "research"
    assert shell("models", "show", "research", "--json").document["licence_accepted"]


def test_a_card_is_shown(shell):
    out = shell("models", "show", "nuclei").out
    assert "training data" in out
    assert "CC0-1.0" in out


def test_an_unknown_model_is_said(shell):
    assert "there is no model called x; there are nuclei" in shell("models", "show", "x").err
    assert "say which model to accept; there are nuclei" in shell("models", "accept").err


# ---------------------------------------------------------------------- train


@pytest.fixture
def data_set(tmp_path):
    folder = tmp_path / "data"
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    for k in range(2):
        labels = np.zeros((80, 80), np.uint16)
        for n, (y, x) in enumerate(((20, 20), (20, 60), (60, 40)), start=1):
            cv2.circle(labels, (x, y), 8, n, -1)
        image = np.where(labels[..., None] > 0, (70, 50, 120), (220, 180, 210)).astype(np.uint8)
        cv2.imwrite(str(folder / "images" / f"{k}.png"), image[..., ::-1])
        tifffile.imwrite(folder / "labels" / f"{k}.tif", labels)
    return folder


@pytest.mark.slow
def test_a_network_is_trained_and_its_weights_can_be_used(shell, data_set, tmp_path):
    out = tmp_path / "mine"
    words = (
        "train", "--train", f"{data_set},mpp_um=0.5,licence=CC0-1.0", "--validate", f"{data_set},mpp_um=0.5",
        "--out", out, "--crop-px", 64, "--batch-size", 1, "--validate-every", 2, "--threads", 1, "--seed", 3, "--json",
    )  # fmt: skip
    answer = shell(*words, "--steps", 2)
    assert answer.status == 0, answer.err
    assert "step      2 of 2  loss" in answer.err
    assert answer.document["weights"] == str(out / "best.safetensors")
    card = read_card(out / "best.safetensors")
    assert (card.name, card.licence, card.commercial_use) == ("mine", "CC0-1.0", True)
    assert load_model(str(out / "best.safetensors")).spec.name == "nuclei"

    assert "Nothing left to do" in shell(*words, "--steps", 2).err


def test_a_run_that_makes_no_sense_is_said(shell, data_set, tmp_path):
    answer = shell("train", "--out", tmp_path / "run")
    assert (answer.status, answer.err) == (
        1, "Error: name at least one data set to train on (a folder with images/ and labels/)\n"
    )  # fmt: skip
    assert not (tmp_path / "run").exists()
    (tmp_path / "config.json").write_text('{"out": "x", "speed": 3}')
    assert "has unknown fields: speed" in shell("train", "--config", tmp_path / "config.json").err
    assert "cannot be read" in shell("train", "--config", tmp_path / "none.json").err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--device", "abacus"), "there is no device called abacus; choose auto, cuda, mps or cpu"),
        (("--device", "cuda"), "has no cuda; choose auto or cpu"),
        (("--losses", "focal=1"), "network nuclei has no output focal to train: losses can name nuclei, offsets"),
        (("--params", "width=-3"), "network nuclei cannot be built with {'width': -3}"),
        (("--learning-rate", "-1"), "learning_rate must be at least 0, not -1.0"),
        (("--train", "/data/mine,mpp_um=-3"), "-3.0 micrometres per pixel cannot be right for the data set mine"),
        (("--train", "/data/mine,mpp_um=0"), "0.0 micrometres per pixel cannot be right for the data set mine"),
    ],
)
def test_what_a_run_cannot_do_is_said_before_it_starts(shell, data_set, tmp_path, monkeypatch, words, sentence):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    answer = shell("train", "--train", f"{data_set},mpp_um=0.5", "--out", tmp_path / "run", *words)
    assert answer.status == 1
    assert answer.err.startswith("Error: ")
    assert answer.err.count("\n") == 1
    assert sentence in answer.err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("document", "sentence"),
    [
        ([1], "it must be an object"),
        ({"train": [{"mpp_um": 0.5}]}, "train[0] lacks the field path"),
        ({"train": [{"path": "a", "mpp_um": "half"}]}, "train[0].mpp_um must be a number or null, not 'half'"),
        ({"learning_rate": "fast"}, "learning_rate must be a number, not 'fast'"),
    ],
)
def test_a_file_that_describes_no_run_is_said(shell, tmp_path, document, sentence):
    file = tmp_path / "config.json"
    file.write_text(json.dumps(document))
    answer = shell("train", "--config", file, "--out", tmp_path / "run")
    assert answer.status == 1
    assert answer.err.startswith(f"Error: {file} does not describe a training run: {sentence}")


# ---------------------------------------------------------------------- doctor


def test_doctor_finds_everything_that_is_needed(shell):
    document = shell("doctor", "--json").document
    found = {check["name"] for check in document["checks"]}
    assert {"Python", "Packages", "Device", "Slides", "Window", "Models", "Disk", "Data folder"} <= found
    assert not [check for check in document["checks"] if check["status"] == BAD and check["name"] != "Window"]


def test_doctor_says_what_to_fix_and_fails(shell, monkeypatch):
    broken = Check("Window", BAD, "there is no Qt", "pip install 'napari-nucleiseg[pyside6]'")
    monkeypatch.setattr("napari_nucleiseg.cli.doctor.diagnose", lambda: iter([Check("Python", GOOD, "3"), broken]))
    answer = shell("doctor")
    assert answer.status == 1
    assert "pip install 'napari-nucleiseg[pyside6]'" in answer.out
    assert "1 to fix." in answer.out


def said(returncode, out="", err=""):
    return subprocess.CompletedProcess([], returncode, out, err)


@pytest.mark.parametrize(
    ("answer", "status", "words"),
    [
        (said(0, '{"qt": "PySide6 6.9", "platform": "xcb", "opengl": [4, 5]}'), GOOD, "PySide6 6.9 (xcb), OpenGL 4.5"),
        (said(0, '{"qt": "PySide6 6.9", "platform": "xcb", "opengl": null}'), BAD, "no OpenGL"),
        (said(1, err="qtpy.QtBindingsNotFoundError: No Qt bindings could be found"), BAD, "napari-nucleiseg[pyside6]"),
        (said(-6, err="could not load the platform plugin xcb"), BAD, "sudo apt install libxcb-cursor0"),
        (None, BAD, "Qt does not answer"),
    ],
)
def test_every_way_a_window_may_fail_has_its_remedy(answer, status, words):
    check = diagnosis._window_by(answer)
    assert check.status == status
    assert words in f"{check.found} {check.remedy}"


def test_missing_readers_full_disks_and_locked_folders_are_noticed(monkeypatch, tmp_path):
    missing = diagnosis._optional("no_such_reader", "DICOM", "dicom")
    assert (missing.status, missing.remedy) == (POOR, "pip install 'napari-nucleiseg[dicom]'")
    monkeypatch.setattr(diagnosis, "LEAST_FREE_BYTES", 2**80)
    (disk,) = diagnosis._disk()
    assert disk.status == POOR
    monkeypatch.setattr("os.access", lambda *_: False)
    assert "cannot be written" in diagnosis._folder("Data folder", tmp_path / "not there").found


def test_damaged_weights_are_noticed(monkeypatch, tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "bad.safetensors").write_bytes(b"no tensors")
    monkeypatch.setattr("platformdirs.user_data_dir", lambda *_a, **_k: str(tmp_path))
    first, second = diagnosis._models()
    assert (first.status, second.status) == (POOR, GOOD)
    assert "bad cannot be used" in first.found

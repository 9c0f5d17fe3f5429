"""``plan`` from the shell: measured, written, explained, and taken by ``train`` as it is."""

import json

import pytest

from labelled_discs import disc_labels, write_discs
from napari_nucleiseg.core.training.config import load_config
from napari_nucleiseg.core.training.planner import plan


@pytest.fixture
def data_set(tmp_path, monkeypatch):
    """A data set of three pictures; what a network takes is not counted anew."""
    monkeypatch.setattr(plan, "bytes_per_pixel", lambda _config: 1500.0)
    for number in range(3):
        write_discs(tmp_path / "data", disc_labels(), stem=f"p{number}")
    return tmp_path / "data"


def test_a_plan_is_made_and_every_setting_explained(shell, data_set, tmp_path):
    answer = shell("plan", f"{data_set},mpp_um=0.5", "--out", tmp_path / "plan.json", "--device", "cpu")
    assert answer.status == 0, answer.err
    assert "crop_px" in answer.out
    assert "nucleus diameter" in answer.out
    assert f"train --config {tmp_path / 'plan.json'}" in answer.err
    assert "Note: Pictures are held out by their names." in answer.err
    config = load_config(str(tmp_path / "plan.json"))
    assert config.out == str(tmp_path / "plan")
    because = json.loads((tmp_path / "plan.because.json").read_text())
    assert all(decision["setting"] in answer.out for decision in because["decisions"])


def test_a_plan_is_printed_as_json(shell, data_set, tmp_path):
    words = ("plan", f"{data_set},mpp_um=0.5", "--out", tmp_path / "p.json", "--device", "cpu", "--memory-gb", 0.5)
    document = shell(*words, "--json").document
    assert document["plan"] == str(tmp_path / "p.json")
    assert document["machine"]["memory_gb"] == 0.5
    assert document["fingerprint"]["pictures"] == 3
    assert {"setting", "value", "usual", "rule", "measured", "because"} == set(document["decisions"][0])


def test_folders_are_written_whole_so_that_the_plan_can_lie_elsewhere(shell, data_set, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "elsewhere" / "plan.json"
    answer = shell("plan", "data,mpp_um=0.5", "--validate", "data,mpp_um=0.5", "--out", out, "--device", "cpu")
    assert answer.status == 0, answer.err
    config = load_config(str(out))
    assert config.train[0].path == config.validate[0].path == str(data_set)


def test_a_planned_run_is_trained(shell, data_set, tmp_path):
    out = tmp_path / "plan.json"
    assert shell("plan", f"{data_set},mpp_um=0.5", "--out", out, "--device", "cpu", "--threads", 1).status == 0
    words = ("--steps", 1, "--batch-size", 1, "--params", "width=4,depth=2")
    answer = shell("train", "--config", out, *words)
    assert answer.status == 0, answer.err
    assert (tmp_path / "plan" / "best.safetensors").exists()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--device", "abacus"), "there is no device called abacus; choose auto, cuda, mps or cpu"),
        (("--minutes", "-1"), "the time must be a number of minutes"),
    ],
)
def test_what_makes_no_sense_is_said(shell, data_set, tmp_path, words, sentence):
    answer = shell("plan", f"{data_set},mpp_um=0.5", "--out", tmp_path / "plan.json", *words)
    assert answer.status == 1
    assert sentence in answer.err
    assert not (tmp_path / "plan.json").exists()


def test_a_folder_that_is_no_data_set_is_said(shell, tmp_path):
    assert "needs two folders, images/ and labels/" in shell("plan", tmp_path, "--device", "cpu").err
    assert shell("plan").status == 2


def test_a_plan_without_an_ending_leaves_room_for_its_run(shell, data_set, tmp_path):
    out = tmp_path / "plan"
    assert shell("plan", f"{data_set},mpp_um=0.5", "--out", out, "--device", "cpu", "--threads", 1).status == 0
    answer = shell("train", "--config", out, "--steps", 1, "--batch-size", 1, "--params", "width=4,depth=2")
    assert answer.status == 0, answer.err
    assert (tmp_path / "plan-run" / "best.safetensors").exists()

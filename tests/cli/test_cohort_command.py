"""``features`` and ``cohort`` from the shell: from slides and a CSV to a table, predictions and attention."""

import argparse
import csv
import json
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import torch

from dark_model import disc_picture
from napari_nucleiseg.cli.cohort import add_arguments
from napari_nucleiseg.core.models.encoders import build_encoder
from napari_nucleiseg.core.models.weights import ModelCard, save_model
from napari_nucleiseg.core.training.cohort.config import CohortConfig
from planted_cohort import write_classes, write_labels, write_slide, write_survival


@pytest.fixture(autouse=True)
def _one_thread():
    torch.set_num_threads(1)


def save_encoder(path, network, *, free=True, **params):
    torch.manual_seed(0)
    spec, built = build_encoder(network, {"depth": 1, "heads": 2, "grid": 2, "input_px": 32, **params})
    licence = "CC0-1.0" if free else "CC-BY-NC-4.0"
    save_model(path, built, spec, ModelCard(path.stem, network, licence=licence, commercial_use=free))
    return path


@pytest.fixture
def encoder(tmp_path):
    return save_encoder(tmp_path / "patches.safetensors", "hipt-256", embed=24)


@pytest.fixture
def slides(tmp_path):
    """Pictures of dark discs and of pale ones."""
    folder = tmp_path / "slides"
    folder.mkdir()
    for number in range(8):
        image = disc_picture((96, 128))
        shade = np.maximum(image, 150) if number % 2 else image
        (folder / f"s{number}.png").write_bytes(imagecodecs.png_encode(shade))
    return folder


def test_from_slides_to_predictions_and_attention(shell, slides, encoder, tmp_path):
    regions = save_encoder(tmp_path / "regions.safetensors", "hipt-4k", embed=12, features=24)
    out = tmp_path / "features"
    words = ("features", slides, "--out", out, "--encoder", encoder, "--region-encoder", regions, "--mpp", 0.5)
    words = (*words, "--no-tissue-mask", "--device", "cpu", "--json")
    told = shell(*words)
    assert (told.status, told.document["done"], told.document["failed"]) == (0, 8, 0)
    assert told.document["slides"][0] | {"seconds": 0} == {
        "ok": True,
        "path": str(slides / "s0.png"),
        "output": str(out / "s0.features.safetensors"),
        "count": 1,
        "level": "region",
        "seconds": 0,
        "from_before": False,
    }
    assert "1 region," in told.err
    assert all(slide["from_before"] for slide in shell(*words).document["slides"])
    labels = tmp_path / "labels.csv"
    labels.write_text(
        "slide,label\n" + "".join(f"s{number}.png,{'dark' if number % 2 == 0 else 'pale'}\n" for number in range(8))
    )
    run = tmp_path / "run"
    words = ("cohort", "train", out, "--labels", labels, "--task", "classes", "--out", run, "--device", "cpu")
    table = shell(*words, "--aggregators", "mean,hipt", "--folds", 2, "--epochs", 1, "--json").document
    assert [row["aggregator"] for row in table["rows"]] == ["mean", "hipt"]
    assert (table["metric"], table["slides"], len(table["rows"][0]["folds"])) == ("AUC", 8, 2)
    told = shell("cohort", "predict", out, "--model", run / "hipt.safetensors", "--out", tmp_path / "said")
    assert told.status == 0
    assert "s3.png" in told.out
    with (tmp_path / "said" / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert set(rows[0]) == {"slide", "prediction", "p_dark", "p_pale"}
    attention = json.loads((tmp_path / "said" / "s3.attention.json").read_text())
    assert (attention["boxes"], attention["attention"]) == ([[0, 0, 96, 128]], [1.0])


def test_patches_by_themselves_and_a_slide_that_fails(shell, slides, encoder, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_text("no picture")
    words = ("--out", tmp_path / "out", "--encoder", encoder, "--no-tissue-mask", "--device", "cpu")
    told = shell("features", slides / "s0.png", broken, "--mpp", 0.5, *words, "--json")
    assert told.status == 3
    done, failed = told.document["slides"]
    assert (done["count"], done["level"], failed["ok"]) == (12, "patch", False)
    told = shell("features", slides / "s1.png", *words)
    assert told.status == 1
    assert "does not say how large its pixels are" in told.err
    assert "The option is --mpp" in told.err


def test_restricted_encoders_must_be_accepted_all_the_way(shell, slides, tmp_path):
    encoder = save_encoder(tmp_path / "nc.safetensors", "hipt-256", free=False, embed=24)
    words = ("features", slides, "--out", tmp_path / "f", "--encoder", encoder, "--mpp", 0.5, "--no-tissue-mask")
    assert "Accept that licence" in shell(*words).err
    assert shell(*words, "--accept-licence").status == 0
    labels = tmp_path / "l.csv"
    labels.write_text("slide,label\n" + "".join(f"s{number},{number % 2}\n" for number in range(8)))
    words = ("--labels", labels, "--task", "classes", "--out", tmp_path / "run", "--folds", 2, "--epochs", 1)
    assert shell("cohort", "train", tmp_path / "f", *words, "--aggregators", "mean").status == 0
    words = ("cohort", "predict", tmp_path / "f", "--model", tmp_path / "run" / "mean.safetensors", "--out", tmp_path)
    assert "Accept that licence" in shell(*words).err
    assert shell(*words, "--accept-licence").status == 0


def test_the_table_is_shown_with_what_was_left_out(shell, tmp_path):
    labels = write_classes(tmp_path, 8)
    write_slide(tmp_path, "unlabelled")
    words = ("cohort", "train", tmp_path, "--labels", labels, "--task", "classes", "--out", tmp_path / "run")
    told = shell(*words, "--aggregators", "mean", "--folds", 2, "--epochs", 4, "--seed", 3)
    assert told.status == 0
    assert "AUC on slides held out, 8 slides of 4 patients" in told.out
    assert "mean ± sd over folds" in told.out
    assert "Slides with features but without a label are left out (1): unlabelled.svs." in told.err
    assert Path(tmp_path / "run" / "mean.safetensors").is_file()


def test_survival_from_the_shell(shell, tmp_path):
    labels = write_survival(tmp_path, 16)
    words = ("cohort", "train", tmp_path, "--labels", labels, "--task", "survival", "--out", tmp_path / "run")
    told = shell(*words, "--aggregators", "mean", "--folds", 2, "--epochs", 1, "--json")
    assert told.document["metric"] == "c-index"
    told = shell(
        "cohort", "predict", tmp_path, "--model", tmp_path / "run" / "mean.safetensors", "--out", tmp_path, "--json"
    )
    assert len(told.document["slides"]) == 16
    assert "risk" in told.document["slides"][0]["scores"]


def test_where_many_events_are_at_the_same_time_fewer_intervals_do(shell, tmp_path):
    for number in range(18):
        write_slide(tmp_path, f"s{number:03d}", seed=number)
    rows = [(f"s{number:03d}", 1 + number % 3, 1) for number in range(18)]
    labels = write_labels(tmp_path / "labels.csv", ("slide", "time", "event"), rows)
    words = ("cohort", "train", tmp_path, "--labels", labels, "--task", "survival", "--out", tmp_path / "run")
    words = (*words, "--aggregators", "mean", "--folds", 2, "--epochs", 1)
    assert "for 4 intervals of time; choose fewer intervals" in shell(*words).err
    assert shell(*words, "--intervals", 2).status == 0
    assert json.loads((tmp_path / "run" / "table.json").read_text())["settings"]["intervals"] == 2


def test_without_the_option_intervals_are_those_of_the_settings():
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    words = ["train", "features", "--labels", "l.csv", "--task", "survival", "--out", "run"]
    assert parser.parse_args(words).intervals == CohortConfig().intervals


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--task", "classes", "--folds", 9), "too few for 9 folds; choose fewer folds"),
        (("--task", "classes", "--aggregators", "best"), "there is no aggregator best"),
        (("--task", "survival"), "has no column time"),
        (("--task", "classes", "--classes", "response"), "label slides of at least two classes"),
    ],
)
def test_what_is_wrong_is_a_sentence(shell, tmp_path, more, said):
    labels = write_classes(tmp_path, 8)
    told = shell("cohort", "train", tmp_path, "--labels", labels, "--out", tmp_path / "run", *more)
    assert told.status == 1
    assert said in told.err


def test_what_cannot_be_understood_is_status_two(shell, tmp_path):
    for words in (("cohort",), ("cohort", "train", tmp_path), ("cohort", "train", tmp_path, "--task", "weather")):
        assert shell(*words).status == 2

"""``pretrain`` from the shell: a recipe by its name, flags and file, resumed, and weights that segment."""

import json
import shlex
from dataclasses import fields

import pytest
import tifffile

from napari_nucleiseg.cli.flags import parameter_help
from napari_nucleiseg.core.models.weights import load_model
from napari_nucleiseg.core.training.by_shape.config import ByShapeConfig
from napari_nucleiseg.core.training.dino.config import DinoConfig
from napari_nucleiseg.core.training.mae.config import MaeConfig
from napari_nucleiseg.core.training.scales.config import ScaleConfig
from napari_nucleiseg.core.training.warm.config import WarmConfig

QUICK = {
    "network": "scale-attention-fast",
    "params": {"width": 2},
    "crop_px": 32,
    "batch_size": 3,
    "steps": 2,
    "classifier_width": 2,
    "validate_every": 2,
    "validation_crops": 1,
    "device": "cpu",
    "threads": 1,
}


def test_slides_become_weights_that_segment(shell, slides, quick, tmp_path):
    answer = shell("pretrain", "scale-attention", f"{slides},licence=CC0-1.0", *quick, "--mpp", 0.25, "--json")
    assert answer.status == 0
    assert answer.document["weights"] == str(tmp_path / "run" / "best.safetensors")
    assert answer.document["best"]["step"] == 2
    assert 0 <= answer.document["best"]["validation"]["accuracy"] <= 1
    assert "step      2 of 2" in answer.err
    written = json.loads((tmp_path / "run" / "config.json").read_text())
    assert written["slides"][0] == {
        "path": str(slides),
        "mpp_um": 0.25,
        "include": ["*"],
        "regions": [],
        "licence": "CC0-1.0",
        "name": "",
    }
    assert "Nothing left to do" in shell("pretrain", "scale-attention", slides, *quick, "--mpp", 0.25).err
    segmented = shell(
        "segment", slides / "p0.tif", "--mpp", 0.25, "--model", answer.document["weights"], "--out", tmp_path / "found"
    )
    assert segmented.status == 0
    assert tifffile.imread(tmp_path / "found" / "p0.tif").shape == (160, 160)


def test_flags_override_the_file(shell, slides, quick, tmp_path):
    words = ("--mpp", 0.25, "--losses", "smoothness=1", "--magnifications", 20, "--magnifications", 40, "--steps", 1)
    answer = shell("pretrain", "scale-attention", "--slides", slides, *quick, *words)
    assert answer.status == 0
    written = json.loads((tmp_path / "run" / "config.json").read_text())
    assert written["losses"] == {"smoothness": 1.0}
    assert written["magnifications"] == [20.0, 40.0]


def test_regions_are_part_of_a_slides_name(shell, slides, quick):
    words = ("--mpp", 0.25, "--steps", 1)
    assert shell("pretrain", "scale-attention", f"{slides}/p0.tif,regions=0:0:150:140", *quick, *words).status == 0
    answer = shell("pretrain", "scale-attention", f"{slides}/p0.tif,regions=0:0:90:90", *quick, *words, "--no-resume")
    assert "no place for crops of 10x" in answer.err


def test_the_level_alone_is_fitted_to_a_slide(shell, slides, quick, tmp_path):
    shell("pretrain", "scale-attention", f"{slides},licence=CC0-1.0", *quick, "--mpp", 0.25)
    model, out = tmp_path / "run" / "best.safetensors", tmp_path / "level.safetensors"
    words = ("pretrain", "scale-attention-tau", slides / "p0.tif", "--mpp", 0.25, "--model", model)
    found = [shell(*words, "--out", out, "--json", *more) for more in ((), ("--share", 0.3), ("--otsu",))]
    assert [answer.status for answer in found] == [0, 0, 0]
    taus = [next(iter(answer.document["tau"].values())) for answer in found]
    assert taus[0] > taus[1]
    assert len(set(taus)) == 3
    assert float(load_model(str(out)).network.tau) == pytest.approx(taus[2], abs=1e-5)
    assert load_model(str(out)).version == found[2].document["version"]
    assert "let it end in .safetensors" in shell(*words, "--out", tmp_path / "level.pth").err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((), "name at least one slide"),
        (("SLIDES",), "does not say how large its pixels are"),
        (("SLIDES,mpp_um=0.25", "--losses", "sparsity=1"), "no loss called sparsity"),
        (("missing.svs",), "missing.svs does not exist"),
    ],
)
def test_what_is_wrong_is_said(shell, slides, quick, words, sentence):
    answer = shell("pretrain", "scale-attention", *(word.replace("SLIDES", str(slides)) for word in words), *quick)
    assert answer.status == 1
    assert sentence in answer.err


def test_without_a_recipe_those_there_are_are_shown(shell):
    answer = shell("pretrain", "--help")
    assert answer.status == 0
    assert "scale-attention" in answer.out
    assert shell("pretrain").status == 2
    assert "--crop-px" in shell("pretrain", "scale-attention", "--help").out


@pytest.mark.parametrize("config", [ByShapeConfig, DinoConfig, MaeConfig, ScaleConfig, WarmConfig])
def test_every_field_of_a_recipe_is_explained(config):
    assert {item.name for item in fields(config)} == parameter_help(config).keys()


def test_what_a_recipe_says_of_a_field_goes_before_what_all_say():
    assert parameter_help(DinoConfig)["tissue"] == "Least share of a patch or region that is tissue."
    assert parameter_help(MaeConfig)["tissue"] == "Least share of a patch that is tissue."


def test_shapes_become_a_data_set_and_the_command_that_goes_on_is_printed(shell, slides, tmp_path):
    out = tmp_path / "shapes"
    paths = (slides / "p0.tif", slides / "p1.tif")
    answer = shell("pretrain", "shapes", *paths, "--mpp", 0.25, "--licence", "CC0-1.0", "--out", out, "--json")
    assert answer.status == 0
    assert answer.document["windows"] == 2
    assert answer.document["nuclei"] >= 4
    assert len(list((out / "images").iterdir())) == len(list((out / "labels").iterdir())) == 2
    (line,) = (line for line in answer.err.splitlines() if "Go on with" in line)
    words = shlex.split(line.split("napari-nucleiseg ")[1])
    quick = ("--steps", 1, "--crop-px", 64, "--batch-size", 1, "--device", "cpu", "--threads", 1)
    words = [word for word in words if word not in {"--steps", "700", "--out", "runs/own"}]
    trained = shell(*words, *quick, "--out", tmp_path / "run")
    assert trained.status == 0
    assert load_model(str(tmp_path / "run" / "best.safetensors")).card.licence == "CC0-1.0"


def test_labels_that_a_person_has_corrected_are_kept(shell, slides, tmp_path):
    words = ("--mpp", 0.25, "--windows", 1, "--out", tmp_path / "own", "--json")
    first = shell("pretrain", "shapes", slides / "p0.tif", *words)
    assert first.document["left"] == 0
    assert "left as they are" not in first.err
    (path,) = (tmp_path / "own" / "labels").iterdir()
    corrected = tifffile.imread(path)
    corrected[corrected == 1] = 0
    tifffile.imwrite(path, corrected)
    again = shell("pretrain", "shapes", slides, *words)
    assert (again.status, again.document["windows"], again.document["left"]) == (0, 2, 1)
    assert "Windows left as they are: 1." in again.err
    assert (tifffile.imread(path) == corrected).all()
    assert len(list(path.parent.iterdir())) == 2


def test_a_network_learns_from_shapes_in_one_command(shell, slides, tmp_path):
    out = tmp_path / "run"
    tiny = ("--params", "width=8,depth=2,widest=16", "--steps", 2, "--crop-px", 64, "--batch-size", 2)
    words = ("pretrain", "by-shape", slides, "--mpp", 0.25, "--licence", "CC0-1.0", "--out", out, *tiny)
    words = (*words, "--device", "cpu", "--threads", 1, "--json")
    answer = shell(*words)
    assert answer.status == 0
    assert answer.document["steps"] == 2
    card = load_model(str(out / "best.safetensors")).card
    assert (card.licence, card.network) == ("CC0-1.0", "nuclei")
    assert "no labels: nuclei by their shape" in card.training_data[0]
    assert 0 <= answer.document["best"]["validation"]["f1"] <= 1
    again = shell(*words)
    assert again.status == 0
    assert "Nothing left to do" in again.err


def test_no_window_at_all_is_refused(shell, slides, tmp_path):
    answer = shell("pretrain", "shapes", slides / "p0.tif", "--mpp", 0.25, "--windows", 0, "--out", tmp_path / "o")
    assert answer.status == 1
    assert "at least one window" in answer.err


def test_of_a_folder_all_slides_count_and_two_of_one_name_never_share_their_windows(shell, slides, tmp_path):
    answer = shell("pretrain", "shapes", slides, "--mpp", 0.25, "--windows", 1, "--out", tmp_path / "all", "--json")
    assert answer.document["windows"] == 2
    other = tmp_path / "other"
    other.mkdir()
    (other / "p0.tif").write_bytes((slides / "p0.tif").read_bytes())
    paths = (slides / "p0.tif", other / "p0.tif")
    answer = shell("pretrain", "shapes", *paths, "--mpp", 0.25, "--out", tmp_path / "both")
    assert answer.status == 1
    assert "would both be written to p0" in answer.err
    assert not (tmp_path / "both").exists()

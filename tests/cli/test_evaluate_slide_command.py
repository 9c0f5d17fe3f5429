"""``evaluate`` of a slide's nuclei against a reference from the shell."""

import json
from typing import get_args

import numpy as np
import pytest
import tifffile

from napari_nucleiseg.cli.evaluate_slide import REGIONS
from napari_nucleiseg.core.batch.slide_evaluation import RegionChoice
from napari_nucleiseg.core.exchange.imports import import_nuclei
from napari_nucleiseg.core.slides.registry import open_slide
from napari_nucleiseg.core.store.project import Project, default_folder
from napari_nucleiseg.core.store.regions import AnnotatedRegion, put_region


def square(y, x, side=10):
    return [[[x, y], [x + side, y], [x + side, y + side], [x, y + side], [x, y]]]


def nucleus(y, x, name="", side=10):
    properties = {"objectType": "detection"} | ({"classification": {"name": name}} if name else {})
    return {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": square(y, x, side)},
        "properties": properties,
    }


def write(path, *features):
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


@pytest.fixture
def slide(tmp_path):
    """A slide with two nuclei, one of them right, and two regions, beside a reference of three nuclei."""
    path = tmp_path / "slide.tif"
    per_cm = 1e4 / 0.5
    white = np.full((300, 400, 3), 255, np.uint8)
    tifffile.imwrite(path, white, tile=(128, 128), resolution=(per_cm, per_cm), resolutionunit="CENTIMETER")
    with Project.create(default_folder(path), open_slide(str(path))) as project:
        import_nuclei(project, write(tmp_path / "found.geojson", nucleus(10, 10, "Tumour"), nucleus(200, 20, "Stroma")))
        corners = ((0.0, 0.0), (0.0, 100.0), (100.0, 100.0), (100.0, 0.0))
        put_region(project, AnnotatedRegion(0, "Above", "reference", corners))
        put_region(project, AnnotatedRegion(0, "Left", "hold out", (*corners[:2], (300.0, 100.0), (300.0, 0.0))))
    return path


@pytest.fixture
def truth(tmp_path):
    return write(tmp_path / "truth.geojson", nucleus(10, 10, "Tumour"), nucleus(60, 60), nucleus(202, 22, "Tumour"))


def rows_of(answer):
    rows = [line.strip("│┃ ").split("│") for line in answer.out.splitlines() if "│" in line]
    return [[cell.strip() for cell in row] for row in rows]


def test_scores_are_printed_by_region_class_and_mistake(shell, slide, truth):
    answer = shell("evaluate", slide, "--reference", truth, "--regions", "all")
    assert answer.status == 0, answer.err
    rows = rows_of(answer)
    above, left, total = rows[:3]
    assert (above[0], above[1], above[-2:]) == ("Above", "reference", ["2", "1"])
    assert (left[0], left[1], left[-2:]) == ("Left", "hold out", ["3", "2"])
    assert (total[0], total[-2:]) == ("total", ["3", "2"])
    assert ["total", "1", "2", "1", "0", "0"] in rows
    assert any(row[:2] == ["Tumour", "50.0%"] for row in rows)
    assert rows[-2:] == [["Tumour", "1", "0", "0"], ["no class", "0", "0", "0"]]
    assert "slide.tif against truth.geojson" in answer.out


def test_without_regions_all_of_the_slide_is_scored(shell, slide, truth, tmp_path):
    document = shell("evaluate", default_folder(slide), "--reference", truth, "--json").document
    assert document["regions"] == []
    assert (document["total"]["truth_count"], document["total"]["correct"]) == (3, 1)
    assert document["total"]["f1"] == pytest.approx(2 / 5)
    assert document["confusion"]["agreement"] == 1
    answer = shell("evaluate", slide, "--reference", truth, "--json", tmp_path / "scores.json", "--regions", "none")
    assert json.loads((tmp_path / "scores.json").read_text()) == document
    assert rows_of(answer)[0][0] == "whole slide"
    only = shell("evaluate", slide, "--reference", truth, "--json", "--regions", "holdout", "--no-ahd").document
    assert [region["name"] for region in only["regions"]] == ["Left"]
    assert only["total"]["ahd"] is None


def test_what_is_wrong_is_written_for_qupath(shell, slide, truth, tmp_path):
    out = tmp_path / "wrong.geojson"
    answer = shell("evaluate", slide, "--reference", truth, "--errors", out)
    assert "3 nuclei that are wrong written to" in answer.err
    features = json.loads(out.read_text())["features"]
    kinds = sorted(feature["properties"]["classification"]["name"] for feature in features)
    assert kinds == ["Added", "Missed", "Missed"]


@pytest.mark.parametrize(
    ("words", "status", "sentence"),
    [
        (("{slide}",), 2, "give either --pred DIR and --truth DIR, or a slide"),
        (("--pred", "x"), 2, "give either"),
        (("{slide}", "--reference", "{truth}", "--pred", "x", "--truth", "y"), 2, "give either"),
        (("{slide}", "--reference", "{missing}"), 1, "missing.geojson does not exist"),
        (("{missing}", "--reference", "{truth}"), 1, "missing.geojson does not exist"),
        (("{slide}", "--reference", "{slide}.nucleiseg"), 1, "does not exist"),
        (("{slide}", "--reference", "{empty}"), 1, "holds no nuclei of this slide"),
        (("{slide}", "--reference", "{truth}", "--regions", "mine"), 2, "invalid choice"),
    ],
)
def test_what_does_not_work_is_one_sentence(shell, slide, truth, tmp_path, words, status, sentence):
    places = {"slide": slide, "truth": truth, "missing": tmp_path / "missing.geojson"}
    places["empty"] = write(tmp_path / "empty.geojson")
    answer = shell("evaluate", *(word.format(**places) for word in words))
    assert answer.status == status
    assert sentence in answer.err
    assert "Traceback" not in answer.err


@pytest.mark.parametrize("flag", ["--errors", "--json"])
@pytest.mark.parametrize(
    "target", ["truth.geojson", "link.geojson", "slide.tif", "slide.nucleiseg/project.sqlite", "slide.nucleiseg"]
)
@pytest.mark.parametrize("named", ["slide.tif", "slide.nucleiseg"])
def test_what_is_compared_is_never_written_over(shell, slide, truth, tmp_path, monkeypatch, flag, target, named):
    def read(*_arguments, **_more):
        raise AssertionError

    monkeypatch.setattr("napari_nucleiseg.core.exchange.reference.open_reference", read)
    (tmp_path / "link.geojson").symlink_to(truth)
    before = truth.read_bytes(), slide.read_bytes(), (default_folder(slide) / "project.sqlite").read_bytes()
    answer = shell("evaluate", tmp_path / named, "--reference", truth, "--no-ahd", flag, tmp_path / target)
    assert answer.status == 1
    assert "would be lost. Choose" in answer.err
    after = truth.read_bytes(), slide.read_bytes(), (default_folder(slide) / "project.sqlite").read_bytes()
    assert after == before


def test_errors_and_scores_are_two_files(shell, slide, truth, tmp_path):
    out = tmp_path / "out.json"
    answer = shell("evaluate", slide, "--reference", truth, "--errors", out, "--json", tmp_path / "." / "out.json")
    assert answer.status == 1
    assert f"--errors and --json would both write {out}. Choose two names." in answer.err
    assert not out.exists()


def test_regions_can_be_chosen_as_the_functions_have_it():
    assert get_args(RegionChoice) == REGIONS

"""``measure`` writes tables, keeps what it measured, and ``export`` takes it along."""

import csv
import json

import numpy as np
import pytest
import tifffile

from napari_nucleiseg.core.exchange.table import COLUMNS
from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.measurement.columns import NAMES
from napari_nucleiseg.core.slides.registry import open_slide
from napari_nucleiseg.core.store.project import Project, default_folder

pytest.importorskip("pyarrow", reason="pyarrow, which Parquet needs, is not installed")


@pytest.fixture
def slide(tmp_path):
    """A small slide that states its pixel size, 0.25 µm, with two nuclei in the project beside it."""
    path = tmp_path / "a.tif"
    pixels = np.full((300, 400, 3), 200, np.uint8)
    pixels[10:30, 10:30] = (90, 60, 130)
    tifffile.imwrite(
        path, pixels, photometric="rgb", tile=(64, 64), resolution=(40_000, 40_000), resolutionunit="CENTIMETER"
    )
    with Project.create(default_folder(path), open_slide(path)) as project:
        image = np.zeros((300, 400), np.uint32)
        image[10:30, 10:30], image[100:120, 200:220] = 1, 2
        project.editor.paint(Region(0, 0, 300, 400), image)
    return path


def rows_of_csv(path):
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_the_table_is_parquet_beside_the_project(shell, slide):
    from pyarrow import parquet

    answer = shell("measure", slide, "--json")
    assert answer.status == 0, answer.err
    out = slide.with_suffix(".parquet")
    assert answer.document["file"] == str(out)
    assert (answer.document["format"], answer.document["nuclei"]) == ("parquet", 2)
    assert answer.document["columns"] == list(NAMES)
    table = parquet.read_table(out)
    assert tuple(table.schema.names) == (*COLUMNS, *NAMES)
    # 76 steps between the centres of the border pixels of 20 x 20.
    assert table["perimeter_um"].to_pylist() == [pytest.approx(19)] * 2
    first, second = table["haematoxylin_mean"].to_pylist()
    assert first > second + 0.2
    assert "2 nuclei measured in" in answer.err


def test_a_region_as_csv(shell, slide, tmp_path):
    answer = shell("measure", default_folder(slide), "--region", "50,50,200,300", "--out", tmp_path / "b.csv")
    assert answer.status == 0, answer.err
    (row,) = rows_of_csv(tmp_path / "b.csv")
    assert float(row["y_px"]) > 50
    # The other nucleus is 52 um away, outside of the region.
    assert float(row["nearest_um"]) == pytest.approx(np.hypot(90, 190) * 0.25, rel=1e-3)


def test_a_region_that_begins_beside_the_slide(shell, slide, tmp_path):
    answer = shell("measure", slide, "--region", "-100,-100,150,150", "--out", tmp_path / "b.csv")
    assert answer.status == 0, answer.err
    (row,) = rows_of_csv(tmp_path / "b.csv")
    assert float(row["y_px"]) < 50


@pytest.mark.parametrize(
    ("region", "sentence"),
    [
        ("90000,0,4,4", "the region 90000,0,4,4 (y, x, height, width) lies beside that. Give one on the slide."),
        ("0,0,0,4", "the region is empty; give y, x, height and width"),
    ],
)
def test_a_region_without_any_of_the_slide_is_refused(shell, slide, tmp_path, region, sentence):
    answer = shell("measure", slide, "--region", region, "--out", tmp_path / "b.csv")
    assert answer.status == 1
    assert sentence in answer.err
    assert not (tmp_path / "b.csv").exists()
    assert not (default_folder(slide) / "measures").exists()


@pytest.mark.parametrize("command", [("measure",), ("export", "--measures")])
@pytest.mark.parametrize("out", ["a.csv", "a.nucleiseg/project.csv"])
def test_nothing_is_measured_for_a_table_that_would_destroy_what_it_is_made_of(shell, slide, tmp_path, command, out):
    copy = slide.with_name("a.csv")
    slide.rename(copy)  # a slide is known by its first bytes, whatever its name
    before = copy.read_bytes()
    name, *more = command
    answer = shell(name, default_folder(slide), *more, "--slide", copy, "--out", tmp_path / out)
    assert answer.status == 1
    assert "would be lost. Choose" in answer.err
    assert copy.read_bytes() == before
    assert not (default_folder(slide) / "measures").exists()
    assert not (default_folder(slide) / "project.csv").exists()


def test_another_slide_than_that_of_the_project_is_told(shell, slide, tmp_path):
    folder = default_folder(slide)
    wrong = tmp_path / "far" / "wrong.tif"
    wrong.parent.mkdir()
    tifffile.imwrite(wrong, np.zeros((64, 64, 3), np.uint8), photometric="rgb")
    slide.rename(tmp_path / "far" / "a.tif")
    answer = shell("measure", folder, "--slide", wrong)
    assert answer.status == 1
    assert f"{wrong} is another slide, not a.tif of {folder}" in answer.err


def test_a_slide_elsewhere_is_named(shell, slide, tmp_path):
    (tmp_path / "far").mkdir()
    moved = slide.rename(tmp_path / "far" / "a.tif")
    folder = default_folder(slide)
    answer = shell("measure", folder)
    assert answer.status == 1
    assert "Say where it is with --slide PATH" in answer.err
    assert shell("measure", folder, "--slide", moved, "--out", tmp_path / "c").status == 0
    assert (tmp_path / "c").read_bytes()[:4] == b"PAR1"


def test_export_takes_along_what_is_measured(shell, slide, tmp_path):
    out = tmp_path / "a.csv"
    assert shell("export", slide, "--out", out, "--json").document["measures"] == []
    assert tuple(rows_of_csv(out)[0]) == COLUMNS
    shell("measure", slide)
    answer = shell("export", slide, "--out", out, "--json")
    assert answer.document["measures"] == list(NAMES)
    assert "with their measures" in answer.err
    assert tuple(rows_of_csv(out)[0]) == (*COLUMNS, *NAMES)
    with Project.open(default_folder(slide)) as project:
        project.editor.paint(
            Region(0, 0, 300, 400), np.zeros((300, 400), np.uint32) + np.eye(300, 400, dtype=np.uint32)
        )
    # Not all are measured any more.
    assert shell("export", slide, "--out", out, "--json").document["measures"] == []


def test_export_measures_first_when_asked(shell, slide, tmp_path):
    out = tmp_path / "a.geojson"
    answer = shell("export", slide, "--out", out, "--measures", "--json")
    assert answer.status == 0, answer.err
    assert answer.document["measures"] == list(NAMES)
    features = json.loads(out.read_text(encoding="utf-8"))["features"]
    assert [feature["properties"]["measurements"]["Perimeter µm"] for feature in features] == [19, 19]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("measure", "{slide}", "--out", "x.tif"), "Label TIFF with a pyramid has no room for measures"),
        (("measure", "{slide}", "--out", "x.doc"), "does not say in which format"),
        (("export", "{slide}", "--out", "x.labels.zarr", "--measures"), "End the name with one of .geojson, .csv"),
        (("measure", "{nowhere}"), "does not exist"),
    ],
)
def test_what_cannot_be_is_said(shell, slide, tmp_path, words, sentence):
    answer = shell(*(word.format(slide=slide, nowhere=tmp_path / "nowhere.svs") for word in words))
    assert answer.status == 1
    assert sentence in answer.err


def test_an_interruption_keeps_what_is_done(shell, slide, monkeypatch):
    def stop(*_arguments, **_more):
        raise KeyboardInterrupt

    monkeypatch.setattr("napari_nucleiseg.cli.measure.export", stop)
    assert shell("measure", slide).status == 130
    monkeypatch.undo()
    assert (default_folder(slide) / "measures" / "0-0.bin").exists()
    assert shell("export", slide, "--out", slide.with_suffix(".csv"), "--json").document["measures"] == list(NAMES)

"""``export`` and ``import`` from the shell: there and back, by slide and by project folder."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import tifffile

from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.slides.registry import open_slide
from napari_nucleiseg.core.store.project import Project, default_folder
from slide_factory import tissue_picture, write_ome_zarr


@pytest.fixture
def slide(tmp_path):
    """A small slide that states its pixel size, with two nuclei in the project beside it."""
    path = tmp_path / "a.tif"
    tifffile.imwrite(
        path, np.zeros((300, 400, 3), np.uint8), photometric="rgb", tile=(64, 64), resolution=(40_000, 40_000),
        resolutionunit="CENTIMETER",
    )  # fmt: skip
    with Project.create(default_folder(path), open_slide(path)) as project:
        image = np.zeros((300, 400), np.uint32)
        image[10:30, 10:30], image[100:120, 200:220] = 1, 2
        project.editor.paint(Region(0, 0, 300, 400), image)
    return path


def pixels(folder):
    with Project.open(folder, writable=False) as project:
        return project.labels.read(project.labels.whole)


@pytest.mark.parametrize("name", ["out.geojson", "out.labels.zarr", "out.labels-0.4.zarr", "out.ome.tif", "out.tif"])
def test_what_is_exported_is_imported_again(shell, slide, tmp_path, name):
    out = tmp_path / name
    answer = shell("export", slide, "--out", out, "--json")
    assert answer.status == 0, answer.err
    assert answer.document["nuclei"] == 2
    assert f"2 nuclei written to {out}" in answer.err

    folder = default_folder(slide)
    before = pixels(folder)
    shutil.rmtree(folder)
    answer = shell("import", out, "--slide", slide, "--json")
    assert answer.status == 0, answer.err
    assert (answer.document["nuclei"], answer.document["ids_kept"]) == (2, 2)
    assert f"2 nuclei taken from {name}." in answer.err
    np.testing.assert_array_equal(pixels(folder), before)


@pytest.mark.parametrize("name", ["out.csv", "out.coco.json"])
def test_tables_are_only_written(shell, slide, tmp_path, name):
    assert shell("export", default_folder(slide), "--out", tmp_path / name).status == 0
    assert (tmp_path / name).stat().st_size > 100


def test_overlaps_are_kept_or_replaced(shell, slide, tmp_path):
    path = tmp_path / "new.geojson"
    ring = [[10, 10], [25, 10], [25, 30], [10, 30], [10, 10]]
    path.write_text(json.dumps([{"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]}}]))
    folder = default_folder(slide)
    answer = shell("import", path, "--project", folder)
    assert answer.status == 0
    assert answer.out == ""
    assert "0 nuclei taken from new.geojson" in answer.err
    assert "choose overlap 'replace'" in answer.err
    answer = shell("import", path, "--project", folder, "--overlap", "replace")
    assert "1 nucleus that was there gave way." in answer.err
    image = pixels(folder)
    assert not (image == 1).any()
    assert np.count_nonzero(image) == 15 * 20 + 400


def test_annotations_are_regions_or_nuclei(shell, slide, tmp_path):
    path = tmp_path / "new.geojson"
    ring = [[50, 50], [90, 50], [90, 90]]
    feature = {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {"objectType": "annotation"},
    }
    path.write_text(json.dumps(feature))
    document = shell("import", path, "--slide", slide, "--json").document
    assert (document["nuclei"], document["regions"]) == (0, 1)
    document = shell("import", path, "--slide", slide, "--annotations", "nuclei", "--json").document
    assert (document["nuclei"], document["regions"]) == (1, 0)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("import", "{bad}", "--slide", "{slide}"), "is not GeoJSON"),
        (("import", "{missing}", "--slide", "{slide}"), "missing.geojson does not exist"),
        (("import", "{bad}", "--project", "{missing}"), "missing.geojson does not exist"),
        (("export", "{slide}", "--out", "x.xlsx"), "does not say in which format"),
        (("export", "{bad}", "--out", "x.csv"), "bad.geojson"),
        (("export", "{missing}", "--out", "x.csv"), "missing.geojson does not exist"),
    ],
)
def test_what_does_not_work_is_one_sentence(shell, slide, tmp_path, words, sentence):
    (tmp_path / "bad.geojson").write_text("hello")
    places = {"bad": tmp_path / "bad.geojson", "missing": tmp_path / "missing.geojson", "slide": slide}
    answer = shell(*(word.format(**places) for word in words))
    assert answer.status == 1
    assert sentence in answer.err
    assert "Traceback" not in answer.err


def contents(folder):
    """All files, but for the notes that SQLite keeps while somebody looks."""
    names = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.name.endswith(("-wal", "-shm"))]
    return {path.relative_to(folder): path.read_bytes() for path in names}


@pytest.mark.parametrize("source", ["a.tif", "a.nucleiseg"])
@pytest.mark.parametrize(
    ("out", "form"),
    [
        ("a.tif", "csv"),
        ("a.tif", "tif"),
        ("link.csv", "csv"),
        ("hard.csv", "csv"),
        ("copy.tif", "tif"),
        ("a.nucleiseg", "zarr"),
        ("a.nucleiseg", "csv"),
        ("a.nucleiseg/project.sqlite", "csv"),
        ("a.nucleiseg/labels.zarr", "zarr"),
        ("a.nucleiseg/new.csv", "csv"),
        ("folder/project.sqlite", "csv"),
    ],
)
def test_an_export_never_destroys_what_it_is_made_of(shell, slide, tmp_path, source, out, form):
    (tmp_path / "link.csv").symlink_to(slide)
    (tmp_path / "hard.csv").hardlink_to(slide)
    (tmp_path / "folder").symlink_to(default_folder(slide))
    shutil.copy(slide, tmp_path / "copy.tif")
    before = contents(tmp_path)
    answer = shell("export", tmp_path / source, "--out", tmp_path / out, "--format", form)
    assert answer.status == 1
    assert "would be lost. Choose" in answer.err
    assert contents(tmp_path) == before
    assert (tmp_path / "link.csv").is_symlink()


def test_the_slide_of_a_renamed_project_is_not_destroyed_either(shell, slide, tmp_path):
    (tmp_path / "far").mkdir()
    folder = default_folder(slide).rename(tmp_path / "far" / "other.nucleiseg")
    before = slide.read_bytes()
    answer = shell("export", folder, "--out", slide)
    assert answer.status == 1
    assert f"{slide} is the slide itself" in answer.err
    assert slide.read_bytes() == before


@pytest.mark.parametrize("words", [("export", "--measures"), ("measure",)])
def test_a_store_of_others_is_refused_before_anything_is_measured(shell, slide, tmp_path, monkeypatch, words):
    write_ome_zarr(tmp_path / "other.spatial.zarr", tissue_picture(64, 64))
    before = contents(tmp_path)
    for module in ("export", "measure"):
        monkeypatch.setattr(f"napari_nucleiseg.cli.{module}.measured_source", None)
    answer = shell(*words, slide, "--out", tmp_path / "other.spatial.zarr")
    assert answer.status == 1
    assert "other.spatial.zarr exists already and is no unchanged export" in answer.err
    assert contents(tmp_path) == before


def test_a_project_made_before_it_knew_where_pixels_begin_is_exported_as_qupath_shows_it(
    shell, slide, tmp_path, monkeypatch
):
    def opened(path, **settings):
        return replace(open_slide(path, **settings), bounds=Region(5, 7, 200, 300))

    monkeypatch.setattr("napari_nucleiseg.core.slides.registry.open_slide", opened)
    assert shell("export", slide, "--out", tmp_path / "out.geojson").status == 0
    document = json.loads((tmp_path / "out.geojson").read_text())
    assert document["napari-nucleiseg"] == {"origin": [7, 5]}
    assert np.min(document["features"][0]["geometry"]["coordinates"][0], axis=0).tolist() == [3, 5]


@pytest.mark.parametrize("name", ["out.csv", "out.tif", "out.labels.zarr"])
def test_an_earlier_export_beside_the_project_is_replaced(shell, slide, tmp_path, name):
    out = tmp_path / "a.nucleiseg" / ".." / name
    assert shell("export", slide, "--out", out).status == 0
    assert shell("export", slide, "--out", out).status == 0


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("missing.geojson", None, "does not exist. Check the name."),
        ("bad.geojson", "hello", "is not GeoJSON"),
        ("bad.doc", "hello", "is of no kind that can be imported"),
    ],
)
def test_a_file_of_which_nothing_can_be_taken_leaves_no_project(shell, slide, tmp_path, name, content, sentence):
    if content is not None:
        (tmp_path / name).write_text(content)
    folder = default_folder(slide)
    kept = folder.rename(tmp_path / "kept")
    answer = shell("import", tmp_path / name, "--slide", slide)
    assert answer.status == 1
    assert sentence in answer.err
    assert not folder.exists()
    kept.rename(folder)
    before = contents(folder)
    assert shell("import", tmp_path / name, "--slide", slide).status == 1
    assert set(contents(folder)) == set(before)


def test_the_pixel_size_of_a_project_is_not_given_again(shell, slide, tmp_path):
    answer = shell("import", tmp_path / "a.geojson", "--project", default_folder(slide), "--mpp", 99)
    assert answer.status == 2
    assert "--mpp goes with --slide; a project that is there already knows its pixel size" in answer.err


@pytest.mark.parametrize(
    "words", [("import", "a.geojson"), ("export", "a.svs"), ("import", "a", "--slide", "b", "--project", "c")]
)
def test_where_to_must_be_said(shell, words):
    assert shell(*words).status == 2

"""The door to all formats lets nothing be written over the slide or its project; all formats say the same."""

import csv
import json

import numpy as np
import pytest
import tifffile

from napari_nucleiseg.core.errors import ExportError
from napari_nucleiseg.core.exchange.annotated_table import annotated_table
from napari_nucleiseg.core.exchange.formats import FORMATS, export
from napari_nucleiseg.core.exchange.source import source_of_labels, source_of_project
from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.slides.registry import open_slide
from napari_nucleiseg.core.store.project import Project, default_folder
from slide_factory import tissue_picture, write_ome_zarr


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def project(tmp_path):
    path = tmp_path / "s.tif"
    size = {"resolution": (40_000, 40_000), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(path, np.zeros((64, 64, 3), np.uint8), photometric="rgb", **size)
    with Project.create(default_folder(path), open_slide(path)) as made:
        yield made


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("s.tif", "s.tif is the slide itself and would be lost"),
        ("renamed.csv", "renamed.csv is the slide itself and would be lost"),
        ("s.nucleiseg", "s.nucleiseg is the folder of a project"),
        ("s.nucleiseg/project.sqlite", "project.sqlite lies in the folder of a project"),
        ("s.nucleiseg/labels.zarr", "labels.zarr lies in the folder of a project"),
    ],
)
def test_no_format_is_written_over_what_it_is_made_of(project, tmp_path, form, name, sentence):
    slide = tmp_path / "s.tif"
    if name == "renamed.csv":
        slide = slide.rename(tmp_path / name)
    before = slide.read_bytes()
    with pytest.raises(ExportError, match=sentence):
        export(source_of_project(project), tmp_path / name, form)
    assert slide.read_bytes() == before
    assert (project.folder / "labels.zarr" / "zarr.json").is_file()


def test_an_earlier_export_of_the_same_slide_is_replaced(project, tmp_path):
    for _ in range(2):
        export(source_of_project(project), tmp_path / "labels.tif", "tif")
    assert tifffile.imread(tmp_path / "labels.tif").shape == (64, 64)


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("other.zarr", "zarr"),
        ("other.zarr", "zarr-0.4"),
        ("other.zarr", "spatialdata"),
        ("other-0.4.zarr", "zarr"),
        ("other.tif", "tif"),
        ("labels.tif", "tif"),
    ],
)
def test_images_and_labels_that_are_no_export_are_not_replaced(project, tmp_path, name, form):
    picture = tissue_picture(64, 64)
    if name == "labels.tif":
        tifffile.imwrite(tmp_path / name, picture[..., 0].astype(np.uint32))
    elif name == "other.tif":
        tifffile.imwrite(tmp_path / name, picture, photometric="rgb")
    else:
        write_ome_zarr(tmp_path / name, picture, version="0.4" if "0.4" in name else "0.5")
    before = contents(tmp_path)
    steps = []
    with pytest.raises(ExportError, match="exists already and is no unchanged export of this kind, so it is not repl"):
        export(source_of_project(project), tmp_path / name, form, lambda *step: steps.append(step))
    assert contents(tmp_path) == before
    assert steps == []


@pytest.mark.parametrize(("form", "file"), [("zarr", "zarr.json"), ("zarr-0.4", ".zattrs")])
def test_labels_without_a_mark_are_replaced_only_where_they_are_known_for_earlier_ones(project, tmp_path, form, file):
    store = tmp_path / "a.zarr"
    export(source_of_project(project), store, form)
    marked = contents(store)
    said = json.loads((store / file).read_text(encoding="utf-8"))
    del said.get("attributes", said)["software"]
    (store / file).write_text(json.dumps(said), encoding="utf-8")
    with pytest.raises(ExportError, match="no unchanged export of this kind"):
        export(source_of_project(project), store, form)
    export(source_of_project(project), store, form, is_earlier=True)
    assert contents(store) == marked


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_picture_under_the_name_of_earlier_labels_is_not_replaced(project, tmp_path, version):
    write_ome_zarr(tmp_path / "a.zarr", tissue_picture(64, 64), version=version)
    before = contents(tmp_path)
    with pytest.raises(ExportError, match="exists already"):
        export(source_of_project(project), tmp_path / "a.zarr", "zarr", is_earlier=True)
    assert contents(tmp_path) == before


def test_a_nucleus_lies_at_one_place_in_tables_and_outlines(fresh_project, tmp_path):
    project = fresh_project()
    image = np.zeros((30, 40), np.uint32)
    image[10:14, 20:26] = project.editor.new_id()
    project.editor.paint(Region(0, 0, 30, 40), image)
    project.flush()
    source = source_of_project(project)
    export(source, tmp_path / "n.geojson", "geojson")
    export(source, tmp_path / "n.csv", "csv")
    export(source_of_labels(image, source.mpp_um, name="n", origin="p"), tmp_path / "labels.csv", "csv")
    (feature,) = json.loads((tmp_path / "n.geojson").read_text())["features"]
    ring = np.array(feature["geometry"]["coordinates"][0])
    x, y = (ring.min(0) + ring.max(0)) / 2
    assert (y, x) == (12, 23)
    for name in ("n.csv", "labels.csv"):
        with (tmp_path / name).open(newline="") as file:
            (row,) = csv.DictReader(file)
        assert (float(row["y_px"]), float(row["x_px"])) == (y, x)
        assert (float(row["y_um"]), float(row["x_um"])) == (y * source.mpp_um.y, x * source.mpp_um.x)
        assert [int(row[name]) for name in ("y0_px", "x0_px", "y1_px", "x1_px")] == [10, 20, 14, 26]
    pytest.importorskip("anndata")
    assert annotated_table(source).obsm["spatial"].tolist() == [[x * source.mpp_um.x, y * source.mpp_um.y]]

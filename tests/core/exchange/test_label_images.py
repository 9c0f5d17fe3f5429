"""Label TIFF, OME-Zarr and CSV: what is read back is what was there."""

import csv
import sys

import numpy as np
import pytest
import tifffile
import zarr

from napari_nucleiseg.core.errors import ExportError, MissingDependencyError
from napari_nucleiseg.core.exchange import label_tiff
from napari_nucleiseg.core.exchange.formats import FORMATS, export, format_of
from napari_nucleiseg.core.exchange.label_tiff import write_label_tiff
from napari_nucleiseg.core.exchange.ome_zarr import write_ome_zarr
from napari_nucleiseg.core.exchange.source import LabelSource, block_regions, iterate_blocks, source_of_labels
from napari_nucleiseg.core.exchange.table import COLUMNS, write_csv, write_parquet
from napari_nucleiseg.core.geometry import YX


def test_a_plain_tiff_holds_the_same_ids_and_the_pixel_size(source, labels, tmp_path):
    steps = []
    write_label_tiff(source, tmp_path / "a.tif", on_progress=lambda *step: steps.append(step))
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        page = tiff.pages.first
        assert (page.dtype, page.is_tiled, len(tiff.pages), tiff.is_bigtiff) == (np.uint32, True, 1, False)
        np.testing.assert_array_equal(page.asarray(), labels)
        x, y = (page.tags[name].value for name in ("XResolution", "YResolution"))
        assert 1e4 * x[1] / x[0] == pytest.approx(0.25)
        assert 1e4 * y[1] / y[0] == pytest.approx(0.5)
    assert steps == [(0, 2), (1, 2), (2, 2)]


def test_an_ome_tiff_has_the_pyramid_and_the_pixel_size(source, labels, tmp_path):
    write_label_tiff(source, tmp_path / "a.ome.tif")
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as tiff:
        assert tiff.is_ome
        assert 'PhysicalSizeX="0.25"' in tiff.ome_metadata
        assert 'PhysicalSizeY="0.5"' in tiff.ome_metadata
        levels = tiff.series[0].levels
        assert [level.shape for level in levels] == [(700, 900), (350, 450)]
        np.testing.assert_array_equal(levels[0].asarray(), labels)
        np.testing.assert_array_equal(levels[1].asarray(), labels[::2, ::2])


class EmptySlide:
    """An empty label image of any size."""

    def __init__(self, height, width):
        self.shape = height, width

    def __getitem__(self, key):
        return np.zeros([part.stop - part.start for part in key], np.uint32)


def test_a_slide_beyond_four_gigabytes_becomes_a_bigtiff(tmp_path):
    nothing = source_of_labels(np.zeros((4, 4), int), YX(1, 1)).nuclei_in
    source = LabelSource((EmptySlide(33_000, 33_000),), YX(0.25, 0.25), nothing)
    write_label_tiff(source, tmp_path / "a.tif")
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        assert tiff.is_bigtiff
        assert tiff.pages.first.shape == (33_000, 33_000)
    assert (tmp_path / "a.tif").stat().st_size < 2**24


def test_strips_of_a_wide_slide_are_put_together(monkeypatch, labels, tmp_path):
    monkeypatch.setattr(label_tiff, "TILE_PX", 64)
    monkeypatch.setattr(label_tiff, "_STRIP_PX", 128)
    write_label_tiff(source_of_labels(labels, YX(1, 1)), tmp_path / "a.tif")
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "a.tif"), labels)


def test_an_ome_zarr_has_the_pyramid_units_and_no_empty_chunks(source, labels, tmp_path):
    write_ome_zarr(source, tmp_path / "a.zarr")
    group = zarr.open_group(tmp_path / "a.zarr", mode="r")
    np.testing.assert_array_equal(group["0"][:], labels)
    np.testing.assert_array_equal(group["1"][:], labels[::2, ::2])
    ome = group.attrs["ome"]
    assert ome["version"] == "0.5"
    assert "image-label" in ome
    (multiscale,) = ome["multiscales"]
    assert [axis["unit"] for axis in multiscale["axes"]] == ["micrometer"] * 2
    first, second = (dataset["coordinateTransformations"] for dataset in multiscale["datasets"])
    assert first[0]["scale"] == [0.5, 0.25]
    assert second[0]["scale"] == [1.0, 0.5]
    assert second[1]["translation"] == [0.25, 0.125]

    empty = source_of_labels(np.zeros((2000, 2000), int), YX(1, 1))
    write_ome_zarr(empty, tmp_path / "empty.zarr")
    assert list((tmp_path / "a.zarr").rglob("c/*/*"))
    assert not list((tmp_path / "empty.zarr").rglob("c/*/*"))


def test_an_existing_ome_zarr_is_not_overwritten(source, tmp_path):
    (tmp_path / "a.zarr").mkdir()
    with pytest.raises(ExportError, match="exists already"):
        write_ome_zarr(source, tmp_path / "a.zarr", overwrite=True)


def test_an_older_export_is_replaced_on_request(source, labels, tmp_path):
    write_ome_zarr(source_of_labels(np.zeros((40, 40), int), YX(1, 1)), tmp_path / "a.zarr")
    with pytest.raises(ExportError, match="exists already"):
        write_ome_zarr(source, tmp_path / "a.zarr")
    write_ome_zarr(source, tmp_path / "a.zarr", overwrite=True)
    np.testing.assert_array_equal(zarr.open_group(tmp_path / "a.zarr", mode="r")["0"][:], labels)


def test_the_csv_has_one_row_a_nucleus_in_pixels_and_micrometres(source, labels, tmp_path):
    count = write_csv(source, tmp_path / "a.csv")
    with (tmp_path / "a.csv").open(newline="") as file:
        rows = {int(row["id"]): row for row in csv.DictReader(file)}
    assert tuple(next(iter(rows.values()))) == COLUMNS
    assert rows.keys() == set(np.unique(labels)) - {0}
    assert count == len(rows)
    pixel = rows[11]
    assert (pixel["y_px"], pixel["x_px"], pixel["y_um"], pixel["x_um"]) == ("0.50", "0.50", "0.250", "0.125")
    assert (pixel["area_um2"], pixel["score"], pixel["origin"], pixel["approved"]) == ("0.125", "", "nuclei@123", "0")
    two_parts = rows[9]
    box = [int(two_parts[name]) for name in ("y0_px", "x0_px", "y1_px", "x1_px")]
    assert box == [400, 10, 424, 14]


@pytest.mark.parametrize("write", [write_csv, write_label_tiff, write_ome_zarr])
def test_a_place_that_cannot_be_written_is_named(write, source, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ExportError, match="cannot be written"):
        write(source, tmp_path / "file" / "a.tif")


def test_blocks_give_every_nucleus_once_with_all_its_pixels(monkeypatch, labels):
    monkeypatch.setattr(block_regions, "__defaults__", (128,))
    source = source_of_labels(labels, YX(0.5, 0.25))
    seen = {}
    for block in iterate_blocks(source):
        for nucleus in block.table.ids.tolist():
            assert nucleus not in seen
            seen[nucleus] = int(np.sum(block.labels == nucleus))
    ids, areas = np.unique(labels[labels > 0], return_counts=True)
    assert seen == dict(zip(ids.tolist(), areas.tolist(), strict=True))


@pytest.mark.filterwarnings("ignore:Call to deprecated class Scaler:DeprecationWarning")  # inside spatialdata
@pytest.mark.parametrize("name", FORMATS)
def test_every_format_of_the_table_writes_and_replaces(name, source, tmp_path):
    if name == "parquet":
        pytest.importorskip("pyarrow", reason="pyarrow, which Parquet needs, is not installed")
    if name in {"anndata", "spatialdata"}:
        pytest.importorskip(name, reason=f"{name}, which {FORMATS[name].ending} needs, is not installed")
    path = tmp_path / f"a{FORMATS[name].ending}"
    steps = []
    export(source, path, name, lambda *step: steps.append(step))
    assert path.exists()
    assert steps[-1][0] == steps[-1][1]
    export(source, path, name)
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.geojson", "geojson"),
        ("a.labels.zarr", "zarr"),
        ("a.zarr/", "zarr"),
        ("a.labels-0.4.zarr", "zarr-0.4"),
        ("A.OME.TIF", "tif"),
        ("a.tiff", "tif"),
        ("a.csv", "csv"),
        ("a.parquet", "parquet"),
        ("a.h5ad", "anndata"),
        ("a.spatial.zarr/", "spatialdata"),
        ("a.coco.json", "coco"),
        ("a.json", "coco"),
    ],
)
def test_the_name_of_a_file_says_its_format(name, expected):
    assert format_of(name) == expected


def test_a_name_that_says_no_format_is_refused():
    with pytest.raises(ExportError, match=r"a\.xlsx does not say in which format\. End its name with \.geojson"):
        format_of("a.xlsx")


def test_an_ome_zarr_of_the_older_version_is_zarr_2(source, labels, tmp_path):
    write_ome_zarr(source, tmp_path / "a.zarr", version="0.4")
    group = zarr.open_group(tmp_path / "a.zarr", mode="r")
    assert group.metadata.zarr_format == 2
    assert group.attrs["multiscales"][0]["version"] == "0.4"
    np.testing.assert_array_equal(group["0"][:], labels)
    assert (tmp_path / "a.zarr" / "0" / "0" / "0").is_file()
    with pytest.raises(ExportError, match=r"OME-Zarr 0\.6 is not written"):
        write_ome_zarr(source, tmp_path / "b.zarr", version="0.6")


def test_parquet_without_pyarrow_says_how_to_get_it(monkeypatch, source, tmp_path):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'napari-nucleiseg\[parquet\]'"):
        write_parquet(source, tmp_path / "a.parquet")


def test_parquet_has_the_columns_of_the_csv(source, labels, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow, which Parquet needs, is not installed")
    count = write_parquet(source, tmp_path / "a.parquet")
    table = parquet.read_table(tmp_path / "a.parquet").to_pydict()
    assert tuple(table) == COLUMNS
    assert len(table["id"]) == count
    assert set(table["id"]) == set(np.unique(labels)) - {0}
    row = table["id"].index(11)
    assert (table["y_px"][row], table["area_um2"][row], table["score"][row]) == (0.5, 0.125, None)


def test_an_unknown_format_is_refused(source, tmp_path):
    with pytest.raises(ExportError, match=r"there is no format bmp; choose from zarr, zarr-0\.4, tif"):
        export(source, tmp_path / "a.bmp", "bmp")

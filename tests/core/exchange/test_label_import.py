"""Label images into a project: every kind of file exactly, whatever its blocks; what does not fit gets a sentence."""

import numpy as np
import pytest
import tifffile
import zarr

from napari_nucleiseg.core.errors import ImportFileError
from napari_nucleiseg.core.exchange import label_import
from napari_nucleiseg.core.exchange.imports import import_nuclei
from napari_nucleiseg.core.exchange.label_tiff import write_label_tiff
from napari_nucleiseg.core.exchange.ome_zarr import write_ome_zarr


def image_with_labels(path, labels, version):
    """An OME-Zarr image that has labels, as QuPath and ome-zarr-py write them."""
    write = zarr.create_group(path, zarr_format=3 if version == "0.5" else 2)
    below = write.create_group("labels")
    nuclei = below.create_group("nuclei")
    array = nuclei.create_array("0", shape=(1, 1, 1, *labels.shape), chunks=(1, 1, 1, 128, 128), dtype="int64")
    array[:] = labels[None, None, None]
    facts = {"multiscales": [{"datasets": [{"path": "0"}]}], "image-label": {}}
    listed = {"labels": ["nuclei"]}
    nuclei.attrs.update(facts if version == "0.4" else {"ome": facts})
    below.attrs.update(listed if version == "0.4" else {"ome": listed})


WRITERS = {
    "ours.labels.zarr": lambda path, source, _labels: write_ome_zarr(source, path),
    "older.zarr": lambda path, source, _labels: write_ome_zarr(source, path, version="0.4"),
    "image-0.5.zarr": lambda path, _source, labels: image_with_labels(path, labels, "0.5"),
    "image-0.4.zarr": lambda path, _source, labels: image_with_labels(path, labels, "0.4"),
    "plain.zarr": lambda path, _source, labels: zarr.create_array(path, data=labels, chunks=(100, 90)),
    "ours.ome.tif": lambda path, source, _labels: write_label_tiff(source, path),
    "ours.tif": lambda path, source, _labels: write_label_tiff(source, path),
    "memory.tif": lambda path, _source, labels: tifffile.imwrite(path, labels.astype(np.uint32)),
    "big-endian.tif": lambda path, _source, labels: tifffile.imwrite(path, labels.astype(np.uint32), byteorder=">"),
    "strips.tif": lambda path, _source, labels: tifffile.imwrite(
        path, labels.astype(np.uint32), compression="zlib", predictor=True, rowsperstrip=33
    ),
    "tiles.tif": lambda path, _source, labels: tifffile.imwrite(
        path, labels.astype(np.uint32), compression="lzw", tile=(128, 64)
    ),
}


@pytest.mark.parametrize("cell", [2048, 150])
@pytest.mark.parametrize("name", WRITERS)
def test_every_kind_of_label_image_comes_back_exactly(monkeypatch, project, source, labels, tmp_path, name, cell):
    monkeypatch.setattr(label_import, "CELL_PX", cell)
    WRITERS[name](tmp_path / name, source, labels)
    report = import_nuclei(project, tmp_path / name)
    np.testing.assert_array_equal(project.labels.read(project.labels.whole), labels)
    count = len(np.unique(labels)) - 1
    assert (report.nuclei, report.ids_kept, report.overlapped) == (count, count, 0)
    assert report.sentences[0] == f"{count} nuclei taken from {name}."
    table = project.nuclei_in(project.labels.whole)
    areas = np.bincount(np.searchsorted(table.ids, labels[labels > 0]))
    np.testing.assert_allclose(table.areas_um2, areas * 0.125)
    project.editor.undo()
    assert not project.labels.read(project.labels.whole).any()


def test_numbers_beyond_32_bit_and_negative_ones(project, labels, tmp_path):
    huge = np.where(labels == 11, 2**40, labels)
    huge[huge == 9] = -1
    zarr.create_array(tmp_path / "a.zarr", data=huge)
    report = import_nuclei(project, tmp_path / "a.zarr")
    count = len(np.unique(labels)) - 2
    assert (report.nuclei, report.ids_kept) == (count, count - 1)
    assert project.labels.read(project.labels.whole)[0, 0] >= 2**31
    assert not project.labels.read(project.labels.whole)[labels == 9].any()


def test_what_is_there_stays_unless_it_is_to_be_replaced(project, tmp_path):
    first = np.zeros((700, 900), np.uint16)
    first[10:20, 10:20] = 1
    second = np.zeros_like(first)
    second[10:20, 12:22] = 1
    second[100:110, 100:110] = 2
    for name, image in (("a.tif", first), ("b.tif", second)):
        tifffile.imwrite(tmp_path / name, image)
    import_nuclei(project, tmp_path / "a.tif")
    report = import_nuclei(project, tmp_path / "b.tif")
    assert (report.nuclei, report.left_out) == (1, {"there_already": 1})
    report = import_nuclei(project, tmp_path / "b.tif", overlap="replace")
    assert report.nuclei == 2
    np.testing.assert_array_equal(project.labels.read(project.labels.whole), second)


def stack(path):
    tifffile.imwrite(path, np.zeros((3, 700, 900), np.uint8), photometric="minisblack")


def colours(path):
    tifffile.imwrite(path, np.zeros((700, 900, 3), np.uint8), photometric="rgb")


def cut_off(path):
    tifffile.imwrite(path, np.arange(700 * 900, dtype=np.uint32).reshape(700, 900), compression="zlib")
    path.write_bytes(path.read_bytes()[:-200_000])


def empty_group(path):
    zarr.create_group(path)


BAD = {
    "size.tif": (lambda path: tifffile.imwrite(path, np.zeros((70, 90), np.uint8)), "has 90 x 70 pixels but the slide"),
    "size.zarr": (
        lambda path: zarr.create_array(path, data=np.zeros((9, 8), int)),
        "has 8 x 9 pixels but the slide 900",
    ),
    "float.tif": (lambda path: tifffile.imwrite(path, np.zeros((700, 900), np.float32)), "pixels of type float32"),
    "bool.zarr": (lambda path: zarr.create_array(path, data=np.zeros((700, 900), bool)), "Label its connected parts"),
    "stack.tif": (stack, "a label image is one plane"),
    "colours.tif": (colours, "a label image is one plane"),
    "cube.zarr": (lambda path: zarr.create_array(path, data=np.zeros((3, 7, 9), int)), "is one plane of height"),
    "text.tif": (lambda path: path.write_text("hello"), "cannot be read as a label image"),
    "cut.tif": (cut_off, r"cannot be read as a label image|is damaged near row"),
    "group.zarr": (empty_group, "cannot be read as a label image: there is no multiscale image"),
    "folder": (lambda path: path.mkdir(), "cannot be read as a label image"),
    "a.xlsx": (lambda path: path.write_text(""), "is of no kind that can be imported. Choose GeoJSON"),
    "missing.tif": (lambda _path: None, "does not exist. Check the name"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_does_not_fit_is_said_and_nothing_is_written(project, tmp_path, name):
    make, sentence = BAD[name]
    make(tmp_path / name)
    with pytest.raises(ImportFileError, match=sentence):
        import_nuclei(project, tmp_path / name)
    assert project.editor.history() == []


def test_a_label_over_half_the_slide_is_no_nucleus(monkeypatch, project, tmp_path):
    monkeypatch.setattr(label_import, "MOST_NUCLEUS_PX", 10_000)
    image = np.zeros((700, 900), np.uint8)
    image[:200, :200], image[300:310, 300:310] = 1, 2
    tifffile.imwrite(tmp_path / "a.tif", image)
    report = import_nuclei(project, tmp_path / "a.tif")
    assert (report.nuclei, report.left_out) == (1, {"too_large": 1})

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
from napari_nucleiseg.core.exchange.source import source_of_labels
from napari_nucleiseg.core.geometry import YX, Region
from napari_nucleiseg.core.store.check import check
from napari_nucleiseg.core.store.nuclei import TileNuclei


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


def assert_same_nuclei(one, other):
    """The same pixels belong together, whatever their numbers."""
    pairs = {(int(a), int(b)) for a, b in np.unique(np.stack([one.ravel(), other.ravel()]), axis=1).T}
    assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})
    assert (0, 0) in pairs


def low(labels):
    """The first three nuclei, with the numbers that the first tile's have."""
    ids = np.unique(labels[labels > 0])[:3]
    return np.where(np.isin(labels, ids), np.searchsorted(ids, labels) + 1, 0)


def write_discs(project, core, centres, version):
    """Have a model find discs in its first tile."""
    yy, xx = np.mgrid[: core.height, : core.width]
    found = np.zeros((core.height, core.width), np.int32)
    for number, (y, x) in enumerate(centres, start=1):
        found[(yy - y) ** 2 + (xx - x) ** 2 <= 25] = number
    boxes = np.array([(y - 5, x - 5, y + 6, x + 6) for y, x in centres], np.int64)
    ones = np.ones(len(centres), np.float32)
    project.write_tile(TileNuclei(0, core, core, found, np.array(centres, float), ones, boxes, ones), version, "k")


OURS = ("ours.", "older.")
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
    imported = project.labels.read(project.labels.whole)
    count = len(np.unique(labels)) - 1
    if name.startswith(OURS):
        np.testing.assert_array_equal(imported, labels)
    else:
        assert_same_nuclei(imported, labels)
        assert imported[imported > 0].min() >= 2**31  # those below are for what models find
    assert (report.nuclei, report.ids_kept, report.overlapped) == (count, count * name.startswith(OURS), 0)
    assert report.sentences[0] == f"{count} nuclei taken from {name}."
    table = project.nuclei_in(project.labels.whole)
    areas = np.bincount(np.searchsorted(table.ids, imported[imported > 0]))
    np.testing.assert_allclose(table.areas_um2, areas * 0.125)
    project.editor.undo()
    assert not project.labels.read(project.labels.whole).any()


def test_numbers_beyond_32_bit_and_negative_ones(project, labels, tmp_path):
    huge = np.where(labels == 11, 2**40, labels)
    huge[huge == 9] = -1
    zarr.create_array(tmp_path / "a.zarr", data=huge)
    report = import_nuclei(project, tmp_path / "a.zarr")
    count = len(np.unique(labels)) - 2
    assert (report.nuclei, report.ids_kept) == (count, 0)
    assert_same_nuclei(project.labels.read(project.labels.whole), np.where(labels == 9, 0, labels))


def test_a_number_beyond_those_of_an_export_is_not_kept_and_nuclei_can_still_be_drawn(project, labels, tmp_path):
    last = np.where(labels == 11, 2**32 - 1, labels)
    write_label_tiff(source_of_labels(last, YX(0.5, 0.25), name="field", origin="nuclei@123"), tmp_path / "last.tif")
    report = import_nuclei(project, tmp_path / "last.tif")
    assert report.ids_kept == report.nuclei - 1
    assert_same_nuclei(project.labels.read(project.labels.whole), labels)
    assert project.editor.new_id() < 2**32 - 2**24 + 2**20


def test_what_others_number_from_1_leaves_the_numbers_of_models_alone(project, tmp_path):
    image = np.zeros((700, 900), np.uint16)
    image[::4, ::4] = np.arange(1, 175 * 225 + 1).reshape(175, 225)  # more than a tile of a model has numbers
    tifffile.imwrite(tmp_path / "many.tif", image)
    assert import_nuclei(project, tmp_path / "many.tif").nuclei == 175 * 225
    core = Region(0, 0, 700, 450)
    write_discs(project, core, [(101, 102)], "m@1")
    found = project.nuclei_in(core)
    assert np.count_nonzero(found.ids < 2**31) == 1


def test_an_undone_import_done_again_takes_nothing_from_a_model_that_looked_meanwhile(project, labels, tmp_path):
    write_label_tiff(source_of_labels(low(labels), YX(0.5, 0.25), name="field", origin="m@1"), tmp_path / "ours.tif")
    import_nuclei(project, tmp_path / "ours.tif")
    project.editor.undo()
    core = Region(0, 0, 700, 450)
    write_discs(project, core, [(250, 250), (300, 250), (350, 250)], "m@1")
    before = project.nuclei_in(core)
    project.editor.redo()
    problems = check(project)
    assert problems.is_sound, problems
    after = project.nuclei_in(core)
    kept = np.isin(after.ids, before.ids)
    np.testing.assert_array_equal(after.centroids[kept], before.centroids)
    project.editor.undo()
    np.testing.assert_array_equal(project.nuclei_in(core).centroids, before.centroids)


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
    assert_same_nuclei(project.labels.read(project.labels.whole), second)


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

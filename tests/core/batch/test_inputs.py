"""Which slides a list of paths means, and what their results are called."""

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
import zarr

from napari_nucleiseg.core.batch import inputs
from napari_nucleiseg.core.batch.inputs import find_inputs, is_picture, stem_of
from napari_nucleiseg.core.batch.record import Entry, Record
from napari_nucleiseg.core.batch.unattended.database import RunDatabase, SlideRow
from napari_nucleiseg.core.errors import SlideError
from napari_nucleiseg.core.exchange.source import SOFTWARE
from napari_nucleiseg.core.slides.registry import open_slide
from slide_factory import tissue_picture, write_dicom_slide


def png(path):
    path.write_bytes(imagecodecs.png_encode(np.zeros((8, 8, 3), np.uint8)))
    return path


def test_folders_are_searched_sorted_and_other_files_passed_over(tmp_path):
    for name in ("b.png", "a.png", ".hidden.png"):
        png(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no slide")
    (tmp_path / "a.nucleiseg").mkdir()
    assert [entry.stem for entry in find_inputs([tmp_path])] == ["a", "b"]


def test_a_slide_that_is_named_twice_is_done_once(tmp_path):
    path = png(tmp_path / "a.png")
    assert len(find_inputs([path, tmp_path, path])) == 1


def test_a_named_file_is_kept_even_if_it_is_no_slide_so_that_its_error_is_told(tmp_path):
    (tmp_path / "a.txt").write_text("no slide")
    assert len(find_inputs([tmp_path / "a.txt", tmp_path / "missing.svs"])) == 2


def test_two_slides_of_one_name_and_an_empty_folder_are_refused(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "y").mkdir()
    png(tmp_path / "x" / "a.png"), png(tmp_path / "y" / "a.png")
    with pytest.raises(SlideError, match="would both be written to a; rename one"):
        find_inputs([tmp_path / "x", tmp_path / "y"])
    (tmp_path / "z").mkdir()
    with pytest.raises(SlideError, match="holds no slide or picture"):
        find_inputs([tmp_path / "z"])


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("a.svs", "a"),
        ("a.ome.tif", "a"),
        ("a.b.tif", "a.b"),
        ("a.ome.zarr", "a"),
        ("a.zarr", "a"),
        ("slide.1", "slide.1"),
    ],
)
def test_results_are_named_by_the_stem(tmp_path, name, stem):
    assert stem_of(tmp_path / name) == stem


def test_links_to_slides_of_one_name_are_told_apart(tmp_path):
    links = tmp_path / "links"
    links.mkdir()
    for case in ("1", "2"):
        (tmp_path / case).mkdir()
        (links / f"case{case}.png").symlink_to(png(tmp_path / case / "scan.png"))
    assert [entry.stem for entry in find_inputs([links])] == ["case1", "case2"]


def test_a_folder_of_dicom_files_keeps_its_whole_name(tmp_path):
    (tmp_path / "case.1").mkdir()
    assert stem_of(tmp_path / "case.1") == "case.1"


def test_an_address_stays_as_it_is_and_may_stand_among_files(tmp_path):
    address = "https://example.org/slides/a.ome.zarr"
    found = find_inputs([address, png(tmp_path / "b.png")])
    assert [(entry.path, entry.stem) for entry in found] == [(address, "a"), (str(tmp_path / "b.png"), "b")]


def test_a_png_is_a_picture_and_a_scan_is_not(tmp_path, picture, write_scan):
    write_scan(tmp_path / "a.svs", picture)
    assert not is_picture(open_slide(tmp_path / "a.svs"))
    assert is_picture(open_slide(png(tmp_path / "a.png")))


def test_empty_and_damaged_slides_of_a_folder_are_listed_so_that_their_error_is_told(tmp_path):
    png(tmp_path / "a.png")
    (tmp_path / "slide17.svs").touch()
    (tmp_path / "text.SVS").write_text("not a slide")
    (tmp_path / "gone.ndpi").symlink_to(tmp_path / "unplugged" / "gone.ndpi")
    (tmp_path / "cut.ome.zarr").mkdir()
    for name in ("._x.svs", ".DS_Store", "case.json", "notes.txt", "table.csv", "a.svs.md5"):
        (tmp_path / name).write_text("no slide")
    assert [entry.stem for entry in find_inputs([tmp_path])] == ["a", "cut", "gone", "slide17", "text"]


@pytest.fixture
def dicom(tmp_path):
    """A folder of one DICOM slide, in two levels and a label."""
    pytest.importorskip("pydicom", reason="the extra `dicom` is not installed")
    write_dicom_slide(tmp_path / "case", tissue_picture(80, 80), levels=2)
    return tmp_path / "case"


def add_series(folder, uid):
    write_dicom_slide(folder / uid, tissue_picture(80, 80), levels=1, uid=uid, label=False)
    (folder / uid / "level-0.dcm").rename(folder / f"{uid}.dcm")
    (folder / uid).rmdir()


def test_a_folder_of_one_dicom_slide_is_that_slide(dicom):
    (dicom / "level-1.dcm").write_bytes(b"")  # opening it says so
    (dicom / "notes.txt").write_text("no slide")
    label_tiff(dicom / "level-0.tif")
    assert [entry.path for entry in find_inputs([dicom])] == [str(dicom)]
    assert [entry.path for entry in find_inputs([dicom.parent])] == [str(dicom)]


def test_a_dicom_file_hides_no_other_slide_of_its_folder(dicom):
    png(dicom / "picture.png")
    assert stems(dicom) == ["level-0.dcm", "picture.png"]
    add_series(dicom, "2.5")
    (dicom / "damaged.dcm").write_bytes(b"")
    assert stems(dicom) == ["2.5.dcm", "damaged.dcm", "level-0.dcm", "picture.png"]


def test_a_folder_of_two_dicom_slides_is_one_file_of_each(dicom):
    add_series(dicom, "2.5")
    assert stems(dicom) == ["2.5.dcm", "level-0.dcm"]


def test_series_that_are_named_by_their_uids_alone_have_names_of_their_own(dicom):
    folder = dicom.parent / "uids"
    for uid in ("1.2.840.1", "1.2.840.2"):
        add_series(folder, uid)
        (folder / f"{uid}.dcm").rename(folder / uid)
    assert [(Path(entry.path).name, entry.stem) for entry in find_inputs([folder])] == [
        ("1.2.840.1", "1.2.840.1"),
        ("1.2.840.2", "1.2.840.2"),
    ]


def test_without_pydicom_other_slides_are_found_and_the_folder_says_what_to_install(dicom, monkeypatch):
    png(dicom / "picture.png")
    monkeypatch.setitem(sys.modules, "pydicom", None)
    assert stems(dicom) == ["case", "picture.png"]


def label_tiff(path, software=SOFTWARE, dtype=np.uint32):
    shape = (8, 8, 3) if dtype is np.uint8 else (8, 8)
    kind = "rgb" if dtype is np.uint8 else "minisblack"
    tifffile.imwrite(path, np.ones(shape, dtype), photometric=kind, software=software)
    return path


def stems(folder):
    return [Path(entry.path).name for entry in find_inputs([folder])]


def test_results_that_lie_in_a_folder_are_no_inputs(tmp_path):
    for name in ("a.png", "b.png", "c.png"):
        png(tmp_path / name)
    label_tiff(tmp_path / "a.tif")
    label_tiff(tmp_path / "b.tif", software="")
    Record(tmp_path).add(Entry("b", "b.png", "f", "s", ["b.tif"], 3))
    zarr.create_group(str(tmp_path / "c.labels.zarr"))
    zarr.create_group(str(tmp_path / "c.labels-0.4.zarr"), zarr_format=2)
    assert stems(tmp_path) == ["a.png", "b.png", "c.png"]


def test_a_folder_is_left_as_it_is_when_it_is_searched(tmp_path):
    png(tmp_path / "a.png")
    find_inputs([tmp_path])
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_label_images_that_a_batch_run_noted_are_no_inputs(tmp_path):
    png(tmp_path / "a.png")
    label_tiff(tmp_path / "b.ome.tif", software="")
    with RunDatabase(tmp_path) as database:
        database.put(SlideRow("b", "elsewhere/b.png", state="done", outputs=(str(tmp_path / "b.ome.tif"),)))
    assert stems(tmp_path) == ["a.png"]


def test_peoples_own_label_images_and_pictures_under_a_name_of_ours_stay_inputs(tmp_path):
    label_tiff(tmp_path / "a.tif", software="ImageJ")
    label_tiff(tmp_path / "b.tif", software="", dtype=np.uint8)
    label_tiff(tmp_path / "c.tif", dtype=np.uint8)
    Record(tmp_path).add(Entry("b", "b.png", "f", "s", ["b.tif"], 3))
    assert stems(tmp_path) == ["a.tif", "b.tif", "c.tif"]


def write_tiff(path, levels=1, **options):
    with tifffile.TiffWriter(path) as file:
        for level in range(levels):
            image = np.zeros((3000 >> level, 2000 >> level, 3), np.uint8)
            file.write(image, photometric="rgb", tile=(256, 256), **{"metadata": None, **options})
    return open_slide(path)


def test_a_tiff_is_a_picture_unless_it_comes_from_a_scanner_or_holds_a_pyramid(tmp_path, monkeypatch):
    plain = write_tiff(tmp_path / "plain.tif")
    assert len(plain.levels) > plain.stored_levels == 1  # levels made on opening are no pyramid
    assert is_picture(plain)
    assert is_picture(write_tiff(tmp_path / "a.ome.tif", metadata={"axes": "YXS"}))
    pyramid = write_tiff(tmp_path / "pyramid.tif", levels=2)
    assert pyramid.stored_levels == 2
    assert not is_picture(pyramid)
    # As slides of the TCGA are: from a scanner that states neither objective nor pixel size.
    aperio = write_tiff(tmp_path / "a.svs", description="Aperio Image Library v11\r\n2000x3000 (256x256) J2K")
    assert (aperio.vendor, aperio.objective_power, aperio.stored_levels) == ("aperio", None, 1)
    assert not is_picture(aperio)
    assert not is_picture(replace(plain, objective_power=20.0))
    monkeypatch.setattr(inputs, "LARGEST_PICTURE_PX", 5_999_999)
    assert not is_picture(plain)


def test_real_slides_are_scans_and_a_cutting_is_a_picture(shared_data):
    scans = [
        "wsi/cmu-1-small-region.svs",
        "wsi/tcga-cr-7395-01a-01-ts1.svs",
        "wsi/cmu_small_region_dicom",
        "wsi_mosaic_dev/tnbc_dev_mosaic_40x.tiff",
        "wsi_mosaic_dev/tnbc_dev_mosaic_40x.ome.tif",
    ]
    if importlib.util.find_spec("wsidicom") is None:
        scans.remove("wsi/cmu_small_region_dicom")
    assert [name for name in scans if is_picture(open_slide(shared_data / name))] == []
    assert is_picture(open_slide(shared_data / "wsi/OS-1-detail.ome.tif"))

"""Which slides a list of paths means, and what their results are called."""

import imagecodecs
import numpy as np
import pytest

from napari_nucleiseg.core.batch.inputs import find_inputs, is_picture, stem_of
from napari_nucleiseg.core.errors import SlideError
from napari_nucleiseg.core.slides.registry import open_slide


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
    ("name", "stem"), [("a.svs", "a"), ("a.ome.tif", "a"), ("a.b.tif", "a.b"), ("a.ome.zarr", "a"), ("a.zarr", "a")]
)
def test_results_are_named_by_the_stem(tmp_path, name, stem):
    assert stem_of(tmp_path / name) == stem


def test_a_folder_of_dicom_files_keeps_its_whole_name(tmp_path):
    (tmp_path / "case.1").mkdir()
    assert stem_of(tmp_path / "case.1") == "case.1"


def test_a_png_is_a_picture_and_a_scan_is_not(tmp_path, picture, write_scan):
    write_scan(tmp_path / "a.svs", picture)
    assert not is_picture(open_slide(tmp_path / "a.svs"))
    assert is_picture(open_slide(png(tmp_path / "a.png")))

"""A folder appears whole or not at all, and what was there goes only when the new one is complete."""

from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_nucleiseg.core.errors import ExportError
from napari_nucleiseg.core.exchange.whole_file import check_target, whole_file, whole_folder
from napari_nucleiseg.core.slides.fingerprint import former
from napari_nucleiseg.core.slides.registry import open_slide


def fill(folder, text):
    folder.mkdir()
    (folder / "content").write_text(text)


@pytest.fixture
def target(tmp_path):
    return tmp_path / "a"


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


def test_a_new_folder_takes_the_place_of_the_old(target, tmp_path):
    for text in ("one", "two"):
        with whole_folder(target, lambda _: True) as partial:
            fill(partial, text)
    assert (target / "content").read_text() == "two"
    assert names(tmp_path) == ["a"]


def test_what_may_not_go_stays_and_nothing_begins(target, tmp_path):
    fill(target, "dear")
    with pytest.raises(ExportError, match="a exists already"), whole_folder(target, lambda _: False):
        raise AssertionError
    assert (target / "content").read_text() == "dear"
    assert names(tmp_path) == ["a"]


def test_after_an_error_the_old_folder_is_there(target, tmp_path):
    fill(target, "old")

    def write_half():
        with whole_folder(target, lambda _: True) as partial:
            fill(partial, "half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert (target / "content").read_text() == "old"
    assert names(tmp_path) == ["a"]


def test_if_the_new_folder_cannot_be_renamed_the_old_one_comes_back(target, tmp_path, monkeypatch):
    fill(target, "old")
    rename = Path.replace

    def replace(self, other):
        if self.name.endswith(".part"):
            raise PermissionError(13, "Permission denied")
        return rename(self, other)

    monkeypatch.setattr(Path, "replace", replace)
    with (
        pytest.raises(ExportError, match="a cannot be written: Permission denied"),
        whole_folder(target, lambda _: True) as partial,
    ):
        fill(partial, "new")
    assert (target / "content").read_text() == "old"
    assert names(tmp_path) == ["a"]


@pytest.fixture
def project_folder(tmp_path):
    """A folder that counts as a project: it has a database."""
    folder = tmp_path / "s.nucleiseg"
    folder.mkdir()
    (folder / "project.sqlite").write_text("all nuclei")
    return folder


@pytest.mark.parametrize("name", ["project.sqlite", "new.csv", "deep/new.csv"])
def test_nothing_is_written_into_a_project(project_folder, name):
    with pytest.raises(ExportError, match="lies in the folder of a project"), whole_file(project_folder / name):
        raise AssertionError
    assert names(project_folder) == ["project.sqlite"]


def test_no_folder_takes_the_place_of_a_project_or_of_a_part_of_it(project_folder):
    fill(project_folder / "labels.zarr", "labels")
    for folder in (project_folder, project_folder / "labels.zarr"):
        with pytest.raises(ExportError, match="the folder of a project"), whole_folder(folder, lambda _: True):
            raise AssertionError
    assert names(project_folder) == ["labels.zarr", "project.sqlite"]


def test_a_link_into_a_project_or_out_of_it_changes_nothing(project_folder, tmp_path):
    (tmp_path / "link").symlink_to(project_folder)
    (project_folder / "out.csv").symlink_to(tmp_path / "out.csv")
    for path in (tmp_path / "link" / "new.csv", project_folder / "out.csv"):
        with pytest.raises(ExportError, match="lies in the folder of a project"):
            check_target(path)
    check_target(project_folder / ".." / "new.csv")


def test_a_slide_is_no_target_also_where_a_former_version_gave_its_fingerprint(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.full((400, 400, 3), 255, np.uint8), photometric="rgb", metadata=None)
    full = open_slide(path).fingerprint
    for known in (full, former(full)):
        with pytest.raises(ExportError, match="is the slide itself and would be lost"):
            check_target(path, known)
    check_target(path, "a" * 16 + former(full))


def test_what_is_read_is_no_target_nor_is_a_folder_that_holds_it(tmp_path):
    read = tmp_path / "folder" / "read.geojson"
    fill(read.parent, "other")
    read.write_text("nuclei")
    (tmp_path / "hard.geojson").hardlink_to(read)
    for path in (read, read.parent, tmp_path / "hard.geojson", read.parent / ".." / "folder" / "read.geojson"):
        with pytest.raises(ExportError, match="is what is read here and would be lost"):
            check_target(path, inputs=[read])
    check_target(read.parent / "new.geojson", inputs=[read])


def test_what_a_crash_left_is_swept_away(target, tmp_path):
    for left in (".a.part", ".a.old"):
        fill(tmp_path / left, "left")
    with whole_folder(target, lambda _: True) as partial:
        fill(partial, "new")
    assert (target / "content").read_text() == "new"
    assert names(tmp_path) == ["a"]

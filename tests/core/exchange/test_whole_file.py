"""A folder appears whole or not at all, and what was there goes only when the new one is complete."""

from pathlib import Path

import pytest

from napari_nucleiseg.core.errors import ExportError
from napari_nucleiseg.core.exchange.whole_file import whole_folder


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


def test_what_a_crash_left_is_swept_away(target, tmp_path):
    for left in (".a.part", ".a.old"):
        fill(tmp_path / left, "left")
    with whole_folder(target, lambda _: True) as partial:
        fill(partial, "new")
    assert (target / "content").read_text() == "new"
    assert names(tmp_path) == ["a"]

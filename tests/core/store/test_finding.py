"""A slide's project is found by the slide's fingerprint: renamed, moved, moved along; never another slide's."""

import json
import os
import shutil
from pathlib import Path

import pytest
from fields import blank_slide

from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.store import finding
from napari_nucleiseg.core.store.finding import find_project, find_renamed, remember, usual_folder
from napari_nucleiseg.core.store.project import Project, default_folder
from napari_nucleiseg.core.store.records import CLASSES


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
    monkeypatch.setattr(finding, "registry_path", lambda: tmp_path / "home" / "projects.json")
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda *_a, **_k: str(tmp_path / "cache"))
    return tmp_path / "home"


@pytest.fixture
def slides(tmp_path):
    return tmp_path / "slides"


def put(path, fingerprint="abcdef0123456789"):
    """A slide's file and the open slide."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(fingerprint)
    return blank_slide(fingerprint=fingerprint, path=str(path))


def made(slide, folder=None):
    folder = folder or default_folder(slide.path)
    with Project.open_or_create(folder, slide):
        pass
    remember(folder, slide)
    return folder


def moved(slide, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Path(slide.path).replace(path)
    return blank_slide(fingerprint=slide.fingerprint, path=str(path))


def test_nothing_is_found_where_nothing_is(slides):
    slide = put(slides / "a.svs")
    assert find_project(slide) is None
    assert find_project(slide, slides / "nowhere") is None


def test_the_usual_folder_comes_first(slides):
    slide = put(slides / "a.svs")
    folder = made(slide)
    made(slide, slides / "other.nucleiseg")
    assert find_project(slide) == folder
    assert usual_folder(slide) == folder


def test_a_renamed_slide_finds_its_project_and_keeps_it(slides, home):
    slide = put(slides / "a.svs")
    folder = made(slide)
    renamed = moved(slide, slides / "b.svs")
    shutil.rmtree(home)
    assert find_project(renamed) == folder
    made(renamed, folder)
    # Another slide takes the former name.
    put(slides / "a.svs", "0000000000000000")
    assert find_project(renamed) == folder


def test_a_slide_moved_alone_is_remembered(slides, tmp_path, home):
    slide = put(slides / "a.svs")
    folder = made(slide)
    away = moved(slide, tmp_path / "elsewhere" / "c.svs")
    assert find_project(away) == folder
    shutil.rmtree(home)
    assert find_project(away) is None


def test_a_project_moved_along_goes_before_what_is_remembered(slides, tmp_path):
    slide = put(slides / "a.svs")
    folder = made(slide)
    away = moved(slide, tmp_path / "elsewhere" / "c.svs")
    shutil.copytree(folder, tmp_path / "elsewhere" / "a.nucleiseg")
    assert find_project(away) == tmp_path / "elsewhere" / "a.nucleiseg"
    folder.rename(tmp_path / "gone")
    assert find_project(away) == tmp_path / "elsewhere" / "a.nucleiseg"


def test_of_two_the_one_used_last_is_taken(slides):
    slide = put(slides / "c.svs")
    older, newer = made(slide, slides / "x.nucleiseg"), made(slide, slides / "a.nucleiseg")
    os.utime(older / "project.sqlite", (1000, 1000))
    assert find_project(slide) == newer
    os.utime(newer / "project.sqlite", (10, 10))
    assert find_project(slide) == older


def test_other_slides_projects_and_strange_folders_are_left_alone(slides):
    slide = put(slides / "a.svs")
    made(put(slides / "b.svs", "0000000000000000"))
    made(put(slides / "gone.svs", "1111111111111111"))
    (slides / "gone.svs").unlink()
    (slides / "empty.nucleiseg").mkdir()
    (slides / "broken.nucleiseg").mkdir()
    (slides / "broken.nucleiseg" / "project.sqlite").write_bytes(b"?" * 9000)
    assert find_project(slide) is None


def test_the_usual_folder_of_another_slide_is_not_taken(slides):
    first = put(slides / "a.svs", "0000000000000000")
    folder = made(first)
    second = put(slides / "a.svs")
    assert find_project(second) is None
    away = made(second, slides / "mine.nucleiseg")
    assert find_project(second) == away != folder


def test_a_copy_of_a_slide_does_not_get_the_originals_project(slides, tmp_path):
    slide = put(slides / "a.svs")
    made(slide)
    assert find_project(put(slides / "copy.svs")) is None
    assert find_project(put(tmp_path / "elsewhere" / "a.svs")) is None


def test_a_folder_for_results_is_searched_and_so_is_the_slides(slides, tmp_path):
    results = tmp_path / "results"
    slide = put(slides / "a.svs")
    assert usual_folder(slide, results) == results / "a-abcdef01.nucleiseg"
    folder = made(slide, usual_folder(slide, results))
    made(put(slides / "z.svs", "abcdef9999999999"), results / "z-abcdef99.nucleiseg")
    assert find_project(slide, results) == folder
    assert find_project(moved(slide, slides / "b.svs"), results) == folder
    beside = made(put(slides / "d.svs", "2222222222222222"))
    assert find_project(put(slides / "d.svs", "2222222222222222"), results) == beside


FORMER, FULL, TWIN = "e" * 32, "abcdef01" * 2 + "e" * 32, "b" * 16 + "e" * 32


def test_a_project_of_a_former_version_is_found_after_renaming_and_moving(slides, tmp_path, home):
    folder = made(put(slides / "a.svs", FORMER))
    (slides / "a.svs").replace(slides / "b.svs")
    renamed = put(slides / "b.svs", FULL)
    assert find_project(renamed) == find_renamed(renamed, slides) == folder
    away = moved(renamed, tmp_path / "elsewhere" / "c.svs")
    assert find_project(away) == folder
    made(away, folder)
    assert find_project(put(tmp_path / "elsewhere" / "d.svs", TWIN)) is None
    assert find_project(away) == folder


def test_a_project_of_a_former_version_is_found_among_all_results(slides, tmp_path):
    results = tmp_path / "results"
    old = put(slides / "a.svs", FORMER)
    folder = made(old, usual_folder(old, results))
    slide = put(slides / "a.svs", FULL)
    assert usual_folder(slide, results) == results / "a-abcdef01.nucleiseg" != folder
    assert find_project(slide, results) == folder
    made(slide, folder)
    with Project.open(folder, slide) as project:
        project.editor.put(CLASSES, 9, (9, "Other", "#000000"), kind="class", region=Region(0, 0, 1, 1))
    # Another picture of the same name gets a folder of its own.
    assert find_project(put(tmp_path / "elsewhere" / "a.svs", TWIN), results) is None
    assert find_project(slide, results) == folder


def test_a_slide_that_lies_nowhere_has_its_project_with_the_caches(tmp_path):
    slide = blank_slide(fingerprint="33", path="Sample")
    folder = tmp_path / "cache" / "projects" / "33.nucleiseg"
    assert find_project(slide) is None
    made(slide, folder)
    assert usual_folder(slide) == find_project(slide) == folder


def test_without_a_fingerprint_only_the_usual_folder_counts(slides):
    slide = put(slides / "a.svs", "")
    made(slide, slides / "b.nucleiseg")
    assert find_project(slide) is None
    assert find_renamed(slide, slides) is None
    folder = made(slide)
    assert find_project(slide) == folder


def test_the_memory_is_bounded_survives_damage_and_needs_no_disk(slides, home, monkeypatch):
    monkeypatch.setattr(finding, "MOST_REMEMBERED", 3)
    slide = put(slides / "a.svs")
    for number in range(5):
        remember(slides / f"{number}.nucleiseg", slide)
    entries = json.loads((home / "projects.json").read_text())
    assert [entry["folder"][-11:-10] for entry in entries] == ["4", "3", "2"]
    for damage in ("{", "[1, {}]", '[{"fingerprint": "abcdef0123456789", "folder": 3, "used": "x"}]'):
        (home / "projects.json").write_text(damage)
        assert find_project(slide) is None
        remember(slides / "a.nucleiseg", slide)
    shutil.rmtree(home)
    home.write_text("a file")
    remember(slides / "a.nucleiseg", slide)

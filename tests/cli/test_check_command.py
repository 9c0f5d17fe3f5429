"""``check`` from the shell: sound, wrong, mended, in use; by the slide or by the folder of its results."""

import sqlite3

import numpy as np
import pytest

from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.slides.registry import open_slide
from napari_nucleiseg.core.store.project import Project, default_folder


@pytest.fixture
def folder(png):
    """The project of a picture with two nuclei that a person drew."""
    with Project.create(default_folder(png), open_slide(png, mpp_um=0.5)) as project:
        for y in (20, 60):
            image = np.full((9, 9), project.editor.new_id(), np.uint32)
            project.editor.paint(Region(y, 30, 9, 9), image)
    return project.folder


def spoil(folder, statement):
    with sqlite3.connect(folder / "project.sqlite") as database:
        database.execute(statement)
    database.close()


def test_whole_results_are_said_to_be_so(shell, png, folder):
    for path in (png, folder):
        answer = shell("check", path)
        assert answer.status == 0
        assert f"{folder}: all is well, 2 nuclei." in answer.out
    document = shell("check", folder, "--json").document
    assert (document["sound"], document["problems"], document["nuclei"]) == (True, 0, 2)


def test_what_is_wrong_is_told_and_mended_when_asked(shell, folder):
    spoil(folder, "UPDATE nuclei SET area_um2 = 1, y0 = 0")
    answer = shell("check", folder)
    assert answer.status == 1
    assert "2  nuclei have a size or place that is not that of their pixels" in answer.out.replace("│", "")
    assert "--repair" in answer.out
    document = shell("check", folder, "--json").document
    assert not document["sound"]
    assert len(document["tables"]["wrong_geometry"]) == 2
    answer = shell("check", folder, "--repair")
    assert answer.status == 0
    assert "mended, 2 nuclei" in answer.out
    assert shell("check", folder).status == 0


def test_what_cannot_be_mended_stays_wrong(shell, folder, monkeypatch):
    monkeypatch.setattr(
        "napari_nucleiseg.core.store.audit.said_by_database", lambda _database: ("row 3 missing from index",)
    )
    answer = shell("check", folder, "--repair")
    assert answer.status == 1
    assert "row 3 missing from index" in answer.out
    assert "Restore the folder from a copy" in answer.out


def test_a_slide_without_results_and_a_folder_that_is_none_are_told(shell, png, tmp_path):
    answer = shell("check", png)
    assert answer.status == 1
    assert "a.png has no results yet" in answer.err
    answer = shell("check", tmp_path / "b.nucleiseg")
    assert answer.status == 1
    assert "There is no project in" in answer.err


def test_results_that_somebody_is_changing_are_left_alone(shell, folder):
    with Project.open(folder):
        answer = shell("check", folder)
    assert answer.status == 1
    assert "is in use by" in answer.err


def test_a_damaged_database_is_told(shell, folder):
    (folder / "project.sqlite").write_bytes(b"nothing" * 5000)
    answer = shell("check", folder)
    assert answer.status == 1
    assert "is damaged" in answer.err

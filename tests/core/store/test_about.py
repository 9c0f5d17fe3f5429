"""A project keeps where the pixels of its slide begin and what it is known by, also one of a former version."""

from dataclasses import replace

import numpy as np
import pytest

from napari_nucleiseg.core.geometry import YX, Region
from napari_nucleiseg.core.slides import fingerprint
from napari_nucleiseg.core.slides.pyramid import Slide
from napari_nucleiseg.core.slides.registry import open_slide
from napari_nucleiseg.core.store.project import Project
from slide_factory import tissue_picture, write_ome_zarr

BOUNDS = Region(5, 7, 20, 20)


@pytest.fixture
def slide():
    white = np.broadcast_to(np.uint8(255), (30, 40, 3))
    return Slide("/slides/s.mrxs", (white,), (YX(1, 1),), YX(0.5, 0.5), bounds=BOUNDS, fingerprint="f")


def test_it_is_kept_from_the_beginning(slide, tmp_path):
    Project.create(tmp_path / "p", slide).close()
    with Project.open(tmp_path / "p", writable=False) as project:
        assert project.corner == (5, 7)


@pytest.mark.parametrize("writable", [True, False])
def test_a_project_that_does_not_know_it_learns_it_from_the_slide(slide, tmp_path, writable):
    Project.create(tmp_path / "p", replace(slide, bounds=None)).close()
    with Project.open(tmp_path / "p", slide, writable=writable) as project:
        assert project.corner == (5, 7)
        if writable:
            project.editor.paint(Region(0, 0, 2, 2), np.ones((2, 2), np.uint32))
    # Who only looks changes no file.
    with Project.open(tmp_path / "p", replace(slide, bounds=None), writable=False) as project:
        assert project.corner == ((5, 7) if writable else (0, 0))


def test_a_project_made_with_labels_in_the_slide_is_opened_and_stays_so_without_them(tmp_path, monkeypatch):
    path = tmp_path / "s.ome.zarr"
    write_ome_zarr(path, tissue_picture(30, 40))
    (path / "labels").mkdir()
    (path / "labels" / "zarr.json").write_text("{}")
    with monkeypatch.context() as former:
        former.setattr(fingerprint, "_is_beside_picture", lambda _folder: False)
        before = open_slide(path)
        Project.create(tmp_path / "p", before).close()
    assert open_slide(path).fingerprint != before.fingerprint
    with Project.open(tmp_path / "p", open_slide(path)) as project:
        project.editor.paint(Region(0, 0, 2, 2), np.ones((2, 2), np.uint32))
    monkeypatch.setattr(fingerprint, "_GIVEN_BEFORE", {})
    with Project.open(tmp_path / "p", open_slide(path)) as project:
        assert project.census.total() == 1


def test_a_slide_all_of_which_is_pixels_adds_nothing(slide, tmp_path):
    with Project.create(tmp_path / "p", replace(slide, bounds=None)) as project:
        assert project.corner == (0, 0)
        assert not any("bounds" in key for key in project.ledger.meta())

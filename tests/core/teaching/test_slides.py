"""The slide of a project is found where it is likely to be, and none is taken for another."""

from dataclasses import replace

import imagecodecs
import numpy as np
import pytest
import tifffile

from napari_nucleiseg.core.errors import SlideError
from napari_nucleiseg.core.geometry import YX, Region
from napari_nucleiseg.core.slides.fingerprint import former
from napari_nucleiseg.core.slides.registry import open_slide
from napari_nucleiseg.core.store.finding import remember
from napari_nucleiseg.core.store.project import Project
from napari_nucleiseg.core.store.records import CLASSES
from napari_nucleiseg.core.teaching.slides import find_slide


def write_picture(path, seed):
    pixels = np.random.default_rng(seed).integers(0, 255, (64, 80, 3), np.uint8)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(imagecodecs.png_encode(pixels))
    return path


@pytest.fixture
def slide(tmp_path):
    return write_picture(tmp_path / "a" / "one.png", 1)


@pytest.fixture
def project(slide):
    with Project.create(slide.with_suffix(".nucleiseg"), open_slide(str(slide), mpp_um=YX(0.5, 0.5))):
        pass
    with Project.open(slide.with_suffix(".nucleiseg"), writable=False) as project:
        yield project


def test_beside_its_project_also_under_another_name(project, slide):
    assert find_slide(project).path == str(slide)
    renamed = slide.rename(slide.with_name("renamed.png"))
    assert find_slide(project).path == str(renamed)


def test_another_slide_of_the_same_name_is_not_taken_for_it(project, slide, tmp_path):
    moved = slide.rename(tmp_path / "moved.png")
    write_picture(slide, 2)
    assert find_slide(project) is None
    assert find_slide(project, [str(slide), str(moved)]).path == str(moved)


def test_the_slide_of_a_project_of_a_former_version_is_found(tmp_path):
    folder = tmp_path / "one.nucleiseg"
    for name in ("one", "other"):
        pixels = np.zeros((300, 300, 3), np.uint8)
        pixels[120:180] = len(name)
        tifffile.imwrite(tmp_path / f"{name}.tif", pixels, photometric="rgb", metadata=None)
    slide = open_slide(tmp_path / "one.tif", mpp_um=0.5)
    Project.create(folder, replace(slide, fingerprint=former(slide.fingerprint))).close()
    with Project.open(folder, writable=False) as project:
        assert find_slide(project).path == str(tmp_path / "one.tif")
    with Project.open(folder, slide) as project:  # what it is of is kept with the next change
        project.editor.put(CLASSES, 9, (9, "Other", "#000000"), kind="class", region=Region(0, 0, 1, 1))
    with Project.open(folder, writable=False) as project:
        assert find_slide(project, [str(tmp_path / "other.tif")]).path == str(tmp_path / "one.tif")


def test_where_it_was_last_seen(project, slide, tmp_path):
    moved = write_picture(tmp_path / "elsewhere" / "one.png", 1)
    slide.unlink()
    assert find_slide(project) is None
    remember(project.folder, open_slide(str(moved)))
    assert find_slide(project).path == str(moved)


def test_damaged_files_beside_it_are_passed_over_but_given_ones_are_told(project, slide, tmp_path):
    slide.rename(slide.with_name("z.png"))
    slide.with_name("b.png").write_bytes(b"no picture")
    assert find_slide(project).path == str(slide.with_name("z.png"))
    with pytest.raises(SlideError):
        find_slide(project, [str(slide.with_name("b.png"))])

"""From one nucleus that nobody has looked at to the next, with no window."""

import shutil

import pytest
import tifffile
from napari.components import ViewerModel

from napari_nucleiseg.viewer.project_view import nearest_unseen
from napari_nucleiseg.viewer.visible import visible_region
from plots_parts import WindowlessPlots


@pytest.fixture
def touring(pump, tmp_path):
    made = WindowlessPlots(ViewerModel(), pump, tmp_path)
    yield made
    made.close()


def correct(touring, path):
    touring.open(path)
    touring.segment()
    touring.controller.session.editing = True
    touring.settle()


def nearest(touring):
    view = visible_region(touring.viewer, touring.controller.display.shelf.now.layer)
    return nearest_unseen(touring.project, view.centre).id


def test_what_was_passed_on_one_slide_was_not_on_the_next(touring, disc_slide, tmp_path):
    other = shutil.copyfile(disc_slide, tmp_path / "other.tif")
    with tifffile.TiffFile(other, mode="r+b") as file:
        file.pages[0].tags["Software"].overwrite("another")
    picked = []
    touring.editing.picked.connect(picked.append)
    for path in (disc_slide, other):
        correct(touring, path)
        first = nearest(touring)
        for _ in range(2):
            touring.controller.tools.tour.next()
            touring.settle()
        assert picked[0] == first != picked[1]
        picked.clear()

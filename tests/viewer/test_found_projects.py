"""The window finds the results of a slide that was renamed, and remembers where it wrote."""

import imagecodecs
import pytest

from dark_model import disc_picture
from napari_nucleiseg.core.slides.registry import open_slide
from napari_nucleiseg.viewer.engine import Engine
from napari_nucleiseg.viewer.opened import OpenedSlide
from napari_nucleiseg.viewer.segmentation import recall


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "slides" / "a.png"
    path.parent.mkdir()
    path.write_bytes(imagecodecs.png_encode(disc_picture((192, 256))))
    return path


def test_results_are_found_where_the_slide_was_renamed_or_moved(path, tmp_path):
    engine = Engine()
    slide = open_slide(path, mpp_um=0.5)
    folder = engine.project_folder(slide)
    engine.open_project(slide, folder, create=True).close()
    for place in (path.with_name("b.png"), tmp_path / "elsewhere" / "c.png"):
        place.parent.mkdir(exist_ok=True)
        path = path.rename(place)
        opened = OpenedSlide(open_slide(path), layer=None)
        assert recall(opened, engine, "") == (0.5, 0.5)
        assert opened.project.folder == folder
        opened.close()

"""What is said before teaching is of the slides and the model in hand, as long as somebody reads it."""

import numpy as np
import pytest
import tifffile
from napari.components import ViewerModel

from dark_model import disc_picture
from napari_nucleiseg.core.errors import WeightsError
from napari_nucleiseg.core.store.regions import AnnotatedRegion, put_region
from plots_parts import WindowlessPlots


@pytest.fixture
def desk(pump, tmp_path, disc_slide):
    """A slide that is closed again, with two regions that are done, and an open one without any; advice is read."""
    made = WindowlessPlots(ViewerModel(), pump, tmp_path)
    made.open(disc_slide)
    made.segment()
    for (y0, x0, y1, x1), role in (((100, 100, 300, 400), "teach"), ((400, 500, 600, 800), "hold out")):
        corners = ((y0, x0), (y0, x1), (y1, x1), (y1, x0))
        region = AnnotatedRegion(0, "", role, corners, done=True)
        pump.jobs.enqueue("edit", lambda region=region: put_region(made.project, region))
        made.settle()
    made.viewer.layers.remove(made.controller.display.shelf.now.layer)
    made.settle()
    tile = {"tile": (256, 256), "resolution": (2e4, 2e4), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(tmp_path / "another.tif", np.roll(disc_picture((768, 1024)), 8, axis=1), **tile)
    made.open(tmp_path / "another.tif")
    made.segment()
    made.teaching = made.controller.teaching
    made.advised = []
    made.teaching.advised.connect(made.advised.append)
    made.teaching.watch(on=True)
    made.settle()
    yield made
    made.close()


def test_the_advice_follows_slides_that_come_and_go(desk, disc_slide):
    assert "Nothing has been corrected" in desk.advised[-1].sentences[0]
    desk.open(disc_slide)
    assert desk.advised[-1].ready
    desk.viewer.layers.remove(desk.controller.display.shelf.now.layer)
    desk.settle()
    assert "Nothing has been corrected" in desk.advised[-1].sentences[0]
    desk.viewer.layers.remove(desk.controller.display.shelf.now.layer)
    desk.settle()
    assert desk.advised[-1] is None


def test_the_advice_is_of_the_model_in_hand_and_says_why_there_is_none(desk, monkeypatch):
    said, loaded, load = [], [], desk.teaching.engine.load
    desk.teaching.said.connect(lambda hint: said.append(hint.text))

    def noted(name):
        loaded.append(name)
        if name == "gone":
            raise WeightsError("Its file is gone.")
        return load(name)

    monkeypatch.setattr(desk.teaching.engine, "load", noted)
    desk.controller.session.model = "gone"
    desk.settle()
    assert loaded[-1] == "gone"
    assert desk.advised[-1] is None
    assert said == ["Its file is gone."]
    desk.controller.session.model = "nuclei"
    desk.settle()
    assert desk.advised[-1] is not None


def test_nobody_reads_it_and_nothing_is_looked_at(desk, disc_slide):
    number = len(desk.advised)
    desk.teaching.watch(on=False)
    desk.open(disc_slide)
    desk.editing.edited.emit()
    desk.settle()
    assert len(desk.advised) == number

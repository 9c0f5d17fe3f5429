import pytest
from napari.components import ViewerModel

from napari_nucleiseg.viewer import framing
from napari_nucleiseg.viewer.framing import Framing


@pytest.fixture
def model():
    """A viewer without a window, a square picture in it."""
    import numpy as np

    made = ViewerModel()
    made.canvas.size = (800, 800)
    made.add_image(np.zeros((1000, 1000), np.uint8))
    return made


@pytest.fixture
def framed(model):
    made = Framing(model)
    model.canvas.events.size.connect(made.on_canvas_resized)  # holds it weakly
    made.begin()
    yield model
    assert made


def test_a_slide_stays_whole_in_view_when_docks_grow(framed):
    framed.canvas.size = (800, 400)
    assert framed.scene.camera.zoom * 1000 <= 400
    framed.canvas.size = (800, 700)
    assert 400 < framed.scene.camera.zoom * 1000 <= 700


def test_whoever_has_moved_is_left_alone(framed):
    framed.scene.camera.zoom = 5.0
    framed.canvas.size = (800, 400)
    framed.canvas.size = (800, 700)
    assert framed.scene.camera.zoom == 5.0


def test_a_settled_window_is_left_alone(framed, monkeypatch):
    before = framed.scene.camera.zoom
    now = framing.time.monotonic()
    monkeypatch.setattr(framing.time, "monotonic", lambda: now + 60)
    framed.canvas.size = (800, 400)
    assert framed.scene.camera.zoom == before

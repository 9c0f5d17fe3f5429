"""The label map of clusters as a layer, and the fit as a job, with no window."""

import threading
from types import SimpleNamespace

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.layers import Image
from psygnal import Signal

from napari_nucleiseg.core.errors import DataError, MissingPixelSizeError
from napari_nucleiseg.core.geometry import YX, Region
from napari_nucleiseg.core.slides.sample import tissue_slide
from napari_nucleiseg.core.training.clustering.config import ClusterConfig
from napari_nucleiseg.state import Session
from napari_nucleiseg.viewer.cluster_layer import FAINT, LIT, TICKED, ClusterLayer, colour_of
from napari_nucleiseg.viewer.clustering import NO_SLIDE, TWO_DIMENSIONS, Clustering
from napari_nucleiseg.viewer.layers import slide_layer
from napari_nucleiseg.viewer.opened import OpenedSlide
from napari_nucleiseg.viewer.sentences import sentence_of

TINY = ClusterConfig(width=6, blocks=1, fit_px=64 * 64, min_clusters=2, iterations=3, device="cpu")
PLACE, STEP = Region(10, 20, 30, 40), YX(2.0, 4.0)


class Controller:
    """As much of a controller as clustering needs."""

    slide_changed = Signal(object)

    def __init__(self, viewer, jobs, opened):
        self.session = Session()
        shelf = SimpleNamespace(now=opened)
        self.display = SimpleNamespace(viewer=viewer, jobs=jobs, shelf=shelf, session=self.session)
        self.asked = []

    def ask(self, question, go_on):
        self.asked.append((question, go_on))


@pytest.fixture
def opened():
    slide = tissue_slide()
    data, attributes, _ = slide_layer(slide)
    return OpenedSlide(slide, Image(data, **attributes))


@pytest.fixture
def viewer(opened):
    shown = ViewerModel()
    shown.add_layer(opened.layer)
    return shown


@pytest.fixture
def clustering(viewer, opened, pump):
    made = Clustering(Controller(viewer, pump.jobs, opened))
    made.sentences = []
    made.said.connect(lambda hint: made.sentences.append(hint.text))
    yield made
    made.close()


def looked_at(monkeypatch, region):
    monkeypatch.setattr("napari_nucleiseg.viewer.clustering.visible_region", lambda *_: region)


def test_pixels_of_the_layer_lie_on_those_of_the_slide(viewer, opened):
    layer = ClusterLayer(viewer)
    layer.show(opened, PLACE, STEP, np.zeros((30, 40), np.int16))
    shown = viewer.layers[-1]
    mpp = opened.slide.require_mpp()
    assert tuple(shown.scale) == (2 * mpp.y, 4 * mpp.x)
    # The corner of its first pixel is that of the region, where a pixel's centre is a whole number.
    corner = shown.data_to_world((-0.5, -0.5))
    np.testing.assert_allclose(corner, ((10 * 2 - 0.5) * mpp.y, (20 * 4 - 0.5) * mpp.x))
    assert shown.units == opened.layer.units
    layer.hide()
    assert list(viewer.layers) == [opened.layer]


def test_what_is_ticked_is_strong_and_what_is_pointed_at_is_alone(viewer, opened):
    layer = ClusterLayer(viewer)
    layer.colour({})  # nothing is shown yet
    layer.show(opened, PLACE, STEP, np.full((30, 40), 3, np.int16))
    colours = {3: colour_of(0), 5: colour_of(1)}

    def opacities():
        shades = viewer.layers[-1].colormap.color_dict
        return shades[4][3], shades[6][3]

    layer.colour(colours, {3})
    assert opacities() == pytest.approx((TICKED, FAINT))
    layer.colour(colours, {3}, lit=5)
    assert opacities() == pytest.approx((0, LIT))
    shown = viewer.layers[-1]
    viewer.layers.remove(shown)
    layer.show(opened, PLACE, STEP, np.zeros((30, 40), np.int16))
    assert viewer.layers[-1] is not shown


def test_no_two_clusters_have_one_colour():
    assert len({colour_of(place) for place in range(256)}) == 256


def test_a_fit_reports_each_step_and_lists_the_clusters_at_the_end(viewer, clustering, pump, monkeypatch):
    looked_at(monkeypatch, Region(100, 150, 64, 80))
    steps = []
    clustering.progress_changed.connect(steps.append)
    clustering.view(TINY)
    assert clustering.is_running
    clustering.view(TINY)  # one at a time
    pump.run_until(lambda: not clustering.is_running, 30)
    done = list(dict.fromkeys((step.done, step.total) for step in steps if step.total))
    assert done == [(number, 3) for number in range(1, len(done) + 1)]
    assert steps[-1].clusters == len(clustering.found.ranked)
    found = clustering.found
    assert found is not None
    assert clustering.chosen == {item.cluster for item in found.ranked if item.proposed}
    assert 0 < clustering.ticked_share <= 1
    assert viewer.layers[-1].data.shape == (64, 80)
    assert "clusters" in clustering.sentences[-1]


def test_another_slide_or_pixel_size_takes_it_away(viewer, clustering, pump, monkeypatch):
    looked_at(monkeypatch, Region(100, 150, 64, 80))
    clustering.view(TINY)
    pump.run_until(lambda: clustering.found is not None, 30)
    clustering._controller.slide_changed.emit(None)
    assert clustering.found is not None
    clustering.opened.set_pixel_size(YX(0.25, 0.25))
    clustering._controller.slide_changed.emit(None)
    assert clustering.found is None
    assert len(viewer.layers) == 1


def test_what_fails_after_it_was_stopped_is_said_and_leaves_the_next_run_alone(clustering, pump, monkeypatch):
    looked_at(monkeypatch, Region(100, 150, 64, 80))
    begun, gate, real, runs = threading.Event(), threading.Event(), clustering.engine.read, []

    def fails(*_anything):
        begun.set()
        gate.wait(30)
        raise MissingPixelSizeError("s1.tif cannot be read")

    monkeypatch.setattr(clustering.engine, "read", fails)
    clustering.running_changed.connect(runs.append)
    clustering.view(TINY)
    assert begun.wait(30)
    clustering.drop()
    monkeypatch.setattr(clustering.engine, "read", real)
    clustering.view(TINY)
    gate.set()
    pump.run_until(lambda: "s1.tif cannot be read." in clustering.sentences, 30)
    assert clustering.is_running
    pump.run_until(lambda: not clustering.is_running, 30)
    assert clustering.found is not None
    assert clustering._controller.asked == []
    assert runs == [True, False, True, False]


def test_what_cannot_be_seen_cannot_be_clustered(clustering, monkeypatch):
    looked_at(monkeypatch, None)
    clustering.view(TINY)
    looked_at(monkeypatch, Region(0, 0, 0, 0))
    clustering.view(TINY)
    clustering._shelf.now = None
    clustering.view(TINY)
    clustering.shape(TINY)
    assert clustering.sentences[0] == TWO_DIMENSIONS
    assert "out of sight" in clustering.sentences[1]
    assert clustering.sentences[2:] == [NO_SLIDE, NO_SLIDE]
    assert not clustering.is_running


def test_errors_of_ours_are_sentences_and_others_are_raised():
    assert sentence_of(DataError("the region is white")) == "The region is white."
    assert sentence_of(DataError("s1.tif is no slide")) == "s1.tif is no slide."
    with pytest.raises(KeyError):
        sentence_of(KeyError("x"))

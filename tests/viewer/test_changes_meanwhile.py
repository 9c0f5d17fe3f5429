"""Without a window: what a person does while something else is under way, or has waited since another slide."""

import time
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
from napari.components import ViewerModel
from napari.layers import Labels

from dark_model import disc_picture
from napari_nucleiseg.core.geometry import YX, Region
from napari_nucleiseg.core.store.project import Project, holder
from napari_nucleiseg.viewer import comparing
from napari_nucleiseg.viewer.batch import Batch
from napari_nucleiseg.viewer.batch_engine import BatchEngine
from napari_nucleiseg.viewer.messages import LicenceQuestion
from napari_nucleiseg.viewer.visible import visible_region
from plots_parts import WindowlessPlots


def write_discs(path, shape=(768, 1024)):
    tile = {"tile": (256, 256), "resolution": (2e4, 2e4), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(path, disc_picture(shape), **tile)
    return path


@pytest.fixture
def viewing(pump, tmp_path):
    made = WindowlessPlots(ViewerModel(), pump, tmp_path)
    made.viewer.canvas.size = (300, 400)
    yield made
    made.close()


@pytest.fixture
def large(viewing, tmp_path):
    """A slide that is segmented as a whole."""
    viewing.open(write_discs(tmp_path / "large.tif", (1536, 2048)))
    viewing.controller.segment_slide()
    viewing.settle()
    return viewing


def test_an_edit_while_what_is_painted_on_is_read_is_seen_there(large):
    large.see(Region(0, 0, 300, 400))
    large.editing._display.session.editing = True
    large.settle()
    window, target = large.editing.window, Region(1000, 1400, 300, 400)
    nucleus = int(large.project.nuclei_in(target).ids[30])
    assert not window.region.overlaps(target)
    reads, read = [], large.editing._read
    large.editing._read = lambda region: (read(region), reads.append(region))
    layer = large.controller.display.shelf.now.layer
    large.viewer.scene.camera.center = tuple(layer.data_to_world(target.centre))[-2:]
    large.pump.run_until(lambda: bool(reads))
    large.editing.delete([nucleus])
    large.settle()
    assert window.region.contains(target)
    truth = np.asarray(large.project.labels.levels[0][window.region.slices])
    assert nucleus not in truth
    np.testing.assert_array_equal(window.ids, truth)


def test_zooming_out_amid_a_stroke_shows_all_nuclei_once_the_button_is_up(large):
    large.see(Region(600, 800, 150, 200))
    session = large.controller.session
    session.editing = True
    large.settle()
    session.tool = "brush"
    large.settle()
    layer = large.editing.window.layer
    event = SimpleNamespace(type="mouse_press", position=layer.data_to_world((100, 100)))
    press = large.controller.tools._on_press(layer, event)
    next(press)
    event.type = "mouse_move"
    next(press)
    large.see(Region(200, 300, 1100, 1400))
    view = visible_region(large.viewer, large.controller.display.shelf.now.layer)
    assert not large.editing.window.covers(view)
    event.type = "mouse_release"
    assert next(press, None) is None
    large.settle()
    now = large.controller.display.shelf.now
    assert large.editing.window.covers(view) or now.nuclei.visible


def test_a_question_that_was_declined_is_not_gone_on_with_on_another_slide(viewing, tmp_path):
    controller, asked, begun = viewing.controller, [], []
    viewing.open(write_discs(tmp_path / "a.tif"))
    controller.question_asked.connect(asked.append)
    controller.session.model = "research"
    viewing.settle()
    controller.segment_slide()
    viewing.settle()
    assert [type(question) for question in asked] == [LicenceQuestion]
    controller.session.model = "nuclei"
    viewing.open(write_discs(tmp_path / "b.tif", (768, 1056)))
    begin = controller.segmenter.begin
    controller.segmenter.begin = lambda wish: (begun.append(wish), begin(wish))
    controller.set_pixel_size(YX(0.45, 0.45))
    viewing.settle()
    assert not [wish for wish in begun if wish.model == "research" or wish.opened.slide.path.endswith("a.tif")]
    assert len(asked) == 1


@pytest.mark.parametrize("given", [None, YX(0.45, 0.45)])
def test_a_batch_has_the_pixel_size_that_was_given_in_an_earlier_session(viewing, pump, tmp_path, given):
    path = write_discs(tmp_path / "a.tif")
    viewing.open(path)
    if given:
        viewing.controller.set_pixel_size(given)
    viewing.segment()
    viewing.viewer.layers.clear()
    viewing.settle()
    viewing.open(path)
    batch = Batch(viewing.controller, BatchEngine())
    batch.add_open()
    viewing.settle()
    assert [entry.mpp_um for entry in batch.queue.entries] == [given and 0.45]
    batch.close()


@pytest.mark.parametrize("corrects", [True, False])
def test_a_comparison_that_is_closed_shows_nuclei_as_they_are_corrected_by_then(
    viewing, tmp_path, monkeypatch, corrects
):
    layers = (Labels(np.zeros((8, 8), np.uint8), name="versions"),)
    monkeypatch.setattr(comparing, "comparison_layers", lambda *_: layers)
    monkeypatch.setattr(comparing, "fit_outlines", lambda *_: None)
    viewing.viewer.canvas.size = (600, 800)
    viewing.open(write_discs(tmp_path / "a.tif"))
    viewing.segment()
    session, now = viewing.controller.session, viewing.controller.display.shelf.now
    shown = comparing.Comparing(viewing.controller.teaching, viewing.controller.display)
    session.editing = corrects
    viewing.settle()
    shown._show(now, object())
    viewing.settle()
    session.editing = not corrects
    viewing.settle()
    shown.stop()
    viewing.settle()
    assert session.outlines
    assert [layer.visible for layer in (now.nuclei, now.edit) if layer is not None] == (
        [True] if corrects else [False, True]
    )
    shown.close()


def test_who_only_looks_on_sees_what_is_corrected_elsewhere(viewing, tmp_path):
    path = write_discs(tmp_path / "a.tif")
    viewing.open(path)
    viewing.segment()
    folder, everything = viewing.project.folder, Region(0, 0, 768, 1024)
    viewing.viewer.layers.clear()
    end = time.monotonic() + 30
    while holder(folder) is not None and time.monotonic() < end:
        viewing.settle()
    with Project.open(folder) as writer:
        viewing.open(path)
        now, counts, drawn = viewing.controller.display.shelf.now, [], []
        viewing.controller.display.counted.connect(counts.append)
        assert not now.project.writable
        table = writer.nuclei_in(everything)
        nucleus = int(table.ids[300])
        assert nucleus in np.asarray(now.project.labels.levels[0])
        now.nuclei.events.set_data.connect(lambda _: drawn.append(np.asarray(now.project.labels.levels[0])))
        writer.editor.delete([nucleus])
        viewing.see(Region(0, 0, 700, 1000))
        viewing.pump.run_until(lambda: bool(drawn) and nucleus not in drawn[-1])
        viewing.settle()
        assert counts[-1].nuclei == writer.count_in(visible_region(viewing.viewer, now.layer))
        viewing.viewer.layers.clear()
        viewing.settle()


def test_the_eye_of_what_is_painted_on_and_the_box_of_the_panel_agree(large):
    large.see(Region(0, 0, 300, 400))
    session, now = large.controller.session, large.controller.display.shelf.now
    session.editing = True
    large.settle()
    now.edit.visible = False
    assert not session.outlines
    session.editing = False
    large.settle()
    assert not now.nuclei.visible
    session.editing = True
    large.settle()
    assert not now.edit.visible
    now.edit.visible = True
    assert session.outlines


def test_a_heatmap_that_is_taken_out_of_the_list_of_layers_is_not_wanted_any_more(viewing, tmp_path):
    viewing.open(write_discs(tmp_path / "a.tif"))
    viewing.segment()
    session, now = viewing.controller.session, viewing.controller.display.shelf.now
    head = next(iter(now.head_titles))
    session.heatmap = head
    viewing.viewer.layers.remove(now.heatmap)
    assert session.heatmap == ""
    session.heatmap = head
    assert now.heatmap in viewing.viewer.layers
    viewing.viewer.layers.remove(now.layer)  # what goes with its slide is wanted of the next one
    viewing.settle()
    assert session.heatmap == head

"""The next region: looked for once, gone through by a key, drawn dashed, and made an annotated one on request."""

import threading
from types import SimpleNamespace

import numpy as np
import pytest
from qtpy.QtCore import Qt

from dark_model import CARD, DarkEngine
from gui_parts import WAIT_MS, click, open_and_settle, until_idle
from napari_nucleiseg.core.geometry import YX, Region
from napari_nucleiseg.core.store.regions import read_regions
from napari_nucleiseg.core.teaching.queue import Proposal
from napari_nucleiseg.viewer.dashed_box import DASHES, dashes
from napari_nucleiseg.viewer.visible import visible_region
from napari_nucleiseg.widgets.next_region_bar import NextRegionBar

BOXES = (Region(100, 100, 128, 128), Region(500, 700, 128, 128), Region(300, 400, 128, 128))
LAYER = "proposed region"
REASON = "The model is not sure of 3 nuclei here."


class QueueEngine(DarkEngine):
    """Ranks as the test wants; counts how often."""

    def __init__(self, folder):
        super().__init__(folder)
        self.looked = 0
        self.gate = threading.Event()
        self.gate.set()

    def rank(self, model, opened, *, device):
        self.looked += 1
        for done in range(1, 9):
            yield SimpleNamespace(done=done, total=8)
            assert self.gate.wait(60)

    def next_regions(self, ranked):
        self.ranked = len(ranked)
        return [Proposal(box, 1.0, REASON) for box in BOXES]


@pytest.fixture
def engine(tmp_path):
    return QueueEngine(tmp_path)


@pytest.fixture
def bar(viewer, panel, disc_slide, qtbot):
    """The dock on a segmented slide."""
    open_and_settle(viewer, panel, disc_slide, qtbot)
    click(qtbot, panel.panel.view_button)
    until_idle(qtbot, panel)
    panel.docks.show_teach()
    viewer.reset_view()
    until_idle(qtbot, panel)
    return panel.docks.widget("Teach").findChild(NextRegionBar)


def press(viewer, qtbot):
    qtbot.keyClick(viewer.window._qt_viewer.canvas.native, Qt.Key.Key_R, Qt.KeyboardModifier.ShiftModifier)


def proposed(panel, box):
    return lambda: panel.docks.next_region.now is not None and panel.docks.next_region.now.region == box


def test_the_best_place_is_shown_and_the_key_goes_on_without_looking_again(viewer, panel, bar, qtbot, engine):
    click(qtbot, bar.propose_button)
    qtbot.waitUntil(proposed(panel, BOXES[0]), timeout=WAIT_MS)
    until_idle(qtbot, panel)
    layer = viewer.layers[LAYER]
    assert len(layer.data) == 4 * DASHES
    assert bar.reason.text() == f"{REASON} 2 more proposals."
    assert panel.panel.hint.text() == bar.reason.text()
    slide = panel.controller.display.shelf.now.layer
    assert viewer.scene.camera.zoom == pytest.approx(4.0)  # near enough to correct
    for box in BOXES[1:]:
        viewer.scene.camera.zoom = 40.0  # nearer than all of it can be seen
        press(viewer, qtbot)
        assert proposed(panel, box)()
        assert visible_region(viewer, slide).contains(box)
        ends = np.concatenate([viewer.layers[LAYER].data[:, 0], viewer.layers[LAYER].data.sum(1)])
        assert ends.min(0) == pytest.approx([box.y - 0.5, box.x - 0.5])
        assert ends.max(0) == pytest.approx([box.y1 - 0.5, box.x1 - 0.5])
    assert bar.reason.text() == REASON
    assert engine.looked == 1
    press(viewer, qtbot)
    assert LAYER not in viewer.layers
    assert "These were all" in bar.reason.text()
    press(viewer, qtbot)
    qtbot.waitUntil(proposed(panel, BOXES[0]), timeout=WAIT_MS)
    assert engine.looked == 2


def test_a_proposal_becomes_a_region_that_is_corrected_at_once(viewer, panel, bar, qtbot):
    click(qtbot, bar.propose_button)
    qtbot.waitUntil(proposed(panel, BOXES[0]), timeout=WAIT_MS)
    click(qtbot, bar.make_button)
    project = panel.controller.display.shelf.now.project
    qtbot.waitUntil(lambda: len(read_regions(project.ledger.reader)) == 1, timeout=WAIT_MS)
    until_idle(qtbot, panel)
    (region,) = read_regions(project.ledger.reader)
    assert (region.box, region.role, region.done, region.name) == (BOXES[0], "teach", False, "Region 1")
    assert panel.session.editing
    assert LAYER not in viewer.layers
    assert not bar.make_button.isVisible()
    qtbot.waitUntil(lambda: len(panel.docks.regions.regions) == 1, timeout=WAIT_MS)
    # What overlaps the new region is passed over.
    panel.docks.next_region._waiting.insert(0, Proposal(BOXES[0].translate(20, 20), 1.0, REASON))
    press(viewer, qtbot)
    assert proposed(panel, BOXES[1])()


def test_looking_can_be_stopped_and_takes_the_best_so_far(panel, bar, qtbot, engine):
    engine.gate.clear()
    click(qtbot, bar.propose_button)
    qtbot.waitUntil(lambda: bar.bar.value() == 1, timeout=WAIT_MS)
    assert not bar.propose_button.isVisible()
    click(qtbot, bar.stop_button)
    engine.gate.set()
    qtbot.waitUntil(proposed(panel, BOXES[0]), timeout=WAIT_MS)
    until_idle(qtbot, panel)
    assert engine.ranked < 8
    assert bar.propose_button.isVisible()


@pytest.mark.parametrize("what", ["model", "slide", "pixel size"])
def test_another_model_slide_or_pixel_size_has_other_proposals(viewer, panel, bar, qtbot, engine, what):
    click(qtbot, bar.propose_button)
    qtbot.waitUntil(proposed(panel, BOXES[0]), timeout=WAIT_MS)
    if what == "model":
        engine.accept_licence(CARD)
        panel.session.model = "research"
    elif what == "pixel size":
        panel.controller.set_pixel_size(YX(0.25, 0.25))
    else:
        viewer.layers.remove(panel.controller.display.shelf.now.layer)
    until_idle(qtbot, panel)
    assert panel.docks.next_region.now is None
    assert LAYER not in viewer.layers
    assert bar.propose_button.text() == "Propose a region"


def test_what_cannot_be_proposed_is_said(viewer, panel, disc_slide, qtbot, engine, monkeypatch):
    panel.docks.show_teach()
    bar = panel.docks.widget("Teach").findChild(NextRegionBar)
    click(qtbot, bar.propose_button)
    assert "Open a slide" in bar.reason.text()
    open_and_settle(viewer, panel, disc_slide, qtbot)
    monkeypatch.setattr(QueueEngine, "rank", DarkEngine.rank)
    press(viewer, qtbot)
    qtbot.waitUntil(lambda: "Nothing of this slide has been segmented" in bar.reason.text(), timeout=WAIT_MS)


def test_the_real_queue_proposes_a_window_of_the_slide(viewer, panel, bar, qtbot, monkeypatch):
    monkeypatch.setattr(QueueEngine, "rank", DarkEngine.rank)
    monkeypatch.setattr(QueueEngine, "next_regions", DarkEngine.next_regions)
    press(viewer, qtbot)
    qtbot.waitUntil(lambda: panel.docks.next_region.now is not None, timeout=WAIT_MS)
    region = panel.docks.next_region.now.region
    assert (region.height, region.width) == (128, 128)
    assert panel.controller.slide.region.contains(region)


def test_dashes_begin_and_end_at_the_corners():
    found = dashes(Region(10, 20, 46, 92))
    assert found.shape == (4 * DASHES, 2, 2)
    np.testing.assert_allclose(found[0, 0], [9.5, 19.5])
    np.testing.assert_allclose(found[DASHES - 1].sum(0), [9.5, 111.5])
    assert np.abs(found[:DASHES, 1]).max() == pytest.approx(92 / (2 * DASHES - 1))

"""The dock "Nuclei in a stack": open a stack, find its nuclei, stop, correct them, save them."""

import threading

import numpy as np
import pytest
import tifffile
from napari.layers import Labels
from qtpy.QtWidgets import QMessageBox

from gui_parts import WAIT_MS, answer, click
from napari_nucleiseg.viewer.stacks import Stacks
from napari_nucleiseg.widgets import stack as dock
from stack_parts import BrightEngine, balls, stack_scores, write_stack

SHAPE = (26, 52, 72)


@pytest.fixture
def engine():
    return BrightEngine()


@pytest.fixture
def stack(viewer, engine, qtbot):
    widget = dock.StackWidget(viewer, Stacks(viewer, engine))
    viewer.window.add_dock_widget(widget, name="Nuclei in a stack", area="right")
    qtbot.waitUntil(lambda: widget.model.count() == 1, timeout=WAIT_MS)
    yield widget
    engine.gate.set()
    widget.shutdown()
    widget.stacks.join()


@pytest.fixture
def balls_12(tmp_path):
    image, labels = balls(12, shape=SHAPE, radius_um=2.8, seed=4)
    return write_stack(tmp_path / "cells.ome.tif", image), labels


def finish(stack, qtbot):
    qtbot.waitUntil(lambda: not (stack.stacks.is_running or stack.stacks.is_busy), timeout=WAIT_MS)
    qtbot.wait(50)


def test_nuclei_are_found_and_can_be_corrected_and_saved(viewer, stack, engine, balls_12, qtbot, monkeypatch, tmp_path):
    path, truth = balls_12
    assert stack.hint.text() == dock.NO_STACK
    assert not stack.start_button.isEnabled()
    viewer.open(path, plugin="napari-nucleiseg")
    assert stack.layer.currentText() == "cells"
    assert [box.value() for box in stack.voxel] == [1.0, 0.5, 0.5]
    click(qtbot, stack.start_button)
    finish(stack, qtbot)
    assert engine.threads[0] is not threading.main_thread()
    layer = viewer.layers["cells nuclei"]
    assert isinstance(layer, Labels)
    assert (layer.ndim, layer.data.shape) == (3, SHAPE)
    assert layer.scale == pytest.approx((1.0, 0.5, 0.5))
    assert stack_scores(truth, layer.data).f1 == 1.0
    assert "12 nuclei" in stack.hint.text()
    assert viewer.layers.selection.active == layer

    z, y, x = np.argwhere(layer.data == 0)[0]
    layer.selected_label, layer.brush_size, layer.mode = 40, 1, "paint"
    layer.paint((z, y, x), 40)
    assert layer.data[z, y, x] == 40
    layer.undo()
    assert layer.data[z, y, x] == 0
    layer.paint((z, y, x), 40)

    out = tmp_path / "nuclei.ome.tif"
    monkeypatch.setattr(dock.QFileDialog, "getSaveFileName", lambda *_: (str(out), ""))
    click(qtbot, stack.save_button)
    qtbot.waitUntil(lambda: "Saved as" in stack.hint.text(), timeout=WAIT_MS)
    saved = tifffile.imread(out)
    assert np.array_equal(saved, layer.data)
    assert saved[z, y, x] == 40


def test_stopped_it_keeps_what_was_found(viewer, stack, engine, balls_12, qtbot):
    path, _ = balls_12
    viewer.open(path, plugin="napari-nucleiseg")
    engine.gate.clear()
    engine.hold_after = 3
    click(qtbot, stack.start_button)
    qtbot.waitUntil(lambda: "cells nuclei" in viewer.layers and stack.bar.isVisible(), timeout=WAIT_MS)
    qtbot.waitUntil(lambda: stack.bar.value() == 3, timeout=WAIT_MS)
    layer = viewer.layers["cells nuclei"]
    assert not layer.editable
    assert not stack.start_button.isEnabled()
    click(qtbot, stack.stop_button)
    engine.gate.set()
    finish(stack, qtbot)
    assert stack.hint.text().startswith("Stopped.")
    assert 0 < len(np.unique(layer.data)) - 1 < 12
    assert layer.editable
    assert stack.start_button.isEnabled()


def test_taking_the_stack_away_ends_it(viewer, stack, engine, balls_12, qtbot):
    path, _ = balls_12
    viewer.open(path, plugin="napari-nucleiseg")
    engine.gate.clear()
    engine.hold_after = 1
    click(qtbot, stack.start_button)
    qtbot.waitUntil(lambda: len(engine.threads) == 1, timeout=WAIT_MS)
    qtbot.wait(50)
    viewer.layers.remove("cells")
    engine.gate.set()
    finish(stack, qtbot)
    assert len(engine.threads) < 8
    assert stack.layer.count() == 0


def test_closing_the_dock_ends_it(viewer, stack, engine, balls_12, qtbot):
    path, _ = balls_12
    viewer.open(path, plugin="napari-nucleiseg")
    engine.gate.clear()
    engine.hold_after = 1
    click(qtbot, stack.start_button)
    qtbot.waitUntil(lambda: len(engine.threads) == 1, timeout=WAIT_MS)
    stack.shutdown()
    engine.gate.set()
    stack.stacks.join()
    assert len(engine.threads) < 8


def test_voxels_that_the_file_does_not_state_are_asked_for(viewer, stack, tmp_path, qtbot):
    image, _ = balls(4)
    path = tmp_path / "plain.tif"
    tifffile.imwrite(path, image)
    viewer.open(path, plugin="napari-nucleiseg")
    assert stack.hint.text() == dock.NO_VOXEL
    assert not stack.start_button.isEnabled()
    for box, side in zip(stack.voxel, (1.0, 0.5, 0.5), strict=True):
        box.setValue(side)
    click(qtbot, stack.start_button)
    finish(stack, qtbot)
    assert "4 nuclei" in stack.hint.text()


def test_a_weight_file_is_chosen_and_a_wrong_one_told(stack, qtbot, monkeypatch):
    chosen = iter(["/somewhere/mine.safetensors", "/somewhere/broken.safetensors"])
    monkeypatch.setattr(dock.QFileDialog, "getOpenFileName", lambda *_: (next(chosen), ""))
    click(qtbot, stack.file_button)
    qtbot.waitUntil(lambda: stack.model.count() == 2, timeout=WAIT_MS)
    assert stack.model.currentText() == "mine: Mine"
    assert (stack.threshold.value(), stack.area.value()) == (0.4, 5.0)
    click(qtbot, stack.file_button)
    qtbot.waitUntil(lambda: "no weight file" in stack.hint.text(), timeout=WAIT_MS)
    assert stack.model.count() == 2


def test_a_licence_is_asked_for_once(viewer, stack, engine, balls_12, qtbot):
    path, _ = balls_12
    engine.accepted = False
    viewer.open(path, plugin="napari-nucleiseg")
    asked = answer(lambda box: click(qtbot, box.button(QMessageBox.StandardButton.Yes)))
    click(qtbot, stack.start_button)
    qtbot.waitUntil(lambda: engine.accepted, timeout=WAIT_MS)
    finish(stack, qtbot)
    assert len(asked) == 1
    assert "12 nuclei" in stack.hint.text()


def test_without_a_model_it_says_how_to_get_one(viewer, qtbot, monkeypatch, balls_12):
    engine = BrightEngine()
    monkeypatch.setattr(engine, "models", tuple)
    widget = dock.StackWidget(viewer, Stacks(viewer, engine))
    viewer.window.add_dock_widget(widget, name="Nuclei in a stack", area="right")
    viewer.open(balls_12[0], plugin="napari-nucleiseg")
    finish(widget, qtbot)
    assert widget.hint.text() == dock.NO_MODEL
    assert not widget.start_button.isEnabled()
    widget.shutdown()
    widget.stacks.join()

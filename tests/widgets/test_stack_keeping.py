"""Nuclei of a stack are painted on with the mouse, the window goes, and nothing is lost."""

import time
from contextlib import closing
from unittest.mock import patch

import numpy as np
import pytest
import tifffile
from qtpy.QtCore import QPoint, Qt
from qtpy.QtGui import QCloseEvent
from qtpy.QtWidgets import QApplication, QMessageBox

from gui_parts import WAIT_MS, answer, click, hover
from napari_nucleiseg.core.errors import StoreError
from napari_nucleiseg.core.store import kept_stack
from napari_nucleiseg.core.store.kept_stack import KeptStack
from napari_nucleiseg.viewer.stacks import Stacks
from napari_nucleiseg.widgets import stack_guard
from napari_nucleiseg.widgets.stack import StackWidget
from napari_nucleiseg.widgets.stack_guard import StackGuard
from stack_parts import BrightEngine, balls, write_stack

NUCLEI = "cells nuclei"
FULL = "The disk is full."


class Window:
    """A napari window with the dock of stacks, and a person in front of it."""

    def __init__(self, viewer, path, qtbot):
        self.viewer, self.qtbot, self.path = viewer, qtbot, path
        viewer.window.resize(1200, 800)
        self.native = viewer.window._qt_window
        self.dock()
        self.kept_by = self.keeping
        viewer.open(path, plugin="napari-nucleiseg")
        self.settle()

    def dock(self):
        self.stack = StackWidget(self.viewer, Stacks(self.viewer, BrightEngine()))
        self.holder = self.viewer.window.add_dock_widget(self.stack, name="Nuclei in a stack", area="right")
        self.qtbot.waitUntil(lambda: self.stack.model.count() == 1, timeout=WAIT_MS)

    @property
    def keeping(self):
        (guard,) = self.native.findChildren(StackGuard)
        return guard.keeping

    @property
    def layer(self):
        return self.viewer.layers[NUCLEI]

    def settle(self):
        """Wait until all is found, back and written."""
        self.qtbot.wait(100)
        stacks, keeping = self.stack.stacks, self.keeping
        self.qtbot.waitUntil(lambda: not (stacks.is_running or stacks.is_busy or keeping._jobs.busy), timeout=WAIT_MS)
        self.qtbot.waitUntil(lambda: keeping.is_settled, timeout=WAIT_MS)
        self.qtbot.wait(50)

    def find(self):
        click(self.qtbot, self.stack.start_button)
        self.settle()

    def spot(self, y, x):
        """Pixel of the canvas where a voxel of the shown plane lies."""
        world = np.asarray(self.layer.data_to_world((0, y, x)))[-2:]
        camera = self.viewer.scene.camera
        size = np.asarray(self.viewer.canvas.size)
        at = (world - np.asarray(camera.center[-2:])) * camera.zoom + size / 2
        return QPoint(round(at[1]), round(at[0]))

    def stroke(self, label, z=3, start=(4, 4), end=(4, 40)):
        """Paint with the brush as a person does, and return what the layer shows then."""
        self.viewer.reset_view()
        self.viewer.dims.set_point(0, float(self.layer.data_to_world((z, 0, 0))[0]))
        self.viewer.layers.selection.active = self.layer
        self.layer.selected_label, self.layer.brush_size = label, 5
        click(self.qtbot, self.viewer.window._qt_viewer.controls.widgets[self.layer].paint_button)
        canvas = self.viewer.window._qt_viewer.canvas.native
        left = Qt.MouseButton.LeftButton
        self.qtbot.wait(50)
        hover(self.qtbot, canvas, self.spot(*start))
        self.qtbot.mousePress(canvas, left, pos=self.spot(*start))
        for part in np.linspace(0, 1, 6)[1:]:
            hover(self.qtbot, canvas, self.spot(*(np.array(start) + part * np.subtract(end, start))))
            self.qtbot.wait(10)
        self.qtbot.mouseRelease(canvas, left, pos=self.spot(*end))
        assert np.count_nonzero(self.layer.data == label) > 50, "nothing was painted"
        return self.layer.data.copy()

    def close(self):
        """Press the window's cross; tell whether it closes."""
        event = QCloseEvent()
        with patch.object(self.native, "_save_current_window_settings"):
            QApplication.sendEvent(self.native, event)
        if event.isAccepted():
            self.viewer.close()
            self.kept_by.join()
        return event.isAccepted()


def on_disk():
    """Labels of each version that is kept, the oldest first."""
    found = []
    for folder in kept_stack.stacks_folder().iterdir():
        for path in kept_stack.kept_versions(folder.name):
            with closing(KeptStack.open(path)) as kept:
                found.append(kept.read())
    return found


@pytest.fixture
def path(tmp_path):
    image, _ = balls(5, shape=(12, 52, 72), radius_um=2.8, seed=4)
    return write_stack(tmp_path / "cells.ome.tif", image)


@pytest.fixture
def opened(frozen, make_napari_viewer, path, qtbot):
    """Opens the stack in a new window, as often as it is called."""
    made = []

    def open_again(name=path):
        window = Window(make_napari_viewer(show=True), name, qtbot)
        made.append(window)
        return window

    yield open_again
    while made:  # napari looks whether anybody still holds a window
        window = made.pop()
        window.stack.shutdown()
        window.kept_by.close()
        window.stack.stacks.join()
        window.kept_by.join()
        del window


def test_what_was_painted_is_back_when_the_stack_is_opened_again(opened, path):
    window = opened()
    window.find()
    assert "that is kept by itself" in window.stack.hint.text()
    painted = window.stroke(90)
    assert window.close()

    moved = path.with_name("else.ome.tif")
    path.rename(moved)
    again = opened(moved)
    layer = again.viewer.layers["else nuclei"]
    np.testing.assert_array_equal(layer.data, painted)
    assert layer.scale == pytest.approx((1.0, 0.5, 0.5))
    assert again.stack.hint.text().startswith("“else nuclei” is back as it was on")
    assert again.stack.save_button.isVisible()
    layer.name = NUCLEI
    both = again.stroke(91, z=6, start=(20, 10), end=(20, 50))
    assert again.close()
    np.testing.assert_array_equal(on_disk(), [both])


def test_which_planes_are_right_is_back_with_the_nuclei(opened, qtbot):
    window = opened()
    window.find()
    window.stroke(90)
    window.settle()
    qtbot.keyClicks(window.stack.teach.planes, "3, 5-7")
    assert window.close()
    again = opened()
    assert again.stack.teach.planes.text() == "3, 5-7"
    assert again.stack.teach.count.text().startswith("4 planes")


def test_strokes_and_their_undo_are_written_also_when_the_dock_is_closed(opened, qtbot):
    window = opened()
    window.find()
    (kept,) = window.keeping._kept
    before = window.layer.data.copy()
    after = window.stroke(90)
    qtbot.waitUntil(lambda: kept.is_pending, timeout=WAIT_MS)
    qtbot.waitUntil(lambda: not kept.is_pending, timeout=WAIT_MS)
    np.testing.assert_array_equal(kept.file.read(), after)

    window.holder.close()
    window.layer.undo()
    qtbot.waitUntil(lambda: np.array_equal(kept.file.read(), before), timeout=WAIT_MS)
    window.dock()
    window.settle()
    assert [layer.name for layer in window.viewer.layers] == ["cells", NUCLEI]
    window.holder.close()
    painted = window.stroke(91)
    assert window.close()
    np.testing.assert_array_equal(on_disk(), [painted])


def test_what_is_taken_from_the_list_is_brought_back_and_otherwise_stays_away(opened, qtbot):
    window = opened()
    window.find()
    painted = window.stroke(90)
    window.layer.mode = "pan_zoom"  # napari crashes now and then where a layer goes while its brush is out
    qtbot.wait(50)
    window.viewer.layers.remove(NUCLEI)
    qtbot.waitUntil(window.stack.back_button.isVisible, timeout=WAIT_MS)
    assert "was taken away" in window.stack.hint.text()
    assert on_disk() == []
    click(qtbot, window.stack.back_button)
    qtbot.waitUntil(lambda: NUCLEI in window.viewer.layers, timeout=WAIT_MS)
    np.testing.assert_array_equal(window.layer.data, painted)
    assert not window.stack.back_button.isVisible()
    assert window.close()
    np.testing.assert_array_equal(on_disk(), [painted])


def test_a_second_window_does_not_mix_with_the_first(opened):
    first = opened()
    first.find()
    painted = first.stroke(90)
    first.settle()
    second = opened()
    assert NUCLEI not in second.viewer.layers
    assert "open in another window" in second.stack.hint.text()
    assert first.close()
    assert second.close()
    np.testing.assert_array_equal(on_disk(), [painted])


@pytest.fixture
def full(monkeypatch):
    """Lets the disk be full, and makes room."""
    real = KeptStack.write

    def fail(*_args, **_facts):
        raise StoreError(FULL)

    def set_full(is_full):
        monkeypatch.setattr(KeptStack, "write", fail if is_full else real)

    return set_full


def press(qtbot, text):
    """Wait for a question and press the button of this text."""
    return answer(
        lambda box: click(qtbot, next(one for one in box.buttons() if one.text().replace("&", "") == text)),
        QMessageBox,
    )


def test_a_full_disk_is_told_asked_about_and_with_room_all_is_kept(opened, qtbot, full):
    window = opened()
    window.find()
    full(True)
    painted = window.stroke(90)
    qtbot.waitUntil(lambda: window.stack.hint.text() == FULL, timeout=WAIT_MS)
    asked = press(qtbot, "Keep open")
    assert not window.close()
    assert asked[0].text() == "What was changed last in “cells nuclei” is not kept."
    assert asked[0].informativeText() == FULL
    assert window.stack.isVisible()
    assert not window.stack.has_ended
    full(False)
    assert window.close()
    np.testing.assert_array_equal(on_disk(), [painted])


@pytest.mark.parametrize("choice", ["Save elsewhere…", "Close and lose it"])
def test_with_a_full_disk_it_is_saved_elsewhere_or_given_up(opened, qtbot, monkeypatch, tmp_path, full, choice):
    window = opened()
    window.find()
    before = window.layer.data.copy()
    full(True)
    painted = window.stroke(90)
    out = tmp_path / "elsewhere.ome.tif"
    monkeypatch.setattr(stack_guard.QFileDialog, "getSaveFileName", lambda *_: (str(out), ""))
    asked = press(qtbot, choice)
    assert window.close()
    assert len(asked) == 1
    np.testing.assert_array_equal(on_disk(), [before])
    assert out.exists() == choice.startswith("Save")
    if out.exists():
        np.testing.assert_array_equal(tifffile.imread(out), painted)


def test_a_write_that_takes_long_is_waited_for(opened, monkeypatch):
    window = opened()
    window.find()
    real = KeptStack.write

    def slow(*arguments, **facts):
        time.sleep(1.5)
        return real(*arguments, **facts)

    painted = window.stroke(90)
    monkeypatch.setattr(KeptStack, "write", slow)
    seen = answer(lambda _dialog: None, stack_guard.QProgressDialog)
    assert window.close()
    assert len(seen) == 1
    np.testing.assert_array_equal(on_disk(), [painted])


def test_an_interrupted_search_is_back_and_says_so(opened, qtbot):
    window = opened()
    engine = window.stack.stacks.engine
    engine.hold_after = 1
    engine.gate.clear()
    click(qtbot, window.stack.start_button)
    qtbot.waitUntil(lambda: NUCLEI in window.viewer.layers, timeout=WAIT_MS)
    (kept,) = window.keeping._kept
    qtbot.waitUntil(lambda: kept.file is not None and not kept.is_pending, timeout=WAIT_MS)
    some = window.layer.data.copy()
    assert window.close()
    engine.gate.set()
    again = opened()
    np.testing.assert_array_equal(again.layer.data, some)
    assert "The search had not ended" in again.stack.hint.text()


def test_a_new_search_leaves_what_was_painted_and_replaces_what_was_not(opened):
    window = opened()
    window.find()
    window.find()
    assert window.close()
    assert len(on_disk()) == 2, "both were in the window"
    second = opened()
    assert [layer.name for layer in second.viewer.layers] == ["cells", NUCLEI]
    painted = second.stroke(90)
    second.find()
    found = second.viewer.layers[f"{NUCLEI} [1]"].data.copy()
    assert second.close()
    np.testing.assert_array_equal(on_disk(), [painted, found])

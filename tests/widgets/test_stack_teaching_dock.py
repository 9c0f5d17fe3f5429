"""The part "Teach" of the dock of stacks: draw, name planes, learn, look at the verdict, use what came of it."""

from unittest.mock import patch

import numpy as np
import pytest
from qtpy.QtCore import QPoint, Qt
from qtpy.QtGui import QCloseEvent
from qtpy.QtWidgets import QApplication, QMessageBox

from gui_parts import WAIT_MS, answer, click, hover
from napari_nucleiseg.core.errors import MissingDependencyError, TeachingError, WeightsError
from napari_nucleiseg.core.store import kept_stack
from napari_nucleiseg.core.teaching.config import FinetuneConfig
from napari_nucleiseg.core.teaching.stacks.lesson import StackLesson
from napari_nucleiseg.viewer import stack_teaching as words
from napari_nucleiseg.viewer.stacks import StackEngine, Stacks
from napari_nucleiseg.widgets import stack as dock
from napari_nucleiseg.widgets import stack_teaching as part
from stack_parts import PupilEngine, balls, write_stack

SHAPE = (16, 96, 96)
NUCLEI = "cells nuclei"
SMALL = FinetuneConfig(
    steps=40, learning_rate=5e-3, anchor=0, memory=0, crop_px=32, batch_size=1, warmup=2, validate_every=20, ema=0.8,
    device="cpu",
)  # fmt: skip


@pytest.fixture(autouse=True)
def own_folder(monkeypatch, tmp_path):
    """Models that are taught here are not those of whoever runs the tests."""
    monkeypatch.setattr("platformdirs.user_data_dir", lambda *_args, **_more: str(tmp_path / "data"))
    return tmp_path / "data"


class Person:
    """Somebody in front of the window with the dock and a stack."""

    def __init__(self, viewer, engine, path, qtbot):
        self.viewer, self.engine, self.qtbot = viewer, engine, qtbot
        self.dock = dock.StackWidget(viewer, Stacks(viewer, engine))
        self.holder = viewer.window.add_dock_widget(self.dock, name="Nuclei in a stack", area="right")
        self.part, self.teaching = self.dock.teach, self.dock.teaching
        viewer.open(path, plugin="napari-nucleiseg")
        self.settle()
        viewer.reset_view()

    @property
    def layer(self):
        return self.viewer.layers[NUCLEI]

    def settle(self):
        stacks, keeping = self.dock.stacks, self.dock.stacks.keeping
        for _ in range(2):
            self.qtbot.wait(60)
            self.qtbot.waitUntil(
                lambda: not (stacks.is_running or self.teaching.is_running or stacks.is_busy or keeping._jobs.busy),
                timeout=WAIT_MS,
            )

    def press(self, button):
        self.dock._scroll.ensureWidgetVisible(button)
        click(self.qtbot, button)

    def write(self, text):
        """Type into the line of planes in place of what it holds, and wait until the nuclei are counted."""
        self.part.planes.selectAll()
        self.qtbot.keyClicks(self.part.planes, text)
        assert self.part.planes.text() == text

    def told(self, text):
        self.qtbot.waitUntil(lambda: self.part.count.text() == text, timeout=WAIT_MS)

    def show_plane(self, plane):
        self.viewer.dims.set_point(0, float(self.viewer.layers["cells"].data_to_world((plane, 0, 0))[0]))

    def spot(self, y, x):
        """Pixel of the canvas where a voxel of the shown plane lies."""
        world = np.asarray(self.layer.data_to_world((0, y, x)))[-2:]
        at = (world - np.asarray(self.viewer.scene.camera.center[-2:])) * self.viewer.scene.camera.zoom
        at += np.asarray(self.viewer.canvas.size) / 2
        return QPoint(round(at[1]), round(at[0]))

    @property
    def canvas(self):
        return self.viewer.window._qt_viewer.canvas.native

    def stroke(self, start, end):
        canvas, left = self.canvas, Qt.MouseButton.LeftButton
        hover(self.qtbot, canvas, self.spot(*start))
        self.qtbot.mousePress(canvas, left, pos=self.spot(*start))
        for share in np.linspace(0, 1, 5)[1:]:
            hover(self.qtbot, canvas, self.spot(*(np.array(start) + share * np.subtract(end, start))))
            self.qtbot.wait(10)
        self.qtbot.mouseRelease(canvas, left, pos=self.spot(*end))

    def draw(self, truth, planes):
        """Draw what is there on some planes at once."""
        self.press(self.part.draw_button)
        for plane in planes:
            self.layer.data[plane] = truth[plane]
        self.layer.refresh()


@pytest.fixture
def truth(tmp_path):
    image, labels = balls(45, shape=SHAPE, radius_um=2.8, seed=4)
    return write_stack(tmp_path / "cells.ome.tif", image), labels


@pytest.fixture
def pupil():
    return PupilEngine()


@pytest.fixture
def begun(viewer, truth, qtbot):
    """Opens the dock with an engine; all that was begun has ended after the test."""
    opened = []

    def begin(engine):
        opened.append(Person(viewer, engine, truth[0], qtbot))
        return opened[-1]

    yield begin
    for person in opened:
        person.engine.gate.set() if hasattr(person.engine, "gate") else None
        person.dock.shutdown()
        person.dock.stacks.join()
    opened.clear()


@pytest.fixture
def person(begun, pupil, truth):
    """Somebody who has a model, and has drawn three planes."""
    one = begun(pupil)
    one.draw(truth[1], (4, 5, 8))
    one.write("4, 5, 8")
    return one


def test_a_first_model_is_learned_from_drawn_planes_and_finds_nuclei(begun, truth, own_folder, qtbot):
    engine = StackEngine()
    engine.settings = SMALL
    person = begun(engine)
    stack, shown = person.dock, person.part
    assert stack.hint.text() == dock.NO_MODEL
    assert (shown.teach_button.text(), shown.teach_button.isEnabled()) == (part.LEARN, False)
    assert not any(one.isVisible() for one in (shown.anew, shown.curve, shown.take_button))
    assert shown.count.text() == part.NOT_DRAWN

    person.press(shown.draw_button)
    layer = person.layer
    assert stack.hint.text() == words.DRAW
    assert person.viewer.layers.selection.active == layer
    assert (layer.mode, layer.n_edit_dimensions, layer.brush_size, layer.selected_label) == ("paint", 2, 5, 1)
    assert (layer.data.dtype, layer.data.shape, tuple(layer.scale)) == (np.int32, SHAPE, (1.0, 0.5, 0.5))
    assert not shown.draw_button.isVisible()
    person.show_plane(10)
    person.stroke((20, 20), (20, 40))
    assert np.flatnonzero(layer.data.any(axis=(1, 2))).tolist() == [10]
    person.press(shown.add_button)
    assert shown.planes.text() == "10"
    person.told("1 plane, 1 nucleus")
    qtbot.keyClick(person.canvas, "m")
    assert layer.selected_label == 2
    person.stroke((60, 20), (60, 40))
    person.told("1 plane, 2 nuclei")
    qtbot.waitUntil(lambda: any(kept_stack.stacks_folder().rglob("*.sqlite")), timeout=WAIT_MS)

    for plane in (4, 5, 6, 8, 10):
        layer.data[plane] = truth[1][plane]
    layer.refresh()
    person.write("4-6, 8")
    person.press(shown.add_button)
    assert shown.planes.text() == "4-6, 8, 10"
    count = len(np.unique(truth[1][[4, 5, 6, 8, 10]])) - 1
    person.told(f"5 planes, {count} nuclei")

    person.press(shown.teach_button)
    qtbot.waitUntil(shown.curve.isVisible, timeout=WAIT_MS)
    assert not stack.start_button.isEnabled()
    qtbot.waitUntil(lambda: "is chosen" in stack.hint.text(), timeout=4 * WAIT_MS)
    person.settle()
    assert stack.model.currentText() == "unet-3d-2: unet-3d, taught with cells"
    assert [len(run.scores) for run in shown.curve.runs if run.name] == [2]
    assert "A first model for stacks: AJI" in shown.verdict.text()
    assert (own_folder / "models" / "unet-3d-2.safetensors").exists()
    assert not list((own_folder / "teaching").rglob("*.pt"))
    assert (shown.teach_button.text(), shown.anew.isVisible()) == (part.TEACH, True)

    person.press(stack.start_button)
    person.settle()
    found = person.viewer.layers[f"{NUCLEI} [1]"]
    assert 5 < len(np.unique(found.data)) - 1 < 90
    assert shown.planes.text() == "", "nobody has said which planes of these are right"
    person.viewer.layers.selection.active = layer
    assert shown.planes.text() == "4-6, 8, 10"
    person.told(f"5 planes, {count} nuclei of “{NUCLEI}”")


def test_a_model_is_taught_with_the_planes_and_then_chosen(person, pupil, truth, qtbot):
    shown, stack = person.part, person.dock
    pupil.hold_after = 4
    pupil.gate.clear()
    assert shown.teach_button.text() == part.TEACH
    person.press(shown.teach_button)
    qtbot.waitUntil(lambda: shown.bar.value() == 4, timeout=WAIT_MS)
    assert shown.verdict.text() == "Judged on a part of the planes."
    assert [one.isEnabled() for one in (stack.start_button, stack.model, stack.layer, shown.planes)] == [False] * 4
    person.layer.data[4] = 0
    pupil.gate.set()
    person.settle()
    ((name, lesson),) = pupil.lessons
    assert isinstance(lesson, StackLesson)
    assert (name, lesson.planes, lesson.voxel_um) == ("bright", (4, 5, 8), (1.0, 0.5, 0.5))
    np.testing.assert_array_equal(lesson.labels[4], truth[1][4])
    (run,) = (one for one in shown.curve.runs if one.name)
    assert (run.former, [step for step, _ in run.scores]) == (0.4, [2, 4, 6])
    assert stack.model.currentText().startswith("bright-2")
    assert stack.hint.text() == "“bright-2” is chosen. Press “Find nuclei” to see what it finds."
    assert "Better where it was judged." in shown.verdict.text()
    assert not any(one.isVisible() for one in (shown.take_button, shown.bar))
    assert stack.start_button.isEnabled()


def test_what_was_refused_is_not_chosen_but_can_be(person, pupil):
    pupil.adopted = False
    shown, stack = person.part, person.dock
    person.press(shown.teach_button)
    person.settle()
    assert stack.model.count() == 1
    assert "The former model stays" in shown.verdict.text()
    assert "It may be chance." in shown.verdict.text()
    person.press(shown.take_button)
    person.settle()
    assert [version.name for version in pupil.taken] == ["bright-2"]
    assert stack.model.currentText().startswith("bright-2")
    assert "although it was refused" in shown.verdict.text()
    assert not shown.take_button.isVisible()


def test_stopped_it_keeps_nothing_and_the_model_stays(person, pupil, qtbot):
    shown, stack = person.part, person.dock
    pupil.hold_after = 2
    pupil.gate.clear()
    person.press(shown.teach_button)
    qtbot.waitUntil(lambda: shown.bar.value() == 2, timeout=WAIT_MS)
    person.press(shown.stop_button)
    assert stack.hint.text() == words.STOPPING
    pupil.gate.set()
    person.settle()
    assert pupil.ended.is_set()
    assert stack.hint.text() == words.STOPPED
    assert (pupil.made, stack.model.count()) == ((), 1)
    assert shown.teach_button.isEnabled()
    assert stack.start_button.isEnabled()


def test_beginning_anew_learns_a_first_model(person, pupil):
    shown = person.part
    shown.anew.click()
    assert shown.teach_button.text() == part.LEARN
    person.press(shown.teach_button)
    person.settle()
    assert [name for name, _ in pupil.lessons] == [""]
    assert not shown.anew.isChecked(), "the next lesson improves it"
    assert shown.curve.wording.former == ""


def test_planes_that_are_none_are_told_and_nothing_is_taught(person):
    shown = person.part
    for text, sentence in (("4, x", "“x” is no plane."), ("4-16", "There is no plane 16: the stack has")):
        person.write(text)
        assert shown.count.text().startswith(sentence)
        assert "color" in shown.count.styleSheet()
        assert not any(one.isEnabled() for one in (shown.teach_button, shown.add_button))
    shown.planes.clear()
    assert (shown.count.text(), shown.count.styleSheet()) == (part.NO_PLANES, "")
    person.viewer.dims.ndisplay = 3
    person.press(shown.add_button)
    assert person.dock.hint.text() == words.NO_PLANE
    assert shown.planes.text() == ""


def test_who_has_drawn_nothing_is_told_what_is_missing(begun, pupil):
    person = begun(pupil)
    shown = person.part
    assert [one.isEnabled() for one in (shown.planes, shown.add_button, shown.teach_button)] == [False] * 3
    person.press(shown.draw_button)
    person.write("3")
    person.told("1 plane, 0 nuclei")
    pupil.error = TeachingError("there are only 0 nuclei on plane 3")
    person.press(shown.teach_button)
    person.settle()
    assert person.dock.hint.text() == "There are only 0 nuclei on plane 3."
    assert "color" in person.dock.hint.styleSheet()


@pytest.mark.parametrize("error", [MissingDependencyError("Install monai."), WeightsError("The disk is full.")])
def test_what_goes_wrong_is_told(person, pupil, error, monkeypatch):
    def fail(_outcome):
        raise error

    monkeypatch.setattr(pupil, "keep", fail)
    person.press(person.part.teach_button)
    person.settle()
    assert person.dock.hint.text() == str(error)
    assert "color" in person.dock.hint.styleSheet()
    assert person.part.teach_button.isEnabled()


def test_a_licence_is_asked_for_before(person, pupil, qtbot):
    pupil.accepted = False
    asked = answer(lambda box: click(qtbot, box.button(QMessageBox.StandardButton.Yes)))
    person.press(person.part.teach_button)
    qtbot.waitUntil(lambda: pupil.accepted, timeout=WAIT_MS)
    person.settle()
    assert len(asked) == 1
    assert "Better where it was judged." in person.part.verdict.text()


def test_while_nuclei_are_found_nothing_is_taught(person, pupil, qtbot):
    pupil.hold_after = 1
    pupil.gate.clear()
    person.press(person.dock.start_button)
    qtbot.waitUntil(lambda: f"{NUCLEI} [1]" in person.viewer.layers, timeout=WAIT_MS)
    assert not person.part.teach_button.isEnabled()
    pupil.gate.set()
    person.settle()
    person.viewer.layers.selection.active = person.layer
    assert person.part.planes.text() == "4, 5, 8"
    assert person.part.teach_button.isEnabled()


@pytest.mark.parametrize("what", ["dock", "window"])
def test_closing_amid_a_lesson_ends_it(person, pupil, what, qtbot):
    pupil.hold_after = 2
    pupil.gate.clear()
    person.press(person.part.teach_button)
    qtbot.waitUntil(lambda: person.part.bar.value() == 2, timeout=WAIT_MS)
    if what == "dock":
        person.holder.destroyOnClose()
    else:
        with patch.object(person.viewer.window._qt_window, "_save_current_window_settings"):
            QApplication.sendEvent(person.viewer.window._qt_window, QCloseEvent())
    assert person.dock.has_ended
    pupil.gate.set()
    person.dock.stacks.join()
    assert pupil.ended.is_set()
    assert pupil.made == ()

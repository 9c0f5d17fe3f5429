"""A person paints where the model should look, with the mouse, in a real window: it is kept, undone and learnt from."""

import threading
from dataclasses import replace

import numpy as np
import pytest
from qtpy.QtCore import QEvent, QPointF, Qt
from qtpy.QtGui import QMouseEvent
from qtpy.QtWidgets import QApplication

from gui_parts import WAIT_MS, click, open_and_settle, until_idle
from looking_model import LookingEngine
from napari_nucleiseg.core.errors import StoreError
from napari_nucleiseg.core.geometry import YX, Region
from napari_nucleiseg.core.store.attention import DO_NOT_LOOK, LOOK_HERE, read_attention
from napari_nucleiseg.core.store.project import Project
from napari_nucleiseg.core.teaching.collect import lesson_of
from napari_nucleiseg.core.teaching.examples import fingerprint_of
from napari_nucleiseg.state import NETWORKS
from napari_nucleiseg.viewer import attention

LEFT, NONE = Qt.MouseButton.LeftButton, Qt.MouseButton.NoButton
NAME = "Attention corrections"


@pytest.fixture
def engine(tmp_path):
    return LookingEngine(tmp_path)


class Person:
    """Somebody with a mouse in front of the window; points are ``(y, x)`` level-0 pixels of the slide."""

    def __init__(self, viewer, panel, qtbot):
        self.viewer, self.panel, self.qtbot = viewer, panel, qtbot
        self.painting, self.editing = panel.attention, panel.controller.editing
        self.canvas = viewer.window._qt_viewer.canvas.native

    def send(self, kind, point, button=NONE, buttons=NONE):
        camera, (height, width) = self.viewer.scene.camera, self.viewer.canvas.size
        away = (np.array(point) * 0.5 - camera.center[-2:]) * camera.zoom
        spot = QPointF(float(width / 2 + away[1]), float(height / 2 + away[0]))
        event = QMouseEvent(kind, spot, self.canvas.mapToGlobal(spot), button, buttons, Qt.KeyboardModifier.NoModifier)
        QApplication.sendEvent(self.canvas, event)

    def stroke(self, start, stop):
        self.send(QEvent.Type.MouseMove, start)
        self.send(QEvent.Type.MouseButtonPress, start, LEFT, LEFT)
        for part in np.linspace(0, 1, 8)[1:]:
            self.send(QEvent.Type.MouseMove, np.add(start, part * np.subtract(stop, start)), NONE, LEFT)
            self.qtbot.wait(15)  # napari takes no more moves than a screen can show
        self.send(QEvent.Type.MouseButtonRelease, stop, LEFT, NONE)
        self.settle()

    def press(self, key, modifier=Qt.KeyboardModifier.NoModifier):
        self.qtbot.keyClick(self.canvas, key, modifier)
        self.settle()

    def settle(self):
        until_idle(self.qtbot, self.panel)

    @property
    def project(self):
        return self.panel.controller.display.shelf.now.project

    def paint(self):
        return read_attention(self.project, Region(0, 0, *self.project.shape))

    def layers(self):
        return sum(layer.name.startswith(NAME) for layer in self.viewer.layers)


@pytest.fixture
def person(viewer, panel, disc_slide, qtbot):
    """A person in front of a segmented slide, zoomed in, who has begun to paint."""
    open_and_settle(viewer, panel, str(disc_slide), qtbot)
    assert not panel.panel.attention.isVisible()
    click(qtbot, panel.panel.view_button)
    until_idle(qtbot, panel)
    viewer.scene.camera.zoom *= 2
    until_idle(qtbot, panel)
    someone = Person(viewer, panel, qtbot)
    click(qtbot, panel.panel.attention.toggle)
    qtbot.waitUntil(lambda: someone.painting.window.layer is not None, timeout=WAIT_MS)
    someone.settle()
    return someone


def test_strokes_of_both_kinds_and_the_eraser_are_kept_and_undone(person, viewer, panel, qtbot):
    assert panel.session.heatmap == "attention"
    assert not viewer.canvas.overlays._brush_circle.box  # it hides what is painted on
    assert viewer.layers.selection.active.name == NAME
    bar = panel.panel.attention
    person.stroke((360, 480), (360, 540))
    first = person.paint()
    assert set(np.unique(first)) == {0, LOOK_HERE}
    assert first[360, 480:540].all()
    click(qtbot, bar.buttons["do not look"])
    person.stroke((420, 480), (420, 540))
    both = person.paint()
    assert (both[420, 480:540] == DO_NOT_LOOK).all()
    assert (both[:400] == first[:400]).all()
    person.press(Qt.Key.Key_E)
    assert bar.buttons["erase"].isChecked()
    person.stroke((420, 510), (420, 545))
    erased = person.paint()
    assert not erased[420, 512:540].any()
    np.testing.assert_array_equal(
        np.asarray(person.painting.window.layer.data), erased[person.painting.window.region.slices]
    )
    kinds = [step.kind for step in reversed(person.project.editor.history())]
    assert kinds == ["paint attention", "paint attention", "erase attention"]
    # Undone with the key and with the button, seen at once.
    person.press(Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    np.testing.assert_array_equal(person.paint(), both)
    click(qtbot, bar.undo_button)
    person.settle()
    np.testing.assert_array_equal(person.paint(), first)
    shown = np.asarray(person.painting.window.layer.data)
    np.testing.assert_array_equal(shown, first[person.painting.window.region.slices])
    click(qtbot, bar.redo_button)
    person.settle()
    np.testing.assert_array_equal(person.paint(), both)
    # Who has moved the slide paints again with the same brush.
    click(qtbot, bar.buttons["look"])
    person.press(Qt.Key.Key_Z)
    assert str(person.painting.window.layer.mode) == "pan_zoom"
    click(qtbot, bar.buttons["look"])
    assert str(person.painting.window.layer.mode) == "paint"
    # No nucleus was touched.
    assert not person.project.ledger.reader.execute("SELECT 1 FROM nuclei WHERE person IS NOT NULL").fetchone()


def test_what_was_painted_is_there_for_the_next_session_and_for_teaching(person, panel, engine):
    person.press(Qt.Key.Key_2)
    person.stroke((360, 480), (360, 540))
    painted, folder, slide = person.paint(), person.project.folder, panel.controller.slide
    # As one finds it after a kill: nothing was closed.
    with Project.open(folder, writable=False) as project:
        np.testing.assert_array_equal(read_attention(project, Region(0, 0, *project.shape)), painted)
        examples = lesson_of(project, slide, engine.load("nuclei").spec).examples
    assert sum((one.attention == 0).sum() for one in examples) == (painted == DO_NOT_LOOK).sum() > 0
    assert not any(one.known.any() for one in examples)
    # The button teaches with the same.
    panel.controller.teaching.teach()
    person.settle()
    (lesson,) = engine.lessons
    assert fingerprint_of(lesson.examples) == fingerprint_of(examples)


def test_from_far_away_all_paint_is_seen_and_nothing_can_be_painted(person, viewer, qtbot, monkeypatch):
    person.stroke((360, 480), (360, 540))
    monkeypatch.setattr("napari_nucleiseg.viewer.edit_window.LARGEST_PX", 400)
    viewer.reset_view()
    person.settle()
    assert person.painting.window.layer is None
    (overview,) = [layer for layer in viewer.layers if layer.name.startswith(NAME)]
    assert overview.visible
    assert not overview.editable
    np.testing.assert_array_equal(np.asarray(overview.data[0]), person.paint())
    assert "Zoom in to paint attention" in person.panel.panel.hint.text()
    monkeypatch.undo()
    viewer.scene.camera.zoom *= 1.5
    person.settle()
    assert person.painting.window.layer is not None
    assert viewer.layers.selection.active.name == NAME
    assert person.painting.window.layer.data.any()


def test_it_is_offered_only_where_the_model_says_where_it_looks(person, panel, viewer, qtbot):
    assert panel.panel.attention.isVisible()
    panel.session.model = "research"
    person.settle()
    assert not panel.panel.attention.isVisible()
    assert not panel.session.painting
    assert person.layers() == 0
    click(qtbot, panel.panel.view_button)
    person.settle()
    assert not panel.panel.attention.isVisible()
    person.press(Qt.Key.Key_H, Qt.KeyboardModifier.ShiftModifier)
    assert not panel.session.painting


def test_it_is_offered_before_the_model_has_looked_and_says_what_to_do_first(
    viewer, panel, engine, disc_slide, monkeypatch, qtbot
):
    cards = tuple(replace(card, network=NETWORKS[0]) for card in engine.models()[:1])
    monkeypatch.setattr(engine, "models", lambda: cards)
    panel.controller.catalogue.list()
    open_and_settle(viewer, panel, str(disc_slide), qtbot)
    viewer.scene.camera.zoom *= 2
    until_idle(qtbot, panel)
    someone, bar = Person(viewer, panel, qtbot), panel.panel.attention
    click(qtbot, bar.toggle)
    qtbot.waitUntil(lambda: someone.painting.window.layer is not None, timeout=WAIT_MS)
    someone.settle()
    assert "press View first" in bar.hint.text()
    assert not panel.session.heatmap
    someone.stroke((360, 480), (360, 540))
    assert someone.paint().any()
    click(qtbot, panel.panel.view_button)
    someone.settle()
    assert panel.session.painting
    assert panel.session.heatmap == "attention"
    assert any(layer.name.endswith("Attention") for layer in viewer.layers)
    assert "press View" not in bar.hint.text()


def test_another_slide_does_not_offer_it_for_a_model_that_does_not_attend(
    viewer, panel, engine, disc_slide, disc_png, qtbot
):
    engine.accepted = True
    open_and_settle(viewer, panel, str(disc_slide), qtbot)
    first = viewer.layers.selection.active
    click(qtbot, panel.panel.view_button)
    until_idle(qtbot, panel)
    panel.session.model = "research"
    open_and_settle(viewer, panel, str(disc_png), qtbot)
    panel.controller.set_pixel_size(YX(0.5, 0.5))
    click(qtbot, panel.panel.view_button)
    until_idle(qtbot, panel)
    assert panel.controller.display.shelf.now.layer is not first
    viewer.layers.selection.active = first
    until_idle(qtbot, panel)
    assert panel.controller.display.shelf.now.layer is first
    assert not panel.panel.attention.isVisible()
    panel.session.painting = True
    assert not panel.session.painting
    # The other one attends, and has looked at this slide.
    panel.session.model = "nuclei"
    assert panel.panel.attention.isVisible()
    assert panel.attention.has_looked


def test_correcting_nuclei_and_painting_take_turns(person, panel, viewer, qtbot):
    correct = panel.panel.correct
    assert panel.session.editing
    assert not correct.toggle.isChecked()
    assert not correct.undo_button.isVisible()
    click(qtbot, correct.toggle)
    qtbot.waitUntil(lambda: person.editing.window.layer is not None, timeout=WAIT_MS)
    person.settle()
    assert correct.undo_button.isVisible()
    assert not panel.session.painting
    assert person.layers() == 0
    # And back, with the key; correcting goes on afterwards.
    person.press(Qt.Key.Key_H, Qt.KeyboardModifier.ShiftModifier)
    qtbot.waitUntil(lambda: person.painting.window.layer is not None, timeout=WAIT_MS)
    person.settle()
    assert viewer.layers.selection.active.name == NAME
    person.press(Qt.Key.Key_H, Qt.KeyboardModifier.ShiftModifier)
    assert panel.session.editing
    assert person.layers() == 0
    assert viewer.layers.selection.active.name.endswith("nuclei (correct)")


def test_a_stroke_that_cannot_be_written_is_taken_back(person, panel, monkeypatch):
    def refuse(*_args, **_more):
        raise StoreError("The disk is full.")

    monkeypatch.setattr("napari_nucleiseg.viewer.attention.paint_attention", refuse)
    person.stroke((360, 480), (360, 540))
    assert not np.asarray(person.painting.window.layer.data).any()
    assert "disk is full" in panel.panel.hint.text()


def test_a_stroke_does_not_wait_for_the_disk(person, monkeypatch, qtbot):
    gate, write = threading.Event(), attention.paint_attention

    def slow(*args, **more):
        assert gate.wait(30)
        return write(*args, **more)

    monkeypatch.setattr(attention, "paint_attention", slow)
    monkeypatch.setattr(person, "settle", lambda: qtbot.wait(50))
    person.stroke((360, 480), (360, 540))
    person.stroke((420, 480), (420, 540))
    layer = person.painting.window.layer
    assert np.asarray(layer.data).any()
    shown = np.asarray(layer.data).copy()
    gate.set()
    monkeypatch.undo()
    person.settle()
    np.testing.assert_array_equal(np.asarray(layer.data), shown)
    np.testing.assert_array_equal(person.paint()[person.painting.window.region.slices], shown)


def test_names_are_seen_and_removing_the_layer_ends_it(person, viewer, panel):
    assert [button.text() for button in panel.panel.attention.buttons.values()] == ["Look here", "Do not look", "Erase"]
    layer = person.painting.window.layer
    assert layer.features["attention"].tolist() == ["not painted", "Look here", "Do not look here"]
    layer.selected_label = 7
    assert layer.selected_label == DO_NOT_LOOK
    assert panel.session.brush == "do not look"
    viewer.layers.remove(person.painting.window.layer)
    person.settle()
    assert not panel.session.painting
    assert not panel.session.editing
    # The controls of some layer are still shown.
    assert viewer.layers.selection.active is panel.controller.display.shelf.now.layer
    assert person.layers() == 0

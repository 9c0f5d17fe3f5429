"""Correcting nuclei in a real window, with the mouse and the keys, as a person would."""

import itertools
import shutil

import numpy as np
import pytest
from qtpy.QtCore import QEvent, QPointF, Qt
from qtpy.QtGui import QMouseEvent, QWheelEvent
from qtpy.QtWidgets import QApplication

from gui_parts import WAIT_MS, open_and_settle, until_idle
from napari_nucleiseg.core.errors import StoreError
from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.store.check import check
from napari_nucleiseg.core.store.project import Project

LEFT = Qt.MouseButton.LeftButton
NONE = Qt.MouseButton.NoButton


class Person:
    """Somebody with a mouse in front of the window; points are ``(y, x)`` level-0 pixels of the slide."""

    def __init__(self, viewer, panel, qtbot):
        self.viewer, self.panel, self.qtbot = viewer, panel, qtbot
        self.editing = panel.controller.editing
        self.canvas = viewer.window._qt_viewer.canvas.native

    def spot(self, point):
        """Canvas pixel of a point of the slide."""
        world = np.asarray(self.editing.opened.layer.data_to_world(point))
        camera = self.viewer.scene.camera
        height, width = self.viewer.canvas.size
        y, x = (world - np.asarray(camera.center[-2:])) * camera.zoom + (height / 2, width / 2)
        return QPointF(float(x), float(y))

    def send(self, kind, point, button=NONE, buttons=NONE):
        spot = self.spot(point)
        event = QMouseEvent(kind, spot, self.canvas.mapToGlobal(spot), button, buttons, Qt.KeyboardModifier.NoModifier)
        QApplication.sendEvent(self.canvas, event)

    def point_at(self, point):
        self.send(QEvent.Type.MouseMove, point)
        self.qtbot.wait(20)

    def drag(self, *points):
        self.point_at(points[0])
        self.send(QEvent.Type.MouseButtonPress, points[0], LEFT, LEFT)
        for start, end in itertools.pairwise(points):
            for part in np.linspace(0, 1, 6)[1:]:
                point = tuple(np.add(start, part * np.subtract(end, start)))
                self.send(QEvent.Type.MouseMove, point, NONE, LEFT)
                self.qtbot.wait(15)  # napari takes no more moves than a screen can show
        self.send(QEvent.Type.MouseButtonRelease, points[-1], LEFT, NONE)
        self.settle()

    def click(self, point):
        self.drag(point)

    def scroll(self, point, notches):
        spot = self.spot(point)
        delta = QPointF(0, 120 * notches).toPoint()
        event = QWheelEvent(
            spot,
            self.canvas.mapToGlobal(spot),
            delta,
            delta,
            NONE,
            Qt.KeyboardModifier.NoModifier,
            Qt.ScrollPhase.NoScrollPhase,
            False,
        )
        QApplication.sendEvent(self.canvas, event)
        self.qtbot.wait(20)

    def press(self, key, point=None, modifier=Qt.KeyboardModifier.NoModifier):
        if point is not None:
            self.point_at(point)
        self.qtbot.keyClick(self.canvas, key, modifier)
        self.settle()

    def settle(self):
        self.qtbot.wait(20)
        self.qtbot.waitUntil(lambda: not self.panel.controller.is_busy, timeout=WAIT_MS)
        self.qtbot.wait(20)

    @property
    def project(self):
        return self.editing.project

    def ids(self):
        return np.asarray(self.project.labels.levels[0])

    def at(self, point):
        return int(self.ids()[int(point[0]), int(point[1])])

    def kinds(self):
        return [step.kind for step in reversed(self.project.editor.history()) if not step.undone]


@pytest.fixture
def person(viewer, panel, disc_slide, qtbot):
    """A person who has 24 x 32 discs on the slide segmented, zoomed in and begun to correct."""
    open_and_settle(viewer, panel, str(disc_slide), qtbot)
    panel.controller.segment_slide()
    qtbot.wait(100)
    until_idle(qtbot, panel)
    viewer.scene.camera.zoom *= 2
    until_idle(qtbot, panel)
    someone = Person(viewer, panel, qtbot)
    qtbot.mouseClick(panel.panel.correct.toggle, LEFT)
    qtbot.waitUntil(lambda: someone.editing.window.layer is not None, timeout=WAIT_MS)
    someone.settle()
    return someone


def nuclei_in_view(person):
    """Centroids of the nuclei that are wholly in view, from the middle outwards."""
    camera = person.viewer.scene.camera
    centre = np.asarray(person.editing.opened.layer.world_to_data(camera.center[-2:]))
    table = person.project.nuclei_in(Region(0, 0, *person.project.shape))
    away = np.abs(table.centroids - centre).max(1)
    order = np.argsort(away)[:12]
    return [tuple(table.centroids[row].round().tolist()) for row in order]


def assert_sound(person):
    person.project.flush()
    assert check(person.project).is_sound
    window = person.editing.window
    np.testing.assert_array_equal(window.ids, person.project.labels.read(window.region))


def test_the_brush_enlarges_a_nucleus_and_draws_a_new_one_beside(person):
    person.qtbot.mouseClick(person.panel.panel.correct.buttons["brush"], LEFT)
    (y, x), *_ = nuclei_in_view(person)
    mine = person.at((y, x))
    before = (person.ids() == mine).sum()
    person.drag((y, x), (y + 14, x))
    assert (person.ids() == mine).sum() > before
    empty = y - 16, x - 16  # between four discs
    assert person.at(empty) == 0
    person.drag(empty, (empty[0] + 2, empty[1]))
    assert person.at(empty) >= 1 << 31
    assert person.kinds() == ["paint", "paint"]
    assert_sound(person)


def test_each_tool_does_what_it_says_and_all_of_it_is_undone(person):
    original = person.ids()
    (y0, x0), (y1, x1), (y2, x2), (y3, x3), *_ = nuclei_in_view(person)
    person.press(Qt.Key.Key_E)
    person.drag((y0, x0 - 20), (y0, x0 + 20))
    assert person.at((y0, x0)) == 0
    person.press(Qt.Key.Key_A)
    person.drag((y0 - 6, x0 - 6), (y0 - 6, x0 + 6), (y0 + 6, x0 + 6), (y0 + 6, x0 - 6))
    assert person.at((y0, x0)) >= 1 << 31
    person.press(Qt.Key.Key_K)
    person.drag((y0 - 12, x0), (y0 + 12, x0))
    assert 0 != person.at((y0, x0 - 3)) != person.at((y0, x0 + 3)) != 0
    person.press(Qt.Key.Key_J)
    person.drag((y0, x0 - 3), (y0, x0 + 3))
    assert person.at((y0, x0 - 3)) == person.at((y0, x0 + 3)) != 0
    person.press(Qt.Key.Key_3, (y1, x1))
    table = person.project.nuclei_in(Region(0, 0, *person.project.shape))
    assert table.classes[table.ids == person.at((y1, x1))] == 3
    person.press(Qt.Key.Key_7, (y1, x1))  # there is no such class
    person.press(Qt.Key.Key_Y, (y1, x1))
    area = (person.ids() == person.at((y2, x2))).sum()
    person.press(Qt.Key.Key_Period, (y2, x2))
    assert (person.ids() == person.at((y2, x2))).sum() > area
    person.press(Qt.Key.Key_D, (y2, x2))
    assert person.at((y2, x2)) == 0
    person.press(Qt.Key.Key_R, (y3, x3))
    assert person.at((y3, x3)) == 0
    assert person.kinds() == ["erase", "draw", "split", "merge", "classify", "approve", "grow", "delete", "reject"]
    assert_sound(person)
    for _ in range(9):
        person.press(Qt.Key.Key_Z, modifier=Qt.KeyboardModifier.ControlModifier)
    np.testing.assert_array_equal(person.ids(), original)
    assert person.kinds() == []
    assert not person.panel.panel.correct.undo_button.isEnabled()
    for _ in range(9):
        person.qtbot.mouseClick(person.panel.panel.correct.redo_button, LEFT)
        person.settle()
    assert len(person.kinds()) == 9
    assert_sound(person)


def test_nuclei_that_lie_too_far_apart_are_not_joined_and_that_is_said(person):
    (y, x), *others = nuclei_in_view(person)
    far = next(point for point in others if np.hypot(point[0] - y, point[1] - x) > 40)
    person.press(Qt.Key.Key_J)
    person.drag((y, x), far)
    assert "pixels apart" in person.panel.panel.hint.text()
    assert not person.editing.is_drawing
    assert person.kinds() == []
    assert_sound(person)


def test_a_loop_clears_the_nuclei_inside(person):
    (y, x), *_ = nuclei_in_view(person)
    person.press(Qt.Key.Key_D, modifier=Qt.KeyboardModifier.ShiftModifier)
    assert person.panel.session.tool == "lasso"
    before = len(person.project.nuclei_in(Region(0, 0, *person.project.shape)))
    person.drag((y - 45, x - 45), (y - 45, x + 45), (y + 45, x + 45), (y + 45, x - 45), (y - 45, x - 45))
    after = len(person.project.nuclei_in(Region(0, 0, *person.project.shape)))
    assert after < before - 3
    assert_sound(person)


def test_a_missed_nucleus_is_proposed_resized_and_taken(person):
    (y, x), *_ = nuclei_in_view(person)
    person.press(Qt.Key.Key_D, (y, x))
    person.press(Qt.Key.Key_C)
    person.click((y, x))
    assert "Enter" in person.panel.panel.hint.text()
    zoom = person.viewer.scene.camera.zoom
    person.scroll((y, x), 1)
    assert person.viewer.scene.camera.zoom == zoom
    person.press(Qt.Key.Key_Return)
    assert person.at((y, x)) >= 1 << 31
    assert person.kinds() == ["delete", "propose"]
    person.press(Qt.Key.Key_D, (y, x))
    person.click((y, x))
    person.press(Qt.Key.Key_Escape)
    person.press(Qt.Key.Key_Return)
    assert person.at((y, x)) == 0
    assert_sound(person)


def test_the_window_goes_with_the_view_and_away_where_nothing_can_be_drawn(person):
    camera = person.viewer.scene.camera
    near = camera.zoom
    camera.zoom = near / 8
    until_idle(person.qtbot, person.panel)
    assert person.editing.window.layer is not None  # all of this small slide fits
    person.panel.session.editing = False
    person.settle()
    nuclei = person.panel.controller._shelf.now.nuclei
    assert nuclei.visible
    assert "(correct)" not in "".join(layer.name for layer in person.viewer.layers)


def close_slide(viewer, panel, folder, qtbot):
    """Close it, and wait until its results are open to others."""
    viewer.layers.clear()
    until_idle(qtbot, panel)
    qtbot.waitUntil(lambda: not (folder / "project.lock").exists(), timeout=WAIT_MS)


def test_what_was_drawn_is_there_when_the_slide_is_opened_again(person, viewer, panel, qtbot):
    (y, x), *_ = nuclei_in_view(person)
    person.press(Qt.Key.Key_D, (y, x))
    folder, image = person.project.folder, person.ids()
    close_slide(viewer, panel, folder, qtbot)
    with Project.open(folder) as project:
        np.testing.assert_array_equal(np.asarray(project.labels.levels[0]), image)
        assert [step.kind for step in project.editor.history()] == ["delete"]


def test_a_stroke_that_cannot_be_kept_is_taken_back_and_said(person, monkeypatch):
    (y, x), *_ = nuclei_in_view(person)
    before = person.ids()

    def full(*_arguments, **_options):
        raise StoreError("The disk that holds this is full.")

    with monkeypatch.context() as patch:
        patch.setattr(person.project.editor, "paint", full)
        person.press(Qt.Key.Key_D, (y, x))
        person.settle()
    np.testing.assert_array_equal(person.editing.window.ids, before[person.editing.window.region.slices])
    assert "full" in person.panel.panel.hint.text()
    person.press(Qt.Key.Key_D, (y, x))
    assert person.at((y, x)) == 0


def test_a_key_beside_all_nuclei_says_so(person):
    ys, xs = np.nonzero(person.ids() == 0)
    person.press(Qt.Key.Key_D, (float(ys[len(ys) // 2]), float(xs[len(ys) // 2])))
    assert "Point at a nucleus" in person.panel.panel.hint.text()
    assert person.kinds() == []


def test_a_slide_that_somebody_else_corrects_can_only_be_looked_at(viewer, panel, disc_slide, qtbot):
    open_and_settle(viewer, panel, str(disc_slide), qtbot)
    panel.controller.segment_slide()
    qtbot.wait(100)
    until_idle(qtbot, panel)
    folder = panel.controller._shelf.now.project.folder
    close_slide(viewer, panel, folder, qtbot)
    with Project.open(folder):
        open_and_settle(viewer, panel, str(disc_slide), qtbot)
        panel.session.editing = True
        qtbot.waitUntil(lambda: not panel.session.editing, timeout=WAIT_MS)
        until_idle(qtbot, panel)
    assert "in use" in panel.panel.hint.text()


def test_keys_act_on_what_lies_under_a_resting_mouse_when_the_slide_has_moved(person):
    (y0, x0), (y1, x1), *_ = nuclei_in_view(person)
    person.point_at((y0, x0))
    camera = person.viewer.scene.camera
    step = np.asarray(person.editing.opened.layer.scale[-2:])
    camera.center = tuple(np.asarray(camera.center[-2:]) + np.subtract((y1, x1), (y0, x0)) * step)
    person.settle()
    person.press(Qt.Key.Key_D)
    assert person.at((y0, x0)) != 0
    assert person.at((y1, x1)) == 0


def test_the_next_unapproved_nucleus_is_what_keys_act_on_until_the_mouse_moves(person):
    (y, x), *_ = nuclei_in_view(person)
    person.point_at((y, x))
    seen = []
    for _ in range(3):
        person.press(Qt.Key.Key_U)
        person.qtbot.waitUntil(lambda: person.panel.controller.tools.tour.aimed not in {0, *seen}, timeout=WAIT_MS)
        seen.append(person.panel.controller.tools.tour.aimed)
        person.settle()
    assert len(set(seen)) == 3
    person.press(Qt.Key.Key_Y)
    table = person.project.nuclei_in(Region(0, 0, *person.project.shape))
    assert table.ids[table.approved].tolist() == [seen[-1]]
    (y, x), *_ = [point for point in nuclei_in_view(person) if person.at(point) not in seen]
    person.point_at((y + 1, x))
    person.press(Qt.Key.Key_D, (y, x))
    assert person.panel.controller.tools.tour.aimed == 0
    assert person.at((y, x)) == 0


def test_classes_are_read_once_and_then_followed(person, monkeypatch):
    from napari_nucleiseg.viewer import project_view

    (y, x), *_ = nuclei_in_view(person)
    nucleus, layer = person.at((y, x)), person.editing.window.layer
    monkeypatch.setattr(project_view, "classes_of", lambda _project: pytest.fail("all classes were read again"))
    plain = tuple(layer.get_color(nucleus))
    person.press(Qt.Key.Key_3, (y, x))
    blue = tuple(layer.get_color(nucleus))
    assert blue != plain
    person.press(Qt.Key.Key_K)
    person.drag((y - 12, x), (y + 12, x))  # both halves are of the class
    assert person.at((y, x - 3)) != person.at((y, x + 3))
    assert {tuple(layer.get_color(person.at((y, x + side)))) for side in (-3, 3)} == {blue}
    for _ in range(2):
        person.press(Qt.Key.Key_Z, modifier=Qt.KeyboardModifier.ControlModifier)
    assert tuple(layer.get_color(nucleus)) == plain
    person.qtbot.mouseClick(person.panel.panel.correct.redo_button, LEFT)
    person.settle()
    assert tuple(layer.get_color(nucleus)) == blue


def drawn_pixels(person, nucleus):
    layer = person.editing.window.layer
    return int(np.count_nonzero(np.asarray(layer._slice.image.view)[np.asarray(layer.data) == nucleus]))


def test_what_is_approved_looks_different_as_long_as_one_wants_to_see_it(person):
    (y0, x0), (y1, x1), *_ = nuclei_in_view(person)
    one, other = person.at((y0, x0)), person.at((y1, x1))
    solid, of_other = drawn_pixels(person, one), drawn_pixels(person, other)
    person.press(Qt.Key.Key_Y, (y0, x0))
    assert 0 < drawn_pixels(person, one) < 0.8 * solid
    assert drawn_pixels(person, other) == of_other
    switch = person.panel.panel.correct.show_approved
    assert switch.isVisible()
    switch.click()
    assert drawn_pixels(person, one) == solid
    switch.click()
    assert drawn_pixels(person, one) < 0.8 * solid
    person.panel.session.editing = False  # it is read again with the window
    person.panel.session.editing = True
    person.qtbot.waitUntil(lambda: person.editing.window.layer is not None, timeout=WAIT_MS)
    person.settle()
    assert drawn_pixels(person, one) < 0.8 * solid
    person.press(Qt.Key.Key_Z, modifier=Qt.KeyboardModifier.ControlModifier)
    assert drawn_pixels(person, one) == solid


def test_a_cut_follows_the_drag(person):
    (y, x), *_ = nuclei_in_view(person)
    nucleus = person.at((y, x))
    person.press(Qt.Key.Key_K)
    # From the left side in, around the middle, and out by the left side again.
    person.drag((y - 4, x - 12), (y - 4, x + 3), (y + 4, x + 3), (y + 4, x - 12))
    inner, outer = person.at((y, x - 2)), person.at((y, x + 5))
    assert 0 not in {inner, outer}
    assert inner != outer
    assert person.at((y - 6, x)) == person.at((y + 6, x)) == outer
    assert nucleus in {inner, outer}
    assert person.kinds() == ["split"]
    assert_sound(person)


def test_two_clicks_make_a_straight_cut(person):
    (y, x), *_ = nuclei_in_view(person)
    person.press(Qt.Key.Key_K)
    person.click((y - 12, x))
    assert "Click where the cut ends" in person.panel.panel.hint.text()
    assert person.kinds() == []
    person.press(Qt.Key.Key_Escape)
    person.click((y + 12, x))  # begins anew
    assert person.kinds() == []
    person.click((y - 12, x))
    assert 0 != person.at((y, x - 3)) != person.at((y, x + 3)) != 0
    assert person.kinds() == ["split"]
    assert person.panel.panel.hint.text() == ""
    assert_sound(person)


def test_a_slide_that_opens_amid_a_stroke_can_be_corrected_as_well(person, disc_slide, tmp_path, qtbot):
    second = tmp_path / "second.tif"
    shutil.copyfile(disc_slide, second)
    person.point_at((384, 512))
    person.send(QEvent.Type.MouseButtonPress, (384, 512), LEFT, LEFT)
    person.send(QEvent.Type.MouseMove, (384, 520), NONE, LEFT)
    assert person.editing.is_drawing
    first = person.editing.opened
    person.viewer.open(second, plugin="napari-nucleiseg")
    qtbot.waitUntil(lambda: not person.panel.session.editing, timeout=WAIT_MS)
    person.settle()
    person.viewer.layers.selection.active = first.layer
    person.settle()
    qtbot.mouseClick(person.panel.panel.correct.toggle, LEFT)
    qtbot.waitUntil(lambda: person.editing.window.layer is not None, timeout=WAIT_MS)

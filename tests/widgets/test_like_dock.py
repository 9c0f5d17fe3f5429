"""Finding the like in the window: marks by click, the slider, choosing, accepting, undo, other views, bad moments."""

import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from qtpy.QtCore import QPoint, Qt

from dark_model import disc_centres
from gui_parts import WAIT_MS, click, hover, open_and_settle, until_idle
from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.viewer.like_engine import LikeEngine
from napari_nucleiseg.viewer.like_layers import CHOSEN_NUMBER, HEATMAP, MARKS, OUTLINES, PATH, REGIONS
from napari_nucleiseg.viewer.like_wishes import CHOOSE, COLOUR, LIKE, OFF, UNLIKE
from napari_nucleiseg.widgets.like_words import ABOUT

SHAPE = (320, 832)
HOME = (160.0, 208.0)
PER_CM = 1e4 / 0.5
RADIUS_PX = 7
BLUE, BROWN = (70, 50, 120), (110, 75, 25)


def kinds():
    """Centres of blue and of brown discs, in columns."""
    centres = disc_centres(SHAPE)
    column = centres[:, 1] // 32 % 3
    return [centres[column > 0], centres[column == 0]]


def disc(kind, place=0):
    """Centre of a disc of a kind, the nearest to the middle of the first view first."""
    centres = kinds()[kind]
    away = np.hypot(*(centres - np.array(HOME)).T)
    return centres[np.argsort(away, kind="stable")[place]]


def picture():
    noise = np.random.default_rng(0).integers(-6, 7, (*SHAPE, 1))
    shown = np.clip(np.array([214, 170, 205]) + noise, 0, 255).astype(np.uint8)
    for colour, centres in zip((BLUE, BROWN), kinds(), strict=True):
        for y, x in centres:
            cv2.circle(shown, (int(x), int(y)), RADIUS_PX, colour, -1)
    return shown


class GatedEngine(LikeEngine):
    """Waits before it reads features, if it is told to."""

    def __init__(self, like):
        super().__init__(like.view.engine._engine, like.view.engine._encoders)
        self.gate = threading.Event()
        self.gate.set()
        self.began = threading.Event()
        self.looked = 0

    def _field(self, *args):
        self.began.set()
        self.looked += 1
        assert self.gate.wait(60), "nobody opened the gate"
        return (yield from super()._field(*args))


@pytest.fixture
def disc_slide(tmp_path):
    path = tmp_path / "kinds.tif"
    tifffile.imwrite(path, picture(), tile=(256, 256), resolution=(PER_CM, PER_CM), resolutionunit="CENTIMETER")
    return path


@pytest.fixture
def dock(viewer, panel, disc_slide, qtbot):
    """The dock as the panel's command shows it, on a slide, comparing by colour."""
    viewer.window.resize(1100, 720)  # what is drawn takes most of the time
    like = panel.docks.like
    like.view.engine = GatedEngine(like)
    like.wishes.source = COLOUR
    open_and_settle(viewer, panel, disc_slide, qtbot)
    panel.docks.show_like()
    made = panel.docks.widget("Find the like")
    look_at(viewer, HOME)
    settle(qtbot, panel)
    return made


def settle(qtbot, panel):
    like = panel.docks.like
    jobs = panel.controller.display.jobs
    for _ in range(2):
        qtbot.waitUntil(lambda: jobs.is_settled(0.5), timeout=WAIT_MS)
        until_idle(qtbot, panel)
    assert like.view.look is not None or not like.view.is_open or like.view.opened is None


def look_at(viewer, centre, zoom=3.0):
    viewer.scene.camera.zoom = zoom
    viewer.scene.camera.center = (0.0, centre[0] * 0.5, centre[1] * 0.5)


def spot(viewer, point):
    """Canvas pixel of a level-0 place."""
    camera, size = viewer.scene.camera, np.asarray(viewer.canvas.size)
    y, x = (np.asarray(point) * 0.5 - np.asarray(camera.center[-2:])) * camera.zoom + size / 2
    return QPoint(round(float(x)), round(float(y)))


def tap(qtbot, viewer, point):
    canvas = viewer.window._qt_viewer.canvas.native
    qtbot.mouseClick(canvas, Qt.MouseButton.LeftButton, pos=spot(viewer, point))


def drag(viewer, points):
    from qtpy.QtTest import QTest

    canvas = viewer.window._qt_viewer.canvas.native
    QTest.mousePress(canvas, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, spot(viewer, points[0]))
    for point in points[1:]:
        hover(QTest, canvas, spot(viewer, point))
        QTest.qWait(30)  # napari leaves moves out that follow each other closely
    QTest.mouseRelease(canvas, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, spot(viewer, points[-1]))


def middles(like):
    """Centroids of what is proposed."""
    return like.found.candidates.centroids[like.proposals()]


def are(like, *wanted):
    """Whether the discs of these kinds that are seen, and no others, are proposed."""
    every, view = kinds(), like.view.seen
    centres = np.concatenate([every[kind] for kind in wanted])
    seen = [tuple(c) for c in centres.tolist() if view.contains_point(c[0] + 0.5, c[1] + 0.5)]
    found = {tuple(np.rint(c).astype(int)) for c in middles(like)}
    return found == set(seen)


@pytest.fixture
def marked(dock, panel, viewer, qtbot):
    """The same, with one blue disc marked."""
    click(qtbot, dock.hands[LIKE])
    tap(qtbot, viewer, disc(0))
    settle(qtbot, panel)
    return dock


def test_it_begins_with_what_to_do_and_a_drag_marks_nothing(dock, panel, viewer, qtbot):
    like = panel.docks.like
    assert dock.hint.text() == ABOUT
    assert dock.no_marks.isVisible()
    assert not dock.all_button.isEnabled()
    canvas = viewer.window._qt_viewer.canvas.native
    for key, hand in ((Qt.Key.Key_U, UNLIKE), (Qt.Key.Key_C, CHOOSE), (Qt.Key.Key_K, LIKE)):
        qtbot.keyClick(canvas, key, Qt.KeyboardModifier.ShiftModifier)
        assert like.wishes.hand == hand
        assert dock.hands[hand].isChecked()
    before = tuple(viewer.scene.camera.center)
    drag(viewer, [(160, 200), (160, 215), (160, 230)])
    settle(qtbot, panel)
    assert tuple(viewer.scene.camera.center) != before
    assert like.marks == ()
    qtbot.keyClick(canvas, Qt.Key.Key_Escape)
    assert like.wishes.hand == OFF
    assert not any(button.isChecked() for button in dock.hands.values())


def test_one_click_proposes_what_is_like_it_and_the_slider_says_how_like(marked, panel, viewer, qtbot):
    like, found = panel.docks.like, panel.docks.like.found
    few = len(like.proposals())
    assert are(like, 0)
    assert marked.count.text() == f"{few} proposals"
    assert marked.known.text() == "all of them new"
    assert marked.marks.count() == 1
    assert like.layers.layer(MARKS) is not None
    number = like.number_at(*disc(0, 3))
    assert like.layers.layer(OUTLINES)._classes.of(np.array([number]))[0] > 0
    marked.threshold.slider.setValue(0)
    assert len(like.proposals()) > few
    assert str(len(like.proposals())) in marked.count.text()
    assert not marked.automatic.isChecked()
    assert like.found is found  # nothing was searched
    click(qtbot, marked.automatic)
    assert len(like.proposals()) == few


def test_what_is_unlike_is_left_out_and_the_cross_takes_marks_away(marked, panel, viewer, qtbot):
    like = panel.docks.like
    marked.threshold.slider.setValue(0)
    brown = disc(1)
    assert like.number_at(*brown) in like.proposals().tolist()
    click(qtbot, marked.hands[UNLIKE])
    tap(qtbot, viewer, brown)
    settle(qtbot, panel)
    assert [mark.is_like for mark in like.marks] == [True, False]
    assert like.number_at(*brown) not in like.proposals().tolist()
    click(qtbot, marked.automatic)
    assert are(like, 0)
    marked.marks.itemDoubleClicked.emit(marked.marks.item(1))  # brown is meant, too
    settle(qtbot, panel)
    assert like.number_at(*brown) in like.proposals().tolist()
    row = marked.marks.itemWidget(marked.marks.item(0))
    shown = marked.marks.viewport().grab().toImage()
    inside, below = row.geometry().center(), marked.marks.viewport().rect().bottomLeft()
    assert shown.pixelColor(row.geometry().right() - 40, inside.y()) == shown.pixelColor(below.x() + 20, below.y() - 4)
    click(qtbot, marked.marks.crosses()[1])
    settle(qtbot, panel)
    assert are(like, 0)
    click(qtbot, marked.clear_button)
    settle(qtbot, panel)
    assert like.marks == ()
    assert like.layers.layer(MARKS) is like.layers.layer(OUTLINES) is None
    assert marked.count.text() == "–"


def test_a_click_chooses_a_proposal_and_only_those_are_accepted_with_their_class(marked, panel, viewer, qtbot):
    like = panel.docks.like
    click(qtbot, marked.hands[CHOOSE])
    tap(qtbot, viewer, disc(0, 1))
    tap(qtbot, viewer, disc(1))  # is not proposed
    assert like.chosen == {like.number_at(*disc(0, 1))}
    assert like.layers.layer(OUTLINES)._classes.of(np.array(list(like.chosen)))[0] == CHOSEN_NUMBER
    assert "1 chosen" in marked.count.text()
    tap(qtbot, viewer, disc(0, 1))
    assert like.chosen == set()
    assert not marked.chosen_button.isEnabled()
    tap(qtbot, viewer, disc(0, 1))
    panel.session.editing = True  # there are classes once there is a project
    settle(qtbot, panel)
    assert like.chosen == {like.number_at(*disc(0, 1))}
    tap(qtbot, viewer, disc(0, 2))
    marked.number.setCurrentIndex(marked.number.findData(2))
    marked.number.activated.emit(marked.number.currentIndex())
    click(qtbot, marked.chosen_button)
    settle(qtbot, panel)
    project = panel.controller.display.shelf.now.project
    assert project.nuclei_in(Region(0, 0, *SHAPE)).classes.tolist() == [2, 2]
    assert len(project.editor.history()) == 1


def test_accepting_all_makes_nuclei_and_undo_takes_them_back(marked, panel, viewer, qtbot):
    like = panel.docks.like
    wanted = len(like.proposals())
    click(qtbot, marked.all_button)
    settle(qtbot, panel)
    project = panel.controller.display.shelf.now.project
    assert project.census.total() == wanted
    assert len(like.proposals()) == 0
    assert f"{wanted} new nuclei" in marked.hint.text()
    assert project.editor.turns()[0] == "like"
    panel.controller.editing.undo()
    settle(qtbot, panel)
    assert project.census.total() == 0
    assert len(like.proposals()) == wanted


def test_nuclei_that_are_there_get_the_class_and_undo_takes_it(marked, panel, viewer, qtbot):
    like, whole = panel.docks.like, Region(0, 0, *SHAPE)
    panel.controller.segment_view()
    settle(qtbot, panel)
    project = panel.controller.display.shelf.now.project
    wanted, total = like.known(), project.census.total()
    assert len(wanted) == len(like.proposals()) > 3
    click(qtbot, marked.all_button)
    assert "nuclei already" in marked.hint.text()
    like.wishes.number = 1
    click(qtbot, marked.all_button)
    settle(qtbot, panel)
    table = project.nuclei_in(whole)
    assert table.ids[table.classes == 1].tolist() == wanted
    assert project.census.total() == total
    assert len(like.proposals()) == 0
    panel.controller.editing.undo()
    settle(qtbot, panel)
    assert not project.nuclei_in(whole).classes.any()
    assert like.known() == wanted
    click(qtbot, marked.list_button)
    settle(qtbot, panel)
    assert panel.docks.widget("Nuclei table").nuclei.listing.ids.tolist() == wanted
    assert like.known() == wanted  # the table lies before the dock, and proposals are still seen


def test_what_was_rejected_is_not_proposed_again_and_the_brush_is_put_aside(marked, panel, viewer, qtbot):
    like = panel.docks.like
    panel.controller.segment_view()
    settle(qtbot, panel)
    gone = int(like.found.candidates.ids[like.number_at(*disc(0, 1))])
    panel.session.editing = True
    settle(qtbot, panel)
    panel.controller.editing.delete([gone], kind="reject")
    settle(qtbot, panel)
    assert like.number_at(*disc(0, 1)) == 0
    assert panel.session.tool == "move"
    before = panel.controller.display.shelf.now.project.editor.history()[0]
    tap(qtbot, viewer, disc(0, 2))
    settle(qtbot, panel)
    assert len(like.marks) == 2
    assert panel.controller.display.shelf.now.project.editor.history()[0] == before
    panel.session.tool = "erase"
    assert like.wishes.hand == OFF


def test_marks_count_in_another_view_which_is_kept(marked, panel, viewer, qtbot):
    like = panel.docks.like
    look_at(viewer, (160, 640))
    settle(qtbot, panel)
    assert not like.view.look.frame.region.contains_point(*disc(0))
    assert are(like, 0)
    looked = like.view.engine.looked
    look_at(viewer, HOME)
    settle(qtbot, panel)
    assert are(like, 0)
    assert like.view.engine.looked == looked
    other = like.view.opened.slide.path.replace("kinds", "other")
    Path(other).write_bytes(Path(like.view.opened.slide.path).read_bytes() + b"0")
    open_and_settle(viewer, panel, other, qtbot)
    settle(qtbot, panel)
    assert like.marks == ()  # they belong to their slide


def test_a_region_is_drawn_without_moving_the_slide_and_similarity_is_seen(dock, panel, viewer, qtbot):
    like = panel.docks.like
    click(qtbot, dock.region_button)
    assert like.wishes.hand == LIKE
    y, x = disc(0, 1)
    before = tuple(viewer.scene.camera.center)
    drag(viewer, [(y - 12, x - 12), (y - 12, x), (y - 12, x + 12), (y + 12, x + 12), (y + 12, x), (y + 12, x - 12)])
    settle(qtbot, panel)
    assert tuple(viewer.scene.camera.center) == before
    assert [mark.is_point for mark in like.marks] == [False]
    assert like.layers.layer(REGIONS) is not None
    assert like.layers.layer(PATH) is None
    assert not dock.region_button.isChecked()
    assert are(like, 0)
    click(qtbot, dock.heatmap)
    layer = like.layers.layer(HEATMAP)
    like_it, other = (
        layer.data[tuple(int(v) for v in layer.world_to_data(centre * 0.5))] for centre in (disc(0, 3), disc(1))
    )
    assert like_it > other
    click(qtbot, dock.heatmap)
    assert like.layers.layer(HEATMAP) is None


def test_what_cannot_be_compared_is_said(dock, panel, viewer, monkeypatch, qtbot):
    like = panel.docks.like
    like.wishes.source = ""
    qtbot.waitUntil(lambda: "choose another model" in dock.hint.text(), timeout=WAIT_MS)
    monkeypatch.setattr("napari_nucleiseg.viewer.like_engine.MOST_PX", 100)
    like.wishes.source = COLOUR
    qtbot.waitUntil(lambda: "Zoom in" in dock.hint.text(), timeout=WAIT_MS)
    monkeypatch.undo()
    like.view.refresh()
    settle(qtbot, panel)
    assert dock.hint.text() == ABOUT


def test_closing_hides_all_keeps_marks_and_leaves_no_work_behind(marked, panel, viewer, qtbot):
    like, engine = panel.docks.like, panel.docks.like.view.engine
    panel.docks.frame("Find the like").parent().close()
    settle(qtbot, panel)
    assert like.wishes.hand == OFF
    assert like.layers.layer(OUTLINES) is like.layers.layer(MARKS) is None
    panel.docks.show_like()
    settle(qtbot, panel)
    assert are(like, 0)
    assert like.layers.layer(MARKS) is not None
    engine.gate.clear()
    engine.began.clear()
    look_at(viewer, (160, 640))
    qtbot.waitUntil(engine.began.is_set, timeout=WAIT_MS)
    panel.shutdown()
    engine.gate.set()
    panel.controller.join()
    assert not like.view.is_open
    assert like.found is None

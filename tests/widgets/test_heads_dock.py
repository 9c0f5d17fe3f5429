"""The dock "Attention heads" in a real window, by mouse and keys: look, switch, pin, ask, paint, teach, leave."""

import json
import threading

import numpy as np
import pytest
from qtpy.QtCore import QEvent, QPoint, QPointF, Qt
from qtpy.QtGui import QCloseEvent, QMouseEvent
from qtpy.QtWidgets import QApplication, QFileDialog, QMessageBox

from dark_model import DarkEngine
from gui_parts import WAIT_MS, click, hover, open_and_settle, until_idle
from heads_parts import ALL, BOUND, SIDE, use_home, write_discs, write_encoder, write_encoders
from napari_nucleiseg.core.geometry import YX
from napari_nucleiseg.state import BOTH, PATCHES
from napari_nucleiseg.viewer.like_wishes import COLOUR, LIKE
from napari_nucleiseg.widgets import commands, dialogs
from taught_parts import Lesson

LEFT, NONE = Qt.MouseButton.LeftButton, Qt.MouseButton.NoButton
NAME = "Attention heads"


@pytest.fixture
def engine(tmp_path, monkeypatch):
    use_home(monkeypatch, tmp_path)
    return DarkEngine(tmp_path)


@pytest.fixture
def dock(viewer, panel, qtbot, tmp_path):
    """The dock on a slide, with encoders."""
    write_encoders()
    open_and_settle(viewer, panel, str(write_discs(tmp_path / "discs.tif")), qtbot)
    click(qtbot, panel.panel.heads_button)
    made = panel.docks.widget(NAME)
    viewer.reset_view()
    until_idle(qtbot, panel)
    return made


@pytest.fixture
def looked(dock, panel, qtbot):
    """The same, looked at."""
    click(qtbot, dock.look_button)
    until_idle(qtbot, panel)
    return dock


def layers(viewer):
    return [layer for layer in viewer.layers if layer.metadata.get("nucleiseg_role") == "attention heads"]


def rings(viewer):
    return [layer for layer in viewer.layers if layer.metadata.get("nucleiseg_role") == "marker"]


def choose(qtbot, panel, box, title):
    """Choose an entry with the keys, as somebody who has clicked the box."""
    place = next(place for place in range(box.count()) if box.itemText(place).startswith(title))
    box.setFocus()
    qtbot.keyClick(box, Qt.Key.Key_Home)
    while box.currentIndex() < place:
        before = box.currentIndex()
        qtbot.keyClick(box, Qt.Key.Key_Down)
        assert box.currentIndex() > before
    assert box.currentIndex() == place
    until_idle(qtbot, panel)


def send(viewer, kind, point, button=NONE, buttons=NONE):
    """Let the mouse do something at a place of the slide, ``(y, x)`` level-0 pixels from corners."""
    canvas = viewer.window._qt_viewer.canvas.native
    camera, (height, width) = viewer.scene.camera, viewer.canvas.size
    away = ((np.array(point) - 0.5) * 0.5 - camera.center[-2:]) * camera.zoom
    spot = QPointF(float(width / 2 + away[1]), float(height / 2 + away[0]))
    event = QMouseEvent(kind, spot, canvas.mapToGlobal(spot), button, buttons, Qt.KeyboardModifier.NoModifier)
    QApplication.sendEvent(canvas, event)


def click_slide(viewer, panel, qtbot, point, moved=0):
    send(viewer, QEvent.Type.MouseMove, point)
    send(viewer, QEvent.Type.MouseButtonPress, point, LEFT, LEFT)
    for part in range(1, moved + 1):
        send(viewer, QEvent.Type.MouseMove, np.add(point, 8 * part), NONE, LEFT)
        qtbot.wait(15)
    send(viewer, QEvent.Type.MouseButtonRelease, np.add(point, 8 * moved), LEFT, NONE)
    until_idle(qtbot, panel)


def click_map(qtbot, panel, gallery, name):
    qtbot.mouseClick(gallery, LEFT, pos=gallery.frames()[name].center())
    until_idle(qtbot, panel)


def ended(qtbot, panel):
    qtbot.waitUntil(lambda: not panel.docks.head_parts.teaching.is_running, timeout=WAIT_MS)
    until_idle(qtbot, panel)


def test_the_command_opens_it_and_what_is_missing_is_said(viewer, panel, qtbot, tmp_path, monkeypatch):
    monkeypatch.setattr(commands, "open_panel", lambda _viewer: panel)
    commands.show_heads(viewer)
    dock = panel.docks.widget(NAME)
    qtbot.waitUntil(dock.isVisible, timeout=WAIT_MS)
    assert "Heads are not taught what a nucleus is" in dock.hint.text()
    click(qtbot, dock.look_button)
    assert "Open a slide first" in dock.hint.text()
    dark = dock.hint.styleSheet()
    viewer.theme = "light"
    QApplication.processEvents()
    assert dark != dock.hint.styleSheet() != ""
    open_and_settle(viewer, panel, str(write_discs(tmp_path / "discs.tif")), qtbot)
    click(qtbot, dock.look_button)
    assert "There is no transformer to look with" in dock.hint.text()
    # One that is there the next time it is opened is listed.
    write_encoders()
    viewer.window.remove_dock_widget(panel.docks.frame("Attention heads"))
    click(qtbot, panel.panel.heads_button)
    until_idle(qtbot, panel)
    assert dock.encoder.currentText() == "tiny"
    assert [dock.encoder.itemText(place) for place in range(2)] == ["tiny", "wide"]
    assert [dock.head.itemText(place) for place in range(6)] == [
        "Head 1",
        "Head 2",
        "Head 3",
        "Mean",
        "Maximum",
        "Rollout",
    ]
    assert dock.layer.count() == 3


def test_a_pixel_size_and_a_licence_are_asked_for_and_then_it_is_looked_at(
    viewer, panel, dock, qtbot, tmp_path, monkeypatch
):
    asked = []
    monkeypatch.setattr(dialogs, "ask_pixel_size", lambda slide, _parent: asked.append(slide) or YX(0.5, 0.5))
    monkeypatch.setattr(dialogs, "ask_licence", lambda card, _parent: asked.append(card) or True)
    monkeypatch.setattr(panel.controller._engine, "accept_licence", panel.docks.heads.engine.accept_licence)
    write_encoder("bound", seed=3, **BOUND)
    panel.docks.heads.encoders.list()
    open_and_settle(viewer, panel, str(write_discs(tmp_path / "plain.tif", mpp_um=None)), qtbot)
    assert dock.encoder.itemText(0) == "bound (non-commercial)"
    choose(qtbot, panel, dock.encoder, "bound")
    assert "CC-BY-NC-4.0" in dock.encoder.toolTip()
    click(qtbot, dock.look_button)
    qtbot.waitUntil(lambda: len(layers(viewer)) == 1, timeout=WAIT_MS)
    until_idle(qtbot, panel)
    assert len(asked) == 2
    assert not dock.hint.styleSheet()


def test_progress_is_shown_and_stopped_and_every_head_has_its_picture(viewer, panel, dock, qtbot):
    engine = panel.docks.heads.engine
    assert not dock.bar.isVisible()
    engine.gate.clear()
    click(qtbot, dock.look_button)
    qtbot.waitUntil(lambda: engine.steps > 0 and dock.bar.maximum() == ALL, timeout=WAIT_MS)
    assert dock.bar.isVisible()
    click(qtbot, dock.stop_button)
    engine.gate.set()
    until_idle(qtbot, panel)
    assert not dock.bar.isVisible()
    assert not dock.stop_button.isVisible()
    click(qtbot, dock.look_button)
    until_idle(qtbot, panel)
    (layer,) = layers(viewer)
    assert dock.gallery.names == ("0", "1", "2", "mean", "max", "rollout")
    frames = list(dock.gallery.frames().values())
    assert all(dock.gallery.rect().contains(frame) for frame in frames)
    assert not any(one.intersects(other) for one in frames for other in frames if one is not other)
    picture = dock.gallery.grab().toImage()
    shades = {picture.pixelColor(frames[0].topLeft() + QPoint(x, x)).name() for x in range(frames[0].height())}
    assert len(shades) > 3
    before = np.array(layer.data)
    click_map(qtbot, panel, dock.gallery, "2")
    assert dock.head.currentText() == "Head 3"
    assert dock.gallery._name == "2"
    assert layers(viewer) == [layer]
    assert not np.array_equal(layer.data, before)


def test_switches_change_the_one_layer(viewer, panel, looked, qtbot):
    (layer,) = layers(viewer)
    former = np.array(layer.data)
    for box, title in (
        (looked.head, "Rollout"), (looked.head, "Head 2"), (looked.layer, "Layer 1"), (looked.values, "Share"),
    ):  # fmt: skip
        choose(qtbot, panel, box, title)
        assert layers(viewer) == [layer]
        assert not np.array_equal(layer.data, former), title
        former = np.array(layer.data)
    choose(qtbot, panel, looked.colours, "Viridis")
    assert layer.colormap.name == "viridis"
    looked.opacity.box.setValue(0.3)
    assert layer.opacity == pytest.approx(0.3)
    qtbot.mouseClick(looked.tissue_only, LEFT, pos=QPoint(8, looked.tissue_only.height() // 2))
    until_idle(qtbot, panel)
    assert not panel.docks.heads.wishes.tissue_only
    choose(qtbot, panel, looked.averaged, "2 shifted")
    assert len(layers(viewer)) == 1
    assert layers(viewer)[0].data.shape != former.shape


def test_region_and_patches_together(viewer, panel, looked, qtbot):
    model = looked.level.model()
    assert [model.item(place).isEnabled() for place in range(3)] == [True, False, False]
    assert "transformer of regions first" in model.item(1).toolTip()
    assert not looked.region_head.isVisible()
    choose(qtbot, panel, looked.region_encoder, "tiny-region")
    assert all(model.item(place).isEnabled() for place in range(3))
    choose(qtbot, panel, looked.level, "Both")
    assert looked.weight.isVisible()
    assert looked.gallery.names == tuple(f"{head},{other}" for other in range(2) for head in range(3))
    assert looked.gallery.titles["2,1"] == "3 × 2"
    click_map(qtbot, panel, looked.gallery, "2,1")
    assert (looked.head.currentText(), looked.region_head.currentText()) == ("Head 3", "Head 2")
    choose(qtbot, panel, looked.level, "Region")
    assert not looked.head.isVisible()
    assert looked.gallery.names == ("0", "1", "mean", "max", "rollout")
    # Those that do not belong together are not offered, and nothing composed is left.
    choose(qtbot, panel, looked.encoder, "wide")
    assert looked.region_encoder.count() == 1
    assert looked.level.currentText() == "Patches"
    assert not model.item(2).isEnabled()
    assert panel.docks.heads.wishes.level == PATCHES != BOTH
    assert looked.head.count() == 5
    assert looked.gallery.names[:2] == ("0", "1")


def test_pinned_maps_are_listed_switched_and_let_go(viewer, panel, looked, qtbot):
    assert looked.unpin_button.isHidden()  # there is nothing to let go of
    click(qtbot, looked.pin_button)
    click_map(qtbot, panel, looked.gallery, "1")
    click(qtbot, looked.pin_button)
    looked.tabs.setCurrentIndex(1)
    QApplication.processEvents()
    assert looked.tabs.tabText(1) == "Pinned (2)"
    assert looked.unpin_button.isVisible()
    assert list(looked.pinned.titles.values()) == ["Head 1", "Head 2"]
    first = panel.docks.heads.pins[0].layer
    click_map(qtbot, panel, looked.pinned, "0")
    assert first.visible
    click_map(qtbot, panel, looked.pinned, "0")
    assert not first.visible
    click(qtbot, looked.unpin_button)
    assert looked.tabs.tabText(1) == "Pinned"
    assert looked.pinned.names == ()
    assert len(layers(viewer)) == 1
    assert not looked.unpin_button.isVisible()


def test_a_click_asks_a_token_a_drag_does_not_and_escape_ends(viewer, panel, looked, qtbot):
    (layer,) = layers(viewer)
    whole = np.array(layer.data)
    click_slide(viewer, panel, qtbot, (100, 200))
    assert layers(viewer) == [layer]  # nobody asks yet
    click(qtbot, looked.ask_button)
    assert "Click on the slide" in looked.hint.text()
    click_slide(viewer, panel, qtbot, (100, 200), moved=4)
    assert layers(viewer)[0].data.shape == whole.shape
    click_slide(viewer, panel, qtbot, (100, 200))
    (asked,) = layers(viewer)
    assert asked.data.shape == (SIDE, SIDE)
    assert "token" in asked.name
    assert len(rings(viewer)) == 1
    click_slide(viewer, panel, qtbot, (-10, 100))  # beside the map
    np.testing.assert_array_equal(layers(viewer)[0].data, whole)
    assert not rings(viewer)
    click_slide(viewer, panel, qtbot, (100, 200))
    qtbot.keyClick(viewer.window._qt_viewer.canvas.native, Qt.Key.Key_Escape)
    until_idle(qtbot, panel)
    assert not looked.ask_button.isChecked()
    np.testing.assert_array_equal(layers(viewer)[0].data, whole)


def test_a_click_asks_a_token_or_marks_what_is_like_never_both(viewer, panel, looked, qtbot):
    like = panel.docks.like
    like.wishes.source = COLOUR
    whole = np.array(layers(viewer)[0].data)
    panel.docks.show_like()
    hands = panel.docks.widget("Find the like").hands
    click(qtbot, hands[LIKE])
    panel.docks.show_heads()
    click(qtbot, looked.ask_button)
    assert not hands[LIKE].isChecked()
    click_slide(viewer, panel, qtbot, (100, 200))
    assert like.marks == ()
    assert layers(viewer)[0].data.shape == (SIDE, SIDE)
    panel.docks.show_like()
    click(qtbot, hands[LIKE])
    until_idle(qtbot, panel)
    assert not looked.ask_button.isChecked()
    click_slide(viewer, panel, qtbot, (100, 200))
    assert len(like.marks) == 1
    np.testing.assert_array_equal(layers(viewer)[0].data, whole)


def test_the_pointer_is_seen_on_both_sides(viewer, panel, looked, qtbot):
    def moved(y):
        """Move the pointer until napari, which leaves moves out that follow each other closely, has told of it."""
        send(viewer, QEvent.Type.MouseMove, (y, 160))
        QApplication.processEvents()
        return looked.gallery._cross

    qtbot.waitUntil(lambda: moved(64) == pytest.approx((0.25, 0.5), abs=0.02), timeout=WAIT_MS)
    qtbot.waitUntil(lambda: moved(-20) is None, timeout=WAIT_MS)
    frame = looked.gallery.frames()["1"]
    hover(qtbot, looked.gallery, frame.center())
    (ring,) = rings(viewer)
    np.testing.assert_allclose(ring.data[0], (128, 160), atol=16)
    looked.gallery.leaveEvent(QEvent(QEvent.Type.Leave))
    assert not rings(viewer)


def test_the_camera_is_followed(viewer, panel, looked, qtbot):
    qtbot.mouseClick(looked.follow, LEFT, pos=QPoint(8, looked.follow.height() // 2))
    viewer.scene.camera.zoom *= 6
    viewer.scene.camera.center = (0.0, 30 * 0.5, 30 * 0.5)
    until_idle(qtbot, panel)
    qtbot.waitUntil(lambda: panel.docks.heads.looks.total < ALL, timeout=WAIT_MS)
    until_idle(qtbot, panel)
    assert panel.docks.heads.looks.looking.plans[0].region.contains_point(30, 30)


def test_where_a_model_of_slides_looked_is_shown(viewer, panel, dock, qtbot, tmp_path, monkeypatch):
    path = tmp_path / "discs.attention.json"
    path.write_text(json.dumps({"slide": "discs.tif", "boxes": [[0, 0, 64, 64]], "attention": [1.0]}))
    chosen = [str(path), "", str(tmp_path / "none.json")]
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *_a, **_k: (chosen.pop(0), ""))
    for _ in range(2):
        click(qtbot, dock.slide_button)
        until_idle(qtbot, panel)
        (layer,) = layers(viewer)
        assert layer.name.endswith("slide attention")
    click(qtbot, dock.slide_button)
    until_idle(qtbot, panel)
    assert "cannot be read" in dock.hint.text()


def test_a_head_that_is_shown_can_be_painted_on_and_taught(viewer, panel, looked, qtbot):
    engine, tab = panel.docks.heads.engine, looked.teaching
    looked.tabs.setCurrentIndex(3)
    QApplication.processEvents()
    assert panel.panel.attention.isVisible()  # the model of nuclei itself says not where it looks
    click(qtbot, tab.paint_button)
    until_idle(qtbot, panel)
    assert panel.session.painting
    assert tab.paint_button.text() == "Painting attention"
    click(qtbot, tab.paint_button)
    until_idle(qtbot, panel)
    assert not panel.session.painting
    click(qtbot, tab.teach_button)
    ended(qtbot, panel)
    assert "Nothing is painted" in looked.hint.text()
    engine.lesson = Lesson(adopted=False)
    click(qtbot, tab.teach_button)
    ended(qtbot, panel)
    assert "Not taken." in tab.text.text()
    assert len(tab.curve._points) == 3
    assert tab.curve.grab().width() > 0
    assert not tab.back_button.isVisible()
    click(qtbot, tab.take_button)
    until_idle(qtbot, panel)
    assert "In use: tiny-2" in tab.text.text()
    assert not tab.take_button.isVisible()
    assert looked.encoder.currentText() == "tiny-2"
    click(qtbot, tab.back_button)
    until_idle(qtbot, panel)
    assert looked.encoder.currentText() == "tiny"
    assert not tab.back_button.isVisible()
    engine.lesson = Lesson(adopted=True)
    engine.lesson.gate = threading.Event()
    click(qtbot, tab.teach_button)
    qtbot.waitUntil(lambda: len(tab.curve._points) == 2, timeout=WAIT_MS)
    assert not tab.teach_button.isEnabled()
    click(qtbot, tab.stop_button)
    engine.lesson.gate.set()
    ended(qtbot, panel)
    assert tab.teach_button.isEnabled()
    assert not tab.stop_button.isVisible()
    engine.lesson = Lesson(adopted=True)
    click(qtbot, tab.teach_button)
    ended(qtbot, panel)
    assert "In use: tiny-3" in tab.text.text()
    assert looked.encoder.currentText() == "tiny-3"
    assert tab.back_button.isVisible()


def test_leaving_in_the_middle_of_a_lesson_is_asked_about(panel, looked, qtbot, monkeypatch):
    lesson = panel.docks.heads.engine.lesson = Lesson(adopted=True)
    lesson.gate = threading.Event()
    looked.tabs.setCurrentIndex(3)
    QApplication.processEvents()
    click(qtbot, looked.teaching.teach_button)
    qtbot.waitUntil(lambda: len(looked.teaching.curve._points) == 2, timeout=WAIT_MS)

    wanted = []

    def answer(box):
        monkeypatch.setattr(
            box, "clickedButton", lambda: next(one for one in box.buttons() if one.text() == wanted[-1])
        )

    monkeypatch.setattr(QMessageBox, "exec", answer)
    for text, leaves in (("Keep open", False), ("Stop and close", True)):
        wanted.append(text)
        event = QCloseEvent()
        assert panel.eventFilter(panel.window(), event) is not leaves
        assert event.isAccepted() is leaves
        assert looked.teaching._teaching.is_running is not leaves
    lesson.gate.set()
    panel.controller.join()
    assert lesson.closed


def test_another_slide_and_a_slide_that_is_removed_take_it_away(viewer, panel, looked, qtbot, tmp_path):
    click(qtbot, looked.pin_button)
    open_and_settle(viewer, panel, str(write_discs(tmp_path / "other.tif", shape=(128, 192))), qtbot)
    assert not layers(viewer)
    assert looked.gallery.names == ()
    assert looked.pinned.names == ()
    assert not looked.pin_button.isEnabled()
    assert not panel.panel.attention.isVisible()
    engine = panel.docks.heads.engine
    engine.gate.clear()
    click(qtbot, looked.look_button)
    qtbot.waitUntil(lambda: len(layers(viewer)) == 1, timeout=WAIT_MS)
    viewer.layers.remove("other")
    engine.gate.set()
    until_idle(qtbot, panel)
    assert [layer.name for layer in viewer.layers] == ["discs"]
    assert not looked.bar.isVisible()
    assert looked.gallery.names == ()


@pytest.mark.parametrize("what", ["dock", "window"])
def test_closing_in_the_middle_leaves_nothing(viewer, panel, dock, qtbot, what):
    engine = panel.docks.heads.engine
    engine.gate.clear()
    click(qtbot, dock.look_button)
    qtbot.waitUntil(lambda: len(layers(viewer)) == 1, timeout=WAIT_MS)
    click(qtbot, dock.ask_button)
    if what == "dock":
        viewer.window.remove_dock_widget(panel.docks.frame("Attention heads"))
        engine.gate.set()
        until_idle(qtbot, panel)
        # Closed, it asks nothing; opened again, it is as it was left.
        assert not panel.docks.heads.wishes.asking
        click(qtbot, panel.panel.heads_button)
        assert dock.isVisible()
        assert len(layers(viewer)) == 1
    panel.shutdown()
    engine.gate.set()
    panel.controller.join()
    assert not layers(viewer)
    assert not rings(viewer)
    assert not viewer.mouse_move_callbacks

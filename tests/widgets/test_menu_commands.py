"""The plugin as napari finds it: dock widget, menu commands, opening, settings."""

import threading

import cv2
import pytest
from qtpy.QtCore import QMimeData, QPoint, QPointF, Qt, QUrl
from qtpy.QtGui import QDragEnterEvent, QDropEvent
from qtpy.QtWidgets import QApplication

from dark_model import disc_picture
from gui_parts import WAIT_MS
from napari_nucleiseg.viewer.engine import Engine
from napari_nucleiseg.viewer.visible import visible_world
from napari_nucleiseg.widgets import commands, dialogs
from napari_nucleiseg.widgets.nuclei import NucleiWidget

DOCKS = (
    ("show_table", "Nuclei table"),
    ("show_regions", "Regions"),
    ("show_history", "History"),
    ("show_teach", "Teach"),
    ("show_unlabelled", "Train without labels"),
    ("show_versions", "Versions"),
    ("show_cluster", "Cluster the view"),
    ("show_batch", "Batch"),
    ("show_like", "Find the like"),
    ("show_by_text", "By text"),
    ("show_models", "Models"),
)


@pytest.fixture
def docked(viewer, qtbot):
    """The panel as the Plugins menu opens it, on the real engine."""
    widget = commands.open_panel(viewer)
    yield widget
    widget.shutdown()
    widget.controller.join()


def test_the_menu_opens_one_panel(viewer, docked):
    assert isinstance(docked, NucleiWidget)
    assert commands.open_panel(viewer) is docked


def test_shipped_models_are_offered(docked, qtbot):
    qtbot.waitUntil(lambda: docked.panel.licence.text() != "", timeout=WAIT_MS)
    assert docked.panel.model.currentData() == "nuclei"


def test_commands_press_the_buttons(viewer, docked, monkeypatch):
    pressed = []
    for name in ("segment_view", "segment_shape", "segment_slide"):
        monkeypatch.setattr(docked.controller, name, lambda name=name: pressed.append(name))
        getattr(commands, name)(viewer)
    assert pressed == ["segment_view", "segment_shape", "segment_slide"]
    commands.follow_view(viewer)
    assert docked.session.follow
    assert docked.panel.follow.isChecked()
    commands.follow_view(viewer)
    assert not docked.session.follow


def test_commands_open_the_lists_and_ask_for_files(viewer, docked, monkeypatch):
    for name, dock in DOCKS:
        getattr(commands, name)(viewer)
        assert docked.docks.widget(dock).isVisible()
    asked = []
    for name in ("ask_import", "ask_export"):
        monkeypatch.setattr(docked, name, lambda name=name: asked.append(name))
    commands.import_nuclei(viewer)
    commands.export_nuclei(viewer)
    assert asked == ["ask_import", "ask_export"]


def test_without_a_slide_there_is_nothing_to_ask_for(viewer, docked):
    docked.ask_import()  # would wait for a file for ever
    docked.ask_export()
    assert not viewer.layers


def test_open_button_opens_off_the_main_thread(viewer, docked, tmp_path, qtbot, monkeypatch):
    path = tmp_path / "discs.png"
    cv2.imwrite(str(path), disc_picture((300, 400)))
    threads = []
    engine = docked.controller._engine
    real = engine.open_slide

    def watched(name):
        threads.append(threading.current_thread())
        return real(name)

    monkeypatch.setattr(engine, "open_slide", watched)
    monkeypatch.setattr(dialogs.QFileDialog, "getOpenFileNames", lambda *_: ([str(path)], ""))
    docked.welcome.open_button.click()
    qtbot.waitUntil(lambda: len(viewer.layers) == 1, timeout=WAIT_MS)
    assert threads[0] is not threading.main_thread()
    assert docked.panel.facts.name.whole == "discs.png"


def test_a_slide_dropped_on_the_panel_is_opened(viewer, docked, tmp_path, qtbot):
    path = tmp_path / "discs.png"
    cv2.imwrite(str(path), disc_picture((300, 400)))
    mime = QMimeData()
    mime.setUrls([QUrl.fromLocalFile(str(path))])
    copy, left, none = Qt.DropAction.CopyAction, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
    enter = QDragEnterEvent(QPoint(50, 50), copy, mime, left, none)
    QApplication.sendEvent(docked, enter)
    assert enter.isAccepted()
    QApplication.sendEvent(docked, QDropEvent(QPointF(50, 50), copy, mime, left, none))
    qtbot.waitUntil(lambda: len(viewer.layers) == 1, timeout=WAIT_MS)
    assert docked.panel.facts.name.whole == "discs.png"


def test_text_dropped_on_the_panel_is_not_taken(docked):
    mime = QMimeData()
    mime.setText("discs.png")
    enter = QDragEnterEvent(
        QPoint(50, 50), Qt.DropAction.CopyAction, mime, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
    )
    enter.ignore()
    QApplication.sendEvent(docked, enter)
    assert not enter.isAccepted()


def test_slow_imports_are_made_before_they_are_needed_and_elsewhere(qtbot, monkeypatch, request):
    threads = []
    # Before the panel is there: on a slow machine it may begin at once.
    monkeypatch.setattr(Engine, "warm_up", lambda _: threads.append(threading.current_thread()))
    request.getfixturevalue("docked")
    qtbot.waitUntil(lambda: bool(threads), timeout=WAIT_MS)
    assert threads[0] is not threading.main_thread()


def test_what_is_there_for_good_is_left_out_of_searches_for_garbage_until_the_panel_closes(qtbot, monkeypatch, request):
    said = []
    monkeypatch.setattr(Engine, "warm_up", lambda _: said.append("warm"))
    monkeypatch.setattr(Engine, "cool_down", lambda _: said.append("cool"))
    docked = request.getfixturevalue("docked")
    qtbot.waitUntil(lambda: bool(said), timeout=WAIT_MS)
    docked.shutdown()
    qtbot.waitUntil(lambda: len(said) > 1, timeout=WAIT_MS)
    assert said == ["warm", "cool"]


def test_a_slide_opened_first_is_seen_whole(viewer, docked, tmp_path, qtbot):
    path = tmp_path / ("a-name-that-widens-the-list-of-layers" * 2 + ".png")
    cv2.imwrite(str(path), disc_picture((300, 400)))
    docked.controller.open_slides([str(path)])
    qtbot.waitUntil(lambda: len(viewer.layers) == 1, timeout=WAIT_MS)
    qtbot.wait(1000)
    (y0, x0), (y1, x1) = visible_world(viewer)
    assert y0 <= -0.5
    assert x0 <= -0.5
    assert y1 >= 299.5
    assert x1 >= 399.5


def test_a_file_that_is_no_slide_is_refused_in_a_sentence(viewer, docked, tmp_path, qtbot, monkeypatch):
    from napari.utils import notifications

    path = tmp_path / "notes.svs"
    path.write_text("not a slide")
    said = []
    monkeypatch.setattr(notifications, "show_error", said.append)
    monkeypatch.setattr(dialogs.QFileDialog, "getOpenFileNames", lambda *_: ([str(path)], ""))
    docked.welcome.open_button.click()
    qtbot.waitUntil(lambda: bool(said), timeout=WAIT_MS)
    assert "notes.svs" in said[0]
    assert docked.welcome.hint.text() == said[0]
    assert not viewer.layers


def test_sample_button_opens_a_sample(viewer, docked, qtbot):
    docked.welcome.sample_button.click()
    assert viewer.layers[0].metadata["mpp_um"] == (0.5, 0.5)
    assert docked.panel.facts.isVisible()


def test_preferences_are_heeded(viewer, qtbot):
    from napari.settings import get_plugin_settings

    settings = get_plugin_settings("napari-nucleiseg")
    settings.segmentation.follow_limit = 7
    widget = commands.open_panel(viewer)
    try:
        assert widget.session.follow_limit == 7
        settings.results.folder = "/somewhere/else"
        assert widget.session.results_folder == "/somewhere/else"
        settings.editing.person = " Ada Lovelace "
        assert widget.session.person == "Ada Lovelace"
    finally:
        settings.segmentation.follow_limit = 64
        settings.results.folder = ""
        settings.editing.person = ""
        widget.shutdown()
        widget.controller.join()


def test_following_goes_on_when_the_dock_floats(viewer, docked, qtbot):
    dock = docked.parent()
    while dock is not None and not hasattr(dock, "setFloating"):
        dock = dock.parent()
    dock.setFloating(True)
    qtbot.wait(100)
    dock.setFloating(False)
    qtbot.wait(100)
    assert docked.controller._jobs.start("x", lambda _cancelled: iter(())) is not None

"""Fixtures of the tests that show windows."""

import gc
import os
import queue
import shutil
import time

import cv2
import pytest
import tifffile
from qtpy.QtCore import QEvent, QObject, QPoint, Qt, QTimer
from qtpy.QtWidgets import QApplication, QMessageBox

from dark_model import DarkEngine, disc_picture
from napari_nucleiseg.viewer.jobs import Jobs

# No settings file: neither the user's is read nor anything written; must be set before napari is imported.
os.environ["NAPARI_CONFIG"] = ""

__all__ = ["disc_file", "disc_png", "disc_slide", "engine", "frozen", "imported", "known_plugins", "panel", "viewer"]


WAIT_MS = 30_000


def until_idle(qtbot, panel):
    """Wait until nothing is segmented any more and the last redraw and count have arrived."""
    # What one piece of work has to say may begin another one.
    for _ in range(3):
        qtbot.wait(5)
        qtbot.waitUntil(lambda: not (panel.controller.is_running or panel.controller.is_busy), timeout=WAIT_MS)


def open_and_settle(viewer, panel, path, qtbot):
    """Open a slide and see all of it."""
    viewer.open(path, plugin="napari-nucleiseg")
    qtbot.wait(50)  # the panel takes its width from the canvas
    viewer.reset_view()
    until_idle(qtbot, panel)


def answer(act, kind=QMessageBox):
    """Wait for a modal dialog of a kind and do something to it; fails if none comes."""
    seen = []

    def look():
        dialog = QApplication.activeModalWidget()
        if isinstance(dialog, kind):
            seen.append(dialog)
            act(dialog)
        else:
            QTimer.singleShot(20, look)

    QTimer.singleShot(20, look)
    return seen


def click(qtbot, button):
    """Click a button once it can be seen and clicked."""
    qtbot.waitUntil(lambda: button.isVisible() and button.isEnabled(), timeout=WAIT_MS)
    qtbot.mouseClick(button, Qt.MouseButton.LeftButton)


class Moves(QObject):
    """The last place where a widget saw the pointer move to."""

    last = None

    def eventFilter(self, _widget, event):
        if event.type() == QEvent.Type.MouseMove:
            self.last = event.position().toPoint()
        return False


def hover(qtbot, widget, point):
    """Move the pointer to a place of a widget and wait until the widget has seen it: the window system tells it later.

    A pointer that is there already tells nothing; then it comes from a pixel beside it.
    """
    moves = Moves()
    widget.installEventFilter(moves)
    try:
        for place in (point, point + QPoint(1, 1), point):
            qtbot.mouseMove(widget, place)
            end = time.monotonic() + 0.5
            while moves.last != place and time.monotonic() < end:
                QApplication.processEvents()
            if moves.last == point:
                return
        msg = f"the widget saw the pointer at {moves.last}, not at {point}"
        raise AssertionError(msg)
    finally:
        widget.removeEventFilter(moves)


def choose_action(qtbot, button, action):
    """Click a button that has a menu, and then an action of that menu."""
    chosen = []

    def look():
        menu = button.menu()
        if menu.isVisible():
            qtbot.mouseClick(menu, Qt.MouseButton.LeftButton, pos=menu.actionGeometry(action).center())
            chosen.append(action)
        else:
            QTimer.singleShot(20, look)

    # Where Qt opens a menu in a loop of its own, the click on the button comes back once the menu is closed.
    QTimer.singleShot(20, look)
    click(qtbot, button)
    qtbot.waitUntil(lambda: bool(chosen), timeout=WAIT_MS)


class HastyJobs(Jobs):
    """Waits a third as long after what a person does: with a person's pauses, tests would mostly wait."""

    def later(self, key, seconds, call):
        super().later(key, seconds if seconds >= 1 else seconds / 3, call)


class Pump:
    """A main thread of a test: runs what was posted when asked to."""

    def __init__(self):
        self.calls = queue.Queue()
        self.jobs = Jobs(self.calls.put)

    def run_until(self, condition, seconds=30.0):
        end = time.monotonic() + seconds
        while not condition():
            try:
                self.calls.get(timeout=max(0.0, end - time.monotonic()))()
            except queue.Empty:
                raise AssertionError(f"not so within {seconds} s") from None

    def run_for(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                self.calls.get(timeout=max(0.0, end - time.monotonic()))()
            except queue.Empty:
                return


@pytest.fixture
def disc_slide(tmp_path, disc_file):
    """Path of a TIFF of 768 x 1024 pixels of 0.5 um with 24 x 32 dark discs."""
    path = tmp_path / "discs.tif"
    shutil.copyfile(disc_file, path)
    return path


@pytest.fixture(scope="session")
def disc_file(tmp_path_factory):
    """That file, written once and to be copied: what is found in a slide is kept beside it."""
    path = tmp_path_factory.mktemp("discs") / "discs.tif"
    per_cm = 1e4 / 0.5
    tifffile.imwrite(
        path, disc_picture((768, 1024)), tile=(256, 256), resolution=(per_cm, per_cm), resolutionunit="CENTIMETER"
    )
    return path


@pytest.fixture
def disc_png(tmp_path):
    """Path of the same picture as a PNG, which does not say how large its pixels are."""
    path = tmp_path / "plain.png"
    assert cv2.imwrite(str(path), disc_picture((768, 1024))[..., ::-1])
    return path


@pytest.fixture
def engine(tmp_path):
    """The real engine with a network that needs no training."""
    return DarkEngine(tmp_path)


@pytest.fixture(scope="session")
def imported():
    """What all windows need is imported."""
    import torch  # noqa: F401
    from napari._qt import qt_main_window  # noqa: F401

    from napari_nucleiseg.core.inference import segment  # noqa: F401
    from napari_nucleiseg.core.teaching import unlabelled  # noqa: F401
    from napari_nucleiseg.core.training.clustering import fit  # noqa: F401
    from napari_nucleiseg.core.training.scales import loop  # noqa: F401
    from napari_nucleiseg.widgets import nuclei  # noqa: F401


@pytest.fixture(scope="session")
def known_plugins():
    """What is installed is looked for once: napari's fixture makes every window read all manifests anew."""
    from npe2 import PluginManifest

    found = tuple(PluginManifest.discover())
    assert {"napari", "napari-nucleiseg"} <= {one.manifest.name for one in found if one.manifest}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(PluginManifest, "discover", lambda paths=(): iter(found))
        yield


@pytest.fixture
def frozen(imported, known_plugins):
    """What there is before the window is left alone by the garbage collector, which napari runs for every window.

    Each window leaves some thousand objects of napari's menus behind; looking through them all again took longer with
    every window that had been open before.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture
def viewer(frozen, make_napari_viewer, qtbot):
    """A napari window on a screen."""
    shown = make_napari_viewer(show=True)
    shown.window.resize(1200, 800)
    qtbot.wait(20)
    return shown


@pytest.fixture
def panel(viewer, engine, qtbot):
    """The panel, docked in `viewer`, with the test's engine; it sees the viewer as napari lets plugins see it."""
    from napari.utils._proxies import PublicOnlyProxy

    from napari_nucleiseg.state import Session
    from napari_nucleiseg.viewer.controller import Controller
    from napari_nucleiseg.widgets.nuclei import NucleiWidget

    seen = PublicOnlyProxy(viewer)
    widget = NucleiWidget(seen, Controller(seen, Session(), engine, HastyJobs()))
    viewer.window.add_dock_widget(widget, name="Nuclei", area="right")
    yield widget
    widget.shutdown()
    widget.controller.join()

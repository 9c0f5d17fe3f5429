"""A person at the window: a mouse and a keyboard through the X server, in a program of its own; and how to start it."""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

os.environ["NAPARI_CONFIG"] = ""

from qtpy.QtCore import QPoint, QTimer
from qtpy.QtWidgets import QApplication, QScrollArea

from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.viewer.engine import Engine

# Screen pixels per level-0 pixel.
ZOOM = 4
# What is drawn takes most of the time, so where nobody looks the window is small.
SMALL = (1150, 780)

NEEDS_A_MOUSE = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("xdotool") is None, reason="xdotool is not installed"),
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the mouse is moved through X"),
    pytest.mark.timeout(1800),
]


class FolderEngine(Engine):
    """The engine with its project in a folder of ours."""

    def __init__(self, folder):
        super().__init__()
        self.folder = folder

    def project_folder(self, slide, results_folder=""):
        return self.folder / "slide.nucleiseg"


class Hand:
    """A mouse and a keyboard, through the X server."""

    def __init__(self, viewer, panel, pictures):
        self.viewer, self.panel, self.pictures = viewer, panel, pictures
        self.editing = panel.controller.editing
        self.taken = set()

    def spin(self, seconds):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            QApplication.processEvents()
            time.sleep(0.002)

    def settle(self, seconds=0.05):
        self.spin(seconds)
        while self.panel.controller.is_busy:
            self.spin(0.02)
        self.spin(0.05)

    def dock(self, name):
        """The panel of a dock whose button was pressed; what it needs is imported then, which may take a while."""
        end = time.monotonic() + 20
        while self.panel.docks.widget(name) is None:
            assert time.monotonic() < end, f"the dock {name} did not open"
            self.spin(0.05)
        self.settle()
        return self.panel.docks.widget(name)

    def run(self, *arguments):
        subprocess.run(["xdotool", *map(str, arguments)], check=True)

    def spot(self, point):
        """Screen pixel of ``(y, x)``, level-0 pixels."""
        world = np.asarray(self.panel.controller.display.shelf.now.layer.data_to_world(point))
        camera = self.viewer.scene.camera
        size = np.asarray(self.viewer.canvas.size)
        y, x = (world - np.asarray(camera.center[-2:])) * camera.zoom + size / 2
        canvas = self.viewer.window._qt_viewer.canvas.native
        corner = canvas.mapToGlobal(canvas.rect().topLeft())
        return round(corner.x() + x), round(corner.y() + y)

    def go(self, point):
        self.viewer.scene.camera.zoom = ZOOM / self.editing.project.mpp_um.y
        self.editing.go_to(point)
        self.settle(0.15)
        view = Region(round(point[0]), round(point[1]), 1, 1).expand(40)
        end = time.monotonic() + 10
        while not self.editing.window.covers(view.intersect(Region(0, 0, *self.editing.project.shape))):
            assert time.monotonic() < end, "the paint layer did not follow"
            self.spin(0.02)
        self.settle()

    def point_at(self, point):
        self.run("mousemove", *self.spot(point))
        self.spin(0.08)

    def key(self, name):
        self.spin(0.1)
        self.run("key", name)
        self.settle(0.3)

    def drag(self, *points, name=None):
        self.point_at(points[0])
        self.run("mousedown", 1)
        self.spin(0.05)
        for start, end in pairwise(points):
            for part in np.linspace(0, 1, 7)[1:]:
                self.run("mousemove", *self.spot(np.add(start, part * np.subtract(end, start))))
                self.spin(0.03)
        self.picture(name)
        self.run("mouseup", 1)
        self.settle(0.1)

    def picture(self, name):
        if self.pictures and name and name not in self.taken:
            self.taken.add(name)
            self.spin(0.2)
            self.viewer.screenshot(str(self.pictures / f"{name}.png"), canvas_only=False, flash=False)

    def press(self, widget, spot=None):
        self.press_only(widget, spot)
        self.settle(0.15)

    def press_only(self, widget, spot=None):
        """Press without waiting for what comes of it."""
        spot = spot or widget.rect().center()
        self.bring(widget, spot)
        place = None
        while place != (place := widget.mapToGlobal(spot)):  # it may move aside for a message; a hand follows it
            self.run("mousemove", place.x(), place.y())
            self.spin(0.05)
        self.run("click", 1)
        self.spin(0.1)

    def bring(self, widget, spot):
        """Turn the wheel over the panel until a place can be seen; the docks leave it little height."""
        area = self.panel._pages.currentWidget()
        if isinstance(area, QScrollArea) and area.isAncestorOf(widget):
            corner = area.mapToGlobal(QPoint(4, area.height() // 2))
            for button in (5, 4):
                for _ in range(20):
                    if widget.visibleRegion().contains(spot):
                        return
                    self.run("mousemove", corner.x(), corner.y(), "click", button)
                    self.spin(0.05)
        assert widget.visibleRegion().contains(spot), "it cannot be seen"

    def choose_action(self, button, action):
        """Press a button that has a menu, and then an action of that menu."""
        chosen = []

        def look():
            menu = button.menu()
            if menu.isVisible():
                place = menu.mapToGlobal(menu.actionGeometry(action).center())
                self.run("mousemove", place.x(), place.y())
                self.run("click", 1)
                chosen.append(action)
            else:
                QTimer.singleShot(50, look)

        # Where Qt opens a menu in a loop of its own, pressing the button comes back once the menu is closed.
        QTimer.singleShot(50, look)
        self.press_only(button)
        self.until(lambda: chosen)
        self.settle(0.15)

    def point_to(self, widget, spot):
        """Let the mouse rest on a place of a widget."""
        place = widget.mapToGlobal(spot)
        self.run("mousemove", place.x() + 2, place.y() + 1)
        self.spin(0.05)
        self.run("mousemove", place.x(), place.y())
        self.spin(0.3)

    def type_into(self, box, text):
        """Put another number into a box."""
        self.press(box.lineEdit(), QPoint(12, box.lineEdit().height() // 2))
        self.run("key", "ctrl+a")
        self.run("type", str(text))
        self.run("key", "Return")
        self.spin(0.05)

    def choose(self, choice, title):
        """Choose the entry of a list whose title begins so."""
        wanted = next(place for place in range(choice.count()) if choice.itemText(place).startswith(title))
        self.press(choice)
        self.run("key", "Home")
        for _ in range(wanted):
            self.run("key", "Down")
        self.run("key", "Return")
        self.settle(0.2)

    def until(self, condition, seconds=60):
        """Wait for something to come about."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "it did not come about"
            self.spin(0.02)


def look_closely(viewer, opened, side_um=280):
    """Show so much of the slide's middle."""
    viewer.reset_view()
    viewer.scene.camera.zoom = max(viewer.scene.camera.zoom, viewer.canvas.size[0] / side_um)
    viewer.scene.camera.center = tuple(opened.layer.data_to_world(opened.slide.content.centre))[-2:]


def asked(doc):
    """Return a parser of what every such program is told."""
    arguments = argparse.ArgumentParser(description=doc.split("\n", 1)[0])
    arguments.add_argument("slide")
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("steps", type=int)
    arguments.add_argument("--pictures", type=Path)
    arguments.add_argument("--theme", default="dark")
    return arguments


def shown(options, engine, size=(1500, 960)):
    """Open the window with the panel and the slide, or a sample of that name; return the person in front of it."""
    import napari

    from napari_nucleiseg.state import Session
    from napari_nucleiseg.viewer.controller import Controller
    from napari_nucleiseg.widgets.nuclei import NucleiWidget

    viewer = napari.Viewer(show=True)
    viewer.theme = options.theme
    viewer.window.resize(*size)
    panel = NucleiWidget(viewer, Controller(viewer, Session(), engine))
    viewer.window.add_dock_widget(panel, name="Nuclei")
    hand = Hand(viewer, panel, options.pictures)
    if Path(options.slide).exists():
        viewer.open(options.slide, plugin="napari-nucleiseg")
    else:
        viewer.open_sample("napari-nucleiseg", options.slide)
    hand.settle(1.0)
    return hand


def tell(hand, said):
    """Print what was seen, and close the window."""
    sys.stdout.write(f"{json.dumps(said)}\n")
    sys.stdout.flush()
    hand.panel.shutdown()
    hand.panel.controller.join()
    hand.viewer.close()


def told_by(script, folder, what, default_slide="tissue", default_steps=4):
    """Start one of these programs and return what it tells; ``NUCLEISEG_<what>_SLIDE`` and so on change what it does.

    They are SLIDE (a path or the name of a sample), STEPS, THEME, PICTURES (a folder) and, where it is known, MODEL.
    """

    def wish(name, default=""):
        return os.environ.get(f"NUCLEISEG_{what}_{name}", default)

    here = Path(__file__).parent
    command = [sys.executable, str(here / script), wish("SLIDE", default_slide), str(folder)]
    command += [wish("STEPS", str(default_steps)), "--theme", wish("THEME", "dark")]
    for option in ("PICTURES", "MODEL"):
        if value := wish(option):
            command += [f"--{option.lower()}", value]
    own = {"XDG_DATA_HOME": str(folder / "data"), "XDG_CACHE_HOME": str(folder / "cache")}
    own["PYTHONPATH"] = os.pathsep.join((str(here), str(here.parent)))
    answer = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **own}, check=False)
    assert answer.returncode == 0, answer.stderr[-3000:]
    return json.loads(answer.stdout.splitlines()[-1])

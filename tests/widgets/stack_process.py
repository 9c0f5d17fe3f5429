"""Finds the nuclei of a stack in a window and paints on them with a real mouse: a program of its own, to be killed.

``python stack_process.py STACK FOLDER`` leaves ``painted.npy`` in FOLDER once a stroke is kept, begins another one,
prints READY amid that, and waits to be killed.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

os.environ["NAPARI_CONFIG"] = ""

from qtpy.QtWidgets import QApplication

from napari_nucleiseg.viewer.stacks import Stacks
from napari_nucleiseg.widgets.stack import StackWidget
from stack_parts import BrightEngine

LABEL = 90


def spin(seconds, until=lambda: False):
    end = time.monotonic() + seconds
    while time.monotonic() < end and not until():
        QApplication.processEvents()
        time.sleep(0.002)


def mouse(*arguments):
    subprocess.run(["xdotool", *map(str, arguments)], check=True)
    spin(0.05)


def press(widget):
    place = widget.mapToGlobal(widget.rect().center())
    mouse("mousemove", place.x(), place.y(), "click", 1)


def move(viewer, layer, y, x):
    """Put the mouse on a voxel of the shown plane."""
    world = np.asarray(layer.data_to_world((0, y, x)))[-2:]
    camera, canvas = viewer.scene.camera, viewer.window._qt_viewer.canvas.native
    at = (world - np.asarray(camera.center[-2:])) * camera.zoom + np.asarray(viewer.canvas.size) / 2
    corner = canvas.mapToGlobal(canvas.rect().topLeft())
    mouse("mousemove", round(corner.x() + at[1]), round(corner.y() + at[0]))


def main():
    import napari

    stack, folder = sys.argv[1], Path(sys.argv[2])
    viewer = napari.Viewer(show=True)
    viewer.window.resize(1150, 780)
    dock = StackWidget(viewer, Stacks(viewer, BrightEngine()))
    viewer.window.add_dock_widget(dock, name="Nuclei in a stack")
    viewer.open(stack, plugin="napari-nucleiseg")
    spin(60, dock.start_button.isEnabled)
    spin(1)
    press(dock.start_button)
    spin(60, lambda: dock.stacks.result is not None and not dock.stacks.is_running)
    (layer,) = (one for one in viewer.layers if one.name.endswith("nuclei"))
    viewer.reset_view()
    layer.selected_label, layer.brush_size = LABEL, 5
    spin(0.5)
    press(viewer.window._qt_viewer.controls.widgets[layer].paint_button)
    move(viewer, layer, 4, 4)
    mouse("mousedown", 1)
    for x in range(8, 44, 4):
        move(viewer, layer, 4, x)
    mouse("mouseup", 1)
    (kept,) = dock.stacks.keeping._kept
    spin(60, lambda: kept.facts.get("painted") and not kept.is_pending)
    np.save(folder / "painted.npy", layer.data)
    move(viewer, layer, 40, 4)
    mouse("mousedown", 1)
    move(viewer, layer, 40, 40)
    assert np.count_nonzero(layer.data == LABEL) > np.count_nonzero(np.load(folder / "painted.npy") == LABEL)
    sys.stdout.write("READY\n")
    sys.stdout.flush()
    spin(600)


if __name__ == "__main__":
    main()

"""Paints attention with a real mouse and real keys: a program of its own, so that it can be killed.

``python attention_process.py FOLDER`` opens the sample, segments it, paints, leaves ``after.npy`` in FOLDER, prints
READY with the number of steps and waits to be killed.
"""

import sys
from pathlib import Path

import napari
import numpy as np
from mouse_parts import ZOOM, Hand

from looking_model import LookingEngine
from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.store.attention import read_attention
from napari_nucleiseg.state import Session
from napari_nucleiseg.viewer.controller import Controller
from napari_nucleiseg.widgets.nuclei import NucleiWidget


def main():
    folder = Path(sys.argv[1])
    viewer = napari.Viewer(show=True)
    viewer.window.resize(1300, 850)
    panel = NucleiWidget(viewer, Controller(viewer, Session(), LookingEngine(folder)))
    viewer.window.add_dock_widget(panel, name="Nuclei")
    hand = Hand(viewer, panel, None)
    viewer.open_sample("napari-nucleiseg", "tissue")
    hand.settle(1.0)
    panel.controller.segment_view()
    hand.settle(0.5)
    opened = panel.controller.display.shelf.now
    viewer.scene.camera.zoom = ZOOM / opened.slide.mpp_um.y
    hand.settle(0.3)
    panel.session.painting = True
    hand.settle(0.5)
    y, x = opened.slide.region.centre
    hand.drag((y - 30, x - 20), (y - 30, x + 20))
    hand.key("2")
    hand.drag((y, x - 20), (y + 10, x + 20))
    hand.key("e")
    hand.drag((y - 30, x), (y - 20, x + 20))
    hand.key("1")
    hand.drag((y + 40, x - 10), (y + 40, x + 10))
    hand.key("ctrl+z")
    project = opened.project
    whole = read_attention(project, Region(0, 0, *project.shape))
    window = panel.attention.window
    np.testing.assert_array_equal(np.asarray(window.layer.data), whole[window.region.slices])
    np.save(folder / "after.npy", whole)
    sys.stdout.write(f"READY {len(project.editor.history())}\n")
    sys.stdout.flush()
    while True:
        hand.spin(1)


if __name__ == "__main__":
    main()

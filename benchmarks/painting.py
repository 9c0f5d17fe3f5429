"""How fluid painting on a whole slide is, beside napari's own single-scale labels over zarr.

Run ``xvfb-run -a -s "-screen 0 1600x1000x24" python benchmarks/painting.py [--moves 60]``.
The slide is synthetic, 100,000 x 100,000 px, with round nuclei painted into one view. A brush
move is what the layer does for it ("model"), and that with all that Qt and the software renderer draw after it
("drawn"). The window moves as it does behind a pan: read off the main thread, shown on it. Strokes and undo are timed
from the end of the gesture until the journal has them. The rival is a plain napari Labels layer over a zarr array of
20,480 x 20,480 px, the largest that it handles with some patience.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

os.environ["NAPARI_CONFIG"] = ""  # the user's settings are neither read nor written

import napari
import zarr
from qtpy.QtWidgets import QApplication

from in_window import FolderEngine, shown
from measuring import record, table
from napari_nucleiseg.core.geometry import Region

RIVAL_PX = 20_480
RADIUS = 8


def spin(seconds):
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        QApplication.processEvents()
        time.sleep(0.001)


def settle(panel):
    spin(0.1)
    while panel.controller.is_busy:
        spin(0.02)
    spin(0.1)


def median_ms(seconds):
    return statistics.median(seconds) * 1e3


def brush(layer, start, moves):
    """Paint along a line; return seconds of the layer's own work and with drawing, per move."""
    own, drawn = [], []
    with layer.block_history():
        for number in range(moves):
            begin = time.perf_counter()
            layer.paint((start[0] + number, start[1] + 2 * number), layer.selected_label)
            own.append(time.perf_counter() - begin)
            QApplication.processEvents()
            QApplication.processEvents()
            drawn.append(time.perf_counter() - begin)
    return own, drawn


def populate(project, region, rng):
    """Give the view round nuclei on a grid, some of them touching."""
    image = np.zeros((region.height, region.width), np.uint32)
    yy, xx = np.ogrid[:48, :48]
    disc = (yy - 24) ** 2 + (xx - 24) ** 2 <= 20**2
    for y in range(0, region.height - 48, 44):
        for x in range(0, region.width - 48, 44):
            if rng.random() < 0.8:
                image[y : y + 48, x : x + 48][disc] = project.editor.new_id()
    project.editor.paint(region, image, kind="import")


def ours(moves):
    """Measure the slide; return figures by name."""
    with tempfile.TemporaryDirectory() as folder:
        viewer, panel = shown(FolderEngine(Path(folder)))
        viewer.open_sample("napari-nucleiseg", "synthetic")
        settle(panel)
        editing = panel.controller.editing
        panel.session.editing = True
        settle(panel)
        populate(editing.project, Region(49_000, 49_000, 3_000, 3_000), np.random.default_rng(0))
        camera, layer = viewer.scene.camera, panel.controller.slide
        step = layer.mpp_um.y
        camera.center, camera.zoom = (50_000 * step, 50_000 * step), 1 / step
        while editing.window.layer is None:
            spin(0.05)
        settle(panel)
        figures = {}
        paint_layer = editing.window.layer
        middle = np.array(paint_layer.data.shape) // 2 - (moves // 2, moves)
        paint_layer.mode, paint_layer.brush_size = "paint", 2 * RADIUS
        paint_layer.selected_label = editing.project.editor.new_id()
        own, drawn = brush(paint_layer, middle, moves)
        figures["brush move, model"], figures["brush move, drawn"] = median_ms(own), median_ms(drawn)
        settle(panel)
        figures["stroke until durable"] = median_ms([stroke(panel, np.add(middle, (40 * k, 0))) for k in range(1, 8)])
        figures["undo until shown"] = median_ms([turn(panel, editing.undo) for _ in range(5)])
        figures["redo until shown"] = median_ms([turn(panel, editing.redo) for _ in range(5)])
        figures["moving the window, main thread"], figures["moving the window, in all"] = move(panel, viewer, step)
        viewer.close()
        return figures


def stroke(panel, start):
    """Paint a short stroke; return seconds from its end until the journal has it."""
    editing = panel.controller.editing
    done = []
    editing.edited.connect(lambda: done.append(time.perf_counter()))
    editing.window.layer.selected_label = editing.project.editor.new_id()
    brush(editing.window.layer, start, 12)
    begin = time.perf_counter()
    while not done:
        QApplication.processEvents()
    settle(panel)
    editing.edited.disconnect()
    editing.edited.connect(panel._on_edited)  # noqa: SLF001 - put back what was there
    return done[0] - begin


def turn(panel, action):
    """Undo or redo; return seconds until it is in the window."""
    editing = panel.controller.editing
    done = []
    editing.edited.connect(lambda: done.append(time.perf_counter()))
    begin = time.perf_counter()
    action()
    while not done:
        QApplication.processEvents()
    settle(panel)
    editing.edited.disconnect()
    editing.edited.connect(panel._on_edited)  # noqa: SLF001 - put back what was there
    return done[0] - begin


def move(panel, viewer, step):
    """Pan beyond the window; return median ms of showing the new one and from the pan until it is there."""
    editing = panel.controller.editing
    window = editing.window
    shown, took = [], []
    opened = window.open

    def timed(*arguments):
        begin = time.perf_counter()
        found = opened(*arguments)
        shown.append(time.perf_counter() - begin)
        return found

    window.open = timed
    for number in range(6):
        before = len(shown)
        centre = 50_000 + (1_200 if number % 2 == 0 else 0)
        begin = time.perf_counter()
        viewer.scene.camera.center = (centre * step, 50_000 * step)
        while len(shown) == before:
            QApplication.processEvents()
        took.append(time.perf_counter() - begin)
        settle(panel)
    window.open = opened
    return median_ms(shown), median_ms(took)


def rival(moves):
    """The same brush on napari's own labels over one zarr array."""
    with tempfile.TemporaryDirectory() as folder:
        array = zarr.create_array(folder, shape=(RIVAL_PX, RIVAL_PX), chunks=(512, 512), dtype="uint32", overwrite=True)
        viewer = napari.Viewer(show=True)
        viewer.window.resize(1400, 900)
        begin = time.perf_counter()
        layer = viewer.add_labels(array, multiscale=False)
        spin(0.1)
        opening = time.perf_counter() - begin
        viewer.scene.camera.center, viewer.scene.camera.zoom = (RIVAL_PX / 2, RIVAL_PX / 2), 1
        spin(0.5)
        layer.mode, layer.brush_size, layer.selected_label = "paint", 2 * RADIUS, 7
        own, drawn = brush(layer, (RIVAL_PX // 2, RIVAL_PX // 2), moves)
        begin = time.perf_counter()
        layer.undo()
        QApplication.processEvents()
        undo = time.perf_counter() - begin
        viewer.close()
    return {"opening": opening * 1e3, "model": median_ms(own), "drawn": median_ms(drawn), "undo": undo * 1e3}


def main():
    arguments = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    arguments.add_argument("--moves", type=int, default=60)
    arguments.add_argument("--rival-moves", type=int, default=3, help="0 leaves the rival out")
    options = arguments.parse_args()
    found = ours(options.moves)
    nothing = dict.fromkeys(("opening", "model", "drawn", "undo"), float("nan"))
    other = rival(options.rival_moves) if options.rival_moves else nothing
    goals = {
        "brush move, model": 5,
        "brush move, drawn": 50,
        "stroke until durable": 60,
        "undo until shown": 100,
        "redo until shown": 100,
        "moving the window, main thread": 100,
    }
    beside = {
        "brush move, model": other["model"],
        "brush move, drawn": other["drawn"],
        "undo until shown": other["undo"],
    }
    rows = []
    for name, value in found.items():
        goal = goals.get(name)
        rows.append(
            [
                name,
                f"{value:.1f}",
                f"<= {goal}" if goal else "-",
                "" if goal is None else "met" if value <= goal else "MISSED",
                f"{beside[name]:.0f}" if name in beside else "-",
            ]
        )
    print(
        f"median ms; napari's own labels over a zarr array of {RIVAL_PX:,} px a side open in {other['opening']:.0f} ms"
    )
    table(["figure", "ms", "wanted", "", "napari's labels, ms"], rows)


if __name__ == "__main__":
    record(main)

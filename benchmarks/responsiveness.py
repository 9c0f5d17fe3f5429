"""How long the window stands still while a model runs, and how soon the first tile is there after a jump.

Run ``xvfb-run -a -s "-screen 0 1600x1000x24" python benchmarks/responsiveness.py [--model nuclei] [--pans 40]``.
A timer of 10 ms runs in the window's event loop; the longest gap between its ticks is how long nothing could move.
The same scripted pans are made three times: over the bare slide, over tissue that has its nuclei already, and over
tissue that is being segmented meanwhile. Under Xvfb draws are made in software, slower than by any graphics card.
The CPU time that the window's thread spends in one turn of the loop is printed too: other processes do not disturb it.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np

os.environ["NAPARI_CONFIG"] = ""  # the user's settings are neither read nor written

from qtpy.QtCore import QTimer
from qtpy.QtWidgets import QApplication

from alias_slide import write_alias_slide
from in_window import FolderEngine, shown
from measuring import compiled, note, record, table, verdict
from napari_nucleiseg.core.inference import predict
from napari_nucleiseg.core.inference.device import Forward
from napari_nucleiseg.state import Session

STALL_MS = 50
FIRST_TILE = 1.5
SIDE = 20_000
STEP_PX = 60


class Ticks:
    """Gaps between the ticks of a timer in the event loop, milliseconds."""

    def __init__(self):
        self.at = []
        self.timer = QTimer()
        self.timer.timeout.connect(lambda: self.at.append(time.perf_counter()))
        self.timer.start(10)

    def gaps(self):
        return np.diff(self.at) * 1e3


turns = []


def spin(seconds):
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.thread_time()
        QApplication.processEvents()
        turns.append((time.thread_time() - start) * 1e3)
        time.sleep(0.001)


def pan(viewer, start, pans):
    """Drag for six steps, rest until following has begun, and again; return the gaps."""
    y, x = start
    ticks = Ticks()
    turns.clear()
    for number in range(pans):
        for _ in range(6):
            x += STEP_PX * 0.5
            viewer.scene.camera.center = (y, x)
            spin(0.03)
        if number % 8 == 7:
            y, x = y + 400, start[1]
        spin(0.25)
    ticks.timer.stop()
    return ticks.gaps(), np.array(turns)


class TimedForward(Forward):
    """The forward, keeping the seconds of each."""

    seconds = []  # noqa: RUF012 - one list for all

    def start(self, batch, windows=()):
        began = time.perf_counter()
        maps = super().start(batch, windows)  # on the CPU the forward is then done
        TimedForward.seconds.append(time.perf_counter() - began)
        return maps


def jump_times(viewer, panel, jumps):
    """Seconds from a jump to its first tile on the screen, and of that tile's forward in the same moment."""
    display, shown = panel.controller.display, []
    redraw = display.redraw

    def watched():
        redraw()
        shown.append(time.perf_counter())

    display.redraw = watched
    waits, forwards = [], []
    for number in range(jumps):
        until_idle(panel)
        shown.clear()
        TimedForward.seconds.clear()
        viewer.scene.camera.center = (7500, 500 + 1000 * number)
        start = time.perf_counter()
        while not shown:
            spin(0.005)
        waits.append(shown[0] - start)
        forwards.append(TimedForward.seconds[0])
    until_idle(panel)
    TimedForward.seconds.clear()
    viewer.scene.camera.center = (7500, 500)  # seen before
    spin(1.0)
    until_idle(panel)
    display.redraw = redraw
    return np.array(waits), np.array(forwards), len(TimedForward.seconds)


def row(name, measured):
    gaps, busy = measured
    values = (*np.percentile(gaps, [50, 90, 99]), gaps.max(), busy.max())
    return [name, *(f"{value:.0f}" for value in values), len(gaps)]


def until_idle(panel):
    while panel.controller.is_running:
        spin(0.05)
    spin(0.5)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="nuclei")
    parser.add_argument("--pans", type=int, default=40)
    options = parser.parse_args()
    compiled()
    folder = Path(tempfile.mkdtemp())
    path = folder / "slide.svs"
    write_alias_slide(path, SIDE)
    predict.Forward = TimedForward
    session = Session()
    session.model = options.model
    viewer, panel = shown(FolderEngine(folder), session)
    viewer.open(path, plugin="napari-nucleiseg")
    spin(1)
    viewer.scene.camera.zoom = 2.0  # one screen pixel is one slide pixel
    rows = []
    pan(viewer, (6000, 1000), 4)
    bare = pan(viewer, (2000, 1000), options.pans)
    rows.append(row("slide alone", bare))
    viewer.scene.camera.center = (6000, 1500)
    spin(0.5)
    panel.controller.segment_view()  # torch, model and first tile
    until_idle(panel)
    session.follow = True
    following = pan(viewer, (2000, 1000), options.pans)
    rows.append(row("while segmenting", following))
    until_idle(panel)
    waits, forwards, again = jump_times(viewer, panel, 8)
    session.follow = False
    done = pan(viewer, (2000, 1000), options.pans)
    rows.insert(1, row("nuclei shown, nothing running", done))
    tiles = panel.panel.count.text()
    note(f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; {tiles} nuclei in the last view")
    table(("gaps of a 10 ms timer, ms", "p50", "p90", "p99", "max", "CPU of one turn, max", "ticks"), rows)
    floor = max(bare[0].max(), done[0].max())
    verdict("longest stall beyond redrawing, ms", following[0].max() - floor, STALL_MS, form="{:.0f}", goal="G9")
    busy = following[1].max() - max(bare[1].max(), done[1].max())
    verdict("longest turn beyond redrawing, CPU ms", busy, STALL_MS, form="{:.0f}", goal="G9")
    seconds = np.round(waits, 2).tolist(), np.round(forwards, 2).tolist()
    note(f"first tile after a jump: {seconds[0]} s; its forward: {seconds[1]} s")
    verdict("first tile after a jump, forwards", np.median(waits / forwards), FIRST_TILE, goal="G8")
    verdict("forwards on return to a seen view", again, 0, form="{:.0f}", goal="G8")
    viewer.close()
    panel.controller.join()


if __name__ == "__main__":
    record(main)

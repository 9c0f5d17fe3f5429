"""How long the window is held when another head is shown, and when a view that was looked at before is shown again.

Run ``xvfb-run -a python benchmarks/heads_window.py [--rounds 30]``. A real window on the synthetic slide with the
encoder that comes with the program. "Switch" is from the wish to the layer's new data, on the main thread; "drawn" adds
what Qt and OpenGL then do (software drawing under Xvfb takes some 30 ms for any change). "Again" is from the click to
the shown map of a view whose patches are kept, through the worker thread.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

from measuring import record, table, verdict


def settled(panel, seconds=120):
    """Let the window work until no thread has anything to do."""
    from qtpy.QtWidgets import QApplication

    end = time.perf_counter() + seconds
    while time.perf_counter() < end and not panel.controller.display.jobs.is_settled(0.5):
        QApplication.processEvents()
        time.sleep(0.005)
    for _ in range(5):
        QApplication.processEvents()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["NAPARI_CONFIG"] = str(Path(folder) / "napari.yaml")
        os.environ["XDG_CACHE_HOME"] = folder
        measure(wanted.rounds)


def measure(rounds):
    import napari
    from qtpy.QtWidgets import QApplication

    from napari_nucleiseg.widgets.commands import open_panel

    viewer = napari.Viewer()
    viewer.window._qt_window.resize(1400, 900)  # noqa: SLF001 - napari has no other way
    viewer.open_sample("napari-nucleiseg", "synthetic")
    panel = open_panel(viewer)
    settled(panel)
    panel.docks.show_heads()
    settled(panel)
    heads = panel.docks.heads
    viewer.scene.camera.zoom = 2.0
    settled(panel)
    heads.look()
    settled(panel)
    switched, drawn, again = [], [], []
    for turn in range(rounds):
        start = time.perf_counter()
        heads.wishes.head = str((turn + 1) % 6)
        switched.append(time.perf_counter() - start)
        QApplication.processEvents()
        drawn.append(time.perf_counter() - start)
        settled(panel)
    here = viewer.scene.camera.center
    there = (*here[:-1], here[-1] + 300.0)
    for turn in range(max(rounds // 2, 3) + 2):
        viewer.scene.camera.center = there if turn % 2 == 0 else here
        settled(panel)
        before, start = heads.shown.grid, time.perf_counter()
        heads.look()
        while heads.shown.grid == before:
            QApplication.processEvents()
            time.sleep(0.0005)
        if turn > 1:  # the second view is looked at for the first time at first
            again.append(time.perf_counter() - start)
        settled(panel)
    patches = heads.looks.total
    rows = [(title, f"{statistics.median(each) * 1e3:.1f}", f"{max(each) * 1e3:.1f}") for title, each in
            (("switch", switched), ("switch and drawn", drawn), ("seen view again", again))]  # fmt: skip
    table((f"{patches} patches", "median ms", "most ms"), rows)
    good = verdict("another head, median ms", statistics.median(switched) * 1e3, 20, form="{:.1f}")
    good &= verdict("a seen view again, median ms", statistics.median(again) * 1e3, 100, form="{:.1f}")
    viewer.close()
    raise SystemExit(not good)


if __name__ == "__main__":
    record(main)

"""How long the window's own thread works for the model browser: to open, search, choose a network, use a model.

Run ``xvfb-run -a python benchmarks/models_window.py [--pictures DIR] [--theme light]``. A real window on the tissue
that scikit-image ships, with the models that come with the program. Each number is the longest turn of Qt's loop on the
main thread, in milliseconds of that thread's own processor time, so that other work on the machine does not count; what
imports libraries and counts parameters runs in other threads meanwhile. To open the dock imports its modules, compiled.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

from in_window import FolderEngine
from measuring import compiled, record, table, verdict

MOST_MS = 50.0


def longest_turn(act, until, seconds=120.0):
    """Do something, let the window work until something is so; return the longest turn in milliseconds."""
    from qtpy.QtWidgets import QApplication

    start, longest, turn = time.perf_counter(), 0.0, act
    while True:
        began = time.thread_time()
        turn()
        longest = max(longest, time.thread_time() - began)
        if until(time.perf_counter() - start):
            return longest * 1e3
        assert time.perf_counter() - start < seconds, "it did not come about"
        time.sleep(0.001)
        turn = QApplication.processEvents


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--theme", default="dark")
    wanted = parser.parse_args()
    compiled()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["NAPARI_CONFIG"] = str(Path(folder) / "napari.yaml")
        os.environ["XDG_CACHE_HOME"] = os.environ["XDG_DATA_HOME"] = folder
        measure(wanted, Path(folder))


def measure(wanted, folder):
    import napari

    from napari_nucleiseg.state import Session
    from napari_nucleiseg.viewer.controller import Controller
    from napari_nucleiseg.widgets.nuclei import NucleiWidget

    viewer = napari.Viewer()
    viewer.theme = wanted.theme
    viewer.window._qt_window.resize(1400, 900)  # noqa: SLF001 - napari has no other way
    panel = NucleiWidget(viewer, Controller(viewer, Session(), FolderEngine(folder)))
    viewer.window.add_dock_widget(panel, name="Nuclei")
    viewer.open_sample("napari-nucleiseg", "tissue")

    def settled(_seconds):
        return panel.controller.display.jobs.is_settled(0.6)

    longest_turn(panel.controller.segment_view, settled)
    docks = panel.docks
    rows = [("open the dock", longest_turn(docks.show_models, lambda _s: docks.models.was_read))]
    shown = docks.widget("Models")
    rows.append(("count networks", longest_turn(lambda: None, settled)))
    for words in ("u", "unet", ""):
        act = longest_turn(lambda words=words: shown.search.setText(words), lambda seconds: seconds > 1.0)
        rows.append((f"search “{words}”", act))
    for key in ("network segnet", "network hover-net"):
        name = key.partition(" ")[2]
        act = longest_turn(
            lambda key=key: shown.list.select(key), lambda _s, name=name: name in docks.models.parameters
        )
        rows.append((f"choose {name}", act))
    if wanted.pictures is not None:
        longest_turn(lambda: None, lambda seconds: seconds > 1.0)
        viewer.screenshot(str(wanted.pictures / f"models-{wanted.theme}.png"), canvas_only=False, flash=False)
    shown.list.select("model nuclei-label-free")
    rows.append(("use a model", longest_turn(shown.use_button.click, settled)))
    table(("what", "longest turn ms"), [(what, f"{ms:.0f}") for what, ms in rows])
    good = verdict("longest turn of the window's thread, ms", max(ms for _, ms in rows), MOST_MS, form="{:.0f}")
    panel.shutdown()
    panel.controller.join()
    viewer.close()
    raise SystemExit(not good)


if __name__ == "__main__":
    record(main)

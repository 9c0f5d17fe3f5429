"""How long it takes in the window from a mark to proposals, and to move the threshold; by each kind of features.

Run ``xvfb-run -a python benchmarks/like_window.py [--rounds 5] [--pictures DIR] [--theme light]``. A real window on the
tissue that scikit-image ships, with the models that come with the program. "First look" is from choosing the features
to a view that can be marked in; "mark" from the click's mark to proposals on the screen, through the worker thread,
and the same in seconds of the processor, which other programs do not stretch;
"slider" from the slider to the redrawn window, on the main thread; "next view" from a move of the camera to proposals
there by the same marks. The marks are the brownest nuclei, and one of the bluest as unlike.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

from in_window import FolderEngine
from measuring import record, table, verdict

SOURCES = {"model in hand": "", "tissue-patches": "encoder:tissue-patches", "colour": "colour"}


def spin(until, seconds=300):
    """Let the window work until something is so; return the seconds."""
    from qtpy.QtWidgets import QApplication

    start = time.perf_counter()
    while not until():
        assert time.perf_counter() - start < seconds, "it did not come about"
        QApplication.processEvents()
        time.sleep(0.001)
    QApplication.processEvents()
    return time.perf_counter() - start


def settled(panel):
    """Let the window work until no thread has anything to do."""
    return spin(lambda: panel.controller.display.jobs.is_settled(0.6))


def by_brown(like):
    """Numbers of the candidates in view, the brownest first."""
    candidates = like.view.candidates
    picture = np.asarray(like.view.opened.slide.levels[0][candidates.region.slices], np.float32)
    brown = picture[..., 0] - picture[..., 2]
    areas = np.bincount(candidates.labels.ravel(), minlength=len(candidates) + 1)
    means = np.bincount(candidates.labels.ravel(), brown.ravel(), len(candidates) + 1) / np.maximum(areas, 1)
    usable = candidates.within(like.view.seen) & (areas > np.median(areas[1:]))
    order = np.argsort(-means)
    return order[usable[order]]


def place(like, number):
    """A place inside a candidate, level-0 pixels measured from corners."""
    candidates = like.view.candidates
    ys, xs = np.nonzero(candidates.labels == number)
    middle = np.argmin((ys - ys.mean()) ** 2 + (xs - xs.mean()) ** 2)
    return np.array([[ys[middle] + candidates.region.y + 0.5, xs[middle] + candidates.region.x + 0.5]])


def proposed(like):
    """Return a function that says whether there are proposals newer than those now."""
    before = like.found
    return lambda: like.found is not None and like.found is not before


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--theme", default="dark")
    wanted = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["NAPARI_CONFIG"] = str(Path(folder) / "napari.yaml")
        os.environ["XDG_CACHE_HOME"] = folder
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
    settled(panel)
    rows, slowest = [], 0.0
    for title, source in SOURCES.items():
        numbers = rounds(viewer, panel, source, wanted)
        slowest = max(slowest, numbers[1])
        rows.append((title, *(f"{seconds * 1e3:.0f}" for seconds in numbers[:5]), *numbers[5:]))
    columns = ("features", "first look ms", "mark ms", "mark CPU ms", "slider ms", "next view ms", "candidates", "like")
    table(columns, rows)
    good = verdict("mark to proposals, median s", slowest, 1.0, form="{:.2f}")
    panel.shutdown()
    panel.controller.join()
    viewer.close()
    raise SystemExit(not good)


def rounds(viewer, panel, source, wanted):
    """Return the seconds of the first look, of a mark, the slider and the next view, and how many there were."""
    from qtpy.QtWidgets import QApplication

    like = panel.docks.like
    viewer.reset_view()
    viewer.scene.camera.zoom *= 1.4
    settled(panel)
    like.clear()
    like.wishes.source, like.wishes.automatic = source, True
    panel.docks.show_like()
    like.view.forget()
    first = spin(lambda: like.view.candidates is not None)
    settled(panel)
    brown = by_brown(like)
    marks, worked, slides, views = [], [], [], []
    for turn in range(wanted.rounds):
        is_new, began, outline = proposed(like), time.process_time(), place(like, brown[turn % 5])
        like.mark(outline, is_like=True)
        marks.append(spin(is_new))
        worked.append(time.process_time() - began)
    like.clear()
    for number, is_like in ((brown[0], True), (brown[2], True), (brown[-1], False)):
        like.mark(place(like, number), is_like=is_like)
    settled(panel)
    count = len(like.view.candidates), len(like.proposals())
    take_pictures(viewer, panel, source, wanted)
    for value in np.linspace(0.2, 0.8, 2 * wanted.rounds):
        start = time.perf_counter()
        like.wishes.threshold = float(value)
        QApplication.processEvents()
        slides.append(time.perf_counter() - start)
    like.wishes.automatic = True
    viewer.scene.camera.zoom *= 3
    like.view.forget()  # what was looked at so far covers all of this
    settled(panel)
    here = viewer.scene.camera.center
    for aside_um in (-45.0, 45.0):
        is_new = proposed(like)
        viewer.scene.camera.center = (*here[:-2], here[-2] + aside_um, here[-1] - aside_um)
        views.append(spin(is_new))
        settled(panel)
    return first, *(statistics.median(each) for each in (marks, worked, slides, views)), *count


def take_pictures(viewer, panel, source, wanted):
    """Leave pictures of the window, with and without the map of similarity."""
    like = panel.docks.like
    if wanted.pictures is None:
        return
    for heatmap in (False, True):
        like.wishes.heatmap = heatmap
        settled(panel)
        name = f"like-{source.partition(':')[2] or source or 'model'}-{'map-' if heatmap else ''}{wanted.theme}.png"
        viewer.screenshot(str(wanted.pictures / name), canvas_only=False, flash=False)
    like.wishes.heatmap = False


if __name__ == "__main__":
    record(main)

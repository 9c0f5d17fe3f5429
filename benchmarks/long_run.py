"""Whether hours of work leave the window as it was: memory, open files, threads, layers, stalls, over random work.

Run ``xvfb-run -a -s "-screen 0 1600x1000x24" python benchmarks/long_run.py [--minutes 120] [--looks 24] [--seed 0]``.
Somebody wanders over a slide of 20,000 px with Follow on, paints nuclei and takes some back, deletes some, shows and
hides the heatmap, undoes and redoes, and from time to time teaches the model a few steps and stops. Evenly over the run
it is measured, when nothing works and the heatmap is hidden: resident memory after a collection, the same once the C
library has given back what it keeps for the next forward (`keep_freed_memory`), how much of it the bounded caches hold,
open files, threads, layers, objects of Python, the gaps of a 10 ms timer since the last look, and how long strokes took
until they were kept. The first quarter fills the caches and does not count. Memory without the caches may then grow by
5 %, what the C library keeps must stay within its bound, files, threads and layers may not grow, and stalls and strokes
must not become slower. Looks count by thirds: a third with fewer than five strokes says nothing of strokes.
"""

import argparse
import gc
import os
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

os.environ["NAPARI_CONFIG"] = ""  # the user's settings are neither read nor written
os.environ["XDG_DATA_HOME"] = tempfile.mkdtemp()  # nor are the user's models

import numpy as np
import psutil
from qtpy.QtCore import QCoreApplication, QEvent

from alias_slide import write_alias_slide
from in_window import FolderEngine, shown
from measuring import note, record, table, unmeasured, verdict
from napari_nucleiseg.core.models.hardware import KEPT_BYTES, give_back_memory
from napari_nucleiseg.core.slides.tilecache import shared_cache
from napari_nucleiseg.core.teaching.config import FinetuneConfig
from napari_nucleiseg.core.teaching.finetune import finetune
from napari_nucleiseg.state import NO_HEATMAP
from responsiveness import Ticks, spin
from teaching_window import ready_to_teach

SIDE = 20_000
# The part of the looks while caches fill.
SETTLING = 0.25
GROWTH, SLOWER = 0.05, 1.5
FEWEST_STROKES = 5
TEACH_EVERY_S = 240.0
# Level-0 pixels that the middle of the view keeps from the slide's edges.
EDGE = 800
HEATMAP = "nuclei"


class ShortEngine(FolderEngine):
    """The engine whose fine-tune is short."""

    def finetune(self, model, lesson, *, device, trust, ignore_brown=False):
        self.import_training()
        config = FinetuneConfig(steps=6, patience=6, device=device, trust_labels=trust, ignore_brown=ignore_brown)
        return finetune(model, lesson, config)


@dataclass
class Look:
    """What was measured at one moment; memory in MB of 1e6 bytes, times in milliseconds."""

    minutes: float
    memory: float
    given_back: float
    """Of the memory, what the C library kept and gave back when asked."""
    caches: float
    files: int
    threads: int
    layers: int
    objects: int
    gaps: np.ndarray = field(repr=False)
    strokes: list = field(repr=False)

    @property
    def held(self):
        """What is neither kept for the next forward nor in a cache with a bound."""
        return self.memory - self.given_back - self.caches

    def row(self):
        counted = (self.memory, self.given_back, self.caches, self.held, self.files, self.threads, self.layers)
        stall = f"{np.percentile(self.gaps, 99):.0f}" if len(self.gaps) else "-"
        stroke = f"{statistics.median(self.strokes):.0f} ({len(self.strokes)})" if self.strokes else "-"
        return [f"{self.minutes:.1f}", *(f"{value:.0f}" for value in counted), f"{self.objects:,}", stall, stroke]


class Person:
    """Does something at random, and again.

    Parameters
    ----------
    viewer : napari.Viewer
        With the slide.
    panel : NucleiWidget
        The Nuclei panel.
    teach : QWidget
        The dock Teach.
    seed : int
        Of what is done.
    """

    def __init__(self, viewer, panel, teach, seed):
        self.viewer, self.panel, self.dock = viewer, panel, teach
        self.rng = np.random.default_rng(seed)
        self.editing = panel.controller.editing
        self.done = dict.fromkeys(("pan", "paint", "turn", "delete", "heatmap", "teach"), 0)
        self.strokes = []
        self.taught_at = time.monotonic()

    def act(self):
        if time.monotonic() - self.taught_at > TEACH_EVERY_S:
            self.taught_at = time.monotonic()
            return self._do("teach")
        return self._do(str(self.rng.choice(["pan", "pan", "paint", "turn", "delete", "heatmap"])))

    def _do(self, what):
        getattr(self, what)()
        self.done[what] += 1
        delete_later()

    def settle(self, seconds=60.0):
        spin(0.1)
        end = time.monotonic() + seconds
        while self.panel.controller.is_busy and time.monotonic() < end:
            spin(0.02)

    def pan(self):
        """Jump, then drag a little while it is being segmented."""
        y, x = self.rng.uniform(EDGE, SIDE - EDGE, 2) * 0.5  # micrometres
        for _ in range(10):
            self.viewer.scene.camera.center = (y, x)
            x += 15
            spin(0.04)
        spin(float(self.rng.uniform(0, 2)))

    def paint(self):
        """Paint a small nucleus into the view."""
        self.settle()
        layer = self.editing.window.layer
        if layer is None:
            return
        layer.mode, layer.brush_size = "paint", 12
        layer.selected_label = self.editing.project.editor.new_id()
        side = np.array(layer.data.shape)
        start = side // 2 + self.rng.integers(-60, 60, 2)
        kept = []
        self.editing.edited.connect(keep := lambda: kept.append(time.perf_counter()))
        with layer.block_history():
            for number in range(12):
                layer.paint(tuple(np.clip(start + np.array((number % 4, number)), 0, side - 1)), layer.selected_label)
        began, end = time.perf_counter(), time.monotonic() + 20
        while not kept and time.monotonic() < end:
            spin(0.002)
        self.editing.edited.disconnect(keep)
        if kept:
            self.strokes.append((kept[0] - began) * 1e3)

    def turn(self):
        """Undo two steps, redo one."""
        for act in (self.editing.undo, self.editing.undo, self.editing.redo):
            self.settle()
            act()
        self.settle()

    def delete(self):
        """Delete up to three nuclei of the view."""
        self.settle()
        layer = self.editing.window.layer
        if layer is None:
            return
        ids = np.unique(np.asarray(layer.data))
        self.editing.delete([int(one) for one in ids[ids > 0][:3]])
        self.settle()

    def heatmap(self):
        session = self.panel.session
        session.heatmap = NO_HEATMAP if session.heatmap else HEATMAP
        spin(0.5)

    def teach(self):
        """Teach a few steps."""
        self.settle()
        if self.dock.teach_button.isEnabled():
            self.dock.teach_button.click()
            self.settle(120)


def caches_mb(project):
    """Return what the caches with a bound hold: decoded tiles, chunks of labels, maps; MB."""
    chunks, maps = project.labels.chunks, project.maps
    kept = (one.nbytes for one in (*chunks._kept.values(), *maps._memory.values()))  # noqa: SLF001 - measured only here
    return (shared_cache().bytes + chunks.waiting_bytes + sum(kept)) / 1e6


def delete_later():
    """Delete what Qt was to delete later: it waits for the return to an event loop, and here none runs."""
    QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)


def look(person, ticks, began):
    """Let everything end, hide the heatmap, collect what nobody holds, and measure."""
    person.settle()
    person.panel.session.heatmap = NO_HEATMAP
    person.settle()
    delete_later()
    gc.collect()
    process = psutil.Process()
    memory = process.memory_info().rss / 1e6
    give_back_memory()
    found = Look(
        minutes=(time.monotonic() - began) / 60,
        memory=memory,
        given_back=memory - process.memory_info().rss / 1e6,
        caches=caches_mb(person.editing.project),
        files=process.num_fds(),
        threads=process.num_threads(),
        layers=len(person.viewer.layers),
        objects=len(gc.get_objects()),
        gaps=ticks.gaps(),
        strokes=person.strokes,
    )
    person.strokes = []
    print(" ".join(found.row()), flush=True)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=120.0)
    parser.add_argument("--looks", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    path = folder / "slide.svs"
    write_alias_slide(path, SIDE)
    viewer, panel = shown(ShortEngine(folder))
    teach = ready_to_teach(viewer, panel, path)
    panel.session.follow = True
    person, looks = Person(viewer, panel, teach, options.seed), []
    began = time.monotonic()
    for number in range(1, options.looks + 1):
        ticks = Ticks()
        while time.monotonic() - began < number / options.looks * options.minutes * 60:
            person.act()
        ticks.timer.stop()
        looks.append(look(person, ticks, began))
    tell(looks, person.done)
    viewer.close()
    panel.controller.join()


def tell(looks, done):
    """Print every look and what follows from them."""
    note(f"seed's work: {', '.join(f'{count} x {what}' for what, count in done.items())}")
    heads = (
        "min", "MB", "of it given back", "in caches", "else", "files", "threads", "layers", "objects",
        "99 % of gaps below, ms", "stroke kept, ms (strokes)",
    )  # fmt: skip
    table(heads, [one.row() for one in looks])
    counted = looks[int(len(looks) * SETTLING) :]
    third = max(len(counted) // 3, 1)
    first, last = counted[:third], counted[-third:]

    def grown(name):
        return (statistics.median(getattr(one, name) for one in part) for part in (first, last))

    verdict("most that the C library kept, MB", max(one.given_back for one in counted), KEPT_BYTES / 1e6, form="{:.0f}")
    for name, what in (("held", "memory beside caches"), ("objects", "objects of Python")):
        before, after = grown(name)
        verdict(f"{what}, last third to first", after / before, 1 + GROWTH, form="{:.3f}")
    for name, what in (("files", "open files"), ("threads", "threads"), ("layers", "layers")):
        before, after = grown(name)
        verdict(f"{what} more at the end", after - before, 0, form="{:.0f}")
    gaps = [np.concatenate([one.gaps for one in part]) for part in (first, last)]
    slower("stalls", gaps, lambda values: np.percentile(values, 99))
    slower("strokes", [[ms for one in part for ms in one.strokes] for part in (first, last)], statistics.median)


def slower(what, parts, summary):
    """Say how much slower something became from the first third to the last, if both have seen enough of it."""
    name, fewest = f"{what}, last third to first", min(len(part) for part in parts)
    if fewest < FEWEST_STROKES:
        unmeasured("", name, f"a third of the looks had only {fewest} of them: give it more minutes")
        return
    before, after = map(summary, parts)
    verdict(name, after / before, SLOWER)


if __name__ == "__main__":
    record(main)

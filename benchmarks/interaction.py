"""What waiting feels like: the first tile after a pan, going back to where one was, and what a cancelled view costs.

Run ``python benchmarks/interaction.py [--pans 6]``. Scripted views of 1,000 x 1,600 pixels over a JPEG slide, into a
project on disk; the forward of one tile is timed in the same run. Wall clock, since it is waiting that counts: on a
busy machine look at the ratios only.
"""

import argparse
import shutil
import statistics
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from alias_slide import write_alias_slide
from measuring import one_thread, record, table, verdict
from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.inference.device import Forward
from napari_nucleiseg.core.inference.plan import plan_inference
from napari_nucleiseg.core.inference.predict import needed_heads
from napari_nucleiseg.core.inference.segment import default_options, options_key, segment
from napari_nucleiseg.core.models.weights import load_model
from napari_nucleiseg.core.slides.registry import open_slide
from napari_nucleiseg.core.store.project import Project

VIEW = (1000, 1600)


class Viewer:
    """Somebody who looks at a slide, without a window."""

    def __init__(self, slide, model, project):
        self.slide, self.model, self.project = slide, model, project

    def look(self, y, x):
        """Segment a view; wall seconds to the first and last tile (as soon as its labels can be read), and tiles."""
        start = time.perf_counter()
        view = Region(y, x, *VIEW)
        plan = plan_inference(self.slide, self.model.spec, view)
        first = last = None
        tiles = 0
        for event in segment(self.slide, self.model, self.project, plan, device="cpu"):
            self.project.labels.read(event.tile.core)
            last = time.perf_counter() - start
            first, tiles = first or last, tiles + 1
        return first, last, tiles

    def come_back(self, y, x):
        """Wall seconds until a view that is done is known to be done and its labels are read."""
        start = time.perf_counter()
        view = Region(y, x, *VIEW)
        plan = plan_inference(self.slide, self.model.spec, view)
        key = options_key(plan, self.model, default_options(self.model))
        missing = plan.tiles.without(self.project.tiles_done(self.model.version, key))
        self.project.labels.read(view)
        self.project.count_in(view)
        return time.perf_counter() - start, len(missing)

    def change_ones_mind(self, y, x):
        """Move on after the first tile of a view: how many of its tiles still come."""
        stop = threading.Event()
        plan = plan_inference(self.slide, self.model.spec, Region(y, x, *VIEW))
        run = segment(self.slide, self.model, self.project, plan, device="cpu", cancelled=stop.is_set)
        next(run)
        stop.set()
        return len(list(run))


def one_forward(model, rounds=5):
    """Wall seconds to forward one full tile."""
    side = model.spec.tile_px + 2 * model.spec.halo_px
    forward = Forward(model, "cpu", heads=needed_heads(model.spec, shown=False))
    pixels = np.random.default_rng(0).integers(0, 256, (1, side, side, 3), dtype=np.uint8)
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        forward(pixels)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pans", type=int, default=6)
    wanted = parser.parse_args()
    one_thread()
    model = load_model("nuclei")
    folder = Path(tempfile.mkdtemp())
    try:
        slide = open_slide(write_alias_slide(folder / "slide.svs", 40_000, mpp_um=model.spec.mpp_um))
        with Project.create(folder / "p", slide) as project:
            viewer = Viewer(slide, model, project)
            viewer.look(0, 0)  # loads what is loaded once
            rows, firsts, alls, backs, missing, stale = [], [], [], [], 0, []
            for pan in range(wanted.pans):
                y, x = 5000 + 300 * pan, 5000 + 2500 * pan
                forward = one_forward(model)
                first, last, tiles = viewer.look(y, x)
                back, lacking = min(viewer.come_back(y, x) for _ in range(3))
                missing += lacking
                stale.append(viewer.change_ones_mind(y + 15_000, x))
                firsts.append(first / forward)
                alls.append(last / (forward * tiles))
                backs.append(back * 1e3)
                rows.append((pan + 1, tiles, f"{forward:.2f}", f"{first:.2f}", f"{firsts[-1]:.2f}", f"{last:.2f}",
                             f"{alls[-1]:.2f}", f"{backs[-1]:.1f}", stale[-1]))  # fmt: skip
    finally:
        shutil.rmtree(folder)
    header = ("pan", "new tiles", "one forward, s", "first tile, s", "in forwards", "all, s", "of their forwards",
              "return, ms", "stale tiles")  # fmt: skip
    table(header, rows, title="Pans over a slide of 40,000 px")
    good = verdict("first tile after a pan, in forwards (median)", statistics.median(firsts), 1.5, goal="G8")
    good &= verdict("all tiles of a pan, of their forwards (median)", statistics.median(alls), 1.3, goal="G8")
    good &= verdict("return to a seen view, ms (median)", statistics.median(backs), 50, form="{:.1f}", goal="G8")
    good &= verdict("forwards on return", missing, 0, form="{:.0f}", goal="G8")
    good &= verdict("tiles that still come after moving on", max(stale), 1, form="{:.0f}", goal="G8")
    raise SystemExit(not good)


if __name__ == "__main__":
    record(main)

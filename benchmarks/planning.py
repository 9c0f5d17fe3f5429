"""What a million tiles cost beside their pixels: planning, resuming, each tile's way through plan, reader and ledger.

Run ``python benchmarks/planning.py [--rounds 15]``. One thread on one processor, CPU time. The slide is a size without
pixels and the network says that nothing is there, so that only bookkeeping is left. A project numbers at most 131,072
tiles (137 billion pixels with the shipped models) and refuses more: of a million the parts of a run are called one by
one, in the order in which `segment` calls them, and `segment` itself is run on the largest plan it takes.
"""

import argparse
import gc
import shutil
import tempfile
import time
import tracemalloc
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from measuring import in_turn, note, one_thread, peak_mib, record, table, verdict
from napari_nucleiseg.core.geometry import YX, Region
from napari_nucleiseg.core.inference.plan import plan_inference
from napari_nucleiseg.core.inference.predict import predict
from napari_nucleiseg.core.inference.segment import default_options, options_key, segment
from napari_nucleiseg.core.models.weights import load_model
from napari_nucleiseg.core.slides.pyramid import Slide
from napari_nucleiseg.core.store.ledger import Ledger, put_tile, reopen_tiles, run_number, tiles_done
from napari_nucleiseg.core.store.nuclei import MAX_TILES
from napari_nucleiseg.core.store.project import Project

TILE_PX = 32
SAMPLE = 480  # tiles that a run has left to do
FEW, MANY = 1_000, 1_000_000
LARGEST = int(MAX_TILES**0.5) ** 2


class NoPixels:
    """A level with a size and white pixels."""

    dtype, ndim = np.dtype(np.uint8), 3

    def __init__(self, side):
        self.shape = (side, side, 3)

    def __getitem__(self, key):
        (y0, y1, _), (x0, x1, _) = (part.indices(size) for part, size in zip(key, self.shape, strict=False))
        return np.full((y1 - y0, x1 - x0, 3), 255, np.uint8)


class Nothing(torch.nn.Module):
    """A network that says that nothing is there, at no cost."""

    def forward(self, x):
        return {"nuclei": x[:, :1] - 9, "offsets": x[:, :2]}


class Case:
    """A plan of about so many tiles of which all but a sample are done, and what is written down of them."""

    def __init__(self, tiles, model, folder):
        side = round(tiles**0.5) * TILE_PX
        mpp = YX(model.spec.mpp_um, model.spec.mpp_um)
        self.slide = Slide("blank", (NoPixels(side),), (YX(1, 1),), mpp, fingerprint="blank")
        self.model, self.path = model, folder
        self.plan = plan_inference(self.slide, model.spec)
        # Far apart, from the middle of the slide to its corners.
        self.left = set(self.plan.tiles.indices[:: len(self.plan) // SAMPLE][:SAMPLE].tolist())
        self.key = options_key(self.plan, model, default_options(model))

    def plan_anew(self):
        plan_inference(self.slide, self.model.spec)

    def planning_mib(self):
        tracemalloc.start()
        plan = plan_inference(self.slide, self.model.spec)
        held = tracemalloc.get_traced_memory()[1] / (1 << 20)
        tracemalloc.stop()
        assert len(plan) == len(self.plan)
        return held

    def note_done(self, ledger):
        """Write down all tiles but the sample, as runs before have; return the number of the run."""
        core = Region(0, 0, TILE_PX, TILE_PX)
        with ledger.transaction() as database:
            run = run_number(database, self.model.version, self.key)
            for tile in self.plan.tiles.indices.tolist():
                if tile not in self.left:
                    put_tile(database, tile, run, core, 0)
        return run


class LedgerCase(Case):
    """The parts of a run called one by one: resuming, then the sample through planner, reader, forward and ledger."""

    def __init__(self, tiles, model, folder):
        super().__init__(tiles, model, folder / f"{tiles}.sqlite")
        with closing(Ledger.create(self.path, {})) as ledger:
            self.run = self.note_done(ledger)
        self.ledger = Ledger(self.path, writable=True)
        self.resume()

    def scan(self):
        """What is done, by a ledger opened anew."""
        with closing(Ledger(self.path, writable=True)) as ledger:
            assert len(tiles_done(ledger.reader, self.model.version, self.key)) >= len(self.plan) - SAMPLE

    def resume(self):
        """All that precedes the first tile: what is done, and what is left in which order."""
        with closing(Ledger(self.path, writable=True)) as ledger:
            self.done = tiles_done(ledger.reader, self.model.version, self.key) - self.left
        self.todo = self.plan.tiles.without(self.done)
        assert len(self.plan.tiles.only(self.done)) + len(self.todo) == len(self.plan)

    def dispatch(self):
        count = 0
        for prediction in predict(self.plan, self.slide, self.model, tiles=self.todo, device="cpu"):
            tile = prediction.tile
            with self.ledger.transaction() as database:
                put_tile(database, tile.index, self.run, tile.core, 0)
            count += 1
        assert count == SAMPLE


class ProjectCase(Case):
    """`segment` itself, with a project."""

    def __init__(self, tiles, model, folder):
        super().__init__(tiles, model, folder / f"{tiles}.nucleiseg")
        with Project.create(self.path, self.slide) as project:
            self.note_done(project.ledger)

    def dispatch(self):
        """CPU seconds up to the first tile, from opening the project, and of each tile after it."""
        start = time.process_time()
        with Project.open(self.path) as project:
            with closing(segment(self.slide, self.model, project, self.plan, device="cpu")) as events:
                next(events)
                first = time.process_time()
                assert sum(not event.skipped for event in events) == SAMPLE - 1
                last = time.process_time()
            with project.ledger.transaction() as database:
                reopen_tiles(database, self.left)
        return first - start, (last - first) / (SAMPLE - 1)


def a_million(model, folder, rounds):
    """Print what a thousand and a million tiles cost; return the figures of a million and the ratio of a tile's."""
    cases = {tiles: LedgerCase(tiles, model, folder) for tiles in (FEW, MANY)}
    steps = {
        (tiles, step): getattr(case, step)
        for tiles, case in cases.items()
        for step in ("plan_anew", "scan", "resume", "dispatch")
    }
    # In turn: a fraction of a millisecond a tile is soon hidden by what else the machine does.
    best = in_turn(steps, rounds)
    held = {tiles: case.planning_mib() for tiles, case in cases.items()}
    table(
        ("tiles", "planning, cpu s", "planning, MiB", "scan of the ledger, cpu s", "resuming in all, cpu s",
         "a tile, cpu-ms", "cpu/wall of a tile"),
        [
            (f"{len(case.plan):,}", f"{best[tiles, 'plan_anew'].cpu:.3f}", f"{held[tiles]:.1f}",
             f"{best[tiles, 'scan'].cpu:.3f}", f"{best[tiles, 'resume'].cpu:.3f}",
             f"{best[tiles, 'dispatch'].cpu / SAMPLE * 1e3:.3f}", f"{best[tiles, 'dispatch'].share:.2f}")
            for tiles, case in cases.items()
        ],
        title="A million tiles, part by part",
    )  # fmt: skip
    for case in cases.values():
        case.ledger.close()
    growth = best[MANY, "dispatch"].cpu / best[FEW, "dispatch"].cpu
    return best[MANY, "plan_anew"].cpu, held[MANY], best[MANY, "scan"].cpu, best[MANY, "resume"].cpu, growth


def the_largest_project(model, folder, rounds):
    """Print what `segment` costs with the most tiles it takes; return the ratio of a tile's cost to a thousand's."""
    cases = {tiles: ProjectCase(tiles, model, folder) for tiles in (FEW, LARGEST)}
    found = {tiles: [] for tiles in cases}
    for _ in range(rounds):
        for tiles, case in cases.items():
            gc.collect()
            found[tiles].append(case.dispatch())
    best = {tiles: np.min(times, axis=0) for tiles, times in found.items()}
    table(
        ("tiles", "to the first tile, cpu s", "each tile after it, cpu-ms"),
        [(f"{len(cases[tiles].plan):,}", f"{first:.3f}", f"{tile * 1e3:.3f}") for tiles, (first, tile) in best.items()],
        title="`segment` with a project, all but a sample of its tiles done",
    )
    return best[LARGEST][1] / best[FEW][1]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    wanted = parser.parse_args()
    one_thread(pinned=True)
    shipped = load_model("nuclei")
    spec = replace(shipped.spec, tile_px=TILE_PX, halo_px=0)
    model = replace(shipped, spec=spec, network=Nothing())
    folder = Path(tempfile.mkdtemp())
    try:
        planning, held, scan, resume, growth = a_million(model, folder, wanted.rounds)
        segmented = the_largest_project(model, folder, wanted.rounds)
    finally:
        shutil.rmtree(folder)
    good = verdict("planning a million tiles, cpu s", planning, 2, goal="S1")
    good &= verdict("planning a million tiles, MiB", held, 200, form="{:.0f}", goal="S1")
    good &= verdict("scan of a ledger with a million tiles done, cpu s", scan, 1, goal="S3")
    good &= verdict("resuming a million tiles in all, cpu s", resume, 1, goal="S3")
    good &= verdict("a tile among a million, of one among a thousand", growth, 1.05, form="{:.3f}", goal="S1")
    name = f"the same with `segment`, {LARGEST:,} tiles"
    good &= verdict(name, segmented, 1.05, form="{:.3f}", goal="S1")
    note(f"peak memory {peak_mib():.0f} MiB")
    raise SystemExit(not good)


if __name__ == "__main__":
    record(main)

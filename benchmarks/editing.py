"""Editing on a slide of 100,000 x 80,000 pixels with a million nuclei: strokes, undo, opening, size and memory.

Run ``python benchmarks/editing.py [--nuclei 1000000] [--edits 1000] [--folder DIR] [--keep]``. The tissue repeats every
tile and has 4,000 nuclei per mm2. Times are wall-clock, the disk's waiting included, because that is what a person
waits for; the folder should lie on the disk that is asked about, not in memory.
"""

import argparse
import shutil
import tempfile
from pathlib import Path

import numpy as np
import psutil

from measuring import note, one_thread, record, spent, table, verdict
from napari_nucleiseg.core.geometry import YX, Region
from napari_nucleiseg.core.slides.pyramid import Slide
from napari_nucleiseg.core.store.project import Project
from store import CORE, moved, periodic_tile

SHAPE = (80_000, 100_000)
BRUSH_PX = 60
STROKE_PX = 150
WINDOWS = (4096, 1536)


class NoPixels:
    """A level with a size only; the store reads no pixels of the slide."""

    shape = (*SHAPE, 3)
    dtype = np.dtype(np.uint8)
    ndim = 3


def build(folder, slide, nuclei):
    """Write a square of whole tiles, row by row, until there are enough nuclei."""
    tile = periodic_tile()
    columns = -(-SHAPE[1] // CORE)
    most = min(SHAPE) // CORE - 2
    side = min(most, max(4, int(np.ceil(np.sqrt(nuclei / len(tile))))))
    with Project.create(folder, slide) as project:
        for row in range(1, side + 1):
            for column in range(1, side + 1):
                project.write_tile(moved(tile, row * columns + column, columns), "m@1", "t0.5")
        note(f"{project.census.total():,} nuclei on {side**2 * CORE**2 / 1e6:,.0f} megapixels")


def stroke(rng, tissue):
    """Pixels and box of a stroke somewhere in the tissue."""
    start = np.array([rng.integers(tissue.y + 500, tissue.y1 - 500), rng.integers(tissue.x + 500, tissue.x1 - 500)])
    angle = rng.uniform(0, 2 * np.pi)
    middles = start + np.outer(np.arange(0, STROKE_PX, 5), (np.sin(angle), np.cos(angle)))
    half = BRUSH_PX // 2
    top, left = (middles.min(0) - half).astype(int)
    bottom, right = (middles.max(0) + half + 1).astype(int)
    region = Region.from_bounds(int(top), int(left), int(bottom), int(right))
    yy, xx = np.mgrid[region.y : region.y1, region.x : region.x1]
    mask = np.zeros(yy.shape, bool)
    for y, x in middles:
        mask |= (yy - y) ** 2 + (xx - x) ** 2 <= half**2
    return region, mask


def paint(project, rng, tissue):
    """Paint one stroke with a new label; return the seconds until it is durable."""
    region, mask = stroke(rng, tissue)
    image = project.labels.read(region)
    image[mask] = project.editor.new_id()
    return spent(lambda: project.editor.paint(region, image)).wall


def summary(times):
    """Median, 95th percentile and longest, ms."""
    return [f"{value * 1e3:.1f}" for value in (np.median(times), np.percentile(times, 95), max(times))]


def size_of(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def resident_mib():
    return psutil.Process().memory_info().rss / (1 << 20)


def windows(project, rng, tissue):
    """Read what is edited at random places: from the disk, and again."""
    rows = []
    for side in WINDOWS:
        cold, warm = [], []
        for _ in range(10):
            y = int(rng.integers(tissue.y, tissue.y1 - side))
            x = int(rng.integers(tissue.x, tissue.x1 - side))
            region = Region(y, x, side, side)
            project.flush()
            project.labels.chunks.forget()
            cold.append(spent(lambda region=region: project.labels.read(region)).wall)
            warm.append(spent(lambda region=region: project.labels.read(region)).wall)
        rows += [(f"read {side} x {side} px", *summary(cold)), (f"the same again, {side} x {side} px", *summary(warm))]
    return rows


def editing(folder, slide, tissue, edits):
    rng = np.random.default_rng(0)
    good = True
    opening = [spent(lambda: Project.open(folder, slide).close()).wall for _ in range(3)]
    good &= verdict("open and close, s", max(opening), 2.0)
    project = Project.open(folder, slide)
    strokes = [paint(project, rng, tissue) for _ in range(100)]
    undone = [spent(project.editor.undo).wall for _ in range(100)]
    again = [spent(project.editor.redo).wall for _ in range(100)]
    before = resident_mib()
    strokes += [paint(project, rng, tissue) for _ in range(edits)]
    after = resident_mib()
    # The oldest first: as far from what is in memory as can be.
    project.close()
    project = Project.open(folder, slide)
    undone += [spent(project.editor.undo).wall for _ in range(min(edits, 300))]
    again += [spent(project.editor.redo).wall for _ in range(min(edits, 300))]
    history = [spent(project.editor.history).wall for _ in range(5)]
    rows = [
        (f"stroke with a brush of {BRUSH_PX} px, durable", *summary(strokes)),
        ("undo", *summary(undone)),
        ("redo", *summary(again)),
        ("newest 200 steps of the history", *summary(history)),
        *windows(project, rng, tissue),
    ]
    project.close()
    print()
    table((f"{len(strokes):,} edits", "median ms", "95 % ms", "longest ms"), rows)
    good &= verdict("stroke, 95 %, ms", np.percentile(strokes, 95) * 1e3, 60, form="{:.1f}")
    good &= verdict("undo, 95 %, ms", np.percentile(undone, 95) * 1e3, 100, form="{:.1f}")
    good &= verdict("redo, 95 %, ms", np.percentile(again, 95) * 1e3, 100, form="{:.1f}")
    print(f"memory {before:.0f} MiB after 100 edits, undone and done again; {after:.0f} MiB after {edits:,} more")
    good &= verdict(f"more memory after {edits:,} edits, MiB", after - before, 32, form="{:.1f}")
    return good


def size(folder, tissue, edits):
    with Project.open(folder, writable=False) as project:
        middle = Region(tissue.y + tissue.height // 2 - 2048, tissue.x + tissue.width // 2 - 2048, 4096, 4096)
        share = (project.labels.read(middle) > 0).mean()
    database = (folder / "project.sqlite").stat().st_size
    whole = size_of(folder)
    print(f"\nproject {whole / 1e6:,.0f} MB, of it table and history of {edits:,} edits {database / 1e6:,.0f} MB")
    print(f"per pixel inside a nucleus ({share:.0%} of them) {whole / tissue.area / share:.2f} B")
    return verdict("project per pixel of labelled tissue, B", whole / tissue.area, 0.3, form="{:.3f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nuclei", type=int, default=1_000_000)
    parser.add_argument("--edits", type=int, default=1000)
    parser.add_argument("--folder", type=Path, help="where to write; default the temporary folder")
    parser.add_argument("--keep", type=Path, help="folder of a project that is built once, and copied for each run")
    wanted = parser.parse_args()
    one_thread()
    slide = Slide("bench", (NoPixels(),), (YX(1, 1),), YX(0.25, 0.25), fingerprint="bench")
    with tempfile.TemporaryDirectory(dir=wanted.folder) as temporary:
        folder = Path(temporary) / "p.nucleiseg"
        built = wanted.keep or folder
        if not built.exists():
            took = spent(lambda: build(built, slide, wanted.nuclei))
            print(f"built in {took.wall:,.0f} s\n")
        if built != folder:
            shutil.copytree(built, folder)
        with Project.open(folder, slide) as project:
            boxes = np.array(project.ledger.reader.execute("SELECT y0, x0, y1, x1 FROM tiles").fetchall())
        tissue = Region.from_bounds(*boxes[:, :2].min(0).tolist(), *boxes[:, 2:].max(0).tolist())
        good = size(folder, tissue, 0)
        good &= editing(folder, slide, tissue, wanted.edits)
        good &= size(folder, tissue, wanted.edits + 100)
    raise SystemExit(not good)


if __name__ == "__main__":
    record(main)

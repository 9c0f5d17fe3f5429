"""The project on disk: writing tiles against pasting them with zarr alone, counting among a million nuclei, opening.

Run ``python benchmarks/store.py [--tiles 64]``. The tissue repeats every tile and has 4,000 nuclei per mm2.
"""

import argparse
import tempfile
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from measuring import note, one_thread, record, spent, table, verdict
from napari_nucleiseg.core.geometry import YX, Region
from napari_nucleiseg.core.slides.pyramid import Slide
from napari_nucleiseg.core.store.labels import CHUNK_PX
from napari_nucleiseg.core.store.ledger import put_nuclei, run_number
from napari_nucleiseg.core.store.nuclei import TileNuclei, global_ids
from napari_nucleiseg.core.store.project import Project

SIDE = 100_000
CORE = 2048  # level-0 pixels: a 1024 px tile of a 0.5 um model on a 0.25 um slide
DENSITY_MM2 = 4000


class NoPixels:
    """A level with a size only; the store reads no pixels of the slide."""

    shape = (SIDE, SIDE, 3)
    dtype = np.dtype(np.uint8)
    ndim = 3


def periodic_tile(margin=4, seed=0):
    """Nuclei of a tissue that repeats every `CORE` pixels; those near the border are found by both neighbours."""
    rng = np.random.default_rng(seed)
    n = int(DENSITY_MM2 * (CORE * 0.25e-3) ** 2)
    centres = rng.uniform(0, CORE, (n, 2))
    radii = rng.uniform(9, 17, n)
    stretch = rng.uniform(0.75, 1.33, n)
    pad = 64
    labels = np.zeros((CORE + 2 * pad, CORE + 2 * pad), np.int32)
    yy, xx = np.mgrid[-26:27, -26:27]
    found = []
    for shift in [(y, x) for y in (-CORE, 0, CORE) for x in (-CORE, 0, CORE)]:
        for (y, x), radius, s in zip(centres + shift, radii, stretch, strict=True):
            if not (-margin <= y < CORE + margin and -margin <= x < CORE + margin):
                continue
            iy, ix = int(y) + pad, int(x) + pad
            part = labels[iy - 26 : iy + 27, ix - 26 : ix + 27]
            rough = rng.normal(0, 12, yy.shape)
            mask = ((yy * s) ** 2 + (xx / s) ** 2 + rough < radius**2) & (part == 0)
            if mask.any():
                found.append((y, x))
                part[mask] = len(found)
                ys, xs = np.nonzero(mask)
                found[-1] = (y, x, iy - 26 + ys.min(), ix - 26 + xs.min(), iy - 25 + ys.max(), ix - 25 + xs.max())
    rows = np.array(found)
    boxes = rows[:, 2:].astype(np.int64) - pad
    y0, x0, y1, x1 = *boxes[:, :2].min(0), *boxes[:, 2:].max(0)
    return TileNuclei(
        tile_index=0,
        core=Region(0, 0, CORE, CORE),
        box=Region.from_bounds(int(y0), int(x0), int(y1), int(x1)),
        labels=labels[y0 + pad : y1 + pad, x0 + pad : x1 + pad],
        centroids=rows[:, :2].copy(),
        areas_um2=np.full(len(rows), 30, np.float32),
        boxes=boxes,
        scores=np.full(len(rows), 0.9, np.float32),
    )


def moved(tile, index, columns):
    """The same tissue at another tile of the grid (not the first row or column)."""
    row, column = divmod(index, columns)
    dy, dx = row * CORE, column * CORE
    return replace(
        tile,
        tile_index=index,
        core=tile.core.translate(dy, dx),
        box=tile.box.translate(dy, dx),
        centroids=np.add(tile.centroids, (dy, dx)),
        boxes=np.add(tile.boxes, (dy, dx, dy, dx)),
    )


def spiral(columns, n):
    """Tile indices from the middle of the grid outward."""
    last = SIDE // CORE
    rows, cols = np.mgrid[1 : last - 1, 1 : last - 1]
    distance = (rows - last / 2) ** 2 + (cols - last / 2) ** 2
    order = np.argsort(distance.ravel(), kind="stable")
    return (rows.ravel()[order] * columns + cols.ravel()[order]).tolist()[:n]


def plain_zarr(folder, tile, order, columns):
    """The least one could do: paste labels into zarr arrays, level by level; no table, no rule, no safety."""
    import zarr

    project_levels = zarr.open_group(folder, mode="r+")
    levels = [project_levels[str(level)] for level in range(9)]
    for index in order:
        nuclei = moved(tile, index, columns)
        ids = np.where(nuclei.labels > 0, nuclei.labels + (index << 14), 0).astype(np.uint32)
        region = nuclei.box
        levels[0][region.slices] = np.where(ids, ids, levels[0][region.slices])
        for below, above in pairwise(levels):
            region = Region.from_bounds(region.y // 2, region.x // 2, -(-region.y1 // 2), -(-region.x1 // 2))
            under = below[2 * region.y : 2 * region.y1, 2 * region.x : 2 * region.x1]
            above[region.slices] = under[::2, ::2]


def writing(folder, slide, tiles):
    """Write tiles from the middle outward, ours and the least one could do."""
    tile = periodic_tile()
    columns = -(-SIDE // CORE)
    order = spiral(columns, tiles)
    megapixels = len(order) * CORE * CORE / 1e6
    project = Project.create(folder, slide)

    def ours():
        for index in order:
            project.write_tile(moved(tile, index, columns), "m@1", "t0.5")
        project.flush()

    Project.create(folder.with_name("plain"), slide).close()
    plain = spent(lambda: plain_zarr(folder.with_name("plain") / "labels.zarr", tile, order, columns))
    took = spent(ours)
    size = sum(path.stat().st_size for path in (folder / "labels.zarr").rglob("*") if path.is_file())
    files = sum(path.is_file() for path in (folder / "labels.zarr").rglob("*"))
    table(
        ("writing", "cpu ms/MP", "cpu/wall"),
        [
            (f"{tiles} tiles of {len(tile)} nuclei", f"{took.cpu / megapixels * 1e3:.1f}", f"{took.share:.2f}"),
            ("the same pasted with zarr alone", f"{plain.cpu / megapixels * 1e3:.1f}", f"{plain.share:.2f}"),
        ],
    )
    verdict("project / zarr alone", took.cpu / plain.cpu, 1.0)
    verdict("labels on disk, B/px", size / megapixels / 1e6, 0.3, form="{:.3f}", goal="S4")
    note(f"{files / megapixels:.1f} files per megapixel of tissue in {tiles} tiles")
    side = project.labels.files_px
    every = sum(-(-height // side) * -(-width // side) for height, width in project.labels.shapes)
    verdict("files of a slide that is all tissue, from shapes and files", every, 10_000, form="{:,.0f}", goal="S4")
    verdict("a tile's core beyond whole chunks, px", CORE % CHUNK_PX, 0, form="{:.0f}", goal="S4")
    view = (slice(SIDE // 2 - 500, SIDE // 2 + 500), slice(SIDE // 2 - 800, SIDE // 2 + 800))
    project.labels.chunks.forget()
    cold = spent(lambda: project.labels.levels[0][view]).cpu
    warm = min(spent(lambda: project.labels.levels[0][view]).cpu for _ in range(5))
    note(f"a 1,000 x 1,600 view: {cold * 1e3:.1f} cpu-ms from disk, {warm * 1e3:.1f} kept")
    project.close()


def million(folder, slide):
    """Count and list among a million nuclei, and open their project."""
    rng = np.random.default_rng(0)
    project = Project.create(folder, slide)

    def insert():
        with project.ledger.transaction() as database:
            run = run_number(database, "m@1", "t0.5")
            for index in range(1000):
                row, column = divmod(index, 32)
                centroids = np.add(rng.uniform(0, CORE, (1000, 2)), (row * CORE + 5000, column * CORE + 5000))
                nuclei = TileNuclei(
                    tile_index=index,
                    core=Region(0, 0, 1, 1),
                    box=Region(0, 0, 1, 1),
                    labels=np.zeros((1, 1), np.int32),
                    centroids=centroids,
                    areas_um2=np.full(1000, 30, np.float32),
                    boxes=np.concatenate([centroids - 12, centroids + 12], axis=1).astype(np.int64),
                    scores=np.full(1000, 0.9, np.float32),
                )
                put_nuclei(database, nuclei, global_ids(index, 1000), run, project.census.cells(centroids))

    note(f"1,000,000 nuclei into the table: {spent(insert).cpu:.1f} us each")
    project.census.recount_all()
    views = {
        "a 1,000 x 1,600 view": Region(30_000, 30_000, 1000, 1600),
        "a third of the slide": Region(20_011, 20_017, 30_000, 40_000),
        "the slide": project.labels.whole,
    }
    rows = []
    for name, region in views.items():
        count = min(spent(lambda region=region: project.count_in(region)).cpu for _ in range(5))
        points = spent(lambda region=region: project.centroids_in(region)).cpu
        listed = spent(lambda region=region: project.nuclei_in(region)).cpu
        cells = (f"{count * 1e3:.2f}", f"{points * 1e3:.1f}", f"{listed * 1e3:.1f}")
        rows.append((name, f"{project.count_in(region):,}", *cells))
    table(("among 1,000,000", "nuclei", "count, cpu ms", "centroids, cpu ms", "table, cpu ms"), rows)
    verdict("slowest count, ms", max(float(row[2]) for row in rows), 5.0)
    project.close()
    verdict("open and close, s", spent(lambda: Project.open(folder, slide).close()).wall, 2.0)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiles", type=int, default=64)
    parser.add_argument("--folder", type=Path, help="where to write; default the temporary folder")
    wanted = parser.parse_args()
    one_thread()
    slide = Slide("bench", (NoPixels(),), (YX(1, 1),), YX(0.25, 0.25), fingerprint="bench")
    with tempfile.TemporaryDirectory(dir=wanted.folder) as folder:
        Project.create(Path(folder) / "warm", slide).close()
        empty = spent(lambda: Project.create(Path(folder) / "empty", slide).close())
        verdict("an empty project of 100,000 x 100,000 px, ms", empty.cpu * 1e3, 100, form="{:.0f}")
        writing(Path(folder) / "written", slide, wanted.tiles)
        million(Path(folder) / "million", slide)


if __name__ == "__main__":
    record(main)

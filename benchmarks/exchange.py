"""Nuclei out and in: GeoJSON against the plain way, other formats beside it, and the memory of a whole slide.

Run ``python benchmarks/exchange.py [--tiles 24] [--million]``. The tissue repeats every tile; nuclei are smooth, some
touch. The plain way: a contour of each nucleus by OpenCV, written with json.dump; and back by json.load and
fillPoly.
"""

import argparse
import json
import tempfile
import threading
from pathlib import Path

import cv2
import numpy as np

from measuring import note, one_thread, peak_mib, record, spent, table, verdict
from napari_nucleiseg.core.errors import MissingDependencyError
from napari_nucleiseg.core.exchange.formats import FORMATS, export
from napari_nucleiseg.core.exchange.geojson import write_geojson
from napari_nucleiseg.core.exchange.imports import import_nuclei
from napari_nucleiseg.core.exchange.source import iterate_blocks, source_of_project
from napari_nucleiseg.core.geometry import YX, Region
from napari_nucleiseg.core.slides.pyramid import Slide
from napari_nucleiseg.core.store.nuclei import TileNuclei
from napari_nucleiseg.core.store.project import Project
from store import CORE, SIDE, NoPixels, moved, spiral

OUT_GOAL, IN_GOAL = 50_000, 25_000


def smooth_tile(density_mm2, seed=0):
    """A tile of smooth nuclei wholly inside; none covers another."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((CORE, CORE), np.int32)
    boxes, centres = [], []
    for _ in range(int(density_mm2 * (CORE * 0.25e-3) ** 2)):
        y, x = rng.uniform(22, CORE - 22, 2)
        radius, stretch, turn, wave = (
            rng.uniform(8, 14),
            rng.uniform(0.8, 1.25),
            rng.uniform(0, np.pi),
            rng.uniform(0, 0.1),
        )
        iy, ix = int(y), int(x)
        yy, xx = np.mgrid[iy - 22 : iy + 22, ix - 22 : ix + 22]
        dy, dx = yy - y, xx - x
        along, across = dy * np.cos(turn) + dx * np.sin(turn), dx * np.cos(turn) - dy * np.sin(turn)
        angle = np.arctan2(across, along)
        part = labels[iy - 22 : iy + 22, ix - 22 : ix + 22]
        inside = np.hypot(along * stretch, across / stretch) < radius * (1 + wave * np.cos(3 * angle))
        mask = inside & (part == 0)
        if 2 * mask.sum() < inside.sum():
            continue
        part[mask] = len(boxes) + 1
        ys, xs = np.nonzero(mask)
        boxes.append((iy - 22 + ys.min(), ix - 22 + xs.min(), iy - 21 + ys.max(), ix - 21 + xs.max()))
        centres.append((y, x))
    n = len(boxes)
    areas = np.bincount(labels.ravel(), minlength=n + 1)[1:] / 16
    return TileNuclei(
        tile_index=0,
        core=Region(0, 0, CORE, CORE),
        box=Region(0, 0, CORE, CORE),
        labels=labels,
        centroids=np.array(centres),
        areas_um2=areas.astype(np.float32),
        boxes=np.array(boxes, np.int64),
        scores=np.full(n, 0.9, np.float32),
    )


def filled_project(folder, slide, tile, tiles):
    """A project of many of these tiles."""
    project = Project.create(folder, slide)
    columns = -(-SIDE // CORE)
    for index in spiral(columns, tiles):
        project.write_tile(moved(tile, index, columns), "m@1", "t0.5")
    project.flush()
    return project


def plain_out(source, path):
    """A contour of each nucleus in its box, all features in one list, one json.dump."""
    features = []
    for block in iterate_blocks(source):
        corner = np.array([block.region.y, block.region.x] * 2)
        for row, (y0, x0, y1, x1) in enumerate((block.boxes - corner).tolist()):
            mask = (block.labels[y0:y1, x0:x1] == block.table.ids[row]).astype(np.uint8)
            found, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
            rings = [(ring[:, 0] + (x0 + corner[1], y0 + corner[0])).tolist() for ring in found]
            features.append(
                {
                    "type": "Feature",
                    "geometry": {"type": "Polygon", "coordinates": rings},
                    "properties": {"objectType": "detection", "measurements": {"Label": int(block.table.ids[row])}},
                }
            )
    with path.open("w") as file:
        json.dump({"type": "FeatureCollection", "features": features}, file)


def plain_in(path, project):
    """All features at once, each filled by OpenCV into the tile that it begins in, the tiles painted."""
    with path.open() as file:
        features = json.load(file)["features"]
    tiles = {}
    for feature in features:
        ring = np.array(feature["geometry"]["coordinates"][0], np.int32)
        tiles.setdefault(tuple(ring.min(0) // CORE), []).append(ring)
    step = None
    for (column, row), rings in tiles.items():
        region = Region(row * CORE, column * CORE, CORE, CORE)
        image = np.zeros((CORE, CORE), np.int32)
        ids = [project.editor.new_id() for _ in rings]
        for index, ring in enumerate(rings):
            cv2.fillPoly(image, [ring - (region.x, region.y)], index + 1)
        names = np.array([0, *ids], np.uint32)
        changed = project.editor.paint(region, names[image], step=step)
        step = changed.step if changed else step


class Peak:
    """The most memory that this process holds while something runs, above what it held before, MiB."""

    def __enter__(self):
        self._stop = threading.Event()
        self._before = self.mib = self._now()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()
        self.mib -= self._before

    @staticmethod
    def _now():
        import psutil

        return psutil.Process().memory_info().rss / (1 << 20)

    def _watch(self):
        while not self._stop.wait(0.02):
            self.mib = max(self.mib, self._now())


def there_and_back(folder, slide, density_mm2, tiles):
    """GeoJSON out and in, ours and the plain way."""
    project = filled_project(folder / "full", slide, smooth_tile(density_mm2), tiles)
    source = source_of_project(project)
    n = project.census.total()
    path, plain = folder / "a.geojson", folder / "plain.geojson"
    empty = Project.create(folder / "empty", slide)
    other = Project.create(folder / "other", slide)
    rows, figures = [], {}
    for name, ours, theirs in (
        ("out", lambda: write_geojson(source, path), lambda: plain_out(source, plain)),
        ("in", lambda: import_nuclei(empty, path), lambda: plain_in(plain, other)),
    ):
        with Peak() as peak:
            took = spent(ours)
        with Peak() as plain_peak:
            slow = spent(theirs)
        figures[name] = took.cpu
        for way, spent_here, held in (("ours", took, peak), ("plain", slow, plain_peak)):
            rows.append(
                (
                    f"{name}, {way}",
                    f"{spent_here.cpu / n * 1e6:.1f}",
                    f"{n / spent_here.cpu:,.0f}",
                    f"{held.mib:.0f}",
                    f"{spent_here.share:.2f}",
                )
            )
        rows.append((f"{name}, plain / ours", f"{slow.cpu / took.cpu:.2f}", "", "", ""))
    table((f"GeoJSON, {n:,} nuclei, {density_mm2:,} per mm2", "cpu us each", "a second", "MiB more", "cpu/wall"), rows)
    same = all(
        np.array_equal(project.labels.read(region), empty.labels.read(region)) for region in bands(project.shape)
    )
    note(f"pixels and ids the same after the way out and in: {'yes' if same else 'NO'}")
    note(f"{path.stat().st_size / n:.0f} bytes of GeoJSON a nucleus")
    verdict("GeoJSON out, nuclei a second", n / figures["out"], OUT_GOAL, at_most=False, form="{:,.0f}")
    verdict("GeoJSON in, nuclei a second", n / figures["in"], IN_GOAL, at_most=False, form="{:,.0f}")
    print()
    for each in (empty, other):
        each.close()
    return project


def bands(shape):
    """The slide in bands of rows."""
    return [Region(y, 0, min(1024, shape[0] - y), shape[1]) for y in range(0, shape[0], 1024)]


def other_formats(folder, slide, project):
    """Every format once, and back where there is a way back."""
    source = source_of_project(project)
    n = project.census.total()
    rows = []
    for name, form in FORMATS.items():
        path = folder / f"b{form.ending}"
        try:
            took = spent(lambda name=name, path=path: export(source, path, name))
        except MissingDependencyError as error:
            note(f"{name} left out: {error}")
            continue
        back = ""
        if name != "spatialdata" and form.ending.endswith((".zarr", ".tif", ".geojson")):
            with Project.create(folder / f"from-{name}", slide) as empty:
                back = f"{n / spent(lambda path=path, empty=empty: import_nuclei(empty, path)).cpu:,.0f}"
        size = path.stat().st_size if path.is_file() else sum(f.stat().st_size for f in path.rglob("*") if f.is_file())
        rows.append((name, f"{n / took.cpu:,.0f}", back, f"{size / n:.0f}"))
    table((f"{n:,} nuclei on {SIDE:,} x {SIDE:,} px", "out, a second", "in, a second", "bytes each"), rows)


def million(folder, slide, density_mm2):
    """A million nuclei there and back, and the memory it takes."""
    tile = smooth_tile(density_mm2)
    project = filled_project(folder / "million", slide, tile, -(-1_000_000 // len(tile)))
    n = project.census.total()
    path = folder / "million.geojson"
    with Peak() as out:
        wrote = spent(lambda: write_geojson(source_of_project(project), path))
    project.close()
    with Project.create(folder / "back", slide) as empty, Peak() as back:
        read = spent(lambda: import_nuclei(empty, path))
    rows = [
        (name, f"{n / took.cpu:,.0f}", f"{took.wall:.0f}", f"{peak.mib:.0f}", f"{took.share:.2f}")
        for name, took, peak in (("out", wrote, out), ("in", read, back))
    ]
    title = f"{n:,} nuclei, {path.stat().st_size / 1e9:.2f} GB of GeoJSON"
    table((title, "a cpu second", "wall s", "MiB more", "cpu/wall"), rows)
    print(f"most memory of the process: {peak_mib():.0f} MiB")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiles", type=int, default=24)
    parser.add_argument("--density", type=int, default=6000, help="nuclei per mm2 that are tried; some do not fit")
    parser.add_argument("--million", action="store_true", help="only a million nuclei, there and back")
    parser.add_argument("--folder", type=Path, help="where to write; default the temporary folder")
    wanted = parser.parse_args()
    one_thread()
    slide = Slide("bench", (NoPixels(),), (YX(1, 1),), YX(0.25, 0.25), fingerprint="bench")
    with tempfile.TemporaryDirectory(dir=wanted.folder) as folder:
        if wanted.million:
            million(Path(folder), slide, wanted.density)
            return
        with there_and_back(Path(folder), slide, wanted.density, wanted.tiles) as project:
            other_formats(Path(folder), slide, project)


if __name__ == "__main__":
    record(main)

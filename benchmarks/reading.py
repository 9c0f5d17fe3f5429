"""Reading speed of JPEG slides against openslide-python and tifffile + zarr: ratios of CPU time, one thread.

Run ``python benchmarks/reading.py``; it makes its own slide of real tissue in a temporary folder.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from pathlib import Path

import cv2
import imagecodecs
import numpy as np
import openslide
import skimage.data
import tifffile
import zarr

from napari_nucleiseg.core.slides import openslide as through_openslide
from napari_nucleiseg.core.slides import tiled
from napari_nucleiseg.core.slides.registry import open_slide

TILE = 256
SIDE = 8192
QUALITY = 80
DESCRIPTION = (
    f"Aperio Image Library v11.2.1 \r\n{SIDE}x{SIDE} ({TILE}x{TILE}) JPEG/RGB Q={QUALITY}|AppMag = 40|MPP = 0.25"
)
GOALS = {"aligned 512": 4.0, "unaligned 256": 3.0}

Read = Callable[[int, int, int], np.ndarray]


def write_slide(path: Path) -> None:
    """Write an Aperio-like slide whose tiles are real tissue, each encoded once and used many times."""
    tissue = np.pad(skimage.data.immunohistochemistry(), ((0, 512), (0, 512), (0, 0)), mode="symmetric")
    blocks = [tissue[y : y + TILE, x : x + TILE] for y in range(0, 1024, TILE) for x in range(0, 1024, TILE)]
    encoded = [
        imagecodecs.jpeg8_encode(np.ascontiguousarray(block), level=QUALITY, subsampling="420") for block in blocks
    ]
    tiles = islice(cycle(encoded), (SIDE // TILE) ** 2)
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(
            tiles,
            shape=(SIDE, SIDE, 3),
            dtype=np.uint8,
            tile=(TILE, TILE),
            compression="jpeg",
            photometric="ycbcr",
            subsampling=(2, 2),
            description=DESCRIPTION,
            metadata=None,
        )
        tiff.write(tissue[:512, :512], photometric="rgb", rowsperstrip=512, description=DESCRIPTION, metadata=None)
        # Steps of four, as Aperio writes them.
        coarse = np.tile(cv2.resize(tissue, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA), (8, 8, 1))
        tiff.write(coarse, tile=(TILE, TILE), compression="jpeg", photometric="rgb", metadata=None)


def readers(path: Path) -> dict[str, tuple[Read, Callable[[], None]]]:
    """Return each reader as ``(y, x, side) -> RGB`` and what makes it forget what it read."""
    ours = open_slide(path).levels[0]
    fallback = through_openslide.read(str(path)).levels[0]
    theirs = openslide.OpenSlide(path)
    store = zarr.open(tifffile.imread(path, aszarr=True, level=0), mode="r")

    def read_openslide(y: int, x: int, side: int) -> np.ndarray:
        return np.asarray(theirs.read_region((x, y), 0, (side, side)).convert("RGB"))

    def renew() -> None:
        # OpenSlide keeps 32 MB of tiles; a new cache forgets them.
        theirs.set_cache(openslide.OpenSlideCache(32 << 20))

    def slicing(array: object) -> Read:
        return lambda y, x, side: np.asarray(array[y : y + side, x : x + side])  # type: ignore[index]

    return {
        "openslide-python": (read_openslide, renew),
        "tifffile + zarr": (slicing(store), lambda: None),
        "ours": (slicing(ours), ours.forget),
        "ours, through OpenSlide": (slicing(fallback), fallback.forget),
    }


def places(side: int, offset: int, rows: int) -> list[tuple[int, int]]:
    """Return corners of regions row by row, as an engine reads them."""
    count = (SIDE - offset) // side
    return [(offset + row * side, offset + col * side) for row in range(rows) for col in range(count)]


def measure(name: str, side: int, offset: int, options: argparse.Namespace, path: Path) -> dict[str, object]:
    """Read the same regions with every reader in turn; keep each reader's best round."""
    table = readers(path)
    corners = places(side, offset, options.rows * 512 // side)
    megapixels = len(corners) * side * side / 1e6
    reference = {reader: read(*corners[1], side) for reader, (read, _) in table.items()}
    best = dict.fromkeys(table, (np.inf, 0.0))
    for _ in range(options.rounds):
        for reader, (read, forget) in table.items():
            forget()
            cpu, wall = time.process_time(), time.perf_counter()
            for corner in corners:
                read(*corner, side)
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
            best[reader] = min(best[reader], (cpu, cpu / wall))
    base = best["openslide-python"][0]
    print(f"\n{name} px JPEG, {len(corners)} regions, best of {options.rounds} interleaved rounds")
    print(f"{'reader':26s}{'MP per CPU s':>14s}{'x openslide':>13s}{'cpu/wall':>10s}{'largest difference':>20s}")
    rows = {}
    for reader, (cpu, load) in best.items():
        apart = int(np.abs(reference[reader].astype(int) - reference["openslide-python"]).max())
        print(f"{reader:26s}{megapixels / cpu:14.1f}{base / cpu:13.2f}{load:10.2f}{apart:20d}")
        rows[reader] = {
            "mp_per_cpu_s": megapixels / cpu,
            "ratio": base / cpu,
            "cpu_per_wall": load,
            "difference": apart,
        }
    reached = base / best["ours"][0]
    print(f"goal {GOALS[name]:g}x: {'reached' if reached >= GOALS[name] else 'MISSED'} ({reached:.2f}x)")
    return rows


def measure_threads(options: argparse.Namespace, path: Path) -> float:
    """Return how much faster two threads read than one, by the wall clock."""
    level = open_slide(path).levels[0]
    corners = places(512, 0, options.rows)
    walls = {1: np.inf, 2: np.inf}
    for _ in range(options.rounds):
        for count in (1, 2):
            level.forget()
            with ThreadPoolExecutor(count) as pool:
                start = time.perf_counter()
                list(pool.map(lambda corner: level[corner[0] : corner[0] + 512, corner[1] : corner[1] + 512], corners))
                walls[count] = min(walls[count], time.perf_counter() - start)
    return walls[1] / walls[2]


def measure_zoom(path: Path) -> dict[str, dict[str, float]]:
    """Time what napari reads at the worst zoom of a pyramid with steps of four, with and without virtual levels.

    It takes the coarsest level of which the canvas (1000 x 1600 px) would show no less than a pixel a pixel:
    almost four times the canvas on each axis from the file's own levels, almost twice from virtual ones.
    The view then moves 15 times by 100 px of the canvas.
    """
    results = {}
    print(
        f"\n{'slice at the worst zoom, wall ms':36s}{'MP':>6s}{'first (CPU)':>18s}{'pan: median':>13s}{'largest':>9s}"
    )
    for name, index, factor in (("the file's own levels", 0, 4), ("with virtual levels", 1, 2)):
        level = open_slide(path).levels[index]
        height, width = 1000 * factor, 1600 * factor
        side = level.chunks[0]
        times, first_cpu = [], 0.0
        for step in range(16):
            x = 100 * factor * step // side * side  # napari widens what it reads to whole tiles
            start, cpu = time.perf_counter(), time.process_time()
            np.asarray(level[0 : -(-height // side) * side, x : x + (-(-width // side) + 1) * side])
            times.append((time.perf_counter() - start) * 1e3)
            first_cpu = first_cpu or (time.process_time() - cpu) * 1e3
        first, median, largest = times[0], float(np.median(times[1:])), max(times[1:])
        print(f"{name:36s}{height * width / 1e6:6.1f}{first:10.1f} ({first_cpu:.0f}){median:13.1f}{largest:9.1f}")
        results[name] = {
            "first_ms": first,
            "first_cpu_ms": first_cpu,
            "pan_median_ms": median,
            "pan_largest_ms": largest,
        }
    return results


def main() -> None:
    """Print the tables; ``--json`` keeps them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=4, help="rows of 512 px regions to read")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    threads, tiled.POOL_THREADS = tiled.POOL_THREADS, 1
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "slide.svs"
        write_slide(path)
        results: dict[str, object] = {
            "aligned 512": measure("aligned 512", 512, 0, options, path),
            "unaligned 256": measure("unaligned 256", 256, 100, options, path),
        }
        results["two threads"] = measure_threads(options, path)
        tiled.POOL_THREADS = threads
        results["worst zoom"] = measure_zoom(path)
        print(f"\ntwo threads against one, wall clock: {results['two threads']:.2f}x (means nothing on a busy machine)")
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()

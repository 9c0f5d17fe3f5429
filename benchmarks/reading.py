"""Reading speed of JPEG slides against openslide-python, tifffile + zarr, tiffslide, pyvips and cuCIM on the CPU.

Run ``python benchmarks/reading.py [--environments .benchmarks/peers]``; it makes its own slide of real tissue in a
temporary folder. Ratios of CPU time, one thread, in turn. The last three wait in processes of their own, where their
environment is: ``python benchmarks/environments.py readers`` makes it.
"""

import argparse
import os
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

from environments import FOLDER
from measuring import in_turn, note, record, table, unmeasured, verdict
from napari_nucleiseg.core.slides import openslide as through_openslide
from napari_nucleiseg.core.slides import tiled
from napari_nucleiseg.core.slides.registry import open_slide
from other_readers import OtherReader, ReaderLostError, others

TILE = 256
SIDE = 8192
QUALITY = 80
DESCRIPTION = (
    f"Aperio Image Library v11.2.1 \r\n{SIDE}x{SIDE} ({TILE}x{TILE}) JPEG/RGB Q={QUALITY}|AppMag = 40|MPP = 0.25"
)
REGIONS = {"aligned 512": (512, 0), "unaligned 256": (256, 100)}  # side and offset, px
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


def measure(name: str, options: argparse.Namespace, path: Path, beside: dict[str, OtherReader]) -> None:
    """Read the same regions with every reader in turn, those `beside` us in their own processes."""
    side, offset = REGIONS[name]
    found = readers(path)
    corners = places(side, offset, options.rows * 512 // side)
    megapixels = len(corners) * side * side / 1e6
    reference = {reader: read(*corners[1], side) for reader, (read, _) in found.items()}
    reference |= {reader: other.pixels(*corners[1], side) for reader, other in beside.items()}

    def reading(read: Read, forget: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            forget()
            for corner in corners:
                read(*corner, side)

        return run

    candidates: dict[str, Callable[[], object]] = {reader: reading(*one) for reader, one in found.items()}
    candidates |= {reader: lambda other=other: other.timed(corners, side) for reader, other in beside.items()}
    spent = in_turn(candidates, options.rounds)
    base = spent["openslide-python"].cpu
    apart = {
        reader: int(np.abs(pixels.astype(int) - reference["openslide-python"]).max())
        for reader, pixels in reference.items()
    }
    table(
        ("reader", "MP per CPU s", "x openslide", "spread", "cpu/wall", "largest difference"),
        [
            (reader, f"{megapixels / one.cpu:.1f}", f"{base / one.cpu:.2f}", f"{one.spread:.0%}", f"{one.share:.2f}",
             apart[reader])
            for reader, one in spent.items()
        ],
        title=f"{name} px JPEG, {len(corners)} regions, {options.rounds} rounds in turn",
    )  # fmt: skip
    verdict(f"{name}, times openslide-python", base / spent["ours"].cpu, GOALS[name], at_most=False, goal="G3")
    through = base / spent["ours, through OpenSlide"].cpu
    verdict(f"{name} through OpenSlide, times openslide-python", through, 0.95, at_most=False, goal="G3")
    verdict(f"{name}, largest difference of a pixel", apart["ours"], 0, form="{:.0f}", goal="G3")
    if "cuCIM" in spent:
        times = spent["cuCIM"].cpu / spent["ours"].cpu
        verdict(f"{name}, times cuCIM on the CPU", times, 0.9, at_most=False, goal="G3")
    print()


def measure_all(options: argparse.Namespace, path: Path) -> None:
    """Measure aligned and unaligned reading beside the readers that are there, and say which are not."""
    beside, missing = others(path, options.environments)
    if missing:
        note(f"Not beside us: {'; '.join(f'{title} ({why})' for title, why in missing.items())}.")
    try:
        for name in REGIONS:
            try:
                measure(name, options, path, beside)
            except ReaderLostError as error:
                missing |= dict.fromkeys(beside, str(error))
                beside = _ended(beside)
                measure(name, options, path, beside)
            if "cuCIM" in missing:
                unmeasured("G3", f"{name}, times cuCIM on the CPU", missing["cuCIM"])
    finally:
        _ended(beside)


def _ended(beside: dict[str, OtherReader]) -> dict[str, OtherReader]:
    """End the processes of readers; return that there are none."""
    for other in beside.values():
        other.close()
    return {}


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


def measure_zoom(path: Path, rounds: int, title: str) -> tuple[float, float]:
    """Time what napari reads at the worst zoom of a pyramid with steps of four, with and without virtual levels.

    Returns CPU and wall milliseconds of the first slice of virtual levels, with nothing read before: the median of the
    rounds, in turn.

    It takes the coarsest level of which the canvas (1000 x 1600 px) would show no less than a pixel a pixel:
    almost four times the canvas on each axis from the file's own levels, almost twice from virtual ones.
    The view then moves 15 times by 100 px of the canvas.
    """
    # Opened once each: the one must not find what the other read in the cache.
    looks = {
        "the file's own levels": (open_slide(path).levels[0], 4),
        "with virtual levels": (open_slide(path).levels[1], 2),
    }
    walls: dict[str, list[list[float]]] = {name: [] for name in looks}
    spent: dict[str, list[float]] = {name: [] for name in looks}
    for _ in range(rounds):
        for name, (level, factor) in looks.items():
            level.forget()
            side = level.chunks[0]  # napari widens what it reads to whole tiles
            bottom, across = -(-1000 * factor // side) * side, (-(-1600 * factor // side) + 1) * side
            walls[name].append([])
            for step in range(16):
                x = 100 * factor * step // side * side
                start, cpu = time.perf_counter(), time.process_time()
                np.asarray(level[:bottom, x : x + across])
                walls[name][-1].append((time.perf_counter() - start) * 1e3)
                if step == 0:
                    spent[name].append((time.process_time() - cpu) * 1e3)
    rows = []
    for name, (_, factor) in looks.items():
        first, pans = np.median([one[0] for one in walls[name]]), [one[1:] for one in walls[name]]
        cpu = np.median(spent[name])
        rows.append((name, f"{1.6 * factor**2:.1f}", f"{first:.1f}", f"{cpu:.0f}", f"{np.median(pans):.1f}",
                     f"{np.median(np.max(pans, axis=1)):.1f}"))  # fmt: skip
    table(("slice at the worst zoom, wall ms", "MP", "first", "its CPU", "pan: median", "largest"), rows, title=title)
    return float(cpu), float(first)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=4, help="rows of 512 px regions to read")
    parser.add_argument("--environments", type=Path, default=FOLDER)
    options = parser.parse_args()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    threads, tiled.POOL_THREADS = tiled.POOL_THREADS, 1
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "slide.svs"
        write_slide(path)
        measure_all(options, path)
        two = measure_threads(options, path)
        zoom_cpu, _ = measure_zoom(path, options.rounds, "one thread")
        tiled.POOL_THREADS = threads
        _, zoom_wall = measure_zoom(path, options.rounds, f"{threads} threads, as in the window")
    if load > (os.cpu_count() or 1) - 0.7:
        unmeasured("G3", "two threads against one, by the clock", "there was no second core free")
    else:
        verdict("two threads against one, by the clock", two, 1.6, at_most=False, goal="G3")
    verdict("worst zoom with virtual levels, CPU ms of one thread", zoom_cpu, 100, form="{:.0f}", goal="G9")
    verdict("worst zoom with virtual levels, ms by the clock", zoom_wall, 100, form="{:.0f}", goal="G9")


if __name__ == "__main__":
    record(main)

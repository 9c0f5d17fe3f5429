"""What engines for whole slides cost beside the network: ours, TIAToolbox's, InstanSeg's, Cellpose's and MONAI's.

    python benchmarks/peers.py [--environments .benchmarks/peers] [--sides 4096 8192] [--rounds 3] [--patience 60]

All get the same slide (real tissue where the development data are at hand) and the same stand-in for a network: dark
pixels are nuclei. Each runs in a process of its own, on one core with one thread, in turn; the CPU time spent inside
the stand-in is taken off. Each peer's environment is made on the first run, from the versions pinned in `peers/`.
MONAI's windows slide over an array: the slide is read for it, uncounted, and nothing is written, so that no goal is
held against it. Cellpose takes a zarr of one channel: reading the slide, grey and that zarr are made before its clock
starts ("before it"), which is to its advantage; the table tells both with and without.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import cv2
import imagecodecs
import numpy as np
import tifffile

from environments import ENGINES, FOLDER, NotInstalledError, made
from measuring import MIN_SHARE, note, record, spent, table, unmeasured, verdict
from napari_nucleiseg.core.slides.registry import open_slide
from napari_nucleiseg.core.slides.synthetic import synthetic_slide

HERE = Path(__file__).parent
# What the engines are given lies beside them, since they run it as well.
sys.path.insert(0, str(HERE / "peers"))

from stand_in import darkness  # noqa: E402

DATA = Path(os.environ.get("NUCLEISEG_DATA", HERE.parents[1] / "shared" / "data"))
TISSUE = DATA / "wsi" / "cmu-1-small-region.svs"
MPP_UM = 0.5
FILE_TILE = 256
PICTURE = 1024  # side of the picture that repeats, mirrored
DARK_SHARE = 0.1  # of the tissue's pixels are called nuclei


@dataclass(frozen=True)
class Engine:
    """One way to segment a slide.

    Parameters
    ----------
    title : str
        For people.
    script : str
        In `peers/`.
    packages : str
        Name of its environment and of its list of packages in `peers/`; empty for our own environment.
    tile_px : int
        Side of its tiles.
    judged : bool
        Whether the goal is held against it: it is run as it comes.
    gives : str
        What is there at the end.
    """

    title: str
    script: str
    packages: str
    tile_px: int
    judged: bool
    gives: str


OURS = Engine("napari-nucleiseg", "ours.py", "", 1024, True, "labels, table of nuclei; can be resumed")
MAP, LABELS = "map of 2 classes, no nuclei", "labels"
IN_MEMORY = "probabilities of 2 classes in memory; nothing read or written"
PEERS = (
    Engine("TIAToolbox, tiles of 512", "tiatoolbox_engine.py", "tiatoolbox", 512, True, MAP),
    Engine("TIAToolbox, tiles of 1024", "tiatoolbox_engine.py", "tiatoolbox", 1024, False, MAP),
    Engine("InstanSeg, tiles of 512", "instanseg_engine.py", "instanseg", 512, True, LABELS),
    Engine("InstanSeg, tiles of 1024", "instanseg_engine.py", "instanseg", 1024, False, LABELS),
    Engine("Cellpose distributed, blocks of 1024", "cellpose_engine.py", "cellpose", 1024, True, "labels, boxes"),
    Engine("MONAI SlidingWindowInferer, windows of 1024", "monai_engine.py", "monai", 1024, False, IN_MEMORY),
)
# Times ours must be cheaper.
GOALS = {"tiatoolbox": 6, "instanseg": 12, "cellpose": 6}
MAX_MS_PER_MP = 30


class EngineFailedError(Exception):
    """An engine ended with an error; the message has its last lines."""


# --------------------------------------------------------------------------- the slide


def tissue():
    """A square picture with as little glass as there is, and where it is from."""
    if not TISSUE.exists():
        slide = synthetic_slide(PICTURE, PICTURE, MPP_UM, glass=False)
        return np.asarray(slide.levels[0][:PICTURE, :PICTURE]), "synthetic tissue"
    slide = open_slide(TISSUE)
    level = slide.levels[0]
    pixels = np.asarray(level[: level.shape[0], : level.shape[1]])
    slide.close()
    glass = (pixels.min(-1) > 215).astype(np.float32)
    # Mean over the square that starts at each pixel.
    share = cv2.boxFilter(glass, -1, (PICTURE, PICTURE), anchor=(0, 0))
    share = share[: pixels.shape[0] - PICTURE + 1, : pixels.shape[1] - PICTURE + 1]
    y, x = np.unravel_index(share.argmin(), share.shape)
    return np.ascontiguousarray(pixels[y : y + PICTURE, x : x + PICTURE]), TISSUE.name


def write_slide(path, side, picture):
    """Write an Aperio-like slide of the picture and its mirror images, every tile in its own place in the file."""
    height, width = picture.shape[:2]
    mirrored = np.pad(picture, ((0, height), (0, width), (0, 0)), "symmetric")
    count = mirrored.shape[0] // FILE_TILE
    encoded = [[_jpeg(mirrored, y, x) for x in range(count)] for y in range(count)]
    scan = f"{side}x{side} ({FILE_TILE}x{FILE_TILE}) JPEG/RGB Q=80|AppMag = {10 / MPP_UM:g}|MPP = {MPP_UM}"
    about = f"Aperio Image Library v11.2.1 \r\n{scan}"
    jpeg = {"compression": "jpeg", "photometric": "ycbcr", "subsampling": (2, 2), "metadata": None}
    places = range(side // FILE_TILE)
    with tifffile.TiffWriter(path) as tiff:
        tiles = (encoded[y % count][x % count] for y in places for x in places)
        tiff.write(tiles, shape=(side, side, 3), dtype=np.uint8, tile=(FILE_TILE,) * 2, description=about, **jpeg)
        tiff.write(picture[:512, :512], photometric="rgb", rowsperstrip=512, description=about, metadata=None)
        while side > 1024:
            side //= 4
            mirrored = cv2.resize(mirrored, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
            repeats = -(-side // mirrored.shape[0])
            level = np.tile(mirrored, (repeats, repeats, 1))[:side, :side]
            tiff.write(level, tile=(FILE_TILE,) * 2, compression="jpeg", photometric="rgb", metadata=None)
    return path


def _jpeg(picture, row, column):
    y, x = row * FILE_TILE, column * FILE_TILE
    block = np.ascontiguousarray(picture[y : y + FILE_TILE, x : x + FILE_TILE])
    return imagecodecs.jpeg8_encode(block, level=80, subsampling="420")


def levels_of(picture):
    """How much darker than its surroundings a nucleus is: in bytes, and after InstanSeg's stretching of each colour."""
    low, high = np.percentile(picture, (0.1, 99.9), axis=(0, 1))
    return [
        float(np.quantile(darkness(pixels), 1 - DARK_SHARE)) for pixels in (picture, (picture - low) / (high - low))
    ]


# --------------------------------------------------------------------------- measuring


def measured(engine, python, slides, levels, *, core):
    """Run one engine over one slide in a process of its own; return what it wrote about its costs.

    What it writes stays, beside the slides: file systems are slow to give away again what was just freed, and the next
    engine would pay for that.
    """
    home = Path(tempfile.mkdtemp(dir=slides[0].parent))
    job = {
        "warm_up": str(slides[0]), "slide": str(slides[1]), "folder": str(home), "report": str(home / "report.json"),
        "level": levels[0], "level_normalised": levels[1], "mpp_um": MPP_UM, "tile_px": engine.tile_px,
    }  # fmt: skip
    libraries = ("OMP", "MKL", "OPENBLAS", "NUMEXPR")
    one_thread = {**{f"{library}_NUM_THREADS": "1" for library in libraries}, "BLOSC_NTHREADS": "1"}
    # Some write into the home folder.
    (home / ".config" / "dask").mkdir(parents=True)
    environment = {**os.environ, **one_thread, "HOME": str(home)}
    command = [str(python), str(HERE / "peers" / engine.script), json.dumps(job)]
    pin = (lambda: os.sched_setaffinity(0, {core})) if hasattr(os, "sched_setaffinity") else None
    answer = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, preexec_fn=pin)
    if answer.returncode:
        last = "\n".join(answer.stderr.strip().splitlines()[-12:])
        raise EngineFailedError(f"{engine.title} failed:\n{last}")
    found = json.loads(Path(job["report"]).read_text())
    return {**found, "beside_s": found["cpu_s"] - found["inside_s"]}


def wait_for_core(core, patience_s):
    """Return once nobody else uses the core, or after `patience_s`."""
    end = time.monotonic() + patience_s
    while time.monotonic() < end:
        pinned = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
        if pinned:
            os.sched_setaffinity(0, {core})
        burnt = spent(lambda: sum(range(20_000_000)))
        if pinned:
            os.sched_setaffinity(0, pinned)
        if burnt.share > 0.97:
            return
        time.sleep(2)


def rounds_of(engines, slides, wanted, levels):
    """Run every engine once a round; return the rounds of each, those on a busy core only where there are no others."""
    found = {engine: [] for engine in engines}
    for number in range(wanted.rounds):
        for engine, python in engines.items():
            wait_for_core(wanted.core, wanted.patience)
            try:
                one = measured(engine, python, slides, levels, core=wanted.core)
            except EngineFailedError as error:
                print(error, flush=True)
                continue
            found[engine].append(one)
            print(
                f"round {number + 1}, {engine.title}: {one['cpu_s']:.2f} cpu s ({one['system_s']:.2f} in the system, "
                f"{one['inside_s']:.2f} inside the stand-in), cpu/wall {one['cpu_s'] / one['wall_s']:.2f}, of the "
                f"yardstick {one['share']:.2f}{'' if one['share'] >= MIN_SHARE else ' (busy)'}",
                flush=True,
            )
    print()
    kept = {engine: [one for one in ones if one["share"] >= MIN_SHARE] or ones for engine, ones in found.items()}
    return {engine: ones for engine, ones in kept.items() if ones}


def report(side, kept):
    """Print the table of one size of slide; return our own cost and how many times that each judged peer's is."""
    megapixels = side * side / 1e6
    best = {engine: min(ones, key=lambda one: one["beside_s"]) for engine, ones in kept.items()}
    cost = {engine: one["beside_s"] / megapixels * 1e3 for engine, one in best.items()}
    ours = cost.get(OURS, float("nan"))
    from_slide = {engine: cost[engine] + one["prepared_s"] / megapixels * 1e3 for engine, one in best.items()}
    rows = []
    for engine, one in best.items():
        worst = max(other["beside_s"] for other in kept[engine]) / megapixels * 1e3
        rows.append(
            (
                engine.title,
                f"{cost[engine]:.1f} to {worst:.1f}",
                f"{cost[engine] / ours:.1f}",
                f"{cost[engine] / one['yardstick']:.1f}",
                f"{one['inside_s'] / megapixels * 1e3:.1f}",
                f"{one['prepared_s'] / megapixels * 1e3:.1f}",
                f"{from_slide[engine] / from_slide.get(OURS, float('nan')):.1f}",
                f"{one['cpu_s'] / one['wall_s']:.2f} ({one['share']:.2f})",
                len(kept[engine]),
                f"{one['peak_mib']:,.0f} ({one['peak_mib'] - one['peak_before_mib']:+,.0f})",
                "-" if one["nuclei"] is None else f"{one['nuclei']:,}",
                engine.gives,
            )
        )
    header = (
        "engine", "beside the stand-in, cpu-ms/MP", "times ours", "in yardsticks", "inside the stand-in", "before it",
        "from the slide on, times ours", "cpu/wall (yardstick's)", "rounds", "peak MiB", "nuclei", "what it leaves",
    )  # fmt: skip
    table(header, rows, title=f"{side:,} px, {megapixels:.1f} MP")
    yards = [one["yardstick"] for ones in kept.values() for one in ones]
    note(f"yardstick: {min(yards):.2f} to {max(yards):.2f} cpu-ms/MP over all environments")
    busy = [engine.title for engine, ones in kept.items() if ones[0]["share"] < MIN_SHARE]
    if busy:
        note(f"Somebody else used the core in every round of: {'; '.join(busy)}.")
    return ours, {engine.packages: cost[engine] / ours for engine in cost if engine.packages and engine.judged}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--environments", type=Path, default=FOLDER)
    parser.add_argument("--sides", type=int, nargs="+", default=[4096, 8192])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=ENGINES, default=ENGINES, help="peers to run")
    parser.add_argument("--patience", type=float, default=60, help="seconds to wait before each run for a quiet core")
    parser.add_argument("--core", type=int, default=(os.cpu_count() or 1) - 1, help="which core they run on")
    wanted = parser.parse_args()
    engines, missing = {OURS: sys.executable}, set()
    for engine in PEERS:
        if engine.packages not in wanted.only or engine.packages in missing:
            continue
        try:
            engines[engine] = made(engine.packages, wanted.environments)
        except NotInstalledError as error:
            missing.add(engine.packages)
            unmeasured("G2", f"{engine.packages}, times ours", f"its environment could not be made: {error}")
    folder = Path(tempfile.mkdtemp())
    good = not missing
    try:
        picture, source = tissue()
        levels = levels_of(picture)
        note(f"slides of {source}, {MPP_UM} um/px, JPEG")
        warm_up = write_slide(folder / "warm-up.svs", 2048, picture)
        for side in wanted.sides:
            slide = write_slide(folder / f"{side}.svs", side, picture)
            ours, times = report(side, rounds_of(engines, (warm_up, slide), wanted, levels))
            good &= verdict(
                f"{side} px: ours beside the stand-in, cpu-ms/MP", ours, MAX_MS_PER_MP, form="{:.1f}", goal="G2"
            )
            for name, ratio in times.items():
                goal = GOALS[name]
                title = f"{side} px: {name}, times ours"
                good &= verdict(title, ratio, goal, at_most=False, form="{:.1f}", goal="G2")
            for name in sorted(set(wanted.only) & set(GOALS) - missing - set(times)):
                unmeasured("G2", f"{side} px: {name}, times ours", "every run of it failed")
            good &= set(times) == set(wanted.only) & set(GOALS)
            print()
    finally:
        shutil.rmtree(folder)
    raise SystemExit(not good)


if __name__ == "__main__":
    record(main)

"""What every engine is given in place of a network, and how its run is measured; runs in each one's own environment.

Dark pixels are nuclei. Engines that want a network get the map, engines that want labels get its pieces. The time in
here is taken off, so that what is left is the engine.
"""

import json
import os
import resource
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import torch
from scipy import ndimage

SMOOTH_PX, AROUND_PX = 5, 41
MIN_AREA_PX, MAX_AREA_PX = 40, 1200
inside_seconds = 0.0


@contextmanager
def inside():
    """Count the CPU time of the block, on its thread, as the stand-in's."""
    global inside_seconds  # noqa: PLW0603
    start = time.thread_time()
    yield
    inside_seconds += time.thread_time() - start


def darkness(pixels):
    """How much darker than its surroundings each pixel of (y, x, channels), of any range, is; float32 (y, x)."""
    grey = pixels.mean(-1, dtype=np.float32)
    return cv2.blur(grey, (AROUND_PX, AROUND_PX)) - cv2.blur(grey, (SMOOTH_PX, SMOOTH_PX))


def pieces(mask):
    """Pieces of a mask (y, x) that are no smaller and no larger than nuclei: labels as int32, and the centroid (x, y)
    of each, that of the background first."""
    count, labels, stats, centroids = cv2.connectedComponentsWithStats(mask.view(np.uint8), connectivity=4)
    areas = stats[:, cv2.CC_STAT_AREA]
    kept = (areas >= MIN_AREA_PX) & (areas <= MAX_AREA_PX)
    kept[0] = False
    numbers = np.zeros(count, np.int32)
    numbers[kept] = np.arange(1, kept.sum() + 1)
    kept[0] = True
    return numbers.take(labels), centroids[kept].astype(np.float32)


def yardstick(rounds=5):
    """CPU milliseconds a megapixel, and CPU per wall second, of scipy.ndimage.label on a fixed mask; the best round."""
    noise = ndimage.gaussian_filter(np.random.default_rng(0).standard_normal((2048, 2048), np.float32), 4)
    mask = noise > np.quantile(noise[::8, ::8], 0.85)
    found = []
    for _ in range(rounds):
        wall, cpu = time.perf_counter(), time.process_time()
        ndimage.label(mask)
        found.append((time.process_time() - cpu, time.perf_counter() - wall))
    cpu, wall = min(found)
    return cpu * 1e3 / (mask.size / 1e6), cpu / wall


def _spent():
    """CPU seconds of this process and its children."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def _system():
    """CPU seconds of these that went into the system: memory and files."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_stime


def _peak_mib():
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return peak / (1 << 20) if sys.platform == "darwin" else peak / 1024


def measure(run, prepare=None, count=None):
    """Do what the job in the first argument says and write what it cost.

    `run` takes a slide, or what `prepare` makes of it, an empty folder and the job, and returns the number of nuclei;
    where it does not know, `count` finds them in the folder. Neither is part of the costs. A small slide goes first,
    uncounted, so that nobody pays for what happens once in a process.
    """
    global inside_seconds
    job = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    for name in ("warm_up", "slide"):
        folder = Path(job["folder"], name)
        folder.mkdir()
        os.chdir(folder)
        cpu = _spent()
        slide = job[name] if prepare is None else prepare(job[name], folder)
        prepared = _spent() - cpu
        yard, share_before = yardstick()
        inside_seconds, before = 0.0, _peak_mib()
        wall, cpu, system = time.perf_counter(), _spent(), _system()
        nuclei = run(slide, folder, job)
        cpu, wall = _spent() - cpu, time.perf_counter() - wall
        system = _system() - system
        peak = _peak_mib()
        _, share_after = yardstick()
        if count is not None:
            nuclei = count(folder)
    found = {
        "cpu_s": cpu, "system_s": system, "wall_s": wall, "inside_s": inside_seconds, "prepared_s": prepared,
        "nuclei": nuclei, "yardstick": yard, "share": min(share_before, share_after),
        "peak_mib": peak, "peak_before_mib": before,
    }  # fmt: skip
    Path(job["report"]).write_text(json.dumps(found))

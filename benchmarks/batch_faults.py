"""Kill a run anywhere, again and again: how much is done twice, and is what comes out the same bit for bit?

Run ``python benchmarks/batch_faults.py [--kills 100]``. A slide of tissue is worked through by two processes of this
machine; now the run itself, now a worker is killed with SIGKILL at a random moment, from starting to writing tables.
When a run comes to its end its labels are compared with those of the plain loop, and the next begins from nothing.
Every task says in a file when it begins and ends: tiles that were begun twice are those that had to be done again.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import tifffile

from measuring import note, record, table, verdict

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from napari_nucleiseg.core.batch.job import SegmentJob
from napari_nucleiseg.core.batch.segmentation import segment_slides
from napari_nucleiseg.core.batch.unattended import work
from napari_nucleiseg.core.batch.unattended.job import BatchFinished, BatchJob
from napari_nucleiseg.core.batch.unattended.run import run_batch
from project_content import assert_same

LOG = "NUCLEISEG_TASKS"
WORKERS = 2
segment_tiles = work.segment_tiles


def told_tiles(order, tiles):
    """What workers do, told in a file before and after."""
    tell("begin", tiles)
    found = segment_tiles(order, tiles)
    tell("end", tiles)
    return found


def tell(what, tiles):
    line = json.dumps([what, list(tiles)]) + "\n"
    with Path(os.environ[LOG]).open("ab", buffering=0) as file:  # one write, so that lines never mix
        file.write(line.encode())


def child(slide, out):
    """One run, as the command does it."""
    import batch_faults

    work.segment_tiles = batch_faults.told_tiles  # by this name workers find it too
    job = BatchJob((slide,), out, formats=("csv",), device="cpu", workers=WORKERS, unit_s=0.6)
    *_, last = run_batch(job)
    done = isinstance(last, BatchFinished) and last.done == 1 and last.failed == 0
    raise SystemExit(0 if done else 3)


def write_tissue(path, repeats):
    from skimage import data

    tissue = np.tile(data.immunohistochemistry(), (repeats, repeats, 1))
    height, width = tissue.shape[:2]
    facts = f"Aperio Image Library v1\r\n{width}x{height} |AppMag = 20|MPP = 0.5"
    tifffile.imwrite(
        path, tissue, tile=(256, 256), photometric="rgb", compression="jpeg", description=facts, metadata=None
    )


def begun(log):
    """How often each tile was begun, and tasks in all."""
    counts, tasks = {}, 0
    if log.exists():
        for line in log.read_text().splitlines():
            what, tiles = json.loads(line)
            if what == "begin":
                tasks += 1
                for tile in tiles:
                    counts[tile] = counts.get(tile, 0) + 1
    return counts, tasks


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=7, help="side of the slide, 512 px each")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    wanted = parser.parse_args()
    if wanted.child:
        child(*wanted.child)
    scratch = Path(tempfile.mkdtemp())
    try:
        measure(scratch, wanted)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def measure(scratch, wanted):
    slide, log = scratch / "tissue.svs", scratch / "tasks.jsonl"
    write_tissue(slide, wanted.repeats)
    list(segment_slides(SegmentJob((str(slide),), str(scratch / "plain"), formats=("csv",), device="cpu")))
    chance = random.Random(wanted.seed)
    typical, kills, rounds, different = 12.0, {"run": 0, "worker": 0}, [], 0
    while sum(kills.values()) < wanted.kills:
        out, here = scratch / "out", 0
        while True:
            latest = 1.1 * typical if sum(kills.values()) < wanted.kills else 0.0
            code, victim, seconds = one_run(slide, out, log, chance, latest)
            if victim:
                kills[victim] += 1
                here += 1
            if code == 0:
                typical = seconds
                break
            if code not in {-signal.SIGKILL, 0}:
                raise SystemExit(f"a run ended with {code}")
        try:
            assert_same(out / "tissue.nucleiseg", scratch / "plain" / "tissue.nucleiseg")
        except AssertionError as error:
            note(f"a result differs: {error}")
            different += 1
        counts, tasks = begun(log)
        rounds.append((here, len(counts), sum(counts.values()) - len(counts), tasks, max(counts.values())))
        shutil.rmtree(out)
        log.unlink()
        print(f"{sum(kills.values())} kills, {len(rounds)} finished", flush=True)
    report(kills, rounds, different)


def one_run(slide, out, log, chance, latest):
    """Run until the end, or a kill before `latest` seconds (0: none); return exit status, victim if any, seconds."""
    start = time.monotonic()
    environment = {**os.environ, LOG: str(log), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, __file__, "--child", str(slide), str(out)], env=environment)
    victim = ""
    if latest:
        try:
            process.wait(chance.uniform(0.3, max(0.4, latest)))
        except subprocess.TimeoutExpired:
            victim = chance.choice(("run", "worker"))
            workers = [one for one in psutil.Process(process.pid).children() if "spawn_main" in " ".join(one.cmdline())]
            if victim == "worker" and workers:
                chance.choice(workers).kill()
            else:
                victim = "run"
                process.kill()
    code = process.wait()
    return code, victim, time.monotonic() - start


def report(kills, rounds, different):
    print()
    table(
        ("run", "kills", "tiles", "tiles done twice", "tasks"),
        [(number, *row[:4]) for number, row in enumerate(rounds, 1)],
        title=f"{sum(kills.values())} kills, two processes",
    )
    again = sum(row[2] for row in rounds)
    total = sum(kills.values())
    note(f"killed: the run {kills['run']} times, a worker {kills['worker']} times")
    tasks = sum(row[3] for row in rounds)
    tiles = sum(row[1] + row[2] for row in rounds)
    # A kill of the run ends both workers in the middle of their tasks, one of a worker one.
    lost = (kills["run"] * WORKERS + kills["worker"]) * tiles / tasks
    good = verdict("tiles done twice, a kill", again / total, lost / total, goal="S3")
    good &= verdict("results that differ from the plain loop", different, 0, form="{:.0f}", goal="S3")
    raise SystemExit(not good)


if __name__ == "__main__":
    record(main)

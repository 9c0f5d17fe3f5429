"""How well workers are kept busy: dask against processes of this machine, the same tasks through the real engines.

Run ``python benchmarks/batch_scaling.py [--workers 1 2 4 8 16]``. Tasks that compute (on as many workers as there are
cores) compare the two engines; tasks that sleep, as one that waits for a GPU does, show what giving out and taking back
costs with more workers than cores. Starting workers is not counted. Then two slides are segmented on two workers of
dask, and all that passes through its scheduler and client is counted.
"""

import argparse
import os
import time

import traffic
from measuring import record, table, verdict
from napari_nucleiseg.core.batch.engines.base import Task
from napari_nucleiseg.core.batch.engines.cluster import DaskEngine
from napari_nucleiseg.core.batch.engines.here import LocalEngine


def compute(seconds):
    """Keep a core busy for so many CPU seconds."""
    import numpy as np

    values, until = np.random.default_rng(0).random((256, 256)).astype(np.float32), time.process_time() + seconds
    while time.process_time() < until:
        values = values @ values
        values /= values.max()
    return os.getpid()


def sleep(seconds):
    time.sleep(seconds)
    return os.getpid()


def take(engine, function, seconds, count):
    """Have `count` tasks done as a run does: as many out as there is room for; return the wall clock."""
    start, given, back = time.perf_counter(), 0, 0
    while back < count:
        while engine.room and given < count:
            engine.submit(Task(f"{function.__name__}-{time.perf_counter_ns()}", function, (seconds,)))
            given += 1
        back += len(engine.collect(0.2))
    return time.perf_counter() - start


def warm(engine):
    """Wait until every worker has done something."""
    from batch_scaling import sleep

    seen = set()
    until = time.monotonic() + 120
    while len(seen) < engine.workers and time.monotonic() < until:
        while engine.room:
            engine.submit(Task(f"warm-{time.perf_counter_ns()}", sleep, (0.05,)))
        seen |= {outcome.value for outcome in engine.collect(0.2)}
    while engine.waiting:
        engine.collect(0.2)


def main():
    from batch_scaling import compute, sleep  # by a name that workers find: they do not run this script

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4, 8, 16])
    parser.add_argument("--rounds", type=int, default=3)
    wanted = parser.parse_args()
    cores = len(os.sched_getaffinity(0))

    local, dask = LocalEngine(cores), DaskEngine.started_here(cores)
    rows, good = [], True
    try:
        warm(local), warm(dask)
        for seconds, count in ((0.05, 40 * cores), (0.25, 12 * cores), (1.0, 4 * cores)):
            walls = {"processes": [], "dask": []}
            for _ in range(wanted.rounds):
                walls["processes"].append(take(local, compute, seconds, count))
                walls["dask"].append(take(dask, compute, seconds, count))
            best = {name: min(found) for name, found in walls.items()}
            ideal = seconds * count / cores
            rows.append((f"{seconds * 1e3:.0f} ms x {count}", f"{ideal / best['processes']:.2f}",
                         f"{ideal / best['dask']:.2f}", f"{best['processes'] / best['dask']:.2f}"))  # fmt: skip
            if seconds == 0.25:
                ratio = best["processes"] / best["dask"]
    finally:
        local.close(), dask.close()
    header = ("tasks", "processes, of ideal", "dask, of ideal", "dask to processes")
    table(header, rows, title=f"Tasks that compute, {cores} workers on {cores} cores")
    good &= verdict("dask to processes, tasks of 250 ms", ratio, 0.95, at_most=False, goal="S2")

    rows, shares = [], {"processes": [], "dask": []}
    for workers in wanted.workers:
        row = [workers]
        for name, make in (("processes", LocalEngine), ("dask", DaskEngine.started_here)):
            engine = make(workers)
            try:
                warm(engine)
                count = 16 * workers
                wall = min(take(engine, sleep, 0.25, count) for _ in range(wanted.rounds))
            finally:
                engine.close()
            share = 0.25 * count / workers / wall
            shares[name].append(share)
            row.append(f"{share:.3f}")
        rows.append(row)
    table(("workers", "processes, of ideal", "dask, of ideal"), rows, title="Tasks that sleep 250 ms")
    for name, found in shares.items():
        title = f"{name}: {wanted.workers[-1]} workers to {wanted.workers[0]}"
        good &= verdict(title, found[-1] / found[0], 0.90, at_most=False, goal="S2")
    good &= traffic.measure()
    raise SystemExit(not good)


if __name__ == "__main__":
    record(main)

"""How the benchmarks measure: candidates in turn, CPU time, the best of some rounds, and how busy the machine was."""

import gc
import os
import resource
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass


def one_thread(*, pinned=False):
    """Give the libraries one thread each; call it first.

    With `pinned` all threads share one processor: where two are one core's hyperthreads, they slow each other and CPU
    time would count that.
    """
    import cv2
    import torch

    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    if pinned and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


@dataclass(frozen=True)
class Spent:
    cpu: float
    wall: float

    @property
    def share(self):
        """CPU seconds per wall second: below 0.9 with one busy thread somebody else was using the core."""
        return self.cpu / self.wall


def spent(function):
    """Run `function` once, after what others left behind is cleared away."""
    gc.collect()
    wall, cpu = time.perf_counter(), time.process_time()
    function()
    return Spent(time.process_time() - cpu, time.perf_counter() - wall)


class Clock:
    """CPU seconds by name of what was going on."""

    def __init__(self):
        self.seconds = {}

    @contextmanager
    def __call__(self, name):
        start = time.process_time()
        yield
        self.seconds[name] = self.seconds.get(name, 0.0) + time.process_time() - start


def in_turn(candidates, rounds=3):
    """Run each candidate once a round; return the best CPU time of each."""
    runs = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, function in candidates.items():
            runs[name].append(spent(function))
    return {name: min(found, key=lambda one: one.cpu) for name, found in runs.items()}


def table(header, rows):
    """Print a Markdown table."""
    cells = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    for number, row in enumerate(cells):
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |")
        if number == 0:
            print("|" + "|".join("-" * (width + 2) for width in widths) + "|")
    print()


def verdict(name, value, limit, *, at_most=True, form="{:.2f}"):
    """Print one figure beside its goal."""
    good = value <= limit if at_most else value >= limit
    sign = "<=" if at_most else ">="
    print(f"{name}: {form.format(value)} (goal {sign} {form.format(limit)}): {'met' if good else 'MISSED'}")
    return good


def peak_mib():
    """Most memory this process has held, MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20) if sys.platform == "darwin" else peak / 1024

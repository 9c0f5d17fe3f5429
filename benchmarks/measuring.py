"""How the benchmarks measure and tell: candidates in turn, CPU time, medians, and what was printed kept as data.

A script ends in ``record(main)``. What it prints with `table`, `verdict` and `note` is then also written as JSON, with
``--json FILE`` or where ``python -m benchmarks`` asks for it by an environment variable.
"""

import compileall
import gc
import json
import os
import py_compile
import resource
import statistics
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "src" / "napari_nucleiseg"
ASKED_BY = "NUCLEISEG_BENCHMARK_JSON"
MIN_SHARE = 0.9  # CPU per wall second below which somebody else used the core


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


def compiled():
    """Compile our package, as an installed one is; call it first where imports are part of what is measured.

    Where Python is told to write no bytecode (``PYTHONDONTWRITEBYTECODE``), each import would compile its source, which
    no user waits for.
    """
    # By hash: what is edited within the second after is seen.
    mode = py_compile.PycInvalidationMode.CHECKED_HASH
    if not compileall.compile_dir(PACKAGE, quiet=2, invalidation_mode=mode):
        note("The package could not be compiled: imports include that.")


# --------------------------------------------------------------------------- time and memory


@dataclass(frozen=True)
class Spent:
    """CPU and wall seconds of one run of something."""

    cpu: float
    wall: float

    @property
    def share(self):
        """CPU seconds per wall second: below 0.9 with one busy thread somebody else was using the core."""
        return self.cpu / self.wall


@dataclass(frozen=True)
class Measured:
    """What one candidate spent in all rounds; its figures are medians over the rounds in which it had the core."""

    rounds: tuple[Spent, ...]

    @cached_property
    def kept(self):
        """Rounds in which nobody else used the core; all of them where there is no such round."""
        return [one for one in self.rounds if one.share >= MIN_SHARE] or list(self.rounds)

    @property
    def discarded(self):
        return len(self.rounds) - len(self.kept)

    @property
    def is_busy(self):
        """Whether somebody else used the core in every round (or it waited for a disk)."""
        return max(one.share for one in self.rounds) < MIN_SHARE

    @property
    def cpu(self):
        return statistics.median(one.cpu for one in self.kept)

    @property
    def wall(self):
        return statistics.median(one.wall for one in self.kept)

    @property
    def share(self):
        return statistics.median(one.share for one in self.kept)

    @property
    def spread(self):
        """Dearest less cheapest round, of the median."""
        times = [one.cpu for one in self.kept]
        return (max(times) - min(times)) / self.cpu if self.cpu else 0.0


def spent(function):
    """Run `function` once, after what others left behind is cleared away; one that measured another process says it."""
    gc.collect()
    wall, cpu = time.perf_counter(), time.process_time()
    found = function()
    if isinstance(found, Spent):
        return found
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
    """Run each candidate once a round; return what each spent, and say which rounds do not count."""
    runs = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, function in candidates.items():
            runs[name].append(spent(function))
    found = {name: Measured(tuple(ones)) for name, ones in runs.items()}
    say_rounds(found)
    return found


def say_rounds(found):
    """Keep the spread of each candidate, and say of which rounds somebody else used the core."""
    for name, one in found.items():
        recorder.rounds.append(
            {"what": _plain(name), "rounds": len(one.rounds), "discarded": one.discarded, "busy": one.is_busy,
             "cpu_s": one.cpu, "spread": one.spread, "share": one.share}
        )  # fmt: skip
    busy = [str(_plain(name)) for name, one in found.items() if one.is_busy]
    partly = [f"{_plain(name)} ({one.discarded})" for name, one in found.items() if one.discarded]
    if partly:
        note(f"Rounds left out, CPU over wall time below {MIN_SHARE}: {', '.join(partly)}.")
    if busy:
        note(f"CPU over wall time below {MIN_SHARE} in every round, all kept: {', '.join(busy)}.")


def peak_mib():
    """Most memory this process has held, MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1 << 20) if sys.platform == "darwin" else peak / 1024


# --------------------------------------------------------------------------- telling


class Recorder:
    """What a benchmark printed, as data; in a file after every step, so that what is stopped leaves what it had."""

    def __init__(self):
        self.path = None
        self.status, self.message = "stopped", ""
        self.tables, self.figures, self.notes, self.rounds = [], [], [], []

    def save(self):
        if self.path is None:
            return
        facts = {name: value for name, value in vars(self).items() if name != "path"}
        part = self.path.with_suffix(".part")
        part.write_text(json.dumps(facts, indent=1))
        part.replace(self.path)


recorder = Recorder()


def record(main):
    """Run the `main` of a script; keep as data what it prints where ``--json FILE`` or the harness asks for it."""
    path = os.environ.pop(ASKED_BY, "")  # not for the processes that the script starts
    if "--json" in sys.argv[1:-1]:
        place = sys.argv.index("--json")
        path = sys.argv[place + 1]
        del sys.argv[place : place + 2]
    recorder.path = Path(path).absolute() if path else None
    try:
        main()
    except SystemExit as end:
        # 1 is "a goal was missed", which is a result.
        failed = end.code is not None and end.code not in {0, 1}
        recorder.status, recorder.message = ("failed", str(end.code)) if failed else ("finished", "")
        raise
    except BaseException as error:
        recorder.status, recorder.message = "failed", f"{type(error).__name__}: {error}"
        raise
    else:
        recorder.status = "finished"
    finally:
        recorder.save()


def _plain(value):
    """A value as JSON has it: numbers and text as they are, all else as text."""
    if isinstance(value, bool | int | float | str) or value is None:
        return value
    if isinstance(value, tuple):
        return ", ".join(str(part) for part in value)
    return value.item() if hasattr(value, "item") else str(value)


def table(header, rows, *, title=""):
    """Print a Markdown table, below its title if it has one."""
    rows = [list(row) for row in rows]
    if title:
        print(f"### {title}\n")
    cells = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    for number, row in enumerate(cells):
        print("| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |")
        if number == 0:
            print("|" + "|".join("-" * (width + 2) for width in widths) + "|")
    print()
    plain = [[_plain(cell) for cell in row] for row in rows]
    recorder.tables.append({"title": title, "header": [str(cell) for cell in header], "rows": plain})
    recorder.save()


def verdict(name, value, limit, *, at_most=True, form="{:.2f}", goal="", anchor=""):
    """Print one figure beside what is wanted.

    `goal` is the number of the goal that it answers (of `catalogue.GOALS`), `anchor` what others reach where the goal
    itself does not say.
    """
    value, limit = float(value), float(limit)
    good = value <= limit if at_most else value >= limit
    sign = "<=" if at_most else ">="
    print(f"{name}: {form.format(value)} (goal {sign} {form.format(limit)}): {'met' if good else 'MISSED'}")
    recorder.figures.append(
        {"goal": goal, "what": name, "value": value, "shown": form.format(value),
         "wanted": f"{sign} {form.format(limit)}", "met": good, "anchor": anchor}
    )  # fmt: skip
    recorder.save()
    return good


def unmeasured(goal, name, reason):
    """Say of a part of a goal why it has no figure here."""
    print(f"{name}: not measured: {reason}")
    recorder.figures.append(
        {"goal": goal, "what": name, "value": None, "shown": "-", "wanted": "", "met": None, "anchor": "",
         "reason": reason}
    )  # fmt: skip
    recorder.save()


def note(text):
    """Print a sentence that belongs to the result."""
    print(f"{text}\n", flush=True)
    recorder.notes.append(text)
    recorder.save()

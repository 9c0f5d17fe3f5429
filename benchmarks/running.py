"""Runs benchmarks one after the other, each in a process of its own, and stores what comes out."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.environments import ENGINES, is_present, make
from benchmarks.environments import FOLDER as PEERS
from benchmarks.results import FOLDER, ROOT, result, store

ASKED_BY = "NUCLEISEG_BENCHMARK_JSON"  # as in measuring.py, which is a module of the scripts
DATA = Path(os.environ.get("NUCLEISEG_DATA", ROOT.parent / "shared" / "data"))
PROGRESS = ROOT / ".benchmarks" / "all.json"
THREADS = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1")
SCREEN = ("xvfb-run", "-a", "-s", "-screen 0 1600x1000x24")


def lacking(one, *, with_peers):
    """Why a benchmark cannot run here, as a sentence; empty if it can."""
    if not one.file.exists():
        return f"{one.file.name} is not there."
    if "data" in one.needs and not DATA.is_dir():
        return f"Labelled data are not in {DATA}; NUCLEISEG_DATA names another folder."
    if "window" in one.needs and not (_has_screen() or shutil.which(SCREEN[0])):
        return "There is no screen, and no xvfb-run to make one."
    if "gpu" in one.needs and not shutil.which("nvidia-smi"):
        return "There is no GPU."
    if "peers" in one.needs and not with_peers and not _engines_present():
        return f"No environment of another tool is in {PEERS.relative_to(ROOT)}; --with-peers makes them (8 GB)."
    return ""


def _engines_present():
    return [name for name in ENGINES if is_present(name, PEERS)]


def _only_present(one, *, with_peers):
    """What keeps a benchmark from making environments of other tools that nobody asked for."""
    if with_peers or "peers" not in one.needs:
        return ()
    return ("--only", *_engines_present())


def _has_screen():
    return sys.platform in {"win32", "darwin"} or bool(os.environ.get("DISPLAY"))


def run_one(one, arguments=None, *, folder=FOLDER, limit_minutes=None):
    """Run one benchmark, store its result and return it.

    Parameters
    ----------
    one : Benchmark
        Of the catalogue.
    arguments : sequence of str, optional
        Instead of those of the unattended run.
    folder : Path
        Where results are stored.
    limit_minutes : float, optional
        After which it is stopped; default none.
    """
    script = [f"benchmarks/{one.name}.py", *(one.arguments if arguments is None else arguments)]
    shown = shlex.join(["python", *script])
    command = [sys.executable, str(one.file), *script[1:]]
    if "window" in one.needs and not _has_screen():
        command, shown = [*SCREEN, *command], f"{shlex.join(SCREEN)} {shown}"
    with tempfile.TemporaryDirectory() as scratch:
        kept = Path(scratch) / "record.json"
        start = time.monotonic()
        code, status, message = _process(command, {**os.environ, **THREADS, ASKED_BY: str(kept)}, limit_minutes)
        record = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
    if not status and not record:
        # Some scripts only print, and end with an error where something went wrong.
        status, message = ("failed", "ended with 1") if code else ("finished", "it only prints")
    found = result(
        one.name, record, command=shown, minutes=(time.monotonic() - start) / 60, status=status, message=message
    )
    store(found, folder)
    return found


def _process(command, environment, limit_minutes):
    """Run a command; return its exit status, and what to say of it beyond what it recorded: status and message."""
    own_group = {"start_new_session": True} if os.name == "posix" else {}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, **own_group)
    try:
        code = process.wait(limit_minutes and limit_minutes * 60)
    except subprocess.TimeoutExpired:
        _stop(process)
        return None, "stopped", f"took longer than {limit_minutes:g} minutes"
    except BaseException:
        _stop(process)
        raise
    # 1 is "a goal was missed" or an error that the script recorded.
    return (code, "", "") if code in {0, 1} else (code, "failed", f"ended with {code}")


def _stop(process):
    """End a process and all that it started."""
    if os.name == "posix":
        for blow in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(process.pid, blow)
                process.wait(5)
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue
    else:
        process.kill()
    process.wait()


def run_all(benchmarks, *, resume=False, with_peers=False, budget_minutes=60, folder=FOLDER, progress=PROGRESS):
    """Run benchmarks in turn, each within its limit, and go on after failures.

    Parameters
    ----------
    benchmarks : sequence of Benchmark
        In this order.
    resume : bool
        Leave out those that the last such run came to the end of.
    with_peers : bool
        Make the environments of other tools first, where they are missing; one that cannot be made is said.
    budget_minutes : float
        None is begun that is not expected to end by then.
    folder : Path
        Where results are stored.
    progress : Path
        Where it is written down what is done.

    Returns
    -------
    list of tuple of str
        Name and what became of it: "finished", "failed", "stopped", "skipped", "left".
    """
    if with_peers:
        make(folder=PEERS)
    start = time.monotonic()
    done = json.loads(progress.read_text(encoding="utf-8")) if resume and progress.exists() else {}
    todo = [one for one in benchmarks if one.name not in done]
    reasons = {one.name: lacking(one, with_peers=with_peers) for one in todo}
    minutes = sum(one.minutes for one in todo if not reasons[one.name])
    print(f"{len(todo)} benchmarks, about {minutes:.0f} minutes" + (f"; {len(done)} were done before" if done else ""))
    for number, one in enumerate(todo, 1):
        if (time.monotonic() - start) / 60 + one.minutes > budget_minutes:
            print(f"\n===== {budget_minutes:g} minutes are over; --resume goes on with {one.name}")
            return [*done.items(), *((other.name, "left") for other in todo[number - 1 :])]
        print(f"\n===== {number} of {len(todo)}: {one.name}, about {one.minutes:g} min. {one.question}", flush=True)
        if reasons[one.name]:
            print(f"skipped: {reasons[one.name]}")
            outcome = "skipped"
        else:
            arguments = one.arguments + _only_present(one, with_peers=with_peers)
            found = run_one(one, arguments, folder=folder, limit_minutes=one.limit_minutes)
            outcome = found["status"]
            print(
                f"===== {one.name} {outcome} after {found['minutes']:.1f} min {found['message']}".rstrip(), flush=True
            )
        done[one.name] = outcome
        progress.parent.mkdir(parents=True, exist_ok=True)
        progress.write_text(json.dumps(done), encoding="utf-8")
    return list(done.items())

"""Stored results: one JSON file a benchmark, with what it was before.

Figures in a file: goal, what, value, shown, wanted, met, anchor. `history` holds those of former runs, oldest first.
"""

import json
import os
import platform
import subprocess
from contextlib import suppress
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

FOLDER = Path(__file__).parent / "results"
ROOT = Path(__file__).parents[1]
PACKAGES = (
    "napari-nucleiseg",
    "numpy",
    "torch",
    "napari",
    "zarr",
    "dask",
    "scipy",
    "scikit-image",
    "opencv-python-headless",
)
EMPTY = {"tables": [], "figures": [], "notes": [], "rounds": []}
OF_A_RUN = ("date", "commit", "command", "machine", "figures")


def machine():
    """Processor, cores, memory and system, without anything that names the machine itself."""
    name = platform.processor() or platform.machine()
    with suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next(line for line in lines if line.startswith("model name")).split(":")[1].strip()
    gib = 0.0
    with suppress(AttributeError, ValueError, OSError):
        gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    return f"{name}, {os.cpu_count()} cores, {gib:.0f} GiB, {platform.system()}"


def versions():
    """Versions of what the figures depend on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def commit():
    """The checkout's commit, with a plus where the package or the benchmarks differ from it; empty without git."""
    try:
        name = _git("rev-parse", "--short", "HEAD")
        return name + ("+" if _git("status", "--porcelain", "--", "src", "benchmarks/*.py") else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def _git(*words):
    return subprocess.run(("git", *words), cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def result(name, record, *, command, minutes, status="", message=""):
    """What is stored of a run: what the script recorded, and where, when and of what.

    Parameters
    ----------
    name : str
        Of the benchmark.
    record : dict
        As `measuring.Recorder` wrote it; empty if it wrote nothing.
    command : str
        That repeats it.
    minutes : float
        It took.
    status, message : str
        How it ended, if the script could not say so itself: "finished", "failed", "stopped".
    """
    record = {**EMPTY, **record}
    return {
        "name": name,
        "status": status or record.get("status", "failed"),
        "message": message or record.get("message", ""),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
        "commit": commit(),
        "machine": machine(),
        "versions": versions(),
        "command": command,
        "minutes": round(minutes, 2),
        **{part: record[part] for part in EMPTY},
        "history": [],
    }


def store(found, folder=FOLDER):
    """Write a result; what stood there before goes into its history."""
    folder.mkdir(parents=True, exist_ok=True)
    former = load(found["name"], folder)
    history = list(former["history"]) if former else []
    if former and former["figures"]:
        history.append({part: former[part] for part in OF_A_RUN})
    path = folder / f"{found['name']}.json"
    part = path.with_suffix(".part")
    part.write_text(json.dumps({**found, "history": history}, indent=1) + "\n", encoding="utf-8")
    part.replace(path)
    return path


def load(name, folder=FOLDER):
    """The stored result of a benchmark, or None."""
    path = folder / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def load_all(folder=FOLDER):
    """All stored results, by name of the benchmark."""
    return {path.stem: load(path.stem, folder) for path in sorted(folder.glob("*.json"))}


def before(found, what):
    """The newest figure of that name in a result's history, or None."""
    for run in reversed(found["history"]):
        for figure in run["figures"]:
            if figure["what"] == what and figure["value"] is not None:
                return {**figure, "date": run["date"], "commit": run["commit"]}
    return None

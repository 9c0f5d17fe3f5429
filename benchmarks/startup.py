"""How long does napari wait for the plugin: to import what it asks for first, and to show the panel?

Run ``python benchmarks/startup.py``. For each module that the manifest names, a fresh process has numpy and napari's
window imported already, then imports it and tells the CPU seconds that took, and whether torch came along. For the
panels, a fresh process shows an empty napari window, imports the panel's module, and counts the seconds from the menu's
command to the panel painted on the screen. Medians of ``--times`` processes (5), under xvfb-run where no screen is.
CPU seconds do not count other work on the machine; wall seconds do. What costs most is told by ``-X importtime``, which
slows imports a little. To measure another checkout, put its ``src`` on ``PYTHONPATH``.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from measuring import compiled, note, record, table, verdict

MANIFEST = Path(__file__).parents[1] / "napari.yaml"
MOST_IMPORT_S, MOST_DOCK_S = 1.0, 0.5
HEAVY = ("torch", "scipy", "skimage", "zarr", "dask", "pandas", "pyarrow", "cv2", "tifffile")

IMPORT = """
import importlib, json, sys, time
import numpy, napari
import napari._qt.qt_main_window
before = set(sys.modules)
cpu, wall = time.process_time(), time.perf_counter()
importlib.import_module(sys.argv[1])
spent = time.process_time() - cpu, time.perf_counter() - wall
new = {name.split(".")[0] for name in set(sys.modules) - before}
print(json.dumps([*spent, sorted(new)]))
"""

DOCK = """
import importlib, json, os, sys, time
import napari
from qtpy.QtCore import QEvent, QObject
from qtpy.QtWidgets import QApplication

class Painted(QObject):
    seen = False

    def eventFilter(self, watched, event):
        self.seen = self.seen or event.type() == QEvent.Type.Paint
        return False

viewer = napari.Viewer()
end = time.monotonic() + 2
while time.monotonic() < end:
    QApplication.processEvents()
painted = Painted()
module, name = sys.argv[1].split(" ", 1)
begun = time.perf_counter()
importlib.import_module(module)
cpu, wall = time.process_time(), time.perf_counter()
_, panel = viewer.window.add_plugin_dock_widget("napari-nucleiseg", name)
panel.installEventFilter(painted)
while not painted.seen:
    QApplication.processEvents()
now = time.perf_counter()
print(json.dumps([time.process_time() - cpu, now - wall, now - begun]), flush=True)
panel.shutdown()
os._exit(0)
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=5)
    times = parser.parse_args().times
    compiled()
    manifest = yaml.safe_load(MANIFEST.read_text(encoding="utf-8"))["contributions"]
    modules = sorted({command["python_name"].partition(":")[0] for command in manifest["commands"]})
    homes = {command["id"]: command["python_name"].partition(":")[0] for command in manifest["commands"]}
    panels = {widget["display_name"]: homes[widget["command"]] for widget in manifest["widgets"]}
    imports = {module: median(IMPORT, module, times) for module in modules}
    table(
        ("module that the manifest names", "CPU s", "wall s", "torch", "other large packages"),
        [
            (module, f"{cpu:.3f}", f"{wall:.3f}", "yes" if "torch" in new else "no", heavy(new))
            for module, (cpu, wall, new) in imports.items()
        ],
    )
    docks = {panel: median(DOCK, f"{module} {panel}", times) for panel, module in panels.items()}
    table(
        ("panel", "CPU s", "wall s", "wall s with its import"),
        [(panel, *(f"{seconds:.3f}" for seconds in spent)) for panel, spent in docks.items()],
    )
    slowest = max(imports, key=lambda module: imports[module][0])
    table((f"dearest imports of {slowest}", "own ms"), dearest(slowest))
    good = verdict("dearest import, CPU s", imports[slowest][0], MOST_IMPORT_S)
    good &= verdict("slowest panel, wall s", max(wall for _, wall, _ in docks.values()), MOST_DOCK_S)
    good &= verdict("slowest panel, CPU s", max(cpu for cpu, _, _ in docks.values()), MOST_DOCK_S)
    good &= verdict("modules that bring torch", sum("torch" in new for _, _, new in imports.values()), 0, form="{:.0f}")
    note("Wall seconds count whatever else the machine did; CPU seconds do not.")
    raise SystemExit(not good)


def heavy(new):
    return ", ".join(name for name in HEAVY[1:] if name in new) or "none"


def median(program, argument, times):
    """What fresh processes tell, medians where it is a number; one more goes before, uncounted."""
    told = [json.loads(fresh("-c", program, argument).stdout.splitlines()[-1]) for _ in range(times + 1)][1:]
    return [one[0] if isinstance(one[0], list) else statistics.median(one) for one in zip(*told, strict=True)]


def fresh(*arguments):
    with tempfile.TemporaryDirectory() as folder:
        own = {"NAPARI_CONFIG": str(Path(folder) / "napari.yaml"), "XDG_DATA_HOME": folder, "XDG_CACHE_HOME": folder}
        screen = [] if os.environ.get("DISPLAY") or not shutil.which("xvfb-run") else ["xvfb-run", "-a"]
        return subprocess.run(
            [*screen, sys.executable, *arguments],
            env={**os.environ, **own, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=True,
        )  # fmt: skip


def dearest(module, most=12):
    """Packages (of ours: modules) with the milliseconds that importing them took by themselves."""
    code = f"import numpy, napari, napari._qt.qt_main_window, sys; print('---', file=sys.stderr); import {module}"
    spent = {}
    for line in fresh("-X", "importtime", "-c", code).stderr.partition("---")[2].splitlines():
        if not line.startswith("import time:"):
            continue
        own, _, name = line.removeprefix("import time:").split("|")
        name = name.strip()
        name = name if name.startswith("napari_nucleiseg") else f"{name.split('.')[0]} (all of it)"
        spent[name] = spent.get(name, 0.0) + float(own) / 1000
    ours = sum(ms for name, ms in spent.items() if name.startswith("napari_nucleiseg"))
    rows = sorted(spent.items(), key=lambda one: -one[1])[:most]
    return [("napari_nucleiseg (all of it)", f"{ours:.0f}"), *((name, f"{ms:.0f}") for name, ms in rows)]


if __name__ == "__main__":
    record(main)

"""What must be in order for the program to work: one function a check, each with the remedy."""

from __future__ import annotations

import importlib
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import napari_nucleiseg

GOOD, POOR, BAD = "ok", "warning", "error"
LEAST_FREE_BYTES = 5 * 2**30
LEAST_MEMORY_BYTES = 4 * 2**30
_PACKAGES = ("napari", "torch", "numpy", "zarr", "tifffile", "imagecodecs", "opencv-python-headless", "scikit-image")


@dataclass(frozen=True, slots=True)
class Check:
    """One finding.

    Parameters
    ----------
    name : str
        What was looked at.
    status : {"ok", "warning", "error"}
        A warning leaves something slower or unavailable; an error stops the program from working.
    found : str
        What there is.
    remedy : str
        What to do; empty if nothing.
    """

    name: str
    status: str
    found: str
    remedy: str = ""


def diagnose() -> Iterator[Check]:
    """Yield all findings, each as soon as it is known."""
    for check in (_python, _packages, _torch, _memory, _readers, _window, _models, _disk, _folders):
        yield from check()


def _python() -> Iterator[Check]:
    found = f"{platform.python_version()} on {platform.platform()}, napari-nucleiseg {napari_nucleiseg.__version__}"
    yield Check("Python", GOOD, found)


def _packages() -> Iterator[Check]:
    versions, missing = [], []
    for name in _PACKAGES:
        try:
            versions.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        remedy = f"pip install {' '.join(missing)}"
        yield Check("Packages", BAD, f"missing: {', '.join(missing)}", remedy)
    yield Check("Packages", GOOD, ", ".join(versions))


def _torch() -> Iterator[Check]:
    from napari_nucleiseg.core.models.hardware import choose_device, has_fast_bfloat16

    torch = importlib.import_module("torch")
    device = choose_device("auto")
    precision = "bfloat16" if has_fast_bfloat16(device) else "float32"
    if device.type == "cuda":
        name, bytes_ = torch.cuda.get_device_name(device), torch.cuda.get_device_properties(device).total_memory
        yield Check("Device", GOOD, f"{name}, {bytes_ / 2**30:.0f} GiB, {precision}")
    elif device.type == "mps":
        yield Check("Device", GOOD, f"Apple GPU, {precision}")
    else:
        found = f"CPU, {os.cpu_count()} cores, {precision}"
        yield Check("Device", GOOD, found)
        if _has_nvidia():
            remedy = "install torch with CUDA: https://pytorch.org/get-started/locally"
            yield Check("Device", POOR, "an NVIDIA GPU is there, but this torch cannot use it", remedy)


def _has_nvidia() -> bool:
    program = shutil.which("nvidia-smi")
    if program is None:
        return False
    try:
        answer = subprocess.run([program, "-L"], capture_output=True, text=True, timeout=10, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return False
    return answer.returncode == 0 and "GPU" in answer.stdout


def _memory() -> Iterator[Check]:
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # Windows
        return
    poor = total < LEAST_MEMORY_BYTES
    remedy = "close other programs before segmenting" if poor else ""
    yield Check("Memory", POOR if poor else GOOD, f"{total / 2**30:.1f} GiB", remedy)


def _readers() -> Iterator[Check]:
    yield Check("Slides", GOOD, "SVS, TIFF, OME-TIFF, OME-Zarr, PNG, JPEG")
    yield _optional("openslide", "MRXS, NDPI, SCN, BIF, VMS", "slides")
    yield _optional("wsidicom", "DICOM", "dicom")


def _optional(module: str, what: str, extra: str) -> Check:
    try:
        version = getattr(importlib.import_module(module), "__version__", "")
    except (ImportError, OSError) as error:  # OSError: the package is there, its shared library is not
        reason = "is not installed" if isinstance(error, ModuleNotFoundError) else f"does not load ({error})"
        return Check(
            "Slides", POOR, f"{what} cannot be read: {module} {reason}", f"pip install 'napari-nucleiseg[{extra}]'"
        )
    return Check("Slides", GOOD, f"{what} ({module} {version})")


_WINDOW_PROBE = """
import json, sys
from qtpy import API_NAME, QT_VERSION
from qtpy.QtGui import QGuiApplication, QOffscreenSurface, QOpenGLContext
application = QGuiApplication(sys.argv)
context, surface = QOpenGLContext(), QOffscreenSurface()
surface.create()
version = None
if context.create() and context.makeCurrent(surface):
    version = list(context.format().version())
print(json.dumps({"qt": f"{API_NAME} {QT_VERSION}", "platform": application.platformName(), "opengl": version}))
"""


def _window() -> Iterator[Check]:
    """Look in another process: Qt ends the one it cannot open a window in."""
    if sys.platform.startswith("linux") and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        remedy = "work at a desktop or with ssh -X; segment, train and evaluate need no window"
        yield Check("Window", POOR, "there is no display", remedy)
        return
    yield _window_by(_probe_window())


def _probe_window() -> subprocess.CompletedProcess[str] | None:
    try:
        return subprocess.run(  # noqa: S603
            [sys.executable, "-c", _WINDOW_PROBE], capture_output=True, text=True, timeout=60, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None


def _window_by(answer: subprocess.CompletedProcess[str] | None) -> Check:
    """Judge what the probe said."""
    if answer is None:
        return Check("Window", BAD, "Qt does not answer", "restart the desktop session")
    if answer.returncode:
        said = (answer.stderr.strip().splitlines() or ["it said nothing"])[-1]
        if "QtBindingsNotFoundError" in answer.stderr or "No Qt bindings" in answer.stderr:
            return Check("Window", BAD, "there is no Qt", "pip install 'napari-nucleiseg[pyside6]'")
        return Check("Window", BAD, f"Qt cannot open a window: {said}", _QT_REMEDY)
    facts = json.loads(answer.stdout.strip().splitlines()[-1])
    if facts["opengl"] is None:
        return Check("Window", BAD, f"{facts['qt']}, but no OpenGL", "install a graphics driver, or libgl1-mesa-dri")
    version = ".".join(map(str, facts["opengl"]))
    return Check("Window", GOOD, f"{facts['qt']} ({facts['platform']}), OpenGL {version}")


_QT_REMEDY = "on Debian or Ubuntu: sudo apt install libxcb-cursor0 libegl1 libgl1 libxkbcommon-x11-0 libdbus-1-3"


def _models() -> Iterator[Check]:
    from napari_nucleiseg.core.errors import WeightsError
    from napari_nucleiseg.core.models.weights import read_card, weight_files

    good = []
    for name, path in weight_files().items():
        try:
            good.append(read_card(path).version)
        except WeightsError as error:
            yield Check("Models", POOR, f"{name} cannot be used: {error}", f"remove or replace {path}")
    if good:
        yield Check("Models", GOOD, ", ".join(good))
    else:
        yield Check(
            "Models", BAD, "there are no weights", "install the package again, or train: napari-nucleiseg train"
        )


def _disk() -> Iterator[Check]:
    free = shutil.disk_usage(Path.cwd()).free
    poor = free < LEAST_FREE_BYTES
    remedy = "free some space: a whole slide's project needs up to a few GiB" if poor else ""
    yield Check("Disk", POOR if poor else GOOD, f"{free / 2**30:.0f} GiB free in {Path.cwd()}", remedy)


def _folders() -> Iterator[Check]:
    import platformdirs

    for name, folder in (
        ("Data folder", platformdirs.user_data_dir("napari-nucleiseg")),
        ("Cache folder", platformdirs.user_cache_dir("napari-nucleiseg")),
    ):
        yield _folder(name, Path(folder))


def _folder(name: str, folder: Path) -> Check:
    """Whether a folder can be written; of one that is not there yet, the nearest one above that is."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not os.access(there, os.W_OK):
        return Check(name, POOR, f"{folder} cannot be written", f"make it writable: chmod u+w {there}")
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) if folder.exists() else 0
    return Check(name, GOOD, f"{folder}, {size / 2**20:.0f} MiB")

#!/usr/bin/env python3
"""One file that makes the environment and runs the demo, the tests and the checks.

python3 dev.py demo [--screenshot out.png] [--slide PATH]    open the program on a sample slide
python3 dev.py test [--fast] [pytest arguments]              run the tests; with --lint everything of lint too
python3 dev.py lint                                          style, types and import contracts
python3 dev.py setup                                         only make the environment

Needs nothing but Python 3.11 or newer. Everything is installed into ``.venv`` beside this file.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import ctypes
import hashlib
import importlib.util
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
STAMP = VENV / "installed.json"
CONSTRAINTS = VENV / "constraints.txt"
MINIMUM_PYTHON = (3, 11)
NEEDED_DISK_BYTES = 4 * 1024**3

# What the environment must hold before a command can run.
EXTRAS = {
    "setup": ("pyside6", "slides", "dicom"),
    "demo": ("pyside6", "slides", "dicom"),
    "test": ("pyside6", "slides", "dicom", "test"),
    "lint": ("pyside6", "slides", "dicom", "test", "dev"),
}

# The build of torch that the tests are run with; any other the package allows is taken where this one is not to be had.
TORCH_TESTED = "torch==2.13.0"
TORCH_ANY = "torch>=2.6"
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"

# Shared libraries that Qt's X11 platform and a software OpenGL need, and the Debian/Ubuntu package of each.
LIBRARIES = {
    "libEGL.so.1": "libegl1",
    "libGL.so.1": "libgl1",
    "libGLX_mesa.so.0": "libglx-mesa0",
    "libOpenGL.so.0": "libopengl0",
    "libX11-xcb.so.1": "libx11-xcb1",
    "libdbus-1.so.3": "libdbus-1-3",
    "libfontconfig.so.1": "libfontconfig1",
    "libglib-2.0.so.0": "libglib2.0-0",
    "libxcb-cursor.so.0": "libxcb-cursor0",
    "libxcb-icccm.so.4": "libxcb-icccm4",
    "libxcb-image.so.0": "libxcb-image0",
    "libxcb-keysyms.so.1": "libxcb-keysyms1",
    "libxcb-randr.so.0": "libxcb-randr0",
    "libxcb-render-util.so.0": "libxcb-render-util0",
    "libxcb-shape.so.0": "libxcb-shape0",
    "libxcb-xkb.so.1": "libxcb-xkb1",
    "libxkbcommon-x11.so.0": "libxkbcommon-x11-0",
}


class SetupError(Exception):
    """Something is missing; the message says what to do about it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    Parameters
    ----------
    arguments
        Command line without the program's name; None takes it from ``sys.argv``.
    """
    options, rest = parse_arguments(arguments)
    try:
        check_python()
        check_display(options)
        install_system_packages(options.command)
        make_environment(EXTRAS["lint" if getattr(options, "lint", False) else options.command])
        return run_command(options, rest)
    except SetupError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def run_command(options: argparse.Namespace, rest: Sequence[str]) -> int:
    """Run a command in the environment that has been made for it, and return its exit status."""
    if options.command == "demo":
        return run_demo(options.screenshot, options.slide)
    if options.command == "test":
        return run_tests(rest, fast=options.fast, lint=options.lint)
    if options.command == "lint":
        return run_lint()
    print("The environment is ready.")
    return 0


def parse_arguments(arguments: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """Split the command line into our options and what is handed on to pytest."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    demo = commands.add_parser("demo", help="open the program on a sample slide")
    demo.add_argument("--screenshot", type=Path, metavar="PNG", help="save a picture of the window and leave")
    demo.add_argument("--slide", type=Path, metavar="PATH", help="open this slide instead of the sample")
    test = commands.add_parser("test", help="run the tests; further arguments go to pytest")
    test.add_argument("--fast", action="store_true", help="leave out the tests that take longer than ten seconds")
    test.add_argument("--lint", action="store_true", help="check style, types and import contracts beside all tests")
    commands.add_parser("lint", help="check style, types and import contracts")
    commands.add_parser("setup", help="only make the environment")
    options, rest = parser.parse_known_args(arguments)
    if options.command == "test" and options.lint and (options.fast or not are_of_all(rest)):
        parser.error("--lint goes with all tests only; to check the source alone: dev.py lint")
    if rest and options.command != "test":
        parser.error(f"unknown arguments: {shlex.join(rest)}")
    return options, rest


# --------------------------------------------------------------------------- what the machine must have


def check_python() -> None:
    """Raise SetupError where this Python or machine cannot run the package."""
    wanted = ".".join(map(str, MINIMUM_PYTHON))
    if sys.version_info < MINIMUM_PYTHON:
        newer = [name for name in ("python3.13", "python3.12", "python3.11") if shutil.which(name)]
        advice = f"Run it with {newer[0]}." if newer else f"Install Python {wanted} or newer and run it with that."
        message = f"This is Python {platform.python_version()}, but {wanted} or newer is needed. {advice}"
        raise SetupError(message)
    if sys.platform == "darwin" and platform.machine() == "x86_64":
        message = "PyTorch is no longer built for Macs with Intel processors, so the package cannot run on this one."
        raise SetupError(message)


def check_display(options: argparse.Namespace) -> None:
    """Raise SetupError where a window is asked for that nobody could see."""
    if options.command == "demo" and options.screenshot is None and not has_display():
        message = "There is no display to show a window on. Ask for a picture instead: demo --screenshot out.png"
        raise SetupError(message)


def has_display() -> bool:
    """Tell whether windows can be shown to a person."""
    if not sys.platform.startswith("linux"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def missing_packages(command: str) -> dict[str, str]:
    """Name the Debian packages that a command needs and the machine lacks, each with what was looked for."""
    missing = {}
    if importlib.util.find_spec("ensurepip") is None:
        missing[f"python3.{sys.version_info.minor}-venv"] = "Python's venv"
    if command == "lint":
        return missing
    for library, package in LIBRARIES.items():
        try:
            ctypes.CDLL(library)
        except OSError:
            missing[package] = library
    if not has_display() and not shutil.which("Xvfb"):
        missing["xvfb"] = "Xvfb"
    if command == "test" and os.geteuid() == 0 and shutil.which("apt-get") and not shutil.which("xdotool"):
        # Only one test wants it and is skipped without, so that nobody need ask an administrator for it.
        missing["xdotool"] = "a mouse for the tests"
    if not any(any(Path(folder).rglob("*.[to]tf")) for folder in ("/usr/share/fonts", "/usr/local/share/fonts")):
        missing["fonts-dejavu-core"] = "a font"
    return missing


def install_system_packages(command: str) -> None:
    """Install what a command needs from the system where we may, else raise SetupError with the line to run."""
    if not sys.platform.startswith("linux"):
        return
    missing = missing_packages(command)
    if not missing:
        return
    install = ["apt-get", "install", "-y", "--no-install-recommends", *sorted(missing)]
    if not shutil.which("apt-get"):
        message = (
            f"Missing: {', '.join(missing.values())}. Install your system's packages of these, then run this again."
        )
        raise SetupError(message)
    if os.geteuid() != 0:
        line = f"sudo apt-get update && sudo {shlex.join(install)}"
        message = f"System packages are missing. Install them, then run this again:\n\n  {line}"
        raise SetupError(message)
    say(f"Installing system packages: {' '.join(sorted(missing))}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for step in (["apt-get", "-qq", "update"], [*install, "-qq"]):
        status = subprocess.run(step, env=environment, stdin=subprocess.DEVNULL, check=False).returncode
        if status:
            message = f"'{shlex.join(step)}' failed with status {status}. Mend that, then run this again."
            raise SetupError(message)


# --------------------------------------------------------------------------- the Python environment


def venv_program(name: str) -> Path:
    """Locate a program inside the environment."""
    if os.name == "nt":
        return VENV / "Scripts" / f"{name}.exe"
    return VENV / "bin" / name


def make_environment(extras: Sequence[str]) -> None:
    """Create ``.venv`` and install the package with the given extras; does nothing where that was done before."""
    key = environment_key()
    installed = read_stamp(key)
    if set(extras) <= installed:
        return
    if not has_pip():
        create_venv()
    install_torch()
    wanted = sorted(installed.union(extras))
    say(f"Installing the package and what it needs ({', '.join(wanted)})")
    pip("install", "--no-compile", "--constraint", str(CONSTRAINTS), "--editable", f"{ROOT}[{','.join(wanted)}]")
    compile_packages()
    STAMP.write_text(json.dumps({"key": key, "extras": wanted}))


def has_pip() -> bool:
    """Tell whether there is an environment that something can be installed into; what a crash left may hold no pip."""
    command = [str(venv_program("python")), "-m", "pip", "--version"]
    try:
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        return False  # no Python either, or one that is gone


def compile_packages() -> None:
    """Compile what was installed on all cores; pip does it on one, which is nearly half of all its work."""
    # Some packages come with files for other versions of Python; what cannot be compiled is not imported either.
    command = [str(venv_program("python")), "-m", "compileall", "-qq", "-j", "0", str(VENV)]
    subprocess.run(command, capture_output=True, check=False)


def environment_key() -> str:
    """Digest everything that decides what is installed, so that a change of it installs anew."""
    digest = hashlib.sha256(f"{sys.version_info[:2]} {ROOT} {TORCH_TESTED}".encode())
    for name in ("pyproject.toml", "napari.yaml"):  # the manifest is copied into the environment, even an editable one
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()


def read_stamp(key: str) -> set[str]:
    """Tell which extras are installed; none where the environment was made from other files or is gone."""
    try:
        stamp = json.loads(STAMP.read_text())
        return set(stamp["extras"]) if stamp["key"] == key and venv_program("python").exists() else set()
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def create_venv() -> None:
    """Create an empty environment."""
    free = shutil.disk_usage(ROOT).free
    if free < NEEDED_DISK_BYTES:
        message = f"Only {free / 1024**3:.1f} GB of disk are free here, but the environment needs about 4 GB."
        raise SetupError(message)
    say(f"Making the environment {VENV}")
    try:
        run(sys.executable, "-m", "venv", "--clear", str(VENV))
    except (SetupError, KeyboardInterrupt):
        shutil.rmtree(VENV, ignore_errors=True)  # half an environment would be taken for a whole one
        raise


def install_torch() -> None:
    """Install torch, on Linux without an NVIDIA GPU its small CPU build, and hold it against later changes."""
    version = installed_torch()
    if not version:
        say("Installing PyTorch")
        if needs_cpu_build():
            install_cpu_torch()
        else:
            pip("install", "--no-compile", TORCH_ANY)
        version = installed_torch()
    CONSTRAINTS.write_text(f"torch=={version}\n")


def installed_torch() -> str:
    """Version of the torch in the environment, or an empty string."""
    code = "from importlib.metadata import version; print(version('torch'))"
    answer = subprocess.run([venv_program("python"), "-c", code], capture_output=True, text=True, check=False)
    return answer.stdout.strip()


def needs_cpu_build() -> bool:
    """Tell whether the ordinary torch would bring gigabytes of CUDA to a machine that cannot use them."""
    if not sys.platform.startswith("linux") or os.environ.get("NUCLEISEG_TORCH") == "cuda":
        return False
    if not shutil.which("nvidia-smi"):
        return True
    return subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, check=False).returncode != 0


def install_cpu_torch() -> None:
    """Take torch's CPU build from pip's own wheel folders if they hold one, else from PyTorch's index."""
    attempts = (
        ["--no-index", "--no-deps", TORCH_TESTED],
        ["--no-index", "--no-deps", TORCH_ANY],
        ["--index-url", TORCH_CPU_INDEX, "--retries", "2", TORCH_ANY],
    )
    for attempt in attempts:
        command = [str(venv_program("python")), "-m", "pip", "install", "--quiet", "--no-compile", *attempt]
        if subprocess.run(command, capture_output="--no-index" in attempt, check=False).returncode == 0:
            return
    message = (
        f"PyTorch's CPU build could not be had from {TORCH_CPU_INDEX}. Check the network and run this again, or accept "
        "the CUDA build of several gigabytes by setting the environment variable NUCLEISEG_TORCH=cuda."
    )
    raise SetupError(message)


def pip(*arguments: str) -> None:
    """Run pip inside the environment; quiet where nobody watches."""
    quiet = [] if sys.stdout.isatty() else ["--quiet"]
    run(str(venv_program("python")), "-m", "pip", *arguments, *quiet, "--disable-pip-version-check")


def run(*command: str) -> None:
    """Run a step of the installation; SetupError where it fails."""
    status = subprocess.run(command, cwd=ROOT, check=False).returncode
    if status:
        message = f"This step failed with status {status}:\n\n  {shlex.join(command)}"
        raise SetupError(message)


def say(sentence: str) -> None:
    """Tell the user what is being done, at once even through a pipe."""
    print(f"==> {sentence}", flush=True)


# --------------------------------------------------------------------------- the commands


def run_demo(screenshot: Path | None, slide: Path | None) -> int:
    """Open the program on a slide; with ``screenshot`` save a picture of the window and leave."""
    command = [str(venv_program("napari-nucleiseg")), "demo"]
    if slide is not None:
        command += ["--slide", str(slide)]
    if screenshot is None:
        return subprocess.run(command, check=False).returncode
    command += ["--screenshot", str(screenshot)]
    with clean_environment() as environment, display(environment):
        return subprocess.run(command, env=environment, check=False).returncode


WINDOW_TESTS = "tests/widgets"
# After some 200 windows in one process the last tests fail; and the more runs, the less one lane waits for the other.
WINDOW_RUNS = 9
# Runs of the other tests, the longest first; one more, longer than these, has all that is not named here.
OTHER_RUNS = (
    ("tests/core/batch", "tests/core/exchange", "tests/core/inference"),
    ("tests/core/training", "tests/core/teaching"),
    ("tests/cli", "tests/viewer"),
)

# Beginnings of what pytest understands only while it remembers which tests failed.
OF_MEMORY = ("--lf", "--last-failed", "--ff", "--failed-first", "--nf", "--new-first", "--sw", "--stepwise", "--cache-")


def runs_of_windows() -> list[list[str]]:
    """Return the modules of window tests, as paths in the repository, a list for each process with as many tests."""
    tests = {path: path.read_text("utf-8").count("\ndef test_") for path in (ROOT / WINDOW_TESTS).glob("test_*.py")}
    runs: list[list[Path]] = [[] for _ in range(WINDOW_RUNS)]
    for path in sorted(tests, key=lambda path: (-tests[path], path.name)):
        min(runs, key=lambda run: sum(tests[one] for one in run)).append(path)
    return [[path.relative_to(ROOT).as_posix() for path in run] for run in runs]


def runs_of_all() -> list[list[str]]:
    """Return what each run of pytest is told, so that together they run every test once: first those of the window.

    At both ends stands what takes longest.
    """
    windows = [[*modules, "-m", "not slow"] for modules in runs_of_windows()]
    named = [folder for folders in OTHER_RUNS for folder in folders]
    rest = ["tests", *(f"--ignore={folder}" for folder in (WINDOW_TESTS, *named))]
    return [[WINDOW_TESTS, "-m", "slow"], *windows, *reversed([list(folders) for folders in OTHER_RUNS]), rest]


class Lane(threading.Thread):
    """Runs programs one after the other, beside another lane; `status` is that of its first that fails.

    Parameters
    ----------
    take
        Takes a command line from those that wait, which the other lane takes from as well; IndexError where none does.
    environment
        Environment variables of the programs.
    told
        Where what they print goes; None is where our own goes.
    """

    def __init__(self, take: Callable[[], list[str]], environment: dict[str, str], told: IO[bytes] | None) -> None:
        super().__init__(daemon=True)
        self.status = 0
        self._take, self._environment, self._told = take, environment, told
        self._process: subprocess.Popen[bytes] | None = None

    def run(self) -> None:
        """Run them until none waits."""
        with contextlib.suppress(IndexError):
            while True:
                self._process = subprocess.Popen(
                    self._take(),
                    cwd=ROOT,
                    env=self._environment,
                    stdout=self._told,
                    stderr=None if self._told is None else subprocess.STDOUT,
                )
                status = self._process.wait()
                self.status = self.status or status

    def stop(self) -> None:
        """End what runs; what still waits must have been taken away before."""
        if self._process is not None:
            self._process.kill()
        self.join()


def run_tests(pytest_arguments: Sequence[str], *, fast: bool, lint: bool = False) -> int:
    """Run pytest; on Linux pytest-xvfb gives each run of it a screen of its own where Xvfb is there.

    All tests together are several runs, two of them side by side; with ``lint`` the checks of the source are one more.
    """
    if not fast and are_of_all(pytest_arguments):
        first = [[sys.executable, str(ROOT / "dev.py"), "lint"]] if lint else []
        return run_all([*first, *commands_of_all(pytest_arguments)])
    command = [str(venv_program("python")), "-m", "pytest", *pytest_arguments, *(["-m", "not slow"] if fast else [])]
    with clean_environment() as environment:
        return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode


def are_of_all(pytest_arguments: Sequence[str]) -> bool:
    """Tell whether these arguments of pytest choose no tests."""
    return all(word.startswith("--") for word in pytest_arguments)


def commands_of_all(pytest_arguments: Sequence[str]) -> list[list[str]]:
    """Return the command lines that together run all tests."""
    command = [str(venv_program("python")), "-m", "pytest", *pytest_arguments]
    if not any(word.startswith(OF_MEMORY) for word in pytest_arguments):
        command += ["-p", "no:cacheprovider"]
    return [[*command, *words] for words in runs_of_all()]


def run_all(commands: Sequence[list[str]]) -> int:
    """Run programs in two lanes, from both ends, so that windows have a core and both end at about the same time.

    The lane that begins with the last shows at once what it is told, the other when all have ended.
    """
    waiting = collections.deque(commands)
    with clean_environment() as one, clean_environment() as other, tempfile.TemporaryFile() as told:
        lanes = [Lane(waiting.pop, one, None), Lane(waiting.popleft, other, told)]
        try:
            for lane in lanes:
                lane.start()
            for lane in lanes:
                lane.join()
        finally:
            waiting.clear()
            for lane in lanes:
                lane.stop()
            told.seek(0)
            print(told.read().decode(errors="replace"), flush=True)
    return next((lane.status for lane in lanes if lane.status), 0)


def run_lint() -> int:
    """Run every check of the source; the status is that of the first that fails, after all have run."""
    checks = (
        ("ruff", "check"),
        ("ruff", "format", "--check"),
        ("lint-imports",),
        ("mypy",),
    )
    statuses = []
    for name, *rest in checks:
        say(" ".join((name, *rest)))
        statuses.append(subprocess.run([venv_program(name), *rest], cwd=ROOT, check=False).returncode)
    return next((status for status in statuses if status), 0)


@contextlib.contextmanager
def clean_environment() -> Iterator[dict[str, str]]:
    """Yield environment variables under which a run neither reads nor writes the user's napari settings."""
    with tempfile.TemporaryDirectory(prefix="nucleiseg-") as folder:
        environment = {**os.environ, "NAPARI_CONFIG": str(Path(folder) / "settings.yaml"), "QT_API": "pyside6"}
        # Without it each of many processes compiles all tests, and all that pytest rewrites for its plugins.
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        environment.setdefault("OMP_NUM_THREADS", "1")  # more threads than cores make small networks many times slower
        environment.pop("QT_QPA_PLATFORM", None)  # Qt's offscreen platform draws no OpenGL
        yield environment


@contextlib.contextmanager
def display(environment: dict[str, str]) -> Iterator[None]:
    """Give ``environment`` a display: the real one, else an Xvfb that ends with the block."""
    if has_display():
        yield
        return
    read_end, write_end = os.pipe()
    command = ["Xvfb", "-displayfd", str(write_end), "-screen", "0", "1600x1000x24", "-nolisten", "tcp"]
    server = subprocess.Popen(command, pass_fds=[write_end], stderr=subprocess.DEVNULL)
    os.close(write_end)
    try:
        with os.fdopen(read_end) as answer:
            number = answer.readline().strip()
        if not number:
            message = "Xvfb did not start, so there is no display to draw on."
            raise SetupError(message)
        environment["DISPLAY"] = f":{number}"
        yield
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    sys.exit(main())

"""What ``dev.py`` decides on each system: what is missing, which torch, where programs lie, what is said."""

from __future__ import annotations

import argparse
import collections
import importlib.util
import io
import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

DEV_PY = Path(__file__).parents[1] / "dev.py"


@pytest.fixture
def dev(monkeypatch):
    """The module, freshly loaded, on a Linux machine without display, GPU, Xvfb or any of the variables it heeds."""
    spec = importlib.util.spec_from_file_location("dev_py", DEV_PY)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module.sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "NUCLEISEG_TORCH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(module.shutil, "which", lambda _name: None)
    return module


@pytest.fixture
def programs(dev, monkeypatch):
    """Say which programs the machine has."""

    def have(*names):
        monkeypatch.setattr(dev.shutil, "which", lambda name: f"/usr/bin/{name}" if name in names else None)

    return have


@pytest.fixture
def started(dev, monkeypatch):
    """Commands that would have been started, and what the next of them answer; none is."""
    commands, answers = [], []

    def run(command, **_options):
        commands.append([str(word) for word in command])
        return subprocess.CompletedProcess(command, answers.pop(0) if answers else 0)

    monkeypatch.setattr(dev.subprocess, "run", run)
    run.commands, run.answers = commands, answers
    return run


# ---------------------------------------------------------------------- displays


def demo(screenshot=None):
    return argparse.Namespace(command="demo", screenshot=screenshot)


def test_a_window_without_a_display_is_refused_with_a_way_out(dev):
    with pytest.raises(dev.SetupError, match=r"no display .* demo --screenshot out\.png"):
        dev.check_display(demo())


def test_nothing_else_needs_a_display(dev):
    dev.check_display(demo(Path("out.png")))
    for command in ("test", "lint", "setup"):
        dev.check_display(argparse.Namespace(command=command))


@pytest.mark.parametrize("variable", ["DISPLAY", "WAYLAND_DISPLAY"])
def test_a_display_is_believed(dev, monkeypatch, variable):
    monkeypatch.setenv(variable, ":0")
    dev.check_display(demo())


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_other_systems_always_have_a_display(dev, monkeypatch, platform):
    monkeypatch.setattr(dev.sys, "platform", platform)
    dev.check_display(demo())


# ---------------------------------------------------------------------- system packages


@pytest.fixture
def machine(dev, monkeypatch, tmp_path):
    """A machine that has everything but the shared libraries that are named."""
    font = tmp_path / "fonts" / "deep" / "DejaVu.ttf"
    font.parent.mkdir(parents=True)
    font.touch()

    def without(*absent, fonts=True, venv=True):
        def load(name):
            if name in absent:
                raise OSError(name)

        monkeypatch.setattr(dev.ctypes, "CDLL", load)
        folders = {"/usr/share/fonts": font.parents[1] if fonts else tmp_path / "none"}
        monkeypatch.setattr(dev, "Path", lambda name: folders.get(name, tmp_path / "none"))
        monkeypatch.setattr(dev.importlib.util, "find_spec", lambda _name: object() if venv else None)

    return without


def test_a_machine_that_has_all_lacks_nothing(dev, machine, programs, monkeypatch):
    machine()
    programs("Xvfb")
    assert dev.missing_packages("test") == {}
    programs()
    monkeypatch.setenv("DISPLAY", ":0")
    assert dev.missing_packages("demo") == {}


def test_what_is_missing_is_named_with_its_package(dev, machine):
    machine("libEGL.so.1", "libxcb-cursor.so.0", fonts=False, venv=False)
    assert dev.missing_packages("demo") == {
        f"python3.{sys.version_info.minor}-venv": "Python's venv",
        "libegl1": "libEGL.so.1",
        "libxcb-cursor0": "libxcb-cursor.so.0",
        "xvfb": "Xvfb",
        "fonts-dejavu-core": "a font",
    }


def test_the_mouse_of_one_test_is_installed_only_where_nobody_need_be_asked(dev, machine, programs, monkeypatch):
    machine()
    monkeypatch.setattr(dev.os, "geteuid", lambda: 0)
    programs("Xvfb", "apt-get")
    assert dev.missing_packages("test") == {"xdotool": "a mouse for the tests"}
    assert dev.missing_packages("demo") == {}
    programs("Xvfb", "apt-get", "xdotool")
    assert dev.missing_packages("test") == {}
    programs("Xvfb", "apt-get")
    monkeypatch.setattr(dev.os, "geteuid", lambda: 1000)
    assert dev.missing_packages("test") == {}


def test_checks_of_the_source_need_no_libraries(dev, machine):
    machine("libEGL.so.1", fonts=False)
    assert dev.missing_packages("lint") == {}
    machine(venv=False)
    assert list(dev.missing_packages("lint").values()) == ["Python's venv"]


@pytest.fixture
def lacking(dev, monkeypatch):
    monkeypatch.setattr(dev, "missing_packages", lambda _command: {"xvfb": "Xvfb", "libegl1": "libEGL.so.1"})


@pytest.mark.usefixtures("lacking")
def test_without_apt_it_is_said_what_to_look_for(dev, started):
    with pytest.raises(dev.SetupError, match=r"Missing: Xvfb, libEGL\.so\.1\. Install your system's packages of these"):
        dev.install_system_packages("test")
    assert started.commands == []


@pytest.mark.usefixtures("lacking")
def test_who_is_not_root_is_told_the_line_to_run(dev, programs, started, monkeypatch):
    programs("apt-get")
    monkeypatch.setattr(dev.os, "geteuid", lambda: 1000, raising=False)
    with pytest.raises(dev.SetupError) as refused:
        dev.install_system_packages("test")
    line = "sudo apt-get update && sudo apt-get install -y --no-install-recommends libegl1 xvfb"
    assert str(refused.value) == f"System packages are missing. Install them, then run this again:\n\n  {line}"
    assert started.commands == []


@pytest.mark.usefixtures("lacking")
def test_root_installs_them(dev, programs, started, monkeypatch, capsys):
    programs("apt-get")
    monkeypatch.setattr(dev.os, "geteuid", lambda: 0, raising=False)
    dev.install_system_packages("test")
    assert capsys.readouterr().out == "==> Installing system packages: libegl1 xvfb\n"
    assert started.commands == [
        ["apt-get", "-qq", "update"],
        ["apt-get", "install", "-y", "--no-install-recommends", "libegl1", "xvfb", "-qq"],
    ]


@pytest.mark.usefixtures("lacking")
def test_an_installation_that_fails_is_said(dev, programs, started, monkeypatch):
    programs("apt-get")
    monkeypatch.setattr(dev.os, "geteuid", lambda: 0, raising=False)
    started.answers[:] = [0, 100]
    with pytest.raises(dev.SetupError, match=r"'apt-get install .* failed with status 100\. Mend that, then run"):
        dev.install_system_packages("test")


@pytest.mark.usefixtures("lacking")
@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_other_systems_need_no_packages(dev, started, monkeypatch, platform):
    monkeypatch.setattr(dev.sys, "platform", platform)
    dev.install_system_packages("test")
    assert started.commands == []


def test_nothing_is_installed_where_nothing_is_missing(dev, programs, started, monkeypatch):
    programs("apt-get")
    monkeypatch.setattr(dev, "missing_packages", lambda _command: {})
    dev.install_system_packages("test")
    assert started.commands == []


# ---------------------------------------------------------------------- Python and its environment


def test_an_old_python_is_told_which_newer_one_is_there(dev, programs, monkeypatch):
    monkeypatch.setattr(dev.sys, "version_info", (3, 9, 1))
    with pytest.raises(dev.SetupError, match=r"3\.11 or newer is needed\. Install Python 3\.11 or newer"):
        dev.check_python()
    programs("python3.12", "python3.11")
    with pytest.raises(dev.SetupError, match=r"Run it with python3\.12\."):
        dev.check_python()


@pytest.mark.parametrize(
    ("platform", "machine", "refused"),
    [("darwin", "x86_64", True), ("darwin", "arm64", False), ("linux", "x86_64", False), ("win32", "AMD64", False)],
)
def test_macs_with_intel_processors_are_refused(dev, monkeypatch, platform, machine, refused):
    monkeypatch.setattr(dev.sys, "platform", platform)
    monkeypatch.setattr(dev.platform, "machine", lambda: machine)
    if refused:
        with pytest.raises(dev.SetupError, match="no longer built for Macs with Intel processors"):
            dev.check_python()
    else:
        dev.check_python()


@pytest.mark.parametrize(
    ("system", "place"), [("posix", ("bin", "napari-nucleiseg")), ("nt", ("Scripts", "napari-nucleiseg.exe"))]
)
def test_programs_lie_where_the_system_puts_them(dev, monkeypatch, system, place):
    with monkeypatch.context() as changed:  # pathlib looks at the name too
        changed.setattr(dev.os, "name", system)
        found = dev.venv_program("napari-nucleiseg")
    assert found == dev.VENV.joinpath(*place)


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_other_systems_take_the_ordinary_torch(dev, started, monkeypatch, platform):
    monkeypatch.setattr(dev.sys, "platform", platform)
    assert not dev.needs_cpu_build()
    assert started.commands == []


def test_linux_without_an_nvidia_driver_takes_the_cpu_build(dev, started):
    assert dev.needs_cpu_build()
    assert started.commands == []


@pytest.mark.parametrize(("status", "cpu_build"), [(0, False), (9, True)])
def test_a_driver_counts_if_it_sees_a_gpu(dev, programs, started, status, cpu_build):
    programs("nvidia-smi")
    started.answers[:] = [status]
    assert dev.needs_cpu_build() is cpu_build
    assert started.commands == [["nvidia-smi", "--list-gpus"]]


def test_who_asks_for_cuda_gets_it(dev, monkeypatch):
    monkeypatch.setenv("NUCLEISEG_TORCH", "cuda")
    assert not dev.needs_cpu_build()
    monkeypatch.setenv("NUCLEISEG_TORCH", "cpu")
    assert dev.needs_cpu_build()


@pytest.fixture
def environment(dev, monkeypatch, tmp_path):
    """An environment that was made with the key ``now``."""
    monkeypatch.setattr(dev, "VENV", tmp_path)
    monkeypatch.setattr(dev, "STAMP", tmp_path / "installed.json")
    dev.venv_program("python").parent.mkdir()
    dev.venv_program("python").touch()
    dev.STAMP.write_text(json.dumps({"key": "now", "extras": ["pyside6", "test"]}))
    return tmp_path


@pytest.mark.usefixtures("environment")
def test_a_stamp_tells_what_is_installed(dev):
    assert dev.read_stamp("now") == {"pyside6", "test"}
    assert dev.read_stamp("changed since") == set()


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize(
    "text", ["", "{", '{"key": "now"}', '{"extras": ["test"]}', "[1]", '{"key": "now", "extras": 1}']
)
def test_a_stamp_that_cannot_be_read_says_nothing(dev, text):
    dev.STAMP.write_text(text)
    assert dev.read_stamp("now") == set()


@pytest.mark.usefixtures("environment")
def test_a_stamp_without_its_environment_says_nothing(dev):
    dev.venv_program("python").unlink()
    assert dev.read_stamp("now") == set()
    dev.STAMP.unlink()
    assert dev.read_stamp("now") == set()


@pytest.mark.usefixtures("environment")
def test_what_is_installed_is_not_installed_again(dev, started, monkeypatch):
    monkeypatch.setattr(dev, "environment_key", lambda: "now")
    dev.make_environment(("pyside6",))
    assert started.commands == []


@pytest.mark.usefixtures("environment")
def test_what_is_installed_is_compiled_afterwards_on_all_cores(dev, started, monkeypatch, tmp_path):
    monkeypatch.setattr(dev, "environment_key", lambda: "changed since")
    monkeypatch.setattr(dev, "install_torch", lambda: None)
    monkeypatch.setattr(dev, "CONSTRAINTS", tmp_path / "constraints.txt")
    dev.make_environment(("pyside6",))
    installed, compiled = (list(map(str, command)) for command in started.commands[-2:])
    assert "--no-compile" in installed
    assert compiled[1:] == ["-m", "compileall", "-qq", "-j", "0", str(tmp_path)]
    assert dev.read_stamp("changed since") == {"pyside6"}


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize(("holds_pip", "made"), [(True, []), (False, ["venv"])])
def test_an_environment_without_pip_is_made_anew(dev, started, monkeypatch, tmp_path, holds_pip, made):
    monkeypatch.setattr(dev, "environment_key", lambda: "changed since")
    monkeypatch.setattr(dev, "CONSTRAINTS", tmp_path / "constraints.txt")
    monkeypatch.setattr(dev, "install_torch", lambda: None)
    monkeypatch.setattr(dev, "create_venv", lambda: started.commands.append(["venv"]))
    started.answers.append(0 if holds_pip else 1)
    dev.make_environment(("test",))
    assert [command[0] for command in started.commands if command == ["venv"]] == made
    assert dev.read_stamp("changed since") == {"test"}


@pytest.mark.usefixtures("environment")
def test_an_environment_is_known_by_its_pip(dev):
    assert not dev.has_pip()  # its Python is an empty file
    dev.venv_program("python").unlink()
    assert not dev.has_pip()
    dev.venv_program("python").symlink_to(sys.executable)
    assert dev.has_pip()


def test_a_package_that_cannot_be_compiled_whole_is_no_fault(dev, started):
    started.answers.append(1)
    dev.compile_packages()
    assert len(started.commands) == 1


def test_tests_compile_what_they_import_once(dev, monkeypatch):
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    with dev.clean_environment() as environment:
        assert "PYTHONDONTWRITEBYTECODE" not in environment


# ---------------------------------------------------------------------- tests


@pytest.fixture
def pytest_runs(dev, monkeypatch, started):
    """The runs of pytest that would have been started in the lanes; those that are told so fail."""
    lanes, second_began = [], threading.Event()

    class Process:
        def __init__(self, command, **options):
            lanes.append(command)
            self.status = started.failing(command)
            self.is_first = options["stdout"] is None
            if not self.is_first:
                options["stdout"].write(b"told by the second lane")
                second_began.set()

        def wait(self):
            assert not self.is_first or second_began.wait(30)
            started.ended += 1
            return self.status

        def kill(self):
            pass

    started.failing, started.ended = lambda _command: 0, 0
    monkeypatch.setattr(dev.subprocess, "Popen", Process)
    started.lanes = lanes
    return started


def marks(commands):
    return [command[command.index("-m", 3) + 1] for command in commands if "-m" in command[3:]]


def modules_of(dev, command):
    """Modules of tests that a run collects, by the paths it is given and told to leave out."""
    root = Path(dev.ROOT)
    left_out = [root / word.removeprefix("--ignore=") for word in command if word.startswith("--ignore=")]
    given = [root / word for word in command if word.startswith("tests")]
    assert given
    assert all(path.exists() for path in (*given, *left_out))
    found = {path for one in given for path in ([one] if one.is_file() else one.rglob("test_*.py"))}
    return {path for path in found if not any(path.is_relative_to(folder) for folder in left_out)}


def test_all_runs_together_have_every_test_once(dev):
    runs = dev.runs_of_all()
    windows = Path(dev.ROOT) / dev.WINDOW_TESTS
    quick = [path for run in runs if "slow" not in run for path in modules_of(dev, run)]
    assert sorted(quick) == sorted((Path(dev.ROOT) / "tests").rglob("test_*.py"))
    for run in runs:
        of_windows = [path.is_relative_to(windows) for path in modules_of(dev, run)]
        # Only the modules of windows are run twice: once for what is quick, once for what is slow.
        assert all(of_windows) if "-m" in run else not any(of_windows)
    (slow,) = (run for run in runs if "slow" in run)
    assert modules_of(dev, slow) == set(windows.glob("test_*.py"))
    assert sorted(marks([["", "", "", *run] for run in runs])) == ["not slow"] * dev.WINDOW_RUNS + ["slow"]


def test_runs_of_windows_have_about_as_many_tests_each(dev):
    tests = [
        sum((Path(dev.ROOT) / module).read_text("utf-8").count("\ndef test_") for module in run)
        for run in dev.runs_of_windows()
    ]
    assert len(tests) == dev.WINDOW_RUNS
    assert min(tests) > 10
    assert max(tests) - min(tests) < 10


@pytest.mark.parametrize("failing", [None, "tests/cli", "slow", "tests/widgets/test_nuclei.py"])
def test_all_tests_are_run_in_two_lanes_and_each_run_can_fail(dev, pytest_runs, capsys, failing):
    pytest_runs.failing = lambda command: 2 if failing in command else 0
    assert dev.run_tests(["--durations=15"], fast=False) == (2 if failing else 0)
    assert sorted(pytest_runs.lanes) == sorted(dev.commands_of_all(["--durations=15"]))
    assert all("--durations=15" in command for command in pytest_runs.lanes)
    assert pytest_runs.commands == []
    assert "told by the second lane" in capsys.readouterr().out


@pytest.mark.parametrize("word", ["--lf", "--last-failed", "--ff", "--sw", "--stepwise-skip", "--cache-clear"])
def test_pytest_remembers_which_tests_failed_where_it_is_asked_to(dev, word):
    assert all("no:cacheprovider" in command for command in dev.commands_of_all(["--durations=3"]))
    commands = dev.commands_of_all([word])
    assert len(commands) > dev.WINDOW_RUNS
    assert not any("no:cacheprovider" in command for command in commands)


@pytest.mark.parametrize("failing", [None, "lint"])
def test_the_source_is_checked_beside_all_tests(dev, pytest_runs, failing):
    pytest_runs.failing = lambda command: 2 if failing in command else 0
    assert dev.run_tests([], fast=False, lint=True) == (2 if failing else 0)
    checks = [command for command in pytest_runs.lanes if "pytest" not in command]
    assert checks == [[sys.executable, str(Path(dev.ROOT) / "dev.py"), "lint"]]
    assert len(pytest_runs.lanes) == 1 + len(dev.commands_of_all([]))


@pytest.mark.parametrize("words", [["--lint", "--fast"], ["--lint", "tests/core"]])
def test_the_source_is_not_checked_beside_some_tests(dev, words, capsys):
    with pytest.raises(SystemExit):
        dev.parse_arguments(["test", *words])
    assert "dev.py lint" in capsys.readouterr().err


def test_what_the_checks_of_the_source_need_is_installed_with_the_tests(dev, monkeypatch):
    made = []
    monkeypatch.setattr(dev, "install_system_packages", lambda _command: None)
    monkeypatch.setattr(dev, "make_environment", made.append)
    monkeypatch.setattr(dev, "run_command", lambda options, _rest: 0 if options.lint else 1)
    assert dev.main(["test", "--lint", "--durations=3"]) == 0
    assert made == [dev.EXTRAS["lint"]]


def test_a_lane_takes_what_waits_until_nothing_does(dev, pytest_runs):
    waiting = collections.deque([["first"], ["second"], ["third"]])
    pytest_runs.failing = lambda command: {"first": 1, "third": 2}.get(command[0], 0)
    lane = dev.Lane(waiting.popleft, {}, io.BytesIO())
    lane.start()
    lane.join()
    assert pytest_runs.lanes == [["first"], ["second"], ["third"]]
    assert pytest_runs.ended == 3  # after a failure, too, one is waited for before the next begins
    assert lane.status == 1


@pytest.mark.parametrize(("words", "fast", "chosen"), [(["tests/core"], False, []), ([], True, ["not slow"])])
def test_what_is_asked_for_is_one_run(dev, pytest_runs, words, fast, chosen):
    assert dev.run_tests(words, fast=fast) == 0
    assert marks(pytest_runs.commands) == chosen
    assert pytest_runs.lanes == []

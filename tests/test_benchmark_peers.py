"""Other tools beside the benchmarks: their environments, their readers, and what is said where one is not there."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
# The benchmarks are no part of the package that is installed.
sys.path.insert(0, str(ROOT))

from benchmarks import environments, running  # noqa: E402
from benchmarks.catalogue import benchmark  # noqa: E402

TIFFSLIDE = """
import os
import numpy as np

class TiffSlide:
    def __init__(self, path):
        print("it talks")
        self.path = path

    def read_region(self, corner, level, size, as_array):
        if corner[0] == 512:
            os.write(2, b"out of luck\\n")
            os._exit(3)
        sum(range(100_000))
        return np.full((*size, 4), 7, np.uint8)
"""
posix_only = pytest.mark.skipif(sys.platform == "win32", reason="a shell script stands for an environment's Python")


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Import a module of the scripts as they import it."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return importlib.import_module


def pretend(name: str, folder: Path, key: str | None = None) -> Path:
    """An environment that is our own Python."""
    home, pinned = environments._places(name, folder)
    python = environments._python(home)
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n', encoding="utf-8")
    python.chmod(0o755)
    (home / "installed").write_text(environments._key(pinned) if key is None else key, encoding="utf-8")
    return python


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[list[str]]:
    """A list of packages of the test's own, and the commands that would install it."""
    (tmp_path / "peers").mkdir()
    (tmp_path / "peers" / "tool.txt").write_text("numpy==2.4.6\ntorch==2.13.0\n", encoding="utf-8")
    (tmp_path / "peers" / "small.txt").write_text("numpy==2.4.6\n", encoding="utf-8")
    monkeypatch.setattr(environments, "HERE", tmp_path)
    done: list[list[str]] = []

    def pretended(*command: object) -> None:
        step = [str(part) for part in command]
        done.append(step)
        if "venv" in step:
            Path(step[-1]).mkdir(parents=True)
        if "--no-index" in step:
            raise environments.NotInstalledError("no wheel here")

    monkeypatch.setattr(environments, "_done", pretended)
    return done


def test_lists_pin_every_package_and_name_no_cuda_library() -> None:
    assert {*environments.ENGINES, "readers", "stardist"} == set(environments.NAMES)
    for name in environments.NAMES:
        lines = (environments.HERE / "peers" / f"{name}.txt").read_text(encoding="utf-8").splitlines()
        assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9_.-]+==[\w.]+", line)] == [], name
        assert [line for line in lines if line.lower().startswith("nvidia")] == [], name
        assert len({line.partition("==")[0].lower() for line in lines}) == len(lines), name


def test_an_environment_is_made_once_and_pip_chooses_nothing(steps: list[list[str]], tmp_path: Path) -> None:
    python = environments.made("tool", tmp_path / "kept")
    installing = [step for step in steps if "pip" in step]
    assert [step[-1] for step in installing] == [
        "torch==2.13.0", "torch==2.13.0", str(tmp_path / "peers" / "tool.txt"),
    ]  # fmt: skip
    assert all("--no-deps" in step and step[0] == str(python) for step in installing)
    assert environments.TORCH_CPU_INDEX in installing[1]
    steps.clear()
    assert environments.made("tool", tmp_path / "kept") == python == environments.present("tool", tmp_path / "kept")
    assert steps == []
    (tmp_path / "peers" / "tool.txt").write_text("numpy==2.4.7\n", encoding="utf-8")
    with pytest.raises(environments.NotInstalledError, match=r"of other versions: python benchmarks/environments\.py"):
        environments.present("tool", tmp_path / "kept")
    environments.made("small", tmp_path / "kept")
    assert [step for step in steps if "torch==2.13.0" in step] == []


def test_what_cannot_be_installed_is_said_and_the_others_are_made(
    steps: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pretended = environments._done

    def failing(*command: object) -> None:
        pretended(*command)
        if str(tmp_path / "peers" / "tool.txt") in map(str, command):
            raise environments.NotInstalledError("there is no such version")

    monkeypatch.setattr(environments, "_done", failing)
    assert environments.make(("tool", "small"), tmp_path / "kept") == ["tool"]
    assert "tool could not be made: there is no such version" in capsys.readouterr().out
    assert [environments.is_present(name, tmp_path / "kept") for name in ("tool", "small")] == [False, True]
    assert len(steps) > 4


def test_a_step_that_fails_has_its_last_words_in_the_message() -> None:
    with pytest.raises(environments.NotInstalledError, match="no such luck"):
        environments._done(sys.executable, "-c", "raise SystemExit('no such luck')")


def test_the_unattended_run_takes_the_engines_that_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "PEERS", tmp_path / "peers")
    monkeypatch.setattr(running, "ROOT", tmp_path)
    pretend("readers", tmp_path / "peers")
    pretend("tiatoolbox", tmp_path / "peers", key="of another year")
    peers = benchmark("peers")
    assert "No environment of another tool is in peers" in running.lacking(peers, with_peers=False)
    pretend("monai", tmp_path / "peers")
    assert running.lacking(peers, with_peers=False) == ""
    assert running._only_present(peers, with_peers=False) == ("--only", "monai")
    assert running._only_present(peers, with_peers=True) == ()


@posix_only
def test_a_script_in_an_environment_answers_or_says_why_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "peers").mkdir()
    (tmp_path / "peers" / "tool.txt").write_text("numpy==2.4.6\n", encoding="utf-8")
    monkeypatch.setattr(environments, "HERE", tmp_path)
    script = tmp_path / "peers" / "script.py"
    script.write_text("import os, sys; print('loud'); print([sys.argv[1], os.environ['OMP_NUM_THREADS'] == '1'][0])")
    with pytest.raises(environments.NotInstalledError, match=r"is not there: python benchmarks/environments\.py tool"):
        environments.answer_of("tool", "script.py", 5, folder=tmp_path / "kept")
    pretend("tool", tmp_path / "kept")
    assert environments.answer_of("tool", "script.py", "[1, 2]", folder=tmp_path / "kept") == [1, 2]
    script.write_text("raise ValueError('no such nucleus')")
    with pytest.raises(environments.PeerFailedError, match="it failed: ValueError: no such nucleus"):
        environments.answer_of("tool", "script.py", folder=tmp_path / "kept")


@posix_only
def test_a_reader_waits_for_its_turn_and_a_lost_one_says_its_last_words(
    scripts: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other_readers, measuring = scripts("other_readers"), scripts("measuring")
    pretend("readers", tmp_path / "kept")
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "tiffslide.py").write_text(TIFFSLIDE, encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "modules"))
    found, missing = other_readers.others(tmp_path / "slide.svs", tmp_path / "kept")
    try:
        assert set(found) == {"tiffslide"}
        assert missing == {
            "pyvips": "it failed: ModuleNotFoundError: No module named 'pyvips'",
            "cuCIM": "it failed: ModuleNotFoundError: No module named 'cucim'",
        }
        reader = found["tiffslide"]
        pixels = reader.pixels(0, 0, 16)
        assert pixels.shape == (16, 16, 3)
        assert np.all(pixels == 7)
        one = measuring.in_turn({"theirs": lambda: reader.timed([(0, 0)] * 50, 16)}, 2)["theirs"]
        assert len(one.rounds) == 2
        assert 0 < one.cpu < 30
        with pytest.raises(other_readers.ReaderLostError, match="it failed: out of luck"):
            reader.timed([(0, 0), (0, 512)], 16)
    finally:
        for reader in found.values():
            reader.close()
            assert reader.process.returncode is not None


def test_without_environments_every_reader_says_how_to_get_it(scripts: Any, tmp_path: Path) -> None:
    found, missing = scripts("other_readers").others(tmp_path / "slide.svs", tmp_path / "none")
    assert found == {}
    assert set(missing) == {"tiffslide", "pyvips", "cuCIM"}
    assert missing["cuCIM"] == "its environment is not there: python benchmarks/environments.py readers"


@pytest.fixture
def postprocessing(scripts: Any) -> ModuleType:
    return scripts("postprocessing")  # type: ignore[no-any-return]


def test_tools_that_are_not_there_leave_a_reason_each(postprocessing: ModuleType, tmp_path: Path) -> None:
    figures = importlib.import_module("measuring").recorder.figures
    figures.clear()
    labels = np.zeros((32, 32), np.int32)
    labels[4:12, 4:12] = 1
    assert postprocessing.beside_peers(labels, {}, 1.0, tmp_path / "none")
    assert [one["what"] for one in figures] == [
        f"{tool}, times ours" for tool in ("TIAToolbox", "InstanSeg", "Cellpose", "StarDist")
    ]
    assert all("environments.py" in one["reason"] and one["value"] is None for one in figures)


def test_a_tool_is_held_against_what_we_do_in_its_stead(postprocessing: ModuleType) -> None:
    figures = importlib.import_module("measuring").recorder.figures
    figures.clear()
    rows = [
        postprocessing.Row("TIAToolbox", "HoVerNet._proc_np_hv", 30.0, 1.0, 90, 0.9),
        postprocessing.Row("TIAToolbox", "HoVerNet.postproc", 30.0, 1.0, None, None),
        postprocessing.Row("Cellpose", "compute_masks, flows not checked", 1.0, 1.0, 90, 0.9),
    ]
    ours = {"offsets": 3.0, "offsets and outlines": 5.0}
    assert not postprocessing._judged(rows, ours, 0.99)
    assert [(one["value"], one["met"]) for one in figures] == [
        (10.0, True), (pytest.approx(0.09), True), (6.0, False),
    ]  # fmt: skip
    assert figures[2]["what"].endswith("times ours with outlines")


def test_the_command_refuses_a_tool_that_it_does_not_know() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "environments.py"), "qupath"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 2
    assert "there is no list of packages for qupath; there are cellpose, instanseg" in answer.stderr

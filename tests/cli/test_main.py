"""The program as a whole: help at once, exit statuses, sentences instead of tracebacks."""

import io
import json
import os
import subprocess
import sys

import pytest

import napari_nucleiseg
from napari_nucleiseg.cli import COMMANDS, main
from napari_nucleiseg.cli.console import Console
from napari_nucleiseg.core.errors import ModelError
from napari_nucleiseg.core.geometry import Region

HEAVY = ("numpy", "torch", "zarr", "rich", "napari", "qtpy", "cv2", "scipy", "skimage", "tifffile", "dask")


def test_help_names_all_commands_and_exit_statuses(shell):
    answer = shell("--help")
    assert answer.status == 0
    assert all(name in answer.out and summary in answer.out for name, summary in COMMANDS.items())
    assert "130  interrupted" in answer.out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(shell, command):
    answer = shell(command, "--help")
    assert answer.status == 0
    assert COMMANDS[command][1:] in " ".join(answer.out.split())


def test_version(shell):
    assert shell("--version").out.strip() == napari_nucleiseg.__version__


@pytest.mark.parametrize("words", [(), ("paint",), ("segment",), ("evaluate", "--pred", "x"), ("models", "burn")])
def test_what_cannot_be_understood_is_status_two(shell, words):
    answer = shell(*words)
    assert answer.status == 2
    assert "usage:" in answer.err


@pytest.mark.parametrize(
    "words", [["--help"], *([name, "--help"] for name in ("segment", "train", "finetune", "models"))]
)
def test_help_imports_nothing_heavy_and_is_quick(words):
    code = (
        "import sys\nfrom napari_nucleiseg.cli import main\n"
        f"try: main({words})\nexcept SystemExit: pass\n"
        f"print('HEAVY', *sorted(set({HEAVY}) & set(sys.modules)))\n"
        "import resource\nused = resource.getrusage(resource.RUSAGE_SELF)\n"
        "print('SECONDS', used.ru_utime + used.ru_stime)"
    )
    pytest.importorskip("resource", reason="CPU time is measured through the resource module, which Windows lacks")
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy, seconds = answer.stdout.splitlines()[-2:]
    assert heavy == "HEAVY"
    assert float(seconds.split()[1]) < 0.3


def break_with(monkeypatch, error):
    def run(_options, _console):
        raise error

    monkeypatch.setattr("napari_nucleiseg.cli.doctor.run", run)


def test_an_error_is_one_sentence_and_status_one(shell, monkeypatch):
    break_with(monkeypatch, ModelError("the model is tired; let it sleep"))
    answer = shell("doctor")
    assert (answer.status, answer.out, answer.err) == (1, "", "Error: the model is tired; let it sleep\n")


def test_an_error_is_json_too_where_json_was_asked_for(shell, monkeypatch):
    break_with(monkeypatch, ModelError("the model is tired"))
    answer = shell("doctor", "--json")
    assert answer.status == 1
    assert answer.document == {"error": "the model is tired", "kind": "ModelError"}


def test_a_system_error_names_its_file(shell, monkeypatch):
    break_with(monkeypatch, PermissionError(13, "Permission denied", "/somewhere/out"))
    answer = shell("doctor")
    assert (answer.status, answer.err) == (1, "Error: /somewhere/out: Permission denied\n")


def test_debug_shows_where_it_came_from(monkeypatch):
    break_with(monkeypatch, ModelError("the model is tired"))
    with pytest.raises(ModelError):
        main(["--debug", "doctor"])


# A command that logs and warns as libraries do, beside a progress bar.
NOISY_PROGRAM = """
import logging, sys, warnings
from napari_nucleiseg.cli import doctor, main

def run(_options, console):
    with console.progress() as bars:
        bars.update("tiles", 1, 2)
        logging.getLogger("tifffile").warning("odd tag")
        logging.getLogger("napari_nucleiseg.core.slides").debug("a detail")
        warnings.warn("an old call")
        logging.getLogger("zarr").error("broken chunk")
    return 0

doctor.run = run
status = main()
logging.getLogger("tifffile").warning("after the command")
sys.exit(status)
"""


def noise(*words, **environment):
    command = [sys.executable, "-W", "default", "-c", NOISY_PROGRAM, *words]
    kept = {name: value for name, value in os.environ.items() if name not in {"FORCE_COLOR", "PYTHONWARNINGS"}}
    answer = subprocess.run(command, capture_output=True, text=True, check=True, env=kept | environment)
    assert answer.stdout == ""
    said, _, after = answer.stderr.rpartition("after the command")
    assert after == "\n"  # what the command set up is gone with it
    return said


def test_of_what_libraries_log_only_errors_are_said():
    assert noise("doctor") == "ERROR from zarr: broken chunk\n"


def test_errors_stand_above_the_progress_bars_of_a_terminal():
    said = noise("doctor", FORCE_COLOR="1", TERM="xterm")
    assert "tiles" in said
    assert any(line.endswith("ERROR from zarr: broken chunk") for line in said.splitlines())
    assert "odd tag" not in said


def test_debug_shows_the_log():
    lines = noise("--debug", "doctor").splitlines()
    assert lines[:2] == ["WARNING from tifffile: odd tag", "DEBUG from napari_nucleiseg.core.slides: a detail"]
    assert lines[2].startswith("WARNING from py.warnings: ")
    assert "UserWarning: an old call" in lines[2]
    assert lines[-1] == "ERROR from zarr: broken chunk"


def test_an_interruption_is_status_130(shell, monkeypatch):
    break_with(monkeypatch, KeyboardInterrupt())
    answer = shell("doctor")
    assert answer.status == 130
    assert "the same command goes on from there" in answer.err


def test_an_interruption_is_json_too_where_json_was_asked_for(shell, monkeypatch):
    break_with(monkeypatch, KeyboardInterrupt())
    answer = shell("doctor", "--json")
    assert answer.status == 130
    assert answer.document["kind"] == "KeyboardInterrupt"
    assert answer.document["error"] == answer.err.strip()


@pytest.mark.parametrize("words", [("--region", "-100,-100,150,150"), ("--region=-100,-100,150,150",)])
def test_a_region_may_begin_left_of_and_above_the_slide(shell, monkeypatch, words):
    asked = []
    monkeypatch.setattr("napari_nucleiseg.cli.measure.run", lambda options, _console: asked.append(options) or 0)
    assert shell("measure", "a.svs", *words, "--out", "a.csv").status == 0
    assert asked[0].region == Region(-100, -100, 150, 150)
    assert asked[0].out == "a.csv"


@pytest.mark.parametrize("words", [["models", "--json"], ["models"]])
def test_a_reader_that_has_seen_enough_is_no_error(words):
    program = [sys.executable, "-c", "from napari_nucleiseg.cli import main; raise SystemExit(main())", *words]
    with subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ.copy()) as process:
        process.stdout.close()
        error = process.stderr.read().decode()
        assert process.wait(60) == 0
    assert "Traceback" not in error
    assert "BrokenPipe" not in error


def test_a_name_that_is_no_utf_8_is_json_too(monkeypatch):
    document = {"path": os.fsdecode(b"caf\xe9.png"), "unit": "µm"}
    for encoding, is_plain in (("utf-8", False), ("utf-8", True), ("ascii", True)):
        said = dict(document) if is_plain else {"unit": "µm"}
        raw = io.BytesIO()
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding))
        Console(as_json=True).result(said)
        assert json.loads(raw.getvalue()) == said
        assert ("µ".encode() in raw.getvalue()) is not is_plain

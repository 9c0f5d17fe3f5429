"""A person draws regions, corrects, holds one out, clicks Teach, and goes back: with a real mouse and a real model."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SLIDE = os.environ.get("NUCLEISEG_TEACH_SLIDE", "tissue")
STEPS = int(os.environ.get("NUCLEISEG_TEACH_STEPS", "4"))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("xdotool") is None, reason="xdotool is not installed")
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the mouse is moved through X")
@pytest.mark.timeout(1800)
def test_taught_by_mouse(tmp_path):
    command = [sys.executable, str(Path(__file__).with_name("teaching_process.py")), SLIDE, str(tmp_path), str(STEPS)]
    if pictures := os.environ.get("NUCLEISEG_TEACH_PICTURES"):
        command += ["--pictures", pictures, "--theme", os.environ.get("NUCLEISEG_TEACH_THEME", "dark")]
    own = {"XDG_DATA_HOME": str(tmp_path / "data"), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    answer = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **own}, check=False)
    assert answer.returncode == 0, answer.stderr[-3000:]
    said = json.loads(answer.stdout.splitlines()[-1])
    assert said["roles"] == ["teach", "teach", "hold out"]
    assert said["done"] == [True, True, True]
    assert "in 2 regions" in said["advice"]
    assert "held out" in said["advice"]
    assert [step for step, _ in said["steps"]] == list(range(STEPS + 1))
    assert said["verdict"].startswith("<b>")
    # Whatever the guard said, the person has the last word, and the way back.
    assert said["former"] == "nuclei"
    assert said["taken"] == "nuclei-2"
    assert said["back"] == "nuclei"
    kept = list((tmp_path / "data").rglob("nuclei-2.safetensors"))
    assert len(kept) == 1
    assert "refused" not in kept[0].parts

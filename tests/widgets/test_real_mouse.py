"""A person corrects nuclei with every tool, the program is killed, and nothing is lost."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
from mouse_parts import NEEDS_A_MOUSE

from napari_nucleiseg.core.store.check import check
from napari_nucleiseg.core.store.project import Project

pytestmark = NEEDS_A_MOUSE

SLIDE = os.environ.get("NUCLEISEG_CORRECT_SLIDE", "tissue")
EACH = int(os.environ.get("NUCLEISEG_CORRECT_EACH", "1"))


def test_what_was_corrected_survives_kill_9_and_is_all_undone_and_done_again(tmp_path):
    command = [sys.executable, str(Path(__file__).with_name("correcting_process.py")), SLIDE, str(tmp_path), str(EACH)]
    if pictures := os.environ.get("NUCLEISEG_CORRECT_PICTURES"):
        command += ["--pictures", pictures]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        line = process.stdout.readline()
        os.kill(process.pid, signal.SIGKILL)
    assert line.startswith("READY"), "the corrections were not made; see above"
    steps = int(line.split()[1])
    assert steps >= 13 * EACH
    before, after = np.load(tmp_path / "before.npy"), np.load(tmp_path / "after.npy")
    assert not np.array_equal(before, after)
    with Project.open(tmp_path / "slide.nucleiseg") as project:
        np.testing.assert_array_equal(np.asarray(project.labels.levels[0]), after)
        kinds = {step.kind for step in project.editor.history(10_000)}
        assert kinds >= {"paint", "erase", "draw", "propose", "split", "merge", "delete", "classify", "approve", "grow"}
        while project.editor.undo():
            pass
        np.testing.assert_array_equal(np.asarray(project.labels.levels[0]), before)
        while project.editor.redo():
            pass
        np.testing.assert_array_equal(np.asarray(project.labels.levels[0]), after)
        assert len(project.editor.history(10_000)) == steps
        assert check(project).is_sound

"""A person paints attention with a real mouse, the program is killed, and nothing is lost."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
from mouse_parts import NEEDS_A_MOUSE

from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.store.attention import DO_NOT_LOOK, LOOK_HERE, read_attention
from napari_nucleiseg.core.store.check import check
from napari_nucleiseg.core.store.project import Project

pytestmark = NEEDS_A_MOUSE


def test_what_was_painted_survives_kill_9_and_is_undone_and_done_again(tmp_path):
    here = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(here), str(here.parent)))}
    command = [sys.executable, str(here / "attention_process.py"), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        line = process.stdout.readline()
        os.kill(process.pid, signal.SIGKILL)
    assert line == "READY 4\n", "the painting was not done; see above"
    after = np.load(tmp_path / "after.npy")
    assert set(np.unique(after)) == {0, LOOK_HERE, DO_NOT_LOOK}
    (folder,) = tmp_path.glob("*.nucleiseg")
    with Project.open(folder) as project:
        whole = Region(0, 0, *project.shape)
        np.testing.assert_array_equal(read_attention(project, whole), after)
        assert [step.undone for step in project.editor.history()] == [True, False, False, False]
        assert project.editor.redo()
        assert (read_attention(project, whole) == LOOK_HERE).sum() > (after == LOOK_HERE).sum()
        list(project.editor.jump(0))
        assert not read_attention(project, whole).any()
        list(project.editor.jump(3))
        np.testing.assert_array_equal(read_attention(project, whole), after)
        assert check(project).is_sound

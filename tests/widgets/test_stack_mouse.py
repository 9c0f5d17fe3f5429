"""A person paints on the nuclei of a stack, the program is killed amid a stroke, and what was done before is there."""

import os
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
from mouse_parts import NEEDS_A_MOUSE

from napari_nucleiseg.core.store.kept_stack import KeptStack
from stack_parts import balls, write_stack

pytestmark = NEEDS_A_MOUSE


def test_killed_amid_a_stroke_the_strokes_before_are_kept(tmp_path):
    stack = write_stack(tmp_path / "cells.ome.tif", balls(5, shape=(12, 52, 72), radius_um=2.8, seed=4)[0])
    here = Path(__file__).parent
    own = {"XDG_DATA_HOME": str(tmp_path / "data"), "PYTHONPATH": os.pathsep.join((str(here), str(here.parent)))}
    command = [sys.executable, str(here / "stack_process.py"), str(stack), str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **own}) as process:
        line = process.stdout.readline()
        os.kill(process.pid, signal.SIGKILL)
    subprocess.run(["xdotool", "mouseup", "1"], check=True)  # the screen is the next test's, too
    assert line.startswith("READY"), "nothing was painted; see above"
    painted = np.load(tmp_path / "painted.npy")
    assert np.count_nonzero(painted == 90) > 50
    (path,) = (tmp_path / "data").rglob("stacks/*/*.sqlite")
    with closing(KeptStack.open(path)) as kept:
        assert kept.facts["painted"] is True
        np.testing.assert_array_equal(kept.read(), painted)

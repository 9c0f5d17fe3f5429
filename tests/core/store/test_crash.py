"""Killed at any instant: what was said to be done is whole, and so are pyramid and table."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from fields import Grid, assert_pyramid, blank_slide, expected_image, random_tiles, whole

from napari_nucleiseg.core.store.check import check
from napari_nucleiseg.core.store.project import Project

KILLS = int(os.environ.get("NUCLEISEG_KILLS", "6"))
SLIDE = blank_slide(2000, 2000)
GRID = Grid(SLIDE.shape, 400)

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no kill -9 on this system")


def run_and_kill(folder, seed, options, *, lines, delay):
    """Start the writer, kill it `delay` seconds after it said `lines` lines; return the tiles it said were done."""
    here = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": str(here), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, here / "writer_process.py", folder, str(seed), options],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    said = [process.stdout.readline().strip() for _ in range(lines)]
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    said += process.stdout.read().split("\n")[:-1]
    process.stdout.close()
    assert process.wait() == -signal.SIGKILL
    assert said[0] == "open"
    return {int(line) for line in said[1:] if line}


def test_killed_at_any_instant_nothing_that_was_done_is_lost(tmp_path):
    rng = np.random.default_rng(int.from_bytes(os.urandom(4), "little"))
    tiles = random_tiles(ord("a"), GRID, n=900)
    done = set()
    for attempt in range(KILLS):
        lines, delay = 1 + int(rng.integers(0, 12)), float(rng.uniform(0, 0.03))
        done |= run_and_kill(tmp_path / "p", attempt, "a", lines=lines, delay=delay)
        if attempt < KILLS - 1 and rng.random() < 0.3:
            continue  # let the next writer find what this one left
        with Project.open(tmp_path / "p", SLIDE) as project:
            finished = project.tiles_done("m", "a")
            assert finished >= done, (attempt, lines, delay)
            image, table = whole(project)
            expected = expected_image([tiles[index] for index in sorted(finished)], SLIDE.shape)[0]
            np.testing.assert_array_equal(image, expected)
            np.testing.assert_array_equal(table.ids, np.unique(expected[expected > 0]))
            assert_pyramid(project)
            assert check(project).is_sound
    assert len(done) > 3


def test_killed_while_other_options_replace_the_nuclei(tmp_path):
    tiles = {options: random_tiles(ord(options), GRID, n=900) for options in "ab"}
    with Project.create(tmp_path / "p", SLIDE) as project:
        for tile in tiles["a"]:
            project.write_tile(tile, "m", "a")
    rng = np.random.default_rng(int.from_bytes(os.urandom(4), "little"))
    for attempt in range(max(2, KILLS // 2)):
        options = "ba"[attempt % 2]
        said = run_and_kill(
            tmp_path / "p", attempt, options, lines=int(rng.integers(2, 9)), delay=float(rng.uniform(0, 0.03))
        )
        with Project.open(tmp_path / "p", SLIDE) as project:
            assert project.tiles_done("m", options) >= said
            assert check(project).is_sound
    with Project.open(tmp_path / "p", SLIDE) as project:
        for tile in tiles["a"]:
            if tile.tile_index not in project.tiles_done("m", "a"):
                project.write_tile(tile, "m", "a")
        np.testing.assert_array_equal(whole(project)[0], expected_image(tiles["a"], SLIDE.shape)[0])
        assert check(project).is_sound


def test_a_project_whose_creation_was_killed_can_be_made(tmp_path):
    here = Path(__file__).parent
    code = (
        "import os, signal, sys\n"
        "from fields import blank_slide\n"
        "from napari_nucleiseg.core.store import project\n"
        "def die(*_): os.kill(os.getpid(), signal.SIGKILL)\n"
        "setattr(project.Ledger, 'create', die)\n"
        "project.Project.create(sys.argv[1], blank_slide(2000, 2000))\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(here)}
    result = subprocess.run([sys.executable, "-c", code, tmp_path / "p"], env=environment, check=False)
    assert result.returncode == -signal.SIGKILL
    assert (tmp_path / "p" / "project.lock").exists()
    with Project.open_or_create(tmp_path / "p", SLIDE) as project:
        assert project.tiles_done("m", "a") == set()

"""Killed at any instant while people edit, models write or results are exported: what was finished is there, whole."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import tifffile
from editing_process import SLIDE, Plain, parts, small_bounds, tiles_of
from fields import assert_pyramid, whole

from napari_nucleiseg.core.store import redo as redo_module
from napari_nucleiseg.core.store.check import check
from napari_nucleiseg.core.store.chunks import ChunkPyramid
from napari_nucleiseg.core.store.project import Project

KILLS = int(os.environ.get("NUCLEISEG_EDITING_KILLS", "90"))
SEED = int(os.environ.get("NUCLEISEG_EDITING_SEED", str(int.from_bytes(os.urandom(4), "little"))))

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not hasattr(signal, "SIGKILL") or not hasattr(os, "fork"), reason="no kill -9 on this system"),
]


class Server:
    """Starts children that act, and kills them."""

    def __init__(self):
        here = Path(__file__).parent
        environment = {**os.environ, "PYTHONPATH": str(here), "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, here / "editing_process.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        assert self._line() == "ready"

    def kill(self, mode, folder, seed, number, *, lines, delay):
        """Let a child act from `number` on; kill it `delay` seconds after `lines` lines; return how far it got."""
        self.process.stdin.write(f"{mode}\t{folder}\t{seed}\t{number}\n")
        self.process.stdin.flush()
        # A child may speak before its number is told.
        said = [self._line()]
        while not said[-1].startswith("child"):
            said.append(self._line())
        child = int(said.pop().split()[1])
        while len(said) < lines:
            said.append(self._line())
            assert not said[-1].startswith(("failed", "ended")), (said, SEED)
        time.sleep(delay)
        with suppress(ProcessLookupError):  # it says why it failed
            os.kill(child, signal.SIGKILL)
        while not said or said[-1] != "ended":
            said.append(self._line())
            assert not said[-1].startswith("failed"), (said, SEED)
        numbers = [int(line) for line in said if line.isdigit()]
        assert numbers == list(range(number, number + len(numbers)))
        return number + len(numbers)

    def _line(self):
        return self.process.stdout.readline().strip()

    def close(self):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


@pytest.fixture(scope="module")
def server():
    server = Server()
    yield server
    server.close()


@pytest.fixture
def _small(monkeypatch):
    monkeypatch.setattr(redo_module, "REDO_BYTES", redo_module.REDO_BYTES)
    kept = dict(ChunkPyramid.__init__.__kwdefaults__)
    small_bounds()
    yield
    ChunkPyramid.__init__.__kwdefaults__.update(kept)


@pytest.fixture
def folder(tmp_path, _small):
    with Project.create(tmp_path / "p", SLIDE) as project:
        for tile in tiles_of(0):
            project.write_tile(tile, "m", "0")
    return tmp_path / "p"


@pytest.fixture
def moments():
    """When to kill: mostly amid edits, now and then while the project is being opened."""
    rng = np.random.default_rng(SEED)
    return lambda: {"lines": int(rng.integers(0, 7)), "delay": float(rng.uniform(0, 0.02))}


def left_behind(folder, attempt):
    """Open what a kill left, or a copy of it, so that the next child finds it as it was."""
    if attempt % 2:
        return Project.open(folder, SLIDE)
    shutil.rmtree(folder.with_name("copy"), ignore_errors=True)
    shutil.copytree(folder, folder.with_name("copy"))
    return Project.open(folder.with_name("copy"), SLIDE)


def assert_whole(project):
    assert_pyramid(project)
    report = check(project)
    assert report.is_sound, report
    assert project.census.total() == report.nuclei


def test_killed_while_painting_and_undoing(server, folder, moments):
    with Project.open(folder, SLIDE) as project:
        image, table = whole(project)
    plain = Plain(image, dict(zip(table.ids.tolist(), table.classes.tolist(), strict=True)))
    number = 0

    def state(project):
        image, table = whole(project)
        return image, dict(zip(table.ids.tolist(), table.classes.tolist(), strict=True))

    for attempt in range(KILLS):
        reached = server.kill("paint", folder, SEED, number, **moments())
        for done in range(number, reached):
            plain.act(SEED, done)
        number = reached
        with left_behind(folder, attempt) as project:
            image, classes = state(project)
            if classes != plain.now[1] or not np.array_equal(image, plain.now[0]):
                # What was not said to be done may have just been done.
                plain.act(SEED, number)
                number += 1
            np.testing.assert_array_equal(image, plain.now[0], err_msg=f"{SEED} {attempt} {number}")
            assert classes == plain.now[1], (SEED, attempt, number)
            assert_whole(project)
    assert number > KILLS
    with Project.open(folder, SLIDE) as project:
        list(project.editor.jump(0))
        np.testing.assert_array_equal(state(project)[0], [*plain.done, plain.now][0][0])
        list(project.editor.jump(1 << 60))
        np.testing.assert_array_equal(state(project)[0], [plain.now, *plain.undone][-1 if not plain.undone else 1][0])


def dump(project):
    """Everything that tables hold, but for times."""
    database = project.ledger.reader
    queries = (
        "SELECT * FROM nuclei ORDER BY id",
        "SELECT * FROM claim_boxes JOIN claims USING (id) ORDER BY id",
        "SELECT tile, run, whole, n FROM tiles ORDER BY tile",
        "SELECT step, kind, undone, nuclei, y0, x0, y1, x1, before, after, records FROM edits ORDER BY edit",
        "SELECT value FROM meta WHERE key = 'next_id'",
    )
    return [database.execute(query).fetchall() for query in queries]


def test_killed_while_models_write_where_people_edit(server, folder, moments):
    shutil.copytree(folder, folder.with_name("twin"))
    number = 0
    with Project.open(folder.with_name("twin"), SLIDE) as twin:
        for attempt in range(KILLS):
            reached = server.kill("mixed", folder, SEED, number, **moments())
            for done in range(number, reached):
                list(parts(twin, "mixed", SEED, done))
            number = reached
            with left_behind(folder, attempt) as project:
                found = dump(project)
                if found != dump(twin):
                    # Many nuclei are deleted, and brought back, part by part.
                    for _ in parts(twin, "mixed", SEED, number):
                        if found == dump(twin):
                            break
                    number += 1
                for here, there in zip(found, dump(twin), strict=True):
                    assert here == there, (SEED, attempt, number)
                np.testing.assert_array_equal(whole(project)[0], whole(twin)[0])
                assert_whole(project)
        assert number > KILLS
        with Project.open(folder, SLIDE) as project:
            for tile in tiles_of(1):
                project.write_tile(tile, "m", "1")
                twin.write_tile(tile, "m", "1")
            assert dump(project) == dump(twin)
            assert_whole(project)


def test_killed_while_exporting(server, folder, moments):
    with Project.open(folder, SLIDE) as project:
        image, table = whole(project)
    number = 0
    for attempt in range(KILLS // 3):
        number = server.kill("export", folder, SEED, number, **moments() | {"lines": attempt % 5})
        if attempt % 5 == 0:
            with left_behind(folder, attempt) as project:
                np.testing.assert_array_equal(whole(project)[0], image)
                assert_whole(project)
    found = {path.name for path in folder.parent.iterdir() if path.name.startswith("out.")}
    assert found >= {"out.geojson", "out.csv", "out.tif"}
    features = json.loads((folder.parent / "out.geojson").read_text())["features"]
    assert len(features) >= len(table)
    with (folder.parent / "out.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == len(table)
    np.testing.assert_array_equal(tifffile.imread(folder.parent / "out.tif"), image)

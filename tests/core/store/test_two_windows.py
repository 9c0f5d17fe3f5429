"""Two processes with one slide: one edits; the other is told by whom, and sees what is done there."""

import json
import os
import signal
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from fields import Grid, assert_pyramid, blank_slide, disc, random_tiles, whole

from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.store.check import check
from napari_nucleiseg.core.store.chunks import ChunkPyramid
from napari_nucleiseg.core.store.lock import user_name
from napari_nucleiseg.core.store.project import Project

GRID = Grid((600, 600), 200)

OTHER = """
import json, sys, zlib
import numpy as np
from fields import blank_slide, whole
from napari_nucleiseg.core.errors import StoreError
from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.store.project import Project

project = None
for line in sys.stdin:
    word, folder = line.split()
    answer = ""
    try:
        if word in ("write", "look"):
            project = Project.open(folder, blank_slide(), writable=word == "write")
        elif word == "paint":
            project.editor.paint(Region(0, 0, 4, 4), np.full((4, 4), project.editor.new_id(), np.uint32))
        elif word == "undo":
            project.editor.undo()
        elif word == "classify":
            project.editor.classify(whole(project)[1].ids.tolist(), 2)
        elif word == "refresh":
            project.refresh()
        elif word == "close":
            project.close()
        elif word == "see":
            image, table = whole(project)
            answer = [zlib.crc32(image.tobytes()), table.ids.tolist(), table.classes.tolist(),
                      project.census.total(), len(project.editor.history())]
    except StoreError as error:
        answer = f"refused: {error}"
    print(json.dumps(answer), flush=True)
"""


def seen(project):
    image, table = whole(project)
    history = len(project.editor.history())
    return [zlib.crc32(image.tobytes()), table.ids.tolist(), table.classes.tolist(), project.census.total(), history]


class Other:
    """Another process with the project of this one."""

    def __init__(self, folder):
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "OMP_NUM_THREADS": "1"}
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, "-c", OTHER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def __call__(self, word):
        self.process.stdin.write(f"{word} {self.folder}\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


@pytest.fixture
def project(tmp_path):
    with Project.create(tmp_path / "p", blank_slide()) as project:
        for tile in random_tiles(1, GRID):
            project.write_tile(tile, "m", "k")
        yield project


@pytest.fixture
def other(project):
    other = Other(project.folder)
    yield other
    other.close()


def paint(project, y, x):
    pixels = disc(y, x, 15)
    y0, x0 = pixels.min(0).tolist()
    region = Region.from_bounds(y0, x0, *(pixels.max(0) + 1).tolist())
    image = project.labels.read(region)
    image[tuple((pixels - (y0, x0)).T)] = project.editor.new_id()
    project.editor.paint(region, image)


def test_the_second_is_told_who_edits_and_changes_nothing(project, other):
    paint(project, 300, 300)
    mine = f"in use by {user_name()} on "
    assert mine in other("write")
    assert f"(process {os.getpid()}, since " in other("write")
    other("look")
    before = seen(project)
    for word in ("paint", "classify", "undo"):
        answer = other(word)
        assert answer.startswith("refused")
        assert mine in answer
        assert "reading only" in answer
    assert seen(project) == before


def test_who_looks_on_sees_every_edit_after_looking_again(project, other):
    other("look")
    assert other("see") == seen(project)
    ids = whole(project)[1].ids.tolist()
    steps = (
        lambda: paint(project, 300, 300),
        lambda: project.editor.classify(ids[:4], 3),
        project.flush,
        lambda: project.editor.delete(ids[5:30]),
        project.editor.undo,
        lambda: project.flush(settle=True),
        project.editor.redo,
        lambda: project.write_tile(random_tiles(2, GRID)[4], "m", "other"),
        lambda: paint(project, 100, 450),
    )
    for step in steps:
        step()
        other("refresh")
        assert other("see") == seen(project)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no kill -9 on this system")
def test_the_second_takes_over_once_the_first_is_gone(project, other):
    paint(project, 200, 200)
    assert "refused" in other("write")
    expected = seen(project)
    project.close()
    assert other("write") == ""
    assert other("see") == expected
    assert other("paint") == ""
    other.process.kill()
    other.process.wait()
    with Project.open(project.folder, blank_slide()) as again:
        assert len(again.editor.history()) == 2
        assert (again.labels.read(Region(0, 0, 4, 4)) == np.uint32((1 << 31) + 1)).all()


def files(project):
    return {path: path.read_bytes() for path in project.labels.root.rglob("*") if path.is_file()}


def test_looking_on_needs_little_memory_and_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.setitem(ChunkPyramid.__init__.__kwdefaults__, "waiting_bytes", 4 << 20)
    with Project.create(tmp_path / "p", blank_slide(4000, 4000)) as project:
        for y in range(100, 4000, 300):
            for x in range(100, 4000, 300):
                paint(project, y, x)
        project.flush()
        with Project.open(tmp_path / "p", writable=False) as onlooker:
            for _ in range(2):
                paint(project, 200, 3950)
                before = files(project)
                onlooker.refresh()
                assert onlooker.labels.chunks.waiting_bytes <= 4 << 20
                np.testing.assert_array_equal(whole(onlooker)[0], whole(project)[0])
                assert_pyramid(onlooker)
                assert check(onlooker).is_sound
                assert files(project) == before

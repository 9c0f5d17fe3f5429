"""A disk that is full amid editing: a sentence, nothing half done, and work goes on once there is room."""

import errno
import subprocess
from contextlib import suppress

import numpy as np
import pytest
from editing_process import SHAPE, SLIDE, Plain, parts, small_bounds, tiles_of
from fields import assert_pyramid, assert_same_table, whole

from napari_nucleiseg.core.errors import StoreError
from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.store import chunks as chunks_module
from napari_nucleiseg.core.store import shards as shards_module
from napari_nucleiseg.core.store.check import check
from napari_nucleiseg.core.store.project import Project

SENTENCE = r"The disk that holds .* is full\. Everything finished so far is kept: make space"
SEED = 11


@pytest.fixture
def _small():
    kept = dict(chunks_module.ChunkPyramid.__init__.__kwdefaults__)
    from napari_nucleiseg.core.store import redo as redo_module

    bound = redo_module.REDO_BYTES
    small_bounds()
    yield
    chunks_module.ChunkPyramid.__init__.__kwdefaults__.update(kept)
    redo_module.REDO_BYTES = bound


def filled(folder):
    project = Project.create(folder, SLIDE)
    for tile in tiles_of(0):
        project.write_tile(tile, "m", "0")
    return project


@pytest.fixture
def project(tmp_path, _small):
    project = filled(tmp_path / "p")
    yield project
    project.close()


def plain_of(project):
    image, table = whole(project)
    return Plain(image, dict(zip(table.ids.tolist(), table.classes.tolist(), strict=True)))


def assert_like(project, plain):
    image, table = whole(project)
    np.testing.assert_array_equal(image, plain.now[0])
    assert dict(zip(table.ids.tolist(), table.classes.tolist(), strict=True)) == plain.now[1]
    assert project.census.total() == len(table)


class FullDatabase:
    """While inside, the database cannot grow by a page."""

    def __init__(self, project):
        self.project, self.writer = project, project.ledger.writer

    def __enter__(self):
        self.project.flush(settle=True)
        self.writer.execute("VACUUM")
        self.writer.execute("PRAGMA max_page_count = 1")  # as few as there are

    def __exit__(self, *_):
        self.writer.execute("PRAGMA max_page_count = 4294967294")


class FullFolder:
    """While inside, no chunk can be written."""

    def __init__(self, _project):
        self.patch = pytest.MonkeyPatch()

    def __enter__(self):
        def full(_path, _data, _scratch):
            raise OSError(errno.ENOSPC, "No space left on device")

        self.patch.setattr(shards_module, "write_file", full)

    def __exit__(self, *_):
        self.patch.undo()


def paint(project):
    region = Region(300, 300, 500, 500)
    # Noise, so that it cannot be compressed.
    image = np.where(np.random.default_rng(5).random((500, 500)) < 0.5, project.editor.new_id(), 0)
    project.editor.paint(region, image.astype(np.uint32))


ACTIONS = {
    "paint": paint,
    "undo": lambda project: project.editor.undo(),
    "redo": lambda project: project.editor.redo(),
    "delete": lambda project: project.editor.delete(project.nuclei_in(Region(0, 0, *SHAPE)).ids.tolist()),
    "tile": lambda project: project.write_tile(tiles_of(1)[7], "m@2", "0"),
}


@pytest.mark.parametrize("name", ACTIONS)
def test_what_the_database_has_no_room_for_did_not_happen(project, name):
    paint(project)
    paint(project)
    if name == "redo":
        project.editor.undo()
    before, steps = whole(project), project.editor.history()
    with FullDatabase(project), pytest.raises(StoreError, match=SENTENCE):
        ACTIONS[name](project)
    np.testing.assert_array_equal(whole(project)[0], before[0])
    assert_same_table(whole(project)[1], before[1])
    assert project.editor.history() == steps
    assert check(project).is_sound
    ACTIONS[name](project)
    assert not np.array_equal(whole(project)[0], before[0])
    assert_pyramid(project)
    assert check(project).is_sound


def test_an_edit_is_done_or_refused_and_goes_on_when_there_is_room(project):
    plain = plain_of(project)
    refused = done = 0

    def edit(number):
        plain.next_id = project.editor._next_id
        list(parts(project, "paint", SEED, number))
        plain.act(SEED, number)

    for number in range(0, 180, 60):
        with FullFolder(project):
            for index in range(number, number + 50):
                try:
                    edit(index)
                    done += 1
                except StoreError as error:
                    assert "is full" in str(error)  # noqa: PT017
                    refused += 1
                assert_like(project, plain)
        for index in range(number + 50, number + 60):
            edit(index)
            assert_like(project, plain)
    assert min(refused, done) > 5, (refused, done)
    assert check(project).is_sound
    folder = project.folder
    project.close()
    with Project.open(folder, SLIDE) as again:
        assert_like(again, plain)
        assert_pyramid(again)


@pytest.mark.parametrize("settle", [False, True])
def test_flushing_and_closing_say_it_and_lose_nothing(project, settle):
    paint(project)
    before = whole(project)
    with FullFolder(project):
        with pytest.raises(StoreError, match=SENTENCE):
            project.flush(settle=settle)
        np.testing.assert_array_equal(whole(project)[0], before[0])
    project.flush(settle=settle)
    paint(project)
    before = whole(project)
    with FullFolder(project), pytest.raises(StoreError, match=SENTENCE):
        project.close()
    with Project.open(project.folder, SLIDE) as again:
        np.testing.assert_array_equal(whole(again)[0], before[0])
        assert check(again).is_sound


@pytest.mark.usefixtures("_small")
def test_a_real_disk_that_fills_while_somebody_paints(small_disk):
    ballast = small_disk / "ballast"
    subprocess.run(["mount", "-o", "remount,size=24m", small_disk], check=True)
    ballast.write_bytes(b"x" * (21 << 20))
    project = Project.create(small_disk / "p", SLIDE)
    expected, refused = whole(project)[0], 0
    rng = np.random.default_rng(3)
    for _ in range(60):
        y, x = rng.integers(0, SHAPE[0] - 200, 2).tolist()
        region = Region(y, x, 200, 200)
        image = np.where(rng.random((200, 200)) < 0.5, project.editor.new_id(), 0).astype(np.uint32)
        try:
            project.editor.paint(region, image)
        except StoreError as error:
            assert "is full" in str(error)  # noqa: PT017
            refused += 1
        else:
            expected[region.slices] = image
        np.testing.assert_array_equal(whole(project)[0], expected)
    assert 5 < refused < 55
    with suppress(StoreError):
        project.flush(settle=True)
    np.testing.assert_array_equal(whole(project)[0], expected)
    ballast.unlink()
    project.flush(settle=True)
    while project.editor.undo():
        pass
    project.flush()
    assert check(project).is_sound
    list(project.editor.jump(1 << 60))
    np.testing.assert_array_equal(whole(project)[0], expected)
    project.close()
    with Project.open(small_disk / "p", SLIDE) as again:
        np.testing.assert_array_equal(whole(again)[0], expected)
        assert check(again).is_sound

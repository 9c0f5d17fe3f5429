"""Labels of stacks that are kept: what changed is written, whole or not at all, and found again."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from kept_stack_process import SHAPE, labels_of

from napari_nucleiseg.core.errors import StoreError
from napari_nucleiseg.core.store import kept_stack
from napari_nucleiseg.core.store.kept_stack import CHUNK, KeptInUseError, KeptStack

KILLS = int(os.environ.get("NUCLEISEG_KILLS", "6"))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "kept" / "1.sqlite"


@pytest.fixture
def kept(path):
    with closing(KeptStack.create(path, SHAPE)) as made:
        yield made


def test_labels_come_back_as_they_were(kept, path):
    labels = labels_of(7)
    kept.write(labels, painted=True)
    kept.close()
    with closing(KeptStack.open(path)) as again:
        found = again.read()
        assert found.dtype == np.int32
        np.testing.assert_array_equal(found, labels)
        assert again.facts["painted"] is True
        assert abs(again.facts["at"] - time.time()) < 60


def test_only_chunks_that_changed_are_written(kept):
    labels = labels_of(7)
    every = kept.write(labels)
    assert 1 < every < 3 * 3 * 3 + 1
    assert kept.write(labels) == 0
    labels[0, 0, 0] = 9
    assert kept.write(labels) == 1
    labels[39, 299, 299] = 9
    assert kept.write(labels, {(0, 0, 0)}) == 0, "another part was named"
    assert kept.write(labels, kept_stack.places_of((slice(39, 40), slice(299, 300), slice(299, 300)))) == 1
    labels[0, 0, 0] = 0
    kept.write(labels)
    np.testing.assert_array_equal(kept.read(), labels)


def test_a_box_touches_the_chunks_it_lies_in():
    z, y, x = CHUNK
    assert kept_stack.places_of((slice(0, z), slice(0, y), slice(0, x))) == {(0, 0, 0)}
    assert kept_stack.places_of((slice(z - 1, z + 1), slice(y, y + 1), slice(0, 1))) == {(0, 1, 0), (1, 1, 0)}


def test_a_file_is_for_one_window(kept, path):
    with pytest.raises(KeptInUseError, match="another window"):
        KeptStack.open(path)
    kept.close()
    KeptStack.open(path).close()


def test_a_full_disk_leaves_what_was_kept_and_it_goes_on_with_room(kept, path):
    before = labels_of(1)
    kept.write(before)
    pages = kept._connection.execute("PRAGMA page_count").fetchone()[0]
    kept._connection.execute(f"PRAGMA max_page_count = {pages + 2}")
    noise = np.random.default_rng(0).integers(0, 2**31, SHAPE, np.int32)
    with pytest.raises(StoreError, match=r"The disk that holds .* is full.*Make space, and it is tried again"):
        kept.write(noise)
    np.testing.assert_array_equal(kept.read(), before)
    kept._connection.execute("PRAGMA max_page_count = 1000000")
    kept.write(noise)
    kept.close()
    with closing(KeptStack.open(path)) as again:
        np.testing.assert_array_equal(again.read(), noise)


def test_what_is_no_such_file_is_told(path):
    path.parent.mkdir()
    path.write_bytes(b"no database at all" * 100)
    with pytest.raises(StoreError, match="cannot be kept in"):
        KeptStack.open(path)
    path.unlink()
    with closing(sqlite3.connect(path)) as database:
        database.executescript("CREATE TABLE facts(facts TEXT); INSERT INTO facts VALUES ('{'); CREATE TABLE chunks(z)")
    with pytest.raises(StoreError, match=r"cannot be kept in|damaged"):
        KeptStack.open(path)


def test_killed_anywhere_it_holds_the_last_complete_version(path):
    rng = np.random.default_rng(3)
    torn = []
    for _ in range(KILLS):
        command = [sys.executable, str(Path(__file__).with_name("kept_stack_process.py")), str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            said = int(process.stdout.readline())
            time.sleep(rng.uniform(0.0, 0.15))
            os.kill(process.pid, signal.SIGKILL)
            said = max([said, *(int(line) for line in process.stdout.read().split("\n") if line)])
        torn.append(path.with_name(f"{path.name}-journal").exists())
        with closing(KeptStack.open(path)) as kept:
            number = kept.facts["number"]
            assert number in {said, said + 1}
            np.testing.assert_array_equal(kept.read(), labels_of(number))
    assert any(torn), "it was never killed amid a write"


def test_a_stack_is_recognised_by_what_it_shows():
    volume = np.random.default_rng(0).integers(0, 255, (20, 60, 70), np.uint8)
    key = kept_stack.stack_key(volume)
    assert kept_stack.stack_key(volume.copy()) == key
    assert kept_stack.stack_key(volume[:, :, :-1]) != key
    assert kept_stack.stack_key(volume.astype(np.uint16)) != key
    volume[10, 30, 30] += 1
    assert kept_stack.stack_key(np.stack([volume] * 3, axis=-1)) != kept_stack.stack_key(volume)


def test_what_is_put_away_counts_no_more_until_it_is_brought_back():
    path = kept_stack.new_version("k")
    KeptStack.create(path, SHAPE).close()
    assert kept_stack.kept_versions("k") == [path]
    away = kept_stack.put_away(path)
    assert kept_stack.kept_versions("k") == []
    assert kept_stack.bring_back(away) == path
    assert kept_stack.kept_versions("k") == [path]
    away = kept_stack.put_away(path)
    os.utime(away, (0, 0))
    other = kept_stack.new_version("k")
    KeptStack.create(other, SHAPE).close()
    kept_stack.put_away(other)
    assert not away.exists(), "it was put away long ago"


def test_a_new_search_replaces_what_nobody_painted_on():
    def made(**facts):
        path = kept_stack.new_version("k")
        with closing(KeptStack.create(path, SHAPE)) as kept:
            kept.write(labels_of(1), **facts)
        return path

    made(painted=False)
    painted, newest = made(painted=True), made()
    with closing(KeptStack.open(newest)):
        kept_stack.drop_unpainted("k", newest)
    assert kept_stack.kept_versions("k") == [painted, newest]

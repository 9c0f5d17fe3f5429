"""What encoders said is kept whole or not at all, within bounds, for any number of programs, and zarr reads it."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr
from token_process import LAYOUT, tokens_of

from napari_nucleiseg.core.errors import StoreError
from napari_nucleiseg.core.store import tokens as tokens_module
from napari_nucleiseg.core.store.tokens import TokenStore


def assert_kept(store, patch):
    kept, wanted = store.get(patch), tokens_of(patch)
    for name in ("features", "attention", "rollout"):
        np.testing.assert_array_equal(getattr(kept, name), getattr(wanted, name))
        assert getattr(kept, name).dtype == np.float16


def test_what_is_put_comes_back(tmp_path):
    store = TokenStore(tmp_path / "maps.zarr", LAYOUT)
    assert store.get(3) is None
    assert not store.folder.exists()  # nothing is made where nothing is kept
    for patch in (3, 0, 39):
        store.put(patch, tokens_of(patch))
    for each in (store, TokenStore(tmp_path / "maps.zarr", LAYOUT)):
        for patch in (3, 0, 39):
            assert_kept(each, patch)
        assert each.get(4) is None
    assert store.bytes_on_disk() == sum(path.stat().st_size for path in store.folder.glob("c.*")) > 0


def test_a_patch_that_is_put_again_is_the_newer_one(tmp_path):
    store = TokenStore(tmp_path, LAYOUT)
    store.put(1, tokens_of(2))
    store.put(1, tokens_of(1))
    assert_kept(store, 1)


def test_zarr_reads_the_same_numbers(tmp_path):
    store = TokenStore(tmp_path, LAYOUT)
    for patch in (0, 7):
        store.put(patch, tokens_of(patch))
    array = zarr.open_array(store.folder, mode="r")
    assert array.shape == (LAYOUT.patches, LAYOUT.values)
    assert array.dtype == np.float16
    assert array.metadata.dimension_names == ("patch", "value")
    for patch in (0, 7):
        wanted = tokens_of(patch)
        parts = [wanted.features, wanted.attention.ravel(), wanted.rollout.ravel()]
        np.testing.assert_array_equal(array[patch], np.concatenate(parts))
    assert not array[1].any()


def test_tokens_that_do_not_fit_the_layout_are_refused(tmp_path):
    store = TokenStore(tmp_path, LAYOUT)
    wrong = replace(tokens_of(1), features=np.zeros(99, np.float16))
    with pytest.raises(StoreError, match="do not fit a layout"):
        store.put(1, wrong)
    assert not store.folder.exists()


@pytest.mark.parametrize("spoil", ["empty", "cut", "noise", "longer", "other shape"])
def test_damaged_chunks_are_nothing(tmp_path, spoil):
    store = TokenStore(tmp_path, LAYOUT)
    store.put(5, tokens_of(5))
    path = store.folder / "c.5.0"
    good = path.read_bytes()
    spoilt = {
        "empty": b"",
        "cut": good[: len(good) // 2],
        "noise": bytes(len(good)),
        "longer": tokens_module.encode_chunk(np.zeros((2, LAYOUT.values), np.float16)),
        "other shape": tokens_module.encode_chunk(np.zeros((1, 3), np.float16)),
    }
    path.write_bytes(spoilt[spoil])
    assert store.get(5) is None
    store.put(5, tokens_of(5))
    assert_kept(store, 5)


@pytest.mark.parametrize("change", [{"embed": 9}, {"patches": 41}, {"layers": 3}])
def test_another_layout_under_the_same_name_begins_anew(tmp_path, change):
    old = TokenStore(tmp_path, LAYOUT)
    old.put(2, tokens_of(2))
    layout = replace(LAYOUT, **change)
    new = TokenStore(tmp_path, layout)
    assert new.folder == old.folder
    assert new.get(2) is None
    new.put(3, tokens_of(3, layout))
    assert new.get(2) is None
    np.testing.assert_array_equal(new.get(3).rollout, tokens_of(3, layout).rollout)
    assert TokenStore(tmp_path, LAYOUT).get(2) is None
    assert [path.name for path in tmp_path.iterdir()] == [new.folder.name]


@pytest.mark.parametrize("content", [None, "", "{}", '{"attributes": 3}'])
def test_an_array_that_does_not_say_what_it_is_begins_anew(tmp_path, content):
    store = TokenStore(tmp_path, LAYOUT)
    store.put(2, tokens_of(2))
    said = store.folder / "zarr.json"
    said.unlink() if content is None else said.write_text(content)
    store = TokenStore(tmp_path, LAYOUT)
    assert store.get(2) is None
    store.put(1, tokens_of(1))
    assert_kept(store, 1)
    assert store.get(2) is None


def test_versions_and_grids_are_kept_apart(tmp_path):
    layouts = [LAYOUT, replace(LAYOUT, version="tiny@2"), replace(LAYOUT, grid_key="32+8")]
    stores = [TokenStore(tmp_path, layout) for layout in layouts]
    assert len({store.folder for store in stores}) == 3
    stores[0].put(1, tokens_of(1))
    assert stores[1].get(1) is stores[2].get(1) is None


def aged(store, patch, seconds):
    """Make a chunk that old."""
    when = time.time() - seconds
    os.utime(store.folder / f"c.{patch}.0", (when, when))


def test_the_oldest_go_beyond_the_budget(tmp_path, monkeypatch):
    monkeypatch.setattr(tokens_module, "SWEEP_EVERY", 1)
    first = TokenStore(tmp_path, LAYOUT)
    for patch in range(6):
        first.put(patch, tokens_of(patch))
        aged(first, patch, 1000 - patch)
    size = max(path.stat().st_size for path in first.folder.glob("c.*"))
    store = TokenStore(tmp_path, LAYOUT, budget_bytes=4 * size)
    store.put(6, tokens_of(6))
    there = [patch for patch in range(7) if store.get(patch) is not None]
    assert store.bytes_on_disk() <= 4 * size
    assert there == list(range(7 - len(there), 7))
    assert len(there) >= 3


def test_encoders_that_nobody_uses_any_more_make_room(tmp_path):
    former = TokenStore(tmp_path, replace(LAYOUT, version="tiny@0"))
    for patch in range(4):
        former.put(patch, tokens_of(patch))
        aged(former, patch, 1000)
    # The first chunk of each store looks at the budget: a view rarely has as many as SWEEP_EVERY.
    store = TokenStore(tmp_path, LAYOUT, budget_bytes=former.bytes_on_disk() // 2)
    store.put(0, tokens_of(0))
    assert_kept(store, 0)
    assert former.bytes_on_disk() + store.bytes_on_disk() <= store.budget_bytes


def test_what_was_left_half_written_goes_when_it_is_old(tmp_path):
    store = TokenStore(tmp_path, LAYOUT)
    store.put(0, tokens_of(0))
    old, new, begun = store.folder / "1-2.part", store.folder / "1-3.part", tmp_path / ".begun-abc"
    begun.mkdir()
    old.write_bytes(b"half")
    new.write_bytes(b"half")
    for path in (old, begun):
        os.utime(path, (time.time() - 7200,) * 2)
    TokenStore(tmp_path, LAYOUT).put(1, tokens_of(1))
    assert [path.exists() for path in (old, new, begun)] == [False, True, False]


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "maps.zarr").write_text("a file")
    with pytest.raises(StoreError, match="cannot be used"):
        TokenStore(tmp_path / "maps.zarr", LAYOUT).put(0, tokens_of(0))


def test_a_full_disk_is_told_and_what_is_kept_stays(small_disk):
    store = TokenStore(small_disk / "maps.zarr", LAYOUT)
    store.put(0, tokens_of(0))
    with (small_disk / "ballast").open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))
    with pytest.raises(StoreError, match="is full"):
        store.put(1, tokens_of(1))
    assert_kept(store, 0)
    assert not list(store.folder.glob("*.part"))


def test_two_programs_that_begin_at_once_lose_nothing(tmp_path):
    one, other = TokenStore(tmp_path, LAYOUT), TokenStore(tmp_path, LAYOUT)
    one.put(1, tokens_of(1))
    other.put(2, tokens_of(2))  # it had seen no array yet
    for store in (one, other):
        for patch in (1, 2):
            assert_kept(store, patch)


def test_many_threads_put_and_get_at_once(tmp_path):
    stores = [TokenStore(tmp_path, LAYOUT) for _ in range(4)]
    wrong = []

    def work(store, first):
        for patch in range(LAYOUT.patches):
            place = (first + patch) % LAYOUT.patches
            store.put(place, tokens_of(place))
            kept = store.get((place + 1) % LAYOUT.patches)
            if kept is not None and not np.array_equal(kept.features, tokens_of((place + 1) % LAYOUT.patches).features):
                wrong.append(place)

    threads = [threading.Thread(target=work, args=(store, 10 * n)) for n, store in enumerate(stores)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    for patch in range(LAYOUT.patches):
        assert_kept(stores[0], patch)


def started(root, seed):
    here = Path(__file__).parent
    return subprocess.Popen(
        [sys.executable, here / "token_process.py", root, str(seed)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(here), "OMP_NUM_THREADS": "1"},
    )


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no kill -9 on this system")
def test_killed_while_writing_only_whole_chunks_are_left(tmp_path):
    writers = [started(tmp_path, seed) for seed in (0, 1)]
    said = [[writer.stdout.readline() for _ in range(12)] for writer in writers]
    time.sleep(float(np.random.default_rng().uniform(0, 0.02)))
    for writer in writers:
        writer.send_signal(signal.SIGKILL)
    done = set()
    for writer, lines in zip(writers, said, strict=True):
        done |= {int(line) for line in [*lines, *writer.stdout.read().split("\n")[:-1]] if line.strip()}
        writer.stdout.close()
        assert writer.wait() == -signal.SIGKILL
    store = TokenStore(tmp_path, LAYOUT)
    assert done
    for path in store.folder.glob("c.*"):
        assert_kept(store, int(path.name.split(".")[1]))
    for patch in done:
        assert_kept(store, patch)
    json.loads((store.folder / "zarr.json").read_text())

"""A level made of tiles: it is indexed like an array, decodes each tile once, and survives damage."""

import os
import threading
import time

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import example, given, settings
from slide_files import tissue

from napari_nucleiseg.core.geometry import YX, Region
from napari_nucleiseg.core.slides import tiled
from napari_nucleiseg.core.slides.pyramid import LevelArray
from napari_nucleiseg.core.slides.tilecache import TileCache, TileKey
from napari_nucleiseg.core.slides.tiled import TiledLevel, UnreadableTileError

IMAGE = tissue(230, 310)


def level_of(image, tile_shape=(64, 48), read=None, **options):
    height, width = tile_shape

    def read_tile(row, col):
        return image[row * height : (row + 1) * height, col * width : (col + 1) * width]

    return TiledLevel(image.shape[:2], tile_shape, read or read_tile, **{"cache": TileCache(), **options})


def axis_keys(length):
    whole = st.integers(-length, length - 1)
    ends = st.none() | st.integers(-2 * length, 2 * length)
    steps = st.none() | st.integers(1, 200) | st.integers(-200, -1)
    return whole | st.builds(slice, ends, ends, steps)


@given(axis_keys(230), axis_keys(310), axis_keys(3), st.integers(0, 3))
@example(0, 0, slice(-4, None, -1), 3)
@example(slice(None), 4, slice(None, None, -2), 3)
@settings(max_examples=300, deadline=None)
def test_any_index_gives_what_numpy_gives(rows, cols, channels, kept):
    key = (rows, cols, channels)[:kept] if kept else Ellipsis
    assert np.array_equal(level_of(IMAGE)[key], IMAGE[key])


@pytest.mark.parametrize("key", [(..., 1), (slice(3, 9), ...), (..., slice(2, 5), 0), (5, ...), 7, (), np.int64(4)])
def test_ellipsis_and_short_indices_are_understood(key):
    assert np.array_equal(level_of(IMAGE)[key], IMAGE[key])


@pytest.mark.parametrize("key", [230, -231, (0, 310), (0, 0, 3), (0, 0, 0, 0), [1, 2], "a", None, 1.5])
def test_an_index_that_cannot_be_is_an_index_error(key):
    with pytest.raises(IndexError):
        level_of(IMAGE)[key]


def test_it_is_what_napari_and_numpy_expect_of_an_array():
    level = level_of(IMAGE)
    assert isinstance(level, LevelArray)
    assert (level.shape, level.ndim, level.dtype, level.size, len(level)) == ((230, 310, 3), 3, np.uint8, 213900, 230)
    assert np.array_equal(np.asarray(level), IMAGE)
    assert np.asarray(level, dtype=float).dtype == float
    assert level.chunks == (64, 48, 3)
    assert not hasattr(level_of(IMAGE, expose_chunks=False), "chunks")


def test_what_is_read_is_the_callers_to_change():
    level = level_of(IMAGE)
    level[:64, :48][:] = 0
    assert np.array_equal(level[:64, :48], IMAGE[:64, :48])


def test_a_tile_is_decoded_once_while_it_is_kept():
    asked = []

    def read(row, col):
        asked.append((row, col))
        return np.zeros((64, 48, 3), np.uint8)

    level = level_of(IMAGE, read=read)
    level[10:100, 20:40]
    level[0:128, 0:48]
    assert asked == [(0, 0), (1, 0)]
    level.forget()
    level[0, 0]
    assert asked == [(0, 0), (1, 0), (0, 0)]


def test_a_large_step_decodes_only_tiles_that_are_hit():
    asked = []

    def read(row, col):
        asked.append((row, col))
        return np.zeros((64, 48, 3), np.uint8)

    level_of(IMAGE, read=read)[::200, 5]
    assert asked == [(0, 0), (3, 0)]


def test_two_threads_that_want_one_tile_decode_it_once():
    asked, started = [], threading.Event()

    def read(row, col):
        asked.append((row, col))
        started.set()
        time.sleep(0.2)
        return np.zeros((64, 48, 3), np.uint8)

    level = level_of(IMAGE, read=read)
    first = threading.Thread(target=lambda: level[0, 0])
    first.start()
    started.wait(10)
    level[5, 5]
    first.join()
    assert asked == [(0, 0)]
    assert level._busy == {}


def test_many_missing_tiles_are_decoded_by_several_threads(monkeypatch):
    monkeypatch.setattr(tiled, "POOL_THREADS", 2)
    monkeypatch.setattr(tiled, "_pool", None)
    both = threading.Barrier(2, timeout=20)
    names = set()

    def read(row, col):
        names.add(threading.current_thread().name)
        both.wait()  # passes only when two tiles are decoded at the same time
        return np.ascontiguousarray(IMAGE[row * 64 : row * 64 + 64, col * 48 : col * 48 + 48])

    assert np.array_equal(level_of(IMAGE, read=read)[:128, :96], IMAGE[:128, :96])
    assert threading.current_thread().name not in names


def test_a_tile_that_takes_long_holds_up_no_other(monkeypatch):
    monkeypatch.setattr(tiled, "POOL_THREADS", 2)
    monkeypatch.setattr(tiled, "_pool", None)
    done, others = [], threading.Event()

    def read(row, col):
        if (row, col) == (0, 0):
            assert others.wait(20)
        done.append((row, col))
        if len(done) == 5:
            others.set()
        return np.ascontiguousarray(IMAGE[row * 64 : row * 64 + 64, col * 48 : col * 48 + 48])

    assert np.array_equal(level_of(IMAGE, read=read)[:192, :96], IMAGE[:192, :96])
    assert done[-1] == (0, 0)


def test_few_missing_tiles_are_decoded_where_they_are_asked_for():
    names = set()

    def read(row, col):
        names.add(threading.current_thread().name)
        return np.zeros((64, 48, 3), np.uint8)

    level_of(IMAGE, read=read)[:64, :96]
    assert names == {threading.current_thread().name}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_worker_reads_with_threads_of_its_own():
    level = level_of(IMAGE, pool_from=1)
    level[:128]
    child = os.fork()
    if child == 0:
        same = np.array_equal(level_of(IMAGE, pool_from=1)[:], IMAGE)
        os._exit(0 if same else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_a_damaged_tile_is_white_recorded_once_and_the_rest_goes_on(caplog):
    damage = []

    def read(row, col):
        if (row, col) == (1, 2):
            raise UnreadableTileError("its bytes are gone")
        return np.ascontiguousarray(IMAGE[row * 64 : row * 64 + 64, col * 48 : col * 48 + 48])

    level = level_of(IMAGE, read=read, damage=damage, downsample=YX(2.5, 2.0))
    for _ in range(3):
        got = level[:]
        level.forget()
    expected = IMAGE.copy()
    expected[64:128, 96:144] = 255
    assert np.array_equal(got, expected)
    assert [(tile.region, tile.reason) for tile in damage] == [(Region(160, 192, 160, 96), "its bytes are gone")]
    assert caplog.text.count("its bytes are gone") == 1


def test_places_that_were_never_scanned_are_white_and_no_damage():
    damage = []
    level = level_of(IMAGE, read=lambda _row, _col: None, damage=damage)
    assert (level[:] == 255).all()
    assert damage == []


def test_the_cache_keeps_what_was_used_last_within_its_bytes():
    cache = TileCache(max_bytes=3000)
    tiles = {TileKey(1, 0, col): np.zeros(1000, np.uint8) for col in range(4)}
    for key, tile in list(tiles.items())[:3]:
        cache.put(key, tile)
    assert cache.get(TileKey(1, 0, 0)) is not None
    cache.put(TileKey(1, 0, 3), tiles[TileKey(1, 0, 3)])
    assert cache.get(TileKey(1, 0, 1)) is None
    assert cache.get(TileKey(1, 0, 0)) is not None
    assert (cache.bytes, len(cache)) == (3000, 3)


def test_the_cache_counts_a_tile_put_twice_once_and_refuses_giants():
    cache = TileCache(max_bytes=3000)
    for _ in range(5):
        cache.put(TileKey(1, 0, 0), np.zeros(1000, np.uint8))
    cache.put(TileKey(1, 0, 1), np.zeros(3001, np.uint8))
    assert (cache.bytes, len(cache)) == (1000, 1)
    cache.drop(2)
    assert len(cache) == 1
    cache.drop(1)
    assert (cache.bytes, len(cache)) == (0, 0)


def test_levels_that_share_a_cache_do_not_share_tiles():
    cache = TileCache()
    first, second = level_of(IMAGE, cache=cache), level_of(255 - IMAGE, cache=cache)
    assert np.array_equal(first[:], 255 - second[:])


def test_many_threads_read_one_level_right_with_a_cache_too_small():
    level = level_of(IMAGE, cache=TileCache(max_bytes=4 * 64 * 48 * 3))
    wrong = []

    def work(seed):
        rng = np.random.default_rng(seed)
        for _ in range(60):
            y, x = rng.integers(0, 200), rng.integers(0, 280)
            if not np.array_equal(level[y : y + 90, x : x + 90], IMAGE[y : y + 90, x : x + 90]):
                wrong.append((y, x))

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []

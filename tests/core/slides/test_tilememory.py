"""Memory of tiles is used again, and never while somebody looks at it."""

import gc
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_nucleiseg.core.slides.tilecache import TileCache, TileKey
from napari_nucleiseg.core.slides.tilememory import TileMemory

SHAPE = (16, 16, 3)
SIZE = 16 * 16 * 3


@pytest.fixture
def memory():
    return TileMemory(slab_bytes=4 * SIZE, spare_bytes=8 * SIZE)


def address(array):
    return array.__array_interface__["data"][0]


def test_an_array_is_whole_writable_and_in_order(memory):
    array = memory.empty(SHAPE)
    assert (array.shape, array.dtype) == (SHAPE, np.uint8)
    assert array.flags.c_contiguous
    array[:] = 7
    assert (array == 7).all()


def test_what_nobody_holds_is_used_again(memory):
    first = memory.empty(SHAPE)
    place = address(first)
    assert address(memory.empty(SHAPE)) != place
    del first
    assert place in {address(array) for array in [memory.empty(SHAPE) for _ in range(4)]}
    assert memory.bytes == 4 * SIZE


@pytest.mark.parametrize(
    "look", [lambda a: a[2:4], lambda a: a.reshape(-1)[5:], lambda a: a.view(np.int8).T, lambda a: memoryview(a)[3:]]
)
def test_a_view_keeps_the_memory(memory, look):
    array = memory.empty(SHAPE)
    place = address(array)
    view = look(array)
    del array
    assert place not in {address(other) for other in [memory.empty(SHAPE) for _ in range(8)]}
    del view
    assert place in {address(other) for other in [memory.empty(SHAPE) for _ in range(8)]}


def test_too_much_that_is_unused_is_given_back(memory):
    arrays = [memory.empty(SHAPE) for _ in range(40)]
    gc.collect()
    assert memory.bytes == 40 * SIZE
    arrays.clear()
    assert memory.bytes == 8 * SIZE


def test_an_array_that_a_slab_has_no_room_for_is_memory_of_its_own(memory):
    large = memory.empty((64, 64, 3))
    assert large.shape == (64, 64, 3)
    assert memory.empty((0, 4, 3)).size == 0
    assert memory.bytes == 0


def test_memory_comes_back_from_what_a_cache_drops(memory):
    cache = TileCache(max_bytes=4 * SIZE)
    for number in range(100):
        cache.put(TileKey(1, number, 0), memory.empty(SHAPE))
    assert memory.bytes <= 8 * SIZE
    cache.drop(1)
    gc.collect()
    assert memory.bytes <= 8 * SIZE


# A number below 8 gives up what is held there (and looks at a part of the newest instead), another takes an array.
@given(st.lists(st.integers(0, 15), max_size=60))
def test_whoever_holds_an_array_or_a_part_finds_it_unchanged(steps):
    memory = TileMemory(slab_bytes=8 * SIZE, spare_bytes=8 * SIZE)
    held = {}
    for number, step in enumerate(steps):
        shape = SHAPE if step % 2 else (8, 8, 3)
        if step < 8:
            held.pop(step, None)
        else:
            array = memory.empty(shape)
            array[:] = number % 256
            held[step - 8] = (array[3:5, ::2] if step % 3 else array, number % 256)
        for array, value in held.values():
            assert (array == value).all()
    assert memory.bytes >= sum(array.nbytes for array, _ in held.values())


def test_threads_that_take_and_drop_disturb_nobody():
    memory = TileMemory(slab_bytes=8 * SIZE, spare_bytes=8 * SIZE)
    wrong = []

    def work(value):
        for _ in range(300):
            arrays = [memory.empty(SHAPE) for _ in range(3)]
            for array in arrays:
                array[:] = value
            if not all((array == value).all() for array in arrays):
                wrong.append(value)

    threads = [threading.Thread(target=work, args=(value,)) for value in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert memory.bytes <= 16 * SIZE

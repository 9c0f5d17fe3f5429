import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from napari_nucleiseg.core.batch.unattended.tiling import SQUARE, Heap, Pace, near_together


@given(count=st.integers(0, 300), most=st.integers(1, 50), workers=st.integers(1, 9), data=st.data())
def test_every_tile_comes_out_whatever_is_put_back(count, most, workers, data):
    heap, seen, given_up = Heap(np.arange(count)), [], []
    while len(heap):
        tiles = heap.cut(most, workers)
        assert 1 <= len(tiles) <= most
        fate = data.draw(st.sampled_from(("done", "done", "done", "lost", "too much")))
        if fate == "done":
            seen += tiles
        elif fate == "lost":
            heap.again(tiles)
        else:
            one = heap.halve(tiles)
            given_up += [] if one is None else [one]
    assert sorted(seen + given_up) == list(range(count))


def test_a_tile_is_given_up_the_third_time():
    heap = Heap(np.array([7]))
    assert [heap.halve(heap.cut(1, 1)) for _ in range(3)] == [None, None, 7]
    assert len(heap) == 0


def test_the_last_tasks_are_small_enough_for_all_workers():
    heap = Heap(np.arange(64))
    sizes = []
    while len(heap):
        sizes.append(len(heap.cut(16, 4)))
    assert sizes[0] == 8
    assert sizes[-1] == 1
    assert sum(sizes) == 64


def test_a_task_takes_about_as_long_as_wished():
    pace = Pace(2.0, first_s=0.5)
    assert pace.at_once == 4
    for _ in range(40):
        pace.note(10, 1.0)
    assert pace.at_once in {19, 20}
    for _ in range(40):
        pace.note(1, 30.0)
    assert pace.at_once == 1


@given(rows=st.integers(1, 30), columns=st.integers(1, 30))
def test_neighbours_are_done_one_after_the_other(rows, columns):
    order = near_together(np.arange(rows * columns), columns)
    assert sorted(order.tolist()) == list(range(rows * columns))
    squares = (order // columns // SQUARE) * columns + order % columns // SQUARE
    changes = np.count_nonzero(np.diff(squares))
    assert changes == len(np.unique(squares)) - 1

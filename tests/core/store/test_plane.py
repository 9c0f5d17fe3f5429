"""Lazy planes answer like numpy arrays."""

import copy
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_nucleiseg.core.store.plane import LazyPlane

ARRAY = np.arange(7 * 9, dtype=np.uint32).reshape(7, 9)


def plane():
    return LazyPlane(ARRAY.shape, ARRAY.dtype, (4, 4), lambda y0, x0, y1, x1: ARRAY[y0:y1, x0:x1].copy())


steps = st.one_of(st.none(), st.integers(-4, 4).filter(bool))
ends = st.one_of(st.none(), st.integers(-12, 12))
part = st.one_of(st.builds(slice, ends, ends, steps), st.integers(-7, 6))


@given(first=part, second=part)
def test_two_indices_give_what_numpy_gives(first, second):
    np.testing.assert_array_equal(plane()[first, second], ARRAY[first, second])
    assert np.shape(plane()[first, second]) == ARRAY[first, second].shape


@pytest.mark.parametrize("key", [3, slice(2, 5), ..., (..., 2), (2, ...), (slice(None), ...), (..., 1, 2), np.int64(4)])
def test_short_and_open_indices_give_what_numpy_gives(key):
    np.testing.assert_array_equal(plane()[key], ARRAY[key])


@pytest.mark.parametrize("key", [7, -8, (0, 9), (0, 0, 0)])
def test_indices_beyond_the_plane_are_refused(key):
    with pytest.raises(IndexError):
        plane()[key]


def test_it_is_an_array_to_numpy_and_dask():
    dask_array = pytest.importorskip("dask.array")
    np.testing.assert_array_equal(np.asarray(plane()), ARRAY)
    np.testing.assert_array_equal(dask_array.from_array(plane(), chunks=4).compute(), ARRAY)
    assert (plane().ndim, plane().size, plane().nbytes, len(plane())) == (2, 63, 252, 7)


def test_a_copy_reads_from_the_same_store():
    lazy = LazyPlane((4, 4), np.uint32, (4, 4), threading.Lock)  # as a store holds one, and it cannot be copied
    assert copy.deepcopy(lazy) is lazy

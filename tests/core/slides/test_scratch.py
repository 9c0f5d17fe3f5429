"""Memory that a thread uses again: the same for one thread, another for the next."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np

from napari_nucleiseg.core.slides.scratch import scratch


def test_a_thread_gets_the_same_memory_again_and_no_other_thread_does():
    first = scratch((40, 30, 3))
    first[:] = 7
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(scratch, (40, 30, 3)).result()
    assert not np.shares_memory(first, other)
    smaller = scratch((10, 20, 4))
    assert smaller.shape == (10, 20, 4)
    assert smaller.flags.c_contiguous
    assert np.shares_memory(first, smaller)


def test_what_is_larger_than_before_is_had_afresh():
    assert scratch((900, 1100, 4)).shape == (900, 1100, 4)

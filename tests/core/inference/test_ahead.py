"""Working ahead: in order, bounded, errors and closing reach both ends, no thread is left."""

import gc
import threading
import time
import weakref

import pytest

from napari_nucleiseg.core.inference.ahead import map_ahead, run_ahead


def background_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("test-ahead")]


def wait_until(condition, seconds=30.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.005)


@pytest.mark.parametrize("workers", [1, 3])
def test_results_come_in_the_order_of_the_items(workers):
    def slow_first(number):
        time.sleep(0.02 if number == 0 else 0)
        return number * 10

    results = list(map_ahead(slow_first, range(20), workers=workers, depth=4, name="test-ahead"))
    assert results == [number * 10 for number in range(20)]


def test_mapping_runs_at_most_depth_items_ahead():
    started = []
    results = map_ahead(started.append, range(100), workers=2, depth=5, name="test-ahead")
    next(results)
    wait_until(lambda: len(started) == 5)
    time.sleep(0.05)
    assert len(started) == 5
    results.close()
    assert background_threads() == []


def test_running_goes_at_most_depth_items_ahead():
    made = []

    def items():
        for number in range(100):
            made.append(number)
            yield number

    results = run_ahead(items(), depth=2, name="test-ahead")
    assert next(results) == 0
    wait_until(lambda: len(made) >= 4)
    time.sleep(0.05)
    assert len(made) == 4  # one used, two waiting, one at the door
    results.close()
    assert background_threads() == []


def test_an_error_comes_after_the_items_before_it():
    def items():
        yield 1
        raise LookupError("the third")

    results = run_ahead(items(), depth=3, name="test-ahead")
    assert next(results) == 1
    with pytest.raises(LookupError, match="the third"):
        next(results)
    assert background_threads() == []


def test_an_error_in_a_mapped_function_comes_in_its_place():
    results = map_ahead(lambda number: 1 // number, [2, 1, 0, 5], workers=2, depth=4, name="test-ahead")
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert background_threads() == []


def test_closing_ends_the_generators_underneath():
    ended = threading.Event()

    def items():
        try:
            while True:
                yield 0
        finally:
            ended.set()

    results = run_ahead(items(), depth=1, name="test-ahead")
    next(results)
    results.close()
    assert ended.is_set()
    assert background_threads() == []


def threads_of(runs):
    """Run iterators side by side; return the threads that made their items."""

    def items():
        while True:
            yield threading.get_ident()

    found = [run_ahead(items(), depth=1, name="test-ahead") for _ in range(runs)]
    first = [next(one) for one in found]
    for one in found:
        one.close()
    return first


def test_the_next_run_is_in_the_thread_that_rests_and_two_at_once_in_two():
    (before,) = threads_of(1)
    assert threads_of(1) == [before]
    assert len(set(threads_of(3))) == 3
    count = threading.active_count()
    threads_of(3)
    assert threading.active_count() == count


def test_a_run_leaves_nothing_in_its_thread():
    class Heavy:
        pass

    heavy = Heavy()
    gone = weakref.ref(heavy)

    def items(held):
        yield 1
        yield held

    results = run_ahead(items(heavy), depth=1, name="test-ahead")
    next(results)
    results.close()
    del heavy, results
    gc.collect()
    assert gone() is None

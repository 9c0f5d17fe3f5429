import threading

import pytest

from napari_nucleiseg.viewer.long_work import LongWork

# Nothing is shown of what takes less.
AFTER_S = 60.0


@pytest.fixture
def work(pump):
    return LongWork(pump.jobs, "long")


def yields(*values):
    return lambda _cancelled: iter(values)


def fails(_cancelled):
    raise OSError("no room")
    yield


def test_what_was_made_is_told_when_it_has_ended(pump, work):
    """Who clicks as soon as the sentence is there is not told to wait."""
    told, shown = [], []
    work.changed.connect(shown.append)
    work.begin("Writing", after_s=AFTER_S)
    assert work.is_running
    work.run("Writing", yields("a", "b"), lambda made: told.append((made, work.is_running, list(shown))), told.append)
    pump.run_until(lambda: len(told) == 2)
    assert told == [("a", False, [None]), ("b", False, [None])]
    assert not pump.jobs.is_running("long")


def test_an_error_is_told_when_it_has_ended(pump, work):
    told = []
    work.begin("Writing", after_s=AFTER_S)
    work.run("Writing", fails, told.append, lambda error: told.append((str(error), work.is_running)))
    pump.run_until(lambda: told)
    assert told == [("no room", False)]


def test_another_may_begin_from_what_is_told(pump, work):
    told = []

    def again(made):
        told.append(made)
        if len(told) == 1:
            work.begin("Once more", after_s=AFTER_S)
            work.run("Once more", yields("second"), told.append, told.append)

    work.begin("Writing", after_s=AFTER_S)
    work.run("Writing", yields("first"), again, told.append)
    pump.run_until(lambda: len(told) == 2)
    assert told == ["first", "second"]
    assert not work.is_running


def test_it_runs_off_the_main_thread_and_knows_that_it_is_stopped(pump, work):
    seen, gate = [], threading.Event()

    def waits(_cancelled):
        seen.append(threading.current_thread())
        assert gate.wait(30)
        seen.append(work.is_stopped)
        yield len(seen)

    work.begin("Writing", after_s=AFTER_S)
    work.run("Writing", waits, seen.append, seen.append)
    work.stop()
    gate.set()
    pump.run_until(lambda: len(seen) == 3)
    assert seen[0] is not threading.main_thread()
    assert seen[1:] == [True, 2]
    assert not work.is_stopped

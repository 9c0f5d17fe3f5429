import os
import sys
import threading
import time

import pytest


def counting(n, gate=None, seen=None):
    def work(cancelled):
        for value in range(n):
            if gate is not None:
                assert gate.wait(30)
            if seen is not None:
                seen.append(value)
            yield value

    return work


def test_values_arrive_in_order_and_before_the_end(pump):
    said = []
    pump.jobs.start("lane", counting(5), on_value=said.append, on_end=lambda: said.append("end"))
    pump.run_until(lambda: "end" in said)
    assert said == [0, 1, 2, 3, 4, "end"]
    assert not pump.jobs.is_running("lane")
    assert not pump.jobs.busy


def test_work_runs_off_the_main_thread_and_answers_on_it(pump):
    threads = []

    def work(_cancelled):
        threads.append(threading.current_thread())
        yield 1

    pump.jobs.start("lane", work, on_value=lambda _value: threads.append(threading.current_thread()))
    pump.run_until(lambda: len(threads) == 2)
    assert threads[0] is not threading.main_thread()
    assert threads[1] is threading.main_thread()


def test_late_answers_of_a_superseded_job_are_dropped(pump):
    gate, said = threading.Event(), []
    pump.jobs.start("lane", counting(3, gate), on_value=lambda value: said.append(("old", value)))
    gate.set()
    end = time.monotonic() + 30
    while pump.calls.qsize() < 4:  # three values and the end of the first job
        assert time.monotonic() < end
        time.sleep(0.01)
    pump.jobs.start(
        "lane", counting(2), on_value=lambda value: said.append(("new", value)), on_end=lambda: said.append("end")
    )
    pump.run_until(lambda: "end" in said)
    assert said == [("new", 0), ("new", 1), "end"]


@pytest.mark.parametrize("is_superseded", [False, True], ids=["stopped", "superseded"])
def test_what_was_done_as_a_job_was_stopped_is_told_to_who_asks_for_it(pump, is_superseded):
    began, gate, said = threading.Event(), threading.Event(), []

    def work(_cancelled):
        yield "delivered too late"
        began.set()
        assert gate.wait(30)
        yield "done as it was stopped"
        yield "never done"

    pump.jobs.start("lane", work, on_value=lambda value: said.append(("in time", value)), on_late_value=said.append)
    assert began.wait(30)
    if is_superseded:
        pump.jobs.start("lane", counting(1), on_value=said.append)
    else:
        pump.jobs.cancel("lane")
    gate.set()
    pump.run_until(lambda: not pump.jobs.busy)
    assert said == ["delivered too late", "done as it was stopped", *([0] if is_superseded else [])]


def test_a_superseded_job_stops_before_its_successor_begins(pump):
    gate, seen, said = threading.Event(), [], []
    pump.jobs.start("lane", counting(1000, gate, seen))
    pump.jobs.start("lane", lambda _cancelled: iter([len(seen)]), on_value=said.append)
    gate.set()
    pump.run_until(lambda: said)
    assert said == [len(seen)]
    assert len(seen) <= 1


def test_clean_up_of_a_cancelled_generator_runs_in_its_own_thread(pump):
    where = []

    def work(_cancelled):
        try:
            while True:
                time.sleep(0.005)
                yield 1
        finally:
            where.append(threading.current_thread())

    pump.jobs.start("lane", work)
    pump.run_for(0.05)
    assert pump.jobs.cancel("lane")
    pump.run_until(lambda: where)
    assert where[0] is not threading.main_thread()


def test_lanes_run_side_by_side(pump):
    gate, said = threading.Event(), []
    pump.jobs.start("slow", counting(1, gate), on_end=lambda: said.append("slow"))
    pump.jobs.start("quick", counting(1), on_end=lambda: said.append("quick"))
    pump.run_until(lambda: said)
    gate.set()
    pump.run_until(lambda: len(said) == 2)
    assert said == ["quick", "slow"]


def broken(_cancelled):
    yield 1
    raise OSError("the drive is gone")


def test_an_error_reaches_its_handler_once(pump):
    said = []
    pump.jobs.start("lane", broken, on_error=lambda error: said.append(str(error)), on_end=lambda: said.append("end"))
    pump.run_until(lambda: said)
    pump.run_for(0.05)
    assert said == ["the drive is gone"]


def test_an_error_without_handler_is_raised_on_the_main_thread(pump):
    pump.jobs.start("lane", broken)
    with pytest.raises(OSError, match="the drive is gone"):
        pump.run_for(2)


def test_an_error_of_a_superseded_job_is_not_lost(pump):
    begun, gate, said = threading.Event(), threading.Event(), []

    def work(_cancelled):
        begun.set()
        gate.wait(30)
        raise OSError("the disk is full")
        yield

    pump.jobs.start("lane", work, on_error=lambda error: said.append(str(error)))
    assert begun.wait(30)
    pump.jobs.start("lane", counting(1), on_end=lambda: said.append("end"))
    gate.set()
    pump.run_until(lambda: "end" in said)
    assert said == ["the disk is full", "end"]


@pytest.mark.parametrize("is_superseded", [False, True])
def test_an_error_of_a_job_that_is_stopped_or_superseded_is_told_apart(pump, is_superseded):
    begun, gate, said = threading.Event(), threading.Event(), []

    def work(_cancelled):
        begun.set()
        gate.wait(30)
        raise OSError("the disk is full")
        yield

    pump.jobs.start("lane", work, on_error=lambda _error: said.append("own"), on_late_error=said.append)
    assert begun.wait(30)
    if is_superseded:
        pump.jobs.start("lane", counting(1))
    else:
        pump.jobs.cancel("lane")
    gate.set()
    pump.run_until(lambda: said)
    assert [str(one) for one in said] == ["the disk is full"]
    pump.jobs.start("lane", broken, on_error=lambda _error: said.append("own"), on_late_error=said.append)
    pump.run_until(lambda: len(said) == 2)
    assert said[1] == "own"


def test_nothing_arrives_after_closing_and_threads_end(pump):
    gate, said = threading.Event(), []
    pump.jobs.start("lane", counting(1000, gate), on_value=said.append, on_end=lambda: said.append("end"))
    pump.jobs.later("key", 0.0, lambda: said.append("late"))
    pump.jobs.close()
    gate.set()
    pump.jobs.join()
    pump.run_for(0.05)
    assert said == []
    assert pump.jobs.start("lane", counting(1)) is None
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("nucleiseg")]


def test_what_was_due_when_it_was_closed_does_not_run_any_more(pump):
    said = []
    for key, when in (("later", pump.jobs.later), ("soon", pump.jobs.soon)):
        when(key, 0.0, lambda key=key: said.append(key))
    end = time.monotonic() + 30
    while pump.calls.qsize() < 2:
        assert time.monotonic() < end
        time.sleep(0.01)
    pump.jobs.close()
    pump.run_for(0.05)
    assert said == []


def test_what_comes_after_a_lane_runs_even_when_it_was_closed(pump):
    gate, said = threading.Event(), []
    pump.jobs.start("lane", counting(1000, gate))
    pump.jobs.after(lambda: said.append(threading.current_thread()), "lane")
    pump.jobs.close()
    gate.set()
    pump.jobs.join()
    assert len(said) == 1
    assert said[0] is not threading.main_thread()


def test_later_waits_for_quiet(pump):
    said = []
    for value in range(20):
        pump.jobs.later("view", 0.1, lambda value=value: said.append(value))
        pump.run_for(0.01)
    assert said == []
    pump.run_until(lambda: said)
    pump.run_for(0.15)
    assert said == [19]


def test_what_is_forgotten_does_not_run_and_nothing_is_about_to(pump):
    said = []
    assert pump.jobs.is_settled(1.0)
    pump.jobs.later("view", 0.1, lambda: said.append("view"))
    assert not pump.jobs.is_settled(1.0)
    assert pump.jobs.is_settled(0.01)
    pump.jobs.forget("view")
    pump.jobs.forget("never asked for")
    assert pump.jobs.is_settled(1.0)
    pump.run_for(0.2)
    assert said == []


def test_soon_runs_at_most_once_in_its_time_and_with_the_newest_call(pump):
    said = []
    start = time.monotonic()
    value = 0
    while time.monotonic() - start < 0.5:
        value += 1
        pump.jobs.soon("redraw", 0.1, lambda value=value: said.append(value))
        pump.run_for(0.005)
    assert 3 <= len(said) <= 6
    assert said[0] == 1  # the first at once
    assert said == sorted(set(said))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux gives each thread its own niceness")
def test_work_steps_back_behind_the_window(pump):
    said = []

    def work(_cancelled):
        yield os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    before = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    pump.jobs.start("lane", work, on_value=said.append)
    pump.run_until(lambda: said)
    assert said == [10]
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == before


def test_what_comes_after_several_lanes_waits_for_each_and_for_no_window(pump):
    gates, said = {"one": threading.Event(), "two": threading.Event()}, []
    for lane, gate in gates.items():
        pump.jobs.start(lane, counting(1, gate))
    pump.run_for(0.1)
    pump.jobs.after(lambda: said.append("closed"), "one", "two", "never used")
    pump.jobs.close()  # at once: what is to be closed is closed all the same
    gates["two"].set()
    time.sleep(0.2)
    assert said == []
    gates["one"].set()
    pump.jobs.join()
    assert said == ["closed"]

import operator
import os
import subprocess
import sys
import time

import psutil
import pytest

from napari_nucleiseg.core.batch.engines.base import Ending, EngineLostError, Task, ended
from napari_nucleiseg.core.batch.engines.here import LocalEngine
from napari_nucleiseg.core.errors import SlideError


def all_of(engine, count):
    found = []
    until = time.monotonic() + 60
    while len(found) < count:
        assert time.monotonic() < until, f"only {len(found)} of {count} came back"
        found += engine.collect(0.2)
    return {outcome.task.name: outcome for outcome in found}


@pytest.fixture
def two():
    engine = LocalEngine(2)
    yield engine
    engine.close()


def test_tasks_come_back_with_what_they_returned(two):
    for number in range(6):
        two.submit(Task(str(number), operator.mul, (number, 10)))
    found = all_of(two, 6)
    assert {name: outcome.value for name, outcome in found.items()} == {str(n): n * 10 for n in range(6)}
    assert two.waiting == 0
    assert two.room == 6


def test_an_error_fails_its_task_alone_and_says_where(two):
    two.submit(Task("bad", operator.truediv, (1, 0)))
    two.submit(Task("good", operator.truediv, (1, 2)))
    found = all_of(two, 2)
    assert found["bad"].ending is Ending.FAILED
    assert "ZeroDivisionError" in found["bad"].sentence
    assert found["good"].value == 0.5


def test_only_the_task_in_work_dies_with_its_worker(two):
    first = LocalEngine(1)
    try:
        first.submit(Task("dies", os._exit, (9,)))
        first.submit(Task("behind it", operator.add, (1, 2)))
        found = all_of(first, 2)
    finally:
        first.close()
    assert found["dies"].ending is Ending.DIED
    assert found["behind it"].value == 3


def test_a_worker_killed_from_outside_is_replaced(two):
    two.submit(Task("pid", os.getpid, ()))
    pid = all_of(two, 1)["pid"].value
    two.submit(Task("long", time.sleep, (30,)))
    two.submit(Task("long too", time.sleep, (30,)))
    time.sleep(0.5)
    os.kill(pid, 9)
    found = all_of(two, 1)
    assert [outcome.ending for outcome in found.values()] == [Ending.DIED]


def test_workers_that_die_again_and_again_end_the_run(monkeypatch):
    monkeypatch.setattr("napari_nucleiseg.core.batch.engines.here._MOST_DEATHS_IN_A_ROW", 2)
    engine = LocalEngine(1)
    try:
        for number in range(2):
            engine.submit(Task(str(number), os._exit, (9,)))
            assert all_of(engine, 1)[str(number)].ending is Ending.DIED
        engine.submit(Task("last", os._exit, (9,)))
        with pytest.raises(EngineLostError, match="died one after the other"):
            all_of(engine, 1)
    finally:
        engine.close()


def test_workers_have_their_threads_and_devices_in_turn():
    engine = LocalEngine(2, threads=1, devices=("cuda:0", "cuda:1"))
    try:
        from napari_nucleiseg.core.batch.engines.worker import own_device

        for number in range(2):
            engine.submit(Task(str(number), own_device, ("cpu",)))
        found = {outcome.value for outcome in all_of(engine, 2).values()}
        assert engine.describe() == "this machine, 2 processes of 1 thread on cuda:0, cuda:1"
    finally:
        engine.close()
    assert found == {"cuda:0", "cuda:1"}


@pytest.mark.parametrize(
    ("error", "ending"),
    [
        (MemoryError(), Ending.NO_MEMORY),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 1 bytes"), Ending.NO_MEMORY),
        (SlideError("there is not enough memory to run nuclei on one tile"), Ending.NO_MEMORY),
        (SlideError("the slide is gone"), Ending.FAILED),
    ],
)
def test_a_full_memory_is_told_from_other_errors(error, ending):
    outcome = ended(Task("a", print, ()), error)
    assert outcome.ending is ending
    assert outcome.sentence


def test_closing_does_not_wait_for_a_long_task():
    engine = LocalEngine(1)
    engine.submit(Task("pid", os.getpid, ()))
    pid = all_of(engine, 1)["pid"].value
    engine.submit(Task("long", time.sleep, (60,)))
    worker = psutil.Process(pid)
    time.sleep(0.3)
    engine.close()
    worker.wait(10)  # raises if it still works


def test_in_process_work_needs_no_start():
    engine = LocalEngine(in_process=True)
    try:
        engine.submit(Task("here", os.getpid, ()))
        assert all_of(engine, 1)["here"].value == os.getpid()
        assert engine.describe() == "this process"
    finally:
        engine.close()


def test_a_script_that_starts_work_is_not_run_by_the_workers(tmp_path):
    script, told = tmp_path / "script.py", tmp_path / "told.txt"
    script.write_text(
        f"open({str(told)!r}, 'a').write('x')\n"
        "import operator\n"
        "from napari_nucleiseg.core.batch.engines.base import Task\n"
        "from napari_nucleiseg.core.batch.engines.here import LocalEngine\n"
        "engine = LocalEngine(1)\n"
        "engine.submit(Task('a', operator.add, (1, 2)))\n"
        "found = []\n"
        "while not found:\n"
        "    found = engine.collect(0.2)\n"
        "engine.close()\n"
        "assert found[0].value == 3\n"
        "assert __file__\n",
        encoding="utf-8",
    )
    subprocess.run([sys.executable, str(script)], check=True, timeout=120)
    assert told.read_text() == "x"

"""The writer's lock: one holder, named; taken over when its process ended or fell silent; never by two at once."""

import json
import os
import platform
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import asdict

import psutil
import pytest

from napari_nucleiseg.core.errors import StoreError
from napari_nucleiseg.core.store import lock as lock_module
from napari_nucleiseg.core.store.lock import Holder, WriterLock, process_runs, read_holder, read_occupant


@pytest.fixture
def path(tmp_path):
    return tmp_path / "project.lock"


def put(path, **changes):
    holder = Holder("ada", platform.node(), os.getpid(), time.time(), "t")
    path.write_text(json.dumps(asdict(holder) | changes))


def ended_process():
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_lock_is_taken_named_and_released(path):
    lock = WriterLock(path)
    assert read_holder(path) == lock.holder
    lock.check()
    with pytest.raises(StoreError, match="in use by"):
        WriterLock(path)
    lock.release()
    assert not path.exists()
    WriterLock(path).release()


def test_a_holder_whose_process_ended_is_replaced(path):
    put(path, pid=ended_process())
    lock = WriterLock(path)
    assert read_holder(path) == lock.holder
    lock.release()


def test_a_holder_that_had_our_number_before_us_is_replaced(path):
    put(path, since=psutil.Process().create_time() - 2)
    found = read_occupant(path)
    assert (found.is_here, found.is_own, found.is_gone) == (True, False, True)
    WriterLock(path).release()


def test_what_this_process_does_not_hold_was_left_by_one_that_had_our_number(path):
    put(path, since=psutil.Process().create_time() + 3600)  # the clock was set back since
    assert read_occupant(path).is_gone
    WriterLock(path).release()


def test_a_clock_that_was_set_back_lets_no_second_one_in(path, monkeypatch):
    before, at = set(lock_module._HELD), time.time() - 1e8
    monkeypatch.setattr(time, "time", lambda: at)
    lock = WriterLock(path)
    with pytest.raises(StoreError, match="in use by"):
        WriterLock(path)
    found = read_occupant(path)
    assert (found.is_here, found.is_own, found.is_gone) == (True, True, False)
    lock.check()
    lock.release()
    assert before == lock_module._HELD


def test_a_process_that_has_only_the_number_of_the_holder_is_another(path):
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        began = psutil.Process(other.pid).create_time()
        put(path, pid=other.pid, since=began - 3600)
        with pytest.raises(StoreError, match="in use by"):
            WriterLock(path)  # it was seen alive since: the clock was set
        os.utime(path, (began - 2, began - 2))
        with pytest.raises(StoreError, match="in use by"):
            WriterLock(path)  # not clearly before it began
        os.utime(path, (began - 60, began - 60))
        WriterLock(path).release()
        other.communicate(b"\n")


def test_containers_are_other_machines_even_under_one_name(path, monkeypatch):
    monkeypatch.setattr(lock_module, "container_name", lambda: "pid:[4026532501]")
    lock = WriterLock(path)
    assert read_holder(path) == lock.holder
    assert json.loads(path.read_text())["container"] == "pid:[4026532501]"
    for elsewhere in ("", "pid:[4026532777]"):
        monkeypatch.setattr(lock_module, "container_name", lambda elsewhere=elsewhere: elsewhere)
        for pid in (os.getpid(), ended_process()):
            put(path, pid=pid, since=1e9, token=lock.holder.token, container="pid:[4026532501]")
            found = read_occupant(path)
            assert (found.is_here, found.is_own, found.is_gone) == (False, False, False)
            with pytest.raises(StoreError, match="in use by"):
                WriterLock(path)
    old = time.time() - lock_module.SILENT_S - 60
    os.utime(path, (old, old))
    WriterLock(path).release()
    lock.release()


def test_locks_of_other_versions_are_understood(path, monkeypatch):
    put(path, pid=ended_process(), shade="red")
    assert read_holder(path).user == "ada"
    monkeypatch.setattr(lock_module, "container_name", lambda: "")
    lock = WriterLock(path)
    said = json.loads(path.read_text())
    assert set(said) == {"user", "host", "pid", "since", "token"}  # a former version understands no more
    lock.release()
    path.write_text(json.dumps(said))
    assert read_holder(path) == lock.holder


def test_a_silent_holder_on_another_machine_is_replaced_a_lively_one_is_not(path):
    put(path, host="elsewhere", pid=1)
    with pytest.raises(StoreError, match=r"in use by ada on elsewhere \(process 1, since"):
        WriterLock(path)
    old = time.time() - lock_module.SILENT_S - 60
    os.utime(path, (old, old))
    WriterLock(path).release()


def test_a_holder_shows_that_it_is_alive(path, monkeypatch):
    monkeypatch.setattr(lock_module, "BEAT_S", 0.02)
    lock = WriterLock(path)
    old = time.time() - 1000
    os.utime(path, (old, old))
    deadline = time.time() + 20
    while lock_module.age_s(path) > 100 and time.time() < deadline:
        time.sleep(0.02)
    assert lock_module.age_s(path) < 100
    lock.release()


def test_a_lively_holder_can_be_overruled_and_then_notices(path):
    first = WriterLock(path)
    second = WriterLock(path, take_over=True)
    with pytest.raises(StoreError, match=r"was taken over by .*so nothing more is written from here"):
        first.check()
    second.check()
    first.release()
    assert read_holder(path) == second.holder
    second.release()
    with pytest.raises(StoreError, match="was removed"):
        second.check()


def test_a_damaged_lock_does_not_lock_out_for_ever(path):
    path.write_text("{")
    old = time.time() - 60
    os.utime(path, (old, old))
    WriterLock(path).release()


def test_a_lock_appears_with_its_content_and_without_links_too(path, monkeypatch):
    def killed(_made, _path):
        assert read_holder(_made) is not None
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "link", killed)
    with pytest.raises(KeyboardInterrupt):
        WriterLock(path)
    assert list(path.parent.iterdir()) == []

    def unknown(_made, _path):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", unknown)
    lock = WriterLock(path)
    with pytest.raises(StoreError, match="in use by"):
        WriterLock(path)
    lock.release()
    assert list(path.parent.iterdir()) == []


def test_what_was_left_of_a_kill_amid_taking_the_lock_goes(path):
    left = path.with_name("project.lock.0123")
    left.write_text("{")
    os.utime(left, (0, 0))
    WriterLock(path).release()
    assert list(path.parent.iterdir()) == []


def test_of_many_that_try_at_once_one_gets_a_stale_lock(path):
    for _ in range(10):
        put(path, pid=ended_process())
        got, start = [], threading.Barrier(6)

        def attempt(got=got, start=start):
            start.wait()
            with suppress(StoreError):
                got.append(WriterLock(path))

        threads = [threading.Thread(target=attempt) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        valid = [lock for lock in got if read_holder(path) == lock.holder]
        assert len(valid) == 1
        for lock in got:
            lock.release()
        assert not path.exists()


def test_processes_are_told_apart():
    assert process_runs(os.getpid())
    assert not process_runs(ended_process())


def test_who_holds_a_lock_is_told_with_whether_they_are_there(path, monkeypatch):
    assert read_occupant(path) is None
    put(path)
    monkeypatch.setattr(lock_module, "_HELD", {"t"})
    found = read_occupant(path)
    assert (found.holder.user, found.is_here, found.is_own, found.is_gone) == ("ada", True, True, False)
    put(path, pid=ended_process())
    found = read_occupant(path)
    assert (found.is_here, found.is_own, found.is_gone) == (True, False, True)
    put(path, host="elsewhere", pid=1)
    found = read_occupant(path)
    assert (found.is_here, found.is_own, found.is_gone) == (False, False, False)
    old = time.time() - lock_module.SILENT_S - 60
    os.utime(path, (old, old))
    found = read_occupant(path)
    assert found.is_gone
    assert found.silent_s > lock_module.SILENT_S

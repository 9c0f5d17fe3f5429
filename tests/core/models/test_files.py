"""Files are written whole or not at all, and a new one never in the place of another."""

import errno
import os
import threading

import pytest

from napari_nucleiseg.core.models import files


def test_a_new_file_is_whole_and_alone(tmp_path):
    files.write_new(tmp_path / "a", b"one")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"one")]


@pytest.mark.parametrize("links", [True, False])
def test_a_new_file_takes_no_others_place(tmp_path, monkeypatch, links):
    def refuse(*_args):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    if not links:
        monkeypatch.setattr(files.os, "link", refuse)
    (tmp_path / "a").write_bytes(b"one")
    with pytest.raises(FileExistsError):
        files.write_new(tmp_path / "a", b"two")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"one")]


def test_of_many_who_write_one_name_at_once_one_wins(tmp_path):
    won, together = [], threading.Barrier(8)

    def write(number):
        together.wait()
        try:
            files.write_new(tmp_path / "a", bytes([number]) * 1000)
        except FileExistsError:
            return
        won.append(number)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (winner,) = won
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [bytes([winner]) * 1000]


def test_what_cannot_be_written_leaves_the_former_file(tmp_path, monkeypatch):
    def full(_number):
        raise OSError(errno.ENOSPC, "No space left on device")

    files.write_over(tmp_path / "a", b"one")
    monkeypatch.setattr(files.os, "fsync", full)
    for write in (lambda: files.write_over(tmp_path / "a", b"two"), lambda: files.write_new(tmp_path / "b", b"two")):
        with pytest.raises(OSError, match="No space left"):
            write()
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"one")]


def test_a_name_that_is_taken_is_not_moved_to(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).write_text(name)
    with pytest.raises(FileExistsError):
        files.move_new(tmp_path / "a", tmp_path / "b")
    files.move_new(tmp_path / "a", tmp_path / "c")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"b": "b", "c": "a"}


def test_only_what_was_left_behind_long_ago_is_swept_away(tmp_path):
    for name in ("old.part", "new.part", "old.safetensors"):
        (tmp_path / name).touch()
    for name in ("old.part", "old.safetensors"):
        os.utime(tmp_path / name, (0, 0))
    files.sweep(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.part", "old.safetensors"]

"""The run's memory: what counts as done, also after a crash and after other settings."""

import hashlib
import json
import os
from dataclasses import asdict, replace

import pytest

from napari_nucleiseg.core.batch.record import NAME, Entry, Record, recorded_names
from napari_nucleiseg.core.errors import StoreError
from napari_nucleiseg.core.slides.fingerprint import fingerprint


def entry(settings="s", outputs=("a.tif",)):
    return Entry("a", "a.png", "f", settings, list(outputs), 3)


def add(folder, *entries):
    record = Record(folder)
    for item in entries:
        for name in item.outputs:
            (folder / name).touch()
        record.add(item)


def test_a_finished_slide_is_found_by_the_next_run(tmp_path):
    add(tmp_path / "out", entry())
    assert Record(tmp_path / "out").find("a", "f", "s") == entry()
    assert Record(tmp_path / "out").find("a", "f", "other") is None
    assert Record(tmp_path / "out").find("a", "g", "s") is None
    assert Record(tmp_path / "out").find("b", "f", "s") is None


def test_what_a_former_version_has_done_is_found_and_told_from_other_pictures_from_then_on(tmp_path):
    ends = "e" * 32
    full, twin = "a" * 16 + ends, "b" * 16 + ends
    add(tmp_path, replace(entry(), fingerprint=ends))
    assert Record(tmp_path).find("a", full, "other") is None
    record = Record(tmp_path)
    assert record.find("a", full, "s") == replace(entry(), fingerprint=full)
    for known in (record, Record(tmp_path)):
        assert known.find("a", twin, "s") is None
        assert known.find("a", full, "s") == replace(entry(), fingerprint=full)


def test_a_folder_in_which_strays_counted_in_former_versions_is_found(tmp_path):
    image = tmp_path / "a.zarr"
    image.mkdir()
    (image / "zarr.json").write_text("{}")
    (image / ".DS_Store").write_text("x")
    before = hashlib.sha256(b".DS_Store 1\nxzarr.json 2\n{}").hexdigest()[:32]
    add(tmp_path / "out", replace(entry(), fingerprint=before))
    now = fingerprint(str(image))
    assert now != before
    for _ in range(2):
        assert Record(tmp_path / "out").find("a", now, "s") == replace(entry(), fingerprint=now)
    assert Record(tmp_path / "out").find("a", "0" * 32, "s") is None


@pytest.mark.parametrize("name", ["zarr.json", ".zattrs", ".zgroup"])
def test_a_store_that_somebody_looked_into_counts_one_that_was_written_anew_does_not(tmp_path, name):
    store = tmp_path / "a.labels.zarr"
    store.mkdir()
    (store / name).write_text("{}")
    Record(tmp_path).add(entry(outputs=[store.name]))
    when = Record(tmp_path).find("a", "f", "s").written
    (store / ".DS_Store").write_text("x")
    for path in (store, store / ".DS_Store"):
        os.utime(path, (when + 9, when + 9))
    assert Record(tmp_path).find("a", "f", "s") == entry(outputs=[store.name])
    os.utime(store / name, (when + 9, when + 9))
    assert Record(tmp_path).find("a", "f", "s") is None


def test_a_result_that_is_gone_or_overwritten_does_not_count(tmp_path):
    add(tmp_path, entry("first"), entry("second"), entry("third", ["b.csv"]))
    assert Record(tmp_path).find("a", "f", "first") is None
    assert Record(tmp_path).find("a", "f", "second") == entry("second")
    (tmp_path / "b.csv").unlink()
    assert Record(tmp_path).find("a", "f", "third") is None


def test_a_result_that_was_written_since_does_not_count(tmp_path):
    add(tmp_path, entry())
    line = asdict(entry())
    del line["written"]
    (tmp_path / NAME).write_text(json.dumps(line) + "\n")
    assert Record(tmp_path).find("a", "f", "s").written is None  # of a former version
    add(tmp_path, entry())
    when = Record(tmp_path).find("a", "f", "s").written
    assert when == (tmp_path / "a.tif").stat().st_mtime
    os.utime(tmp_path / "a.tif", (when + 1, when + 1))
    assert Record(tmp_path).find("a", "f", "s") is None


@pytest.mark.parametrize("name", ["project.sqlite", "project.sqlite-wal"])
def test_a_project_that_was_written_to_since_does_not_count_one_that_was_looked_at_does(tmp_path, name):
    project = tmp_path / "a.nucleiseg"
    project.mkdir()
    (project / "project.sqlite").write_bytes(b"x")
    Record(tmp_path).add(entry(outputs=["a.nucleiseg"]))
    when = Record(tmp_path).find("a", "f", "s").written
    (project / "project.lock").touch()
    (project / "project.sqlite-wal").touch()
    for path in (project, project / "project.sqlite-wal"):
        os.utime(path, (when + 9, when + 9))
    assert Record(tmp_path).find("a", "f", "s") == entry(outputs=["a.nucleiseg"])
    (project / name).write_bytes(b"xy")
    os.utime(project / name, (when + 9, when + 9))
    assert Record(tmp_path).find("a", "f", "s") is None


def test_a_line_that_a_crash_cut_off_is_passed_over_and_swallows_nothing(tmp_path):
    add(tmp_path, entry("first"))
    with (tmp_path / NAME).open("a") as file:
        file.write('{"path": "b.png", "finger')
    add(tmp_path, entry("second", ["c.tif"]))
    record = Record(tmp_path)
    assert record.find("a", "f", "first")
    assert record.find("a", "f", "second")


def test_names_are_known_from_when_they_are_about_to_be_written(tmp_path):
    assert recorded_names(tmp_path / "none") == frozenset()
    add(tmp_path, entry(outputs=("a.tif", "a.csv")))
    record = Record(tmp_path)
    record.begin(["b.csv"])
    record.begin([])
    with (tmp_path / NAME).open("a") as file:
        file.write('[]\n{"writes": 3, "outputs": [4]}\n{"writes": ["c.cs')
    assert recorded_names(tmp_path) == {"a.tif", "a.csv", "b.csv"}
    assert Record(tmp_path).find("a", "f", "s") == entry(outputs=("a.tif", "a.csv"))


def test_a_folder_that_cannot_be_made_is_told(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreError, match=r"nothing can be written to .*; choose another folder"):
        Record(tmp_path / "file" / "out")

"""The database of a batch run: who looks on while it is being made sees nothing yet, and then all."""

import os
import sqlite3
from contextlib import closing

import pytest

from napari_nucleiseg.core.batch.unattended.database import NAME, RunDatabase, SlideRow, read_run_database
from napari_nucleiseg.core.errors import StoreError


def test_a_folder_without_a_run_is_told(tmp_path):
    with pytest.raises(StoreError, match="choose the folder that --out named"):
        read_run_database(tmp_path)


def test_while_it_is_being_made_nothing_is_there_yet(tmp_path):
    sqlite3.connect(tmp_path / NAME).close()
    (tmp_path / NAME).touch()
    assert read_run_database(tmp_path) == ({}, ())
    with RunDatabase(tmp_path) as database:
        database.begin({"out": "o"}, {"torch": "2"})
        assert [run.job for run in read_run_database(tmp_path)[1]] == [{"out": "o"}]


def test_text_that_is_no_utf_8_comes_back_as_it_was_and_other_text_is_kept_as_text(tmp_path):
    strange = os.fsdecode(b"caf\xe9")
    rows = [SlideRow(name, f"/x/{name}.svs", sentence=f"{name} is empty") for name in (strange, "cafe", "cafe\u0301")]
    with RunDatabase(tmp_path) as database:
        for row in (*rows, *rows):
            database.put(row)
        slides = database.slides()
    assert list(slides) == [row.stem for row in rows]
    for row in rows:
        kept = read_run_database(tmp_path)[0][row.stem]
        assert (kept.path, kept.sentence) == (row.path, row.sentence)
    with closing(sqlite3.connect(tmp_path / NAME)) as database:
        kinds = database.execute("SELECT typeof(stem), typeof(path), typeof(state) FROM slides ORDER BY rowid")
        assert kinds.fetchall() == [("blob", "blob", "text"), ("text",) * 3, ("text",) * 3]


def test_its_tables_appear_together(tmp_path):
    seen = []

    def look(_statement):
        with sqlite3.connect(tmp_path / NAME) as onlooker:
            seen.append({name for (name,) in onlooker.execute("SELECT name FROM sqlite_master WHERE type = 'table'")})

    real = sqlite3.connect

    def watched(path, *args, **options):
        connection = real(path, *args, **options)
        if "isolation_level" in options:
            connection.set_trace_callback(look)
        return connection

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlite3, "connect", watched)
        RunDatabase(tmp_path).close()
    assert {frozenset(), frozenset({"meta", "runs", "slides"})} == {frozenset(one) for one in seen}

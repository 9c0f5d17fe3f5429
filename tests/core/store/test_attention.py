"""Painted attention: sparse, exact, one writer, undone and done again, in older projects too; a kill loses nothing."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from fields import blank_slide
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from painting_process import SHAPE, SLIDE, Plain

from napari_nucleiseg.core.errors import StoreError
from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.store.attention import (
    CHUNK_PX,
    DO_NOT_LOOK,
    ERASED,
    KIND,
    LOOK_HERE,
    attention_levels,
    paint_attention,
    painted_boxes,
    read_attention,
)
from napari_nucleiseg.core.store.check import check
from napari_nucleiseg.core.store.project import Project
from napari_nucleiseg.core.store.schema import FORMAT

WHOLE = Region(0, 0, *SHAPE)


@pytest.fixture
def project(tmp_path):
    with Project.create(tmp_path / "p", SLIDE) as made:
        yield made


def put(project, y, x, height, width, value=LOOK_HERE):
    return paint_attention(project, Region(y, x, height, width), np.full((height, width), value, np.uint8))


def pooled(image, factor):
    """The highest value of each block, those at the edge as far as they go."""
    height, width = (-(-side // factor) for side in image.shape)
    full = np.zeros((height * factor, width * factor), np.uint8)
    full[: image.shape[0], : image.shape[1]] = image
    return full.reshape(height, factor, width, factor).max((1, 3))


def assert_levels(project, image):
    for number, level in enumerate(attention_levels(project)):
        np.testing.assert_array_equal(np.asarray(level), pooled(image, 2**number))


BOXES = st.tuples(st.integers(0, SHAPE[0] - 1), st.integers(0, SHAPE[1] - 1), st.integers(1, 600), st.integers(1, 600))
STEPS = st.lists(st.one_of(st.tuples(BOXES, st.integers(0, 2)), st.sampled_from(("undo", "redo"))), max_size=10)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(STEPS)
def test_any_painting_undoing_and_redoing_is_that_of_a_plain_array(tmp_path_factory, steps):
    now, done, undone = np.zeros(SHAPE, np.uint8), [], []
    folder = tmp_path_factory.mktemp("paint") / "p"
    with Project.create(folder, SLIDE) as project:
        for step in steps:
            if isinstance(step, str):
                getattr(project.editor, step)()
                origin, target = (done, undone) if step == "undo" else (undone, done)
                if origin:
                    target.append(now)
                    now = origin.pop()
                continue
            (y, x, height, width), value = step
            place = Region(y, x, height, width).intersect(WHOLE)
            after = now.copy()
            after[place.slices] = value
            changed = put(project, place.y, place.x, place.height, place.width, value)
            assert (changed is None) == np.array_equal(after, now)
            if changed is not None:
                differs = np.argwhere(after != now)
                assert changed.region == Region.from_bounds(*differs.min(0).tolist(), *(differs.max(0) + 1).tolist())
                done, undone, now = [*done, now], [], after
    # As another session finds it.
    with Project.open(folder, SLIDE, writable=False) as project:
        np.testing.assert_array_equal(read_attention(project, WHOLE), now)
        assert_levels(project, now)
        kept = {(box.y, box.x) for box in painted_boxes(project)}
        assert kept == {(y // 256 * 256, x // 256 * 256) for y, x in np.argwhere(now).tolist()}
        assert len(project.editor.history()) == len(done) + len(undone)


def test_only_what_a_person_changed_is_written(project):
    put(project, 0, 0, 20, 20, DO_NOT_LOOK)
    before = np.zeros((30, 30), np.uint8)
    after = before.copy()
    after[10:30, 10:30] = LOOK_HERE
    paint_attention(project, Region(0, 0, 30, 30), after, before=before)
    found = read_attention(project, Region(0, 0, 30, 30))
    assert (found[:10, :20] == DO_NOT_LOOK).all()
    assert (found[10:, 10:] == LOOK_HERE).all()


def test_the_history_says_what_was_done(project):
    put(project, 10, 20, 30, 40)
    put(project, 10, 20, 5, 5, 0)
    second, first = project.editor.history()
    assert (first.kind, first.nuclei, first.region) == (KIND, 0, Region(10, 20, 30, 40))
    assert (second.kind, second.region) == (ERASED, Region(10, 20, 5, 5))
    assert project.editor.turns() == (ERASED, "")


def test_nuclei_and_attention_share_one_history(project):
    put(project, 0, 0, 9, 9)
    project.editor.paint(Region(0, 0, 9, 9), np.full((9, 9), project.editor.new_id(), np.uint32))
    project.editor.undo()
    assert not project.labels.read(Region(0, 0, 9, 9)).any()
    assert read_attention(project, Region(0, 0, 9, 9)).all()
    project.editor.undo()
    assert not read_attention(project, WHOLE).any()
    assert check(project).is_sound


def test_what_makes_no_sense_is_refused(project):
    with pytest.raises(ValueError, match="do not fit"):
        put(project, 0, 0, SHAPE[0] + 1, 5)
    with pytest.raises(ValueError, match="values 0 to 2"):
        put(project, 0, 0, 5, 5, 3)


def test_one_writer_and_others_look_on(project):
    put(project, 5, 5, 9, 9)
    with Project.open(project.folder, SLIDE, writable=False) as onlooker:
        assert read_attention(onlooker, WHOLE).sum() == 81
        with pytest.raises(StoreError, match="reading only"):
            put(onlooker, 0, 0, 5, 5)
        put(project, 100, 100, 2, 2)
        assert read_attention(onlooker, WHOLE).sum() == 85


def test_of_a_huge_slide_only_what_was_painted_takes_room(tmp_path):
    side = 100_000
    with Project.create(tmp_path / "p", blank_slide(side, side)) as project:
        for place in range(1_000, side, 9_000):
            put(project, place, side - place, 60, 60, DO_NOT_LOOK)
        (rows, size) = project.ledger.reader.execute(
            "SELECT count(*), sum(length(pixels) + length(coarse)) FROM attention"
        ).fetchone()
        assert rows <= 4 * 11
        assert size < 300 * rows
        (journal,) = project.ledger.reader.execute("SELECT sum(length(records)) FROM edits").fetchone()
        assert journal < 1_000 * rows
        coarsest = attention_levels(project)[-1]
        assert max(coarsest.shape) <= 512
        began = time.perf_counter()
        assert 11 <= np.count_nonzero(np.asarray(coarsest)) <= rows
        assert time.perf_counter() - began < 0.5
        project.editor.undo()
        assert (read_attention(project, Region(1_000, side - 1_000, 60, 60)) == DO_NOT_LOOK).all()
        for _ in range(10):
            project.editor.undo()
        assert project.ledger.reader.execute("SELECT count(*) FROM attention").fetchone() == (0,)


@pytest.fixture
def older(project):
    """Folder of a project as the format before this one has it."""
    project.close()
    with sqlite3.connect(project.folder / "project.sqlite") as database:
        database.execute("DROP TABLE attention")
        database.execute("UPDATE meta SET value = '3' WHERE key = 'format'")
    database.close()
    return project.folder


def test_an_older_project_is_converted_when_it_is_opened_for_writing(older):
    with Project.open(older, SLIDE) as converted:
        put(converted, 0, 0, 5, 5)
        assert read_attention(converted, Region(0, 0, 5, 5)).all()
        assert converted.ledger.meta()["format"] == str(FORMAT)


def test_an_older_project_can_be_looked_at_as_it_is(older):
    with Project.open(older, SLIDE, writable=False) as project:
        assert not read_attention(project, WHOLE).any()
        assert painted_boxes(project) == []
        assert not np.asarray(attention_levels(project)[-1]).any()
        assert check(project).is_sound
        assert project.ledger.meta()["format"] == "3"


def test_what_cannot_be_read_is_found_and_dropped(project):
    put(project, 0, 0, 5, 5)
    put(project, CHUNK_PX, 0, 5, 5)
    with project.ledger.transaction() as database:
        database.execute("UPDATE attention SET pixels = x'0102' WHERE chunk = 0")
    assert read_attention(project, WHOLE).sum() == 25
    report = check(project)
    assert report.tables.broken_attention == (0,)
    assert not report.is_sound
    check(project, repair=True)
    assert check(project).is_sound
    assert read_attention(project, WHOLE).sum() == 25


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no kill -9 on this system")
def test_killed_at_any_instant_every_finished_stroke_is_there(tmp_path):
    seed = int.from_bytes(os.urandom(4), "little")
    rng = np.random.default_rng(seed)
    folder, here = tmp_path / "p", Path(__file__).parent
    Project.create(folder, SLIDE).close()
    plain, number = Plain(), 0
    for _attempt in range(6):
        command = [sys.executable, str(here / "painting_process.py"), str(folder), str(seed), str(number)]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(here)}
        ) as process:
            said = [process.stdout.readline() for _ in range(int(rng.integers(1, 30)))]
            time.sleep(float(rng.uniform(0, 0.02)))
            process.kill()
            said += process.stdout.read().splitlines()
        numbers = [int(line) for line in said if line.strip()]
        assert numbers == list(range(number, number + len(numbers))), seed
        for done in numbers:
            plain.act(seed, done)
        number += len(numbers)
        with Project.open(folder, SLIDE, take_over=True) as project:
            found = read_attention(project, WHOLE)
            if not np.array_equal(found, plain.now):
                # What was not said to be done may have just been done.
                plain.act(seed, number)
                number += 1
            np.testing.assert_array_equal(found, plain.now, err_msg=str(seed))
            assert_levels(project, plain.now)
            assert check(project).is_sound, seed
            assert len(project.editor.history(10_000)) == len(plain.done) + len(plain.undone)

"""Checking finds what is wrong in the tables that people's edits fill, and repairs it."""

import numpy as np
import pytest
from fields import Grid, blank_slide, disc, random_tiles, whole

from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.store.check import check
from napari_nucleiseg.core.store.labels import PER_SIDE
from napari_nucleiseg.core.store.nuclei import PERSON_ID_START
from napari_nucleiseg.core.store.project import Project
from napari_nucleiseg.core.store.records import REGIONS
from napari_nucleiseg.core.store.shards import ChunkFiles

GRID = Grid((600, 600), 200)
ROW = (1, "R1", "teach", "[[0,0],[0,9],[9,9]]", 1, 0, "Ada", 5.0)


@pytest.fixture
def project(fresh_project):
    """Model nuclei; Ada has drawn three, deleted five, approved five, and undone the last two steps."""
    made = fresh_project()
    for tile in random_tiles(1, GRID):
        made.write_tile(tile, "m@1", "k")
    ids = whole(made)[1].ids.tolist()
    for place in (100, 250, 400):
        paint(made, disc(place, place, 20), made.editor.new_id())
    made.editor.delete([i for i in ids[:9] if i in whole(made)[1].ids][:5])
    made.editor.put(REGIONS, 1, ROW, kind="region", region=Region(0, 0, 9, 9))
    made.editor.review(ids[-5:], approved=True)
    paint(made, disc(500, 100, 9), made.editor.new_id())
    made.editor.undo()
    made.editor.undo()
    assert check(made).is_sound
    return made


def paint(project, pixels, nucleus_id):
    y0, x0 = pixels.min(0).tolist()
    region = Region.from_bounds(y0, x0, *(pixels.max(0) + 1).tolist())
    image = project.labels.read(region)
    image[tuple((pixels - (y0, x0)).T)] = nucleus_id
    project.editor.paint(region, image)


def spoil(project, *statements):
    with project.ledger.transaction() as database:
        for statement in statements:
            database.execute(statement)


def mended(project):
    """Repair; return what was wrong in the tables."""
    report = check(project)
    assert not report.is_sound
    assert check(project, repair=True).tables == report.tables
    assert check(project).is_sound
    return report.tables


@pytest.mark.parametrize("column", ["before", "after", "records"])
def test_an_edit_that_cannot_be_read_is_forgotten_with_what_lies_behind_it(project, column):
    edits = [step.number for step in project.editor.history()][::-1]
    spoil(project, f"UPDATE edits SET {column} = x'00112233' WHERE edit = {edits[1]}")
    assert mended(project).broken_edits == (edits[1],)
    left = [step.number for step in project.editor.history()][::-1]
    assert left == edits[2:]
    while project.editor.undo():
        pass
    list(project.editor.jump(1 << 60))
    assert check(project).is_sound


def test_an_undone_edit_that_cannot_be_read_takes_later_ones_along(project):
    edits = [step.number for step in project.editor.history()][::-1]
    spoil(project, f"UPDATE edits SET records = x'00' WHERE edit = {edits[-2]}")
    assert mended(project).broken_edits == (edits[-2],)
    assert [step.number for step in project.editor.history()][::-1] == edits[:-2]
    assert project.editor.redo() == []


@pytest.mark.parametrize(
    "change",
    [
        "state = 3 WHERE person IS NULL AND review = 0 AND state = 0",
        "review = 2 WHERE person IS NULL AND state = 0",
        "review = 0 WHERE state = 3",
        "state = 0 WHERE state = 3",
        "state = 9 WHERE state = 3",
        "review = 9 WHERE state = 0",
        "run = NULL WHERE person IS NULL",
        "run = 99 WHERE person IS NULL",
    ],
)
def test_rows_that_contradict_themselves_become_what_the_image_shows(project, change):
    image = whole(project)[0]
    spoil(project, f"UPDATE nuclei SET {change}")
    assert mended(project).odd_rows
    np.testing.assert_array_equal(whole(project)[0], image)
    np.testing.assert_array_equal(whole(project)[1].ids, np.unique(image[image > 0]))


def test_hidden_pixels_of_nobody_go(project):
    spoil(
        project,
        "INSERT INTO claims VALUES (77, x'ff')",
        "INSERT INTO claim_boxes VALUES (77, 0, 2, 0, 4)",
        "INSERT INTO claim_boxes VALUES (78, 0, 2, 0, 4)",
        "UPDATE claims SET mask = x'00' WHERE id = (SELECT min(id) FROM claims WHERE id NOT IN (77, 78))",
    )
    assert len(mended(project).wrong_claims) == 3


def test_hidden_pixels_beside_their_nucleus_are_dropped(project):
    (key,) = project.ledger.reader.execute("SELECT min(id) FROM claims").fetchone()
    spoil(project, f"UPDATE claim_boxes SET x0 = x0 + 4000, x1 = x1 + 4000 WHERE id = {key}")
    assert mended(project).wrong_claims == (key,)
    assert project.ledger.reader.execute("SELECT count(*) FROM claims WHERE id = ?", (key,)).fetchone() == (0,)


@pytest.mark.parametrize("change", ["y0 = y0 - 1", "x1 = x1 + 2", "y = y + 1", "area_um2 = area_um2 * 1.5", "cell = 3"])
def test_nuclei_of_people_are_measured_anew(project, change):
    before = whole(project)[1]
    spoil(project, f"UPDATE nuclei SET {change} WHERE id = {PERSON_ID_START}")
    assert mended(project).wrong_geometry == (PERSON_ID_START,)
    after = whole(project)[1]
    np.testing.assert_array_equal(after.boxes, before.boxes)
    np.testing.assert_allclose(after.centroids, before.centroids)
    np.testing.assert_allclose(after.areas_um2, before.areas_um2)
    assert project.count_in(Region(0, 0, *GRID.shape)) == len(after)


def test_a_nucleus_that_lost_pixels_with_a_file_is_measured_anew(fresh_project, tmp_path):
    project = fresh_project(blank_slide(1000, 1000))
    paint(project, disc(510, 300, 30), project.editor.new_id())
    project.flush(settle=True)
    ChunkFiles(project.labels.root, PER_SIDE, tmp_path).save({(0, 1, 0): b"?"})
    project.labels.chunks.forget()
    assert mended(project).wrong_geometry == (PERSON_ID_START,)
    assert whole(project)[1].boxes[0, 2] == 512


def test_no_name_is_given_twice(project):
    spoil(project, "UPDATE meta SET value = '2147483648' WHERE key = 'next_id'")
    assert mended(project).next_id > PERSON_ID_START
    assert project.editor.new_id() not in whole(project)[1].ids
    folder = project.folder
    project.close()
    with Project.open(folder) as again:
        assert again.editor.new_id() == PERSON_ID_START + 4


def test_counts_and_regions_and_the_database_itself(project, monkeypatch):
    project.census._counts[0, 0] += 1
    spoil(project, "INSERT INTO regions VALUES (4, 'R', 'teach', '[[1,', 0, 0, 'Ada', 1.0)")
    report = mended(project)
    assert (report.wrong_counts, report.broken_regions) == (1, (4,))
    assert project.ledger.reader.execute("SELECT * FROM regions").fetchall() == [ROW]


def test_a_damaged_index_is_told_by_the_database(project):
    folder = project.folder
    project.close()
    import sqlite3

    with sqlite3.connect(folder / "project.sqlite", isolation_level=None) as database:
        database.execute("PRAGMA writable_schema = 1")
        database.execute(
            "UPDATE sqlite_schema SET sql = replace(sql, 'cell, y', 'y, cell') WHERE name = 'nuclei_place'"
        )
    database.close()
    with Project.open(folder) as again:
        assert check(again).tables.database

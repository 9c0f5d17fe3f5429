"""New nuclei on bare ground: the project is as if they had been painted."""

import numpy as np
import pytest
from fields import assert_pyramid, assert_same_table, blank_slide, whole

from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.store.check import check
from napari_nucleiseg.core.store.newcomers import Newcomers, are_pixels_claimed
from napari_nucleiseg.core.store.nuclei import PERSON_ID_START
from napari_nucleiseg.core.store.project import Project
from napari_nucleiseg.core.store.retouch import Attributes, runs_of

PLACE = Region(30, 40, 60, 50)
IDS = np.array([PERSON_ID_START + 7, 0, 77, PERSON_ID_START + 3], np.uint32)
CLASSES, SCORES, APPROVED = np.array([2, 0, 1]), np.array([0.5, 1, 0.25], np.float32), np.array([False, True, False])


@pytest.fixture
def image():
    """One reaches over the whole width of the place, so that its rows touch in memory."""
    made = np.zeros((60, 50), np.uint32)
    made[3:9, 5:20] = IDS[0]
    made[20:24] = IDS[2]
    made[30:50, 30:40] = IDS[3]
    made[35, 20:45] = IDS[3]
    return made


def newcomers(image, *, with_runs):
    pixels = np.flatnonzero(image)
    order = np.argsort(IDS)
    owners = order[np.searchsorted(IDS, image.ravel()[pixels], sorter=order)]
    ys, xs, lengths, found = runs_of(image, image > 0)
    runs = (ys, xs, lengths, order[np.searchsorted(IDS, found, sorter=order)]) if with_runs else None
    return Newcomers(PLACE, pixels, owners, IDS, CLASSES, SCORES, APPROVED, runs)


def rows(project):
    return project.ledger.reader.execute("SELECT * FROM nuclei ORDER BY id").fetchall()


@pytest.mark.parametrize("with_runs", [False, True])
@pytest.mark.parametrize("neighbour", [False, True])
def test_adding_is_painting(fresh_project, tmp_path, image, with_runs, neighbour):
    added, painted = fresh_project(), Project.create(tmp_path / "painted", blank_slide())
    if neighbour:
        for project in (added, painted):
            project.editor.paint(Region(80, 45, 4, 4), np.full((4, 4), PERSON_ID_START, np.uint32))
    there = added.labels.read(PLACE)
    changed = added.editor.add(newcomers(image, with_runs=with_runs), there, kind="import")
    given = zip(CLASSES.tolist(), SCORES.tolist(), APPROVED.tolist(), strict=True)
    attributes = {int(key): Attributes(*values) for key, values in zip(IDS[IDS > 0], given, strict=True)}
    after = np.where(image > 0, image, painted.labels.read(PLACE))
    assert painted.editor.paint(PLACE, after, kind="import", attributes=attributes).ids == changed.ids
    for project in (added, painted):
        assert_pyramid(project)
    for turn in ("undo", "redo"):
        assert rows(added) == rows(painted)
        np.testing.assert_array_equal(whole(added)[0], whole(painted)[0])
        assert_same_table(whole(added)[1], whole(painted)[1])
        assert added.census.total() == painted.census.total()
        assert added.editor.new_id() == painted.editor.new_id()
        assert check(added).is_sound
        for project in (added, painted):
            assert getattr(project.editor, turn)()
    painted.close()


def test_claims_are_found_where_they_are(fresh_project):
    project = fresh_project()
    with project.ledger.transaction() as database:
        database.execute("INSERT INTO claim_boxes VALUES (1, 10, 20, 30, 40)")
    assert are_pixels_claimed(project.ledger.reader, Region(19, 39, 5, 5))
    assert not are_pixels_claimed(project.ledger.reader, Region(20, 30, 5, 5))

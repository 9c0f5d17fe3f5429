"""Annotated regions are kept with who and when, and every change of one is a step of the history."""

from dataclasses import replace

import pytest

from napari_nucleiseg.core.errors import StoreError
from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.store.project import Project
from napari_nucleiseg.core.store.regions import AnnotatedRegion, put_region, read_regions, remove_region

SQUARE = ((10.0, 20.0), (10.0, 120.5), (90.25, 120.5), (90.25, 20.0))


@pytest.fixture
def project(fresh_project):
    made = fresh_project()
    made.editor.person = "Ada"
    return made


def put(project, name="", role="teach", vertices=SQUARE, **more):
    assert put_region(project, AnnotatedRegion(0, name, role, vertices, **more))
    return read_regions(project.ledger.reader)[-1]


def kinds(project):
    return [step.kind for step in project.editor.history() if not step.undone]


def test_a_region_comes_back_as_it_was(project):
    found = put(project, "  Border ", "hold out", complete=False)
    assert (found.number, found.name, found.role, found.vertices) == (1, "Border", "hold out", SQUARE)
    assert (found.complete, found.done, found.person) == (False, False, "Ada")
    assert found.at > 1e9
    assert found.box == Region.from_bounds(10, 20, 91, 121)
    folder = project.folder
    project.close()
    with Project.open(folder) as again:
        assert read_regions(again.ledger.reader) == (found,)


def test_changes_are_steps_that_can_be_undone(project):
    first = put(project)
    assert first.name == "Region 1"
    put(project)
    put_region(project, replace(first, role="reference", done=True))
    remove_region(project, first)
    assert kinds(project) == ["remove region", "change region", "region", "region"]
    assert [region.number for region in read_regions(project.ledger.reader)] == [2]
    project.editor.undo()
    changed = read_regions(project.ledger.reader)[0]
    assert (changed.role, changed.done) == ("reference", True)
    for _ in range(3):
        project.editor.undo()
    assert read_regions(project.ledger.reader) == ()
    project.editor.redo()
    assert read_regions(project.ledger.reader) == (first,)


def test_what_changes_nothing_is_no_step(project):
    first = put(project)
    assert put_region(project, replace(first, person="somebody", at=0.0)) is None
    assert kinds(project) == ["region"]
    remove_region(project, first)
    assert remove_region(project, first) is None


def test_the_history_knows_where_a_region_lies(project):
    outside = put(project, vertices=((-50.0, -50.0), (-50.0, 100.0), (700.0, 100.0)))
    assert outside.box == Region.from_bounds(-50, -50, 700, 100)
    assert project.editor.history()[0].region == Region.from_bounds(0, 0, 600, 100)


@pytest.mark.parametrize(
    "vertices", [(), SQUARE[:2], ((5.0, 5.0), (9.0, 9.0), (7.0, 7.0)), ((0.0, 0.0), (9.0, float("nan")), (7.0, 2.0))]
)
def test_what_has_no_area_is_refused(project, vertices):
    with pytest.raises(StoreError, match="needs an area"):
        put_region(project, AnnotatedRegion(0, "", "teach", vertices))


def test_unknown_roles_are_refused(project):
    with pytest.raises(StoreError, match="teach, hold out, reference"):
        put_region(project, AnnotatedRegion(0, "", "test", SQUARE))


def test_a_region_may_be_part_of_an_earlier_step(project):
    first = put_region(project, AnnotatedRegion(0, "", "teach", SQUARE), kind="import")
    second = put_region(project, AnnotatedRegion(0, "", "teach", SQUARE), step=first.step)
    assert second.step == first.step
    assert [(step.number, step.kind) for step in project.editor.history()] == [(first.step, "import")]
    assert [region.name for region in read_regions(project.ledger.reader)] == ["Region 1", "Region 2"]
    project.editor.undo()
    assert read_regions(project.ledger.reader) == ()

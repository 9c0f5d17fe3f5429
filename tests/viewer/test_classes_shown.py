"""Which class a nucleus is shown with: a change costs what it changes, however many nuclei have a class."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.store.project import Project
from napari_nucleiseg.viewer import outlines
from napari_nucleiseg.viewer.outlines import NO_CLASSES, Classes
from napari_nucleiseg.viewer.project_view import AROUND_PX, approved_in, classes_of, said_of

COLOURS = ("#ff0000", "#00ff00", "#0000ff")
changes = st.lists(st.dictionaries(st.integers(1, 40), st.integers(0, 3), max_size=12), max_size=12)


def change(numbers):
    ids = sorted(numbers)
    return Classes(np.array(ids, np.uint32), np.array([numbers[i] for i in ids], np.uint8), COLOURS)


@settings(deadline=None, derandomize=True)
@given(changes=changes, recent=st.sampled_from([0, 3, 1024]))
def test_change_after_change_is_what_a_dictionary_says(changes, recent):
    known, shown = {}, NO_CLASSES
    asked = np.arange(42, dtype=np.uint32).reshape(6, 7)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outlines, "RECENT", recent)
        for numbers in changes:
            known |= numbers
            shown = shown.changed(change(numbers))
            expected = [[known.get(int(i), 0) for i in row] for row in asked]
            np.testing.assert_array_equal(shown.of(asked), expected)
            assert len(shown.recent[0]) <= recent


def test_what_changes_no_class_is_the_same_and_is_not_drawn_again():
    shown = NO_CLASSES.changed(change({3: 1, 9: 2}))
    assert shown.changed(change({3: 1, 4: 0})) is shown


def test_a_class_without_colour_is_drawn_as_the_last_one():
    shown = change({3: 3}).changed(Classes(np.zeros(0, np.uint32), np.zeros(0, np.uint8), COLOURS[:2]))
    assert shown.colour_numbers(np.uint32([0, 3, 4])).tolist() == [0, 3, 1]


@pytest.fixture
def project(engine, disc_slide, tmp_path):
    """A project of 768 nuclei, as a model found them."""
    from napari_nucleiseg.core.decoders.base import DecodeOptions
    from napari_nucleiseg.core.slides.registry import open_slide

    slide = open_slide(disc_slide)
    model = engine.load("nuclei")
    plan = engine.plan(slide, model.spec, None, None)
    with Project.create(tmp_path / "p.nucleiseg", slide) as made:
        for _ in engine.segment(
            slide, model, made, plan, DecodeOptions(), device="cpu", keep_maps=False,
            cancelled=lambda: False, on_message=lambda _text: None,
        ):  # fmt: skip
            pass
        yield made


def steps_of_the_database(project, work):
    """How many instructions SQLite runs for reading."""
    count = [0]

    def one_more():
        count[0] += 1
        return 0

    project.ledger.reader.set_progress_handler(one_more, 1)
    try:
        work()
    finally:
        project.ledger.reader.set_progress_handler(None, 0)
    return count[0]


def test_the_cost_of_a_change_does_not_grow_with_the_nuclei_that_have_a_class(project):
    ids = project.nuclei_in(Region(0, 0, *project.shape)).ids.tolist()
    cost = {}
    for classed in (10, 760):
        project.editor.classify(ids[:classed], 1)
        changed = project.editor.classify([ids[-1]], 3 if classed > 10 else 2)
        cost[classed] = steps_of_the_database(project, lambda changed=changed: said_of(project, changed.ids))
        assert len(said_of(project, changed.ids).classes.ids) == 1
    assert cost[760] == cost[10]
    assert steps_of_the_database(project, lambda: classes_of(project)) > 20 * cost[760]


def test_what_is_read_of_a_change_is_what_all_of_them_say(project):
    ids = project.nuclei_in(Region(0, 0, *project.shape)).ids.tolist()
    shown = classes_of(project)
    for edit in (
        lambda: [project.editor.classify(ids[:30], 2)],
        lambda: project.editor.delete(ids[5:9]),
        lambda: [project.editor.classify(ids[20:25], 0)],
        project.editor.undo,
        project.editor.undo,
        project.editor.redo,
    ):
        changed = set().union(*(part.ids for part in edit()))
        shown = shown.changed(said_of(project, changed).classes)
        np.testing.assert_array_equal(shown.of(np.array(ids, np.uint32)), classes_of(project).of(np.array(ids)))


def test_approvals_around_the_view_are_read_and_those_of_the_rest_are_not(project):
    table = project.nuclei_in(Region(0, 0, *project.shape))
    project.editor.review(table.ids.tolist(), approved=True)
    view = Region(0, 0, 128, 200)
    found = approved_in(project, view)
    near = (table.centroids < np.array([128, 200]) + AROUND_PX).all(1)
    assert found.tolist() == sorted(table.ids[near].tolist())
    assert 0 < len(found) < len(table.ids)
    assert len(approved_in(project, Region(0, 0, 0, 0))) == 0
    project.editor.review(found[:3].tolist(), approved=False)
    said = said_of(project, found[:5].tolist())
    assert said.approved.tolist() == found[3:5].tolist()
    project.editor.delete(found[3:4].tolist())
    assert said_of(project, found[:5].tolist()).approved.tolist() == found[4:5].tolist()

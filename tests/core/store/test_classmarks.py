"""A class that was given to a model's nucleus is that of what other runs find at the same place."""

import numpy as np
import pytest
from fields import Grid, blank_slide, disc, nuclei_of, random_tiles
from hypothesis import example, given, settings
from hypothesis import strategies as st

from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.store.check import check
from napari_nucleiseg.core.store.classes import put_classes, read_classes
from napari_nucleiseg.core.store.project import Project

SHAPE = (200, 200)
WHOLE = Region(0, 0, *SHAPE)
LEFT, RIGHT = Region(0, 0, 200, 100), Region(0, 100, 200, 100)
FAR = disc(170, 170, 9)


@pytest.fixture
def project(tmp_path):
    project = Project.create(tmp_path / "p", blank_slide(*SHAPE))
    yield project
    assert check(project).is_sound
    project.close()


def write(project, *discs, run="other", tile=0, core=WHOLE):
    project.write_tile(nuclei_of(tile, core, list(discs), SHAPE), "m@1", run)


def under(project, y, x):
    return int(project.labels.read(Region(y, x, 1, 1))[0, 0])


def class_at(project, y, x):
    """Class of the nucleus at a place; -1 where there is none."""
    table = project.nuclei_in(WHOLE)
    return dict(zip(table.ids.tolist(), table.classes.tolist(), strict=True)).get(under(project, y, x), -1)


def classify(project, y, x, number):
    assert project.editor.classify([under(project, y, x)], number)


def test_another_run_keeps_the_class_and_gives_it_to_no_other(project):
    write(project, disc(50, 50, 12), FAR, run="first")
    classify(project, 50, 50, 3)
    # Numbered otherwise, a little larger and moved; one more nucleus beside it.
    write(project, FAR, disc(50, 80, 10), disc(53, 52, 14))
    assert [class_at(project, *place) for place in ((53, 52), (50, 80), (170, 170))] == [3, 0, 0]
    write(project, disc(53, 52, 14), FAR)
    assert [class_at(project, *place) for place in ((53, 52), (170, 170))] == [3, 0]


def test_what_was_not_found_for_a_while_has_its_class_again_also_after_the_project_was_closed(tmp_path):
    project = Project.create(tmp_path / "p", blank_slide(*SHAPE))
    write(project, disc(50, 50, 12), FAR, run="first")
    classify(project, 50, 50, 3)
    write(project, FAR, run="higher threshold")
    assert class_at(project, 50, 50) == -1
    project.close()
    again = Project.open(project.folder, blank_slide(*SHAPE))
    write(again, FAR, disc(50, 50, 12), run="first")
    assert class_at(again, 50, 50) == 3
    again.close()


@pytest.mark.parametrize("numbers", [(2, 2), (1, 4)])
def test_nuclei_that_were_one_for_a_while_both_have_their_classes_again(project, numbers):
    one, two = disc(50, 50, 10), disc(50, 71, 10)
    bridge = np.concatenate([one, two, disc(50, 60, 6)])
    write(project, one, two, run="first")
    classify(project, 50, 50, numbers[0])
    classify(project, 50, 71, numbers[1])
    for _ in range(2):
        write(project, np.unique(bridge, axis=0))
        assert class_at(project, 50, 60) in numbers
        write(project, one, two, run="first")
        assert (class_at(project, 50, 50), class_at(project, 50, 71)) == numbers


def test_the_class_of_what_was_one_is_given_to_it_anew(project):
    write(project, disc(50, 50, 12), run="first")
    classify(project, 50, 50, 3)
    write(project, disc(52, 50, 12))
    classify(project, 52, 50, 5)
    write(project, disc(50, 50, 12), run="first")
    assert class_at(project, 50, 50) == 5


def test_a_class_that_was_taken_away_stays_away(project):
    write(project, disc(50, 50, 12), run="first")
    classify(project, 50, 50, 3)
    write(project, disc(52, 50, 12))
    classify(project, 52, 50, 0)
    for run in ("first", "other", "first"):
        write(project, disc(50, 50, 12), run=run)
        assert class_at(project, 50, 50) == 0


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_nucleus_that_is_found_by_the_tile_beside_has_it_too(project, order):
    write(project, disc(50, 97, 12), tile=0, core=LEFT, run="first")
    write(project, tile=1, core=RIGHT, run="first")
    classify(project, 50, 97, 3)
    for tile in order:
        write(project, *([disc(50, 102, 12)] if tile else []), tile=tile, core=(LEFT, RIGHT)[tile])
    assert class_at(project, 50, 102) == 3


def test_undo_and_redo_turn_the_class_of_what_was_found_since(project):
    write(project, disc(50, 50, 12), FAR, run="first")
    classify(project, 50, 50, 3)
    write(project, FAR, disc(52, 50, 12))
    heir = under(project, 52, 50)
    (changed,) = project.editor.undo()
    assert heir in changed.ids
    assert class_at(project, 52, 50) == 0
    write(project, disc(50, 50, 12), FAR, run="first")
    assert class_at(project, 50, 50) == 0
    write(project, FAR, disc(52, 50, 12))
    project.editor.redo()
    assert class_at(project, 52, 50) == 3
    write(project, disc(50, 50, 12), FAR, run="first")
    assert class_at(project, 50, 50) == 3


def test_undo_and_redo_while_nothing_is_found_there_hold_for_what_is_found_later(project):
    write(project, disc(50, 50, 12), run="first")
    classify(project, 50, 50, 3)
    classify(project, 50, 50, 4)
    write(project)
    expected = [4, 3, 0, 3, 4]
    for turn, number in zip((None, "undo", "undo", "redo", "redo"), expected, strict=True):
        if turn:
            getattr(project.editor, turn)()
        write(project, disc(50, 50, 12), run="first")
        assert class_at(project, 50, 50) == number
        write(project)


def test_what_a_person_drew_or_approved_there_is_not_touched(project):
    write(project, disc(50, 50, 12), run="first")
    classify(project, 50, 50, 3)
    write(project)
    image = project.labels.read(WHOLE)
    image[tuple(disc(50, 50, 8).T)] = project.editor.new_id()
    project.editor.paint(WHOLE, image)
    write(project, disc(50, 50, 12))
    assert class_at(project, 50, 50) == 0


def test_a_class_that_is_no_more_does_not_come_back_unless_its_removal_is_undone(project):
    write(project, disc(50, 50, 12), run="first")
    classify(project, 50, 50, 3)
    write(project)
    known = read_classes(project.ledger.reader)
    for _ in put_classes(project, [entry for entry in known if entry.number != 3]):
        pass
    write(project, disc(50, 50, 12), run="first")
    assert class_at(project, 50, 50) == 0
    write(project)
    project.editor.undo()
    assert read_classes(project.ledger.reader) == known
    write(project, disc(50, 50, 12), run="first")
    assert class_at(project, 50, 50) == 3


@example(1, [(0, 1), (299, 1)])
@settings(max_examples=25, deadline=None)
@given(st.integers(0, 30), st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 5)), max_size=20))
def test_the_same_nuclei_of_another_run_have_the_same_classes(tmp_path_factory, seed, choices):
    grid = Grid((320, 320), 80)
    tiles = random_tiles(seed, grid, n=10)
    project = Project.create(tmp_path_factory.mktemp("classes") / "p", blank_slide(320, 320))
    for tile in tiles:
        project.write_tile(tile, "m@1", "k")
    ids = project.nuclei_in(Region(0, 0, 320, 320)).ids
    for place, number in choices:
        project.editor.classify([int(ids[place % len(ids)])], number)
    image, table = project.labels.read(Region(0, 0, 320, 320)), project.nuclei_in(Region(0, 0, 320, 320))
    for run in ("other", "k"):
        for tile in reversed(tiles):
            project.write_tile(tile, "m@1", run)
    np.testing.assert_array_equal(project.labels.read(Region(0, 0, 320, 320)), image)
    after = project.nuclei_in(Region(0, 0, 320, 320))
    assert after.ids.tolist() == table.ids.tolist()
    assert after.classes.tolist() == table.classes.tolist()
    assert check(project).is_sound
    project.close()


def without(project, number):
    for _ in put_classes(project, [one for one in read_classes(project.ledger.reader) if one.number != number]):
        pass


def test_a_removal_that_is_undone_leaves_the_classes_of_others(project):
    one, two = disc(50, 50, 12), disc(50, 150, 12)
    for tile, core, pixels, number in ((0, LEFT, one, 3), (1, RIGHT, two, 4)):
        write(project, pixels, tile=tile, core=core, run="first")
        classify(project, 50, 50 + 100 * tile, number)
    write(project, tile=0, core=LEFT)
    without(project, 3)
    write(project, tile=1, core=RIGHT)
    project.editor.undo()
    write(project, one, tile=0, core=LEFT, run="third")
    write(project, two, tile=1, core=RIGHT, run="third")
    assert (class_at(project, 50, 50), class_at(project, 50, 150)) == (3, 4)


def test_a_removal_that_is_done_again_takes_the_class_from_what_was_found_since(project):
    write(project, disc(50, 50, 12), run="first")
    classify(project, 50, 50, 3)
    write(project)
    without(project, 3)
    project.editor.undo()
    write(project, disc(50, 50, 12), run="first")
    assert class_at(project, 50, 50) == 3
    project.editor.redo()
    assert class_at(project, 50, 50) == 0


def test_a_class_that_is_no_more_is_not_left_by_a_nucleus_that_was_hidden(project):
    found, covering = disc(50, 102, 12), disc(50, 98, 12)
    write(project, found, tile=1, core=RIGHT, run="first")
    classify(project, 50, 102, 3)
    write(project, covering, tile=0, core=LEFT, run="first")
    without(project, 3)
    write(project, tile=0, core=LEFT)
    write(project, found, tile=1, core=RIGHT)
    assert class_at(project, 50, 102) == 0


def test_the_class_of_a_duplicate_is_that_of_the_nucleus_that_is_kept(project):
    found, covering = disc(50, 102, 12), disc(50, 98, 12)
    write(project, found, tile=1, core=RIGHT, run="first")
    classify(project, 50, 102, 3)
    write(project, covering, FAR, tile=0, core=LEFT, run="first")
    assert [class_at(project, *place) for place in ((50, 100), (170, 170))] == [3, 0]
    for turn, number in (("undo", 0), ("redo", 3)):
        getattr(project.editor, turn)()
        assert class_at(project, 50, 100) == number
    classify(project, 50, 100, 4)
    # Nothing of the former class is left where the other tile finds the nucleus again.
    write(project, tile=0, core=LEFT)
    write(project, found, tile=1, core=RIGHT)
    assert class_at(project, 50, 102) == 4


def test_the_class_of_what_is_covered_by_a_larger_nucleus_stays_its_own(project):
    write(project, disc(50, 104, 4), tile=1, core=RIGHT, run="first")
    classify(project, 50, 104, 3)
    write(project, disc(50, 95, 20), tile=0, core=LEFT, run="first")
    assert class_at(project, 50, 104) == 0
    write(project, tile=0, core=LEFT, run="first")
    assert class_at(project, 50, 104) == 3


BENT = np.array([(y, x) for y in range(40, 81) for x in range(40, 81) if y < 46 or y > 74 or x < 46])
IN_THE_BEND = disc(60, 60, 5)


def test_undo_takes_the_class_of_a_bent_nucleus_and_not_of_what_lies_in_its_bend(project):
    write(project, BENT, IN_THE_BEND, run="first")
    classify(project, 60, 60, 3)
    classify(project, 42, 60, 3)
    write(project, IN_THE_BEND, BENT)
    assert (class_at(project, 42, 60), class_at(project, 60, 60)) == (3, 3)
    for turn, number in (("undo", 0), ("redo", 3), ("undo", 0)):
        getattr(project.editor, turn)()
        assert (class_at(project, 42, 60), class_at(project, 60, 60)) == (number, 3)


def test_undo_while_nothing_is_found_leaves_what_waits_beside(project):
    write(project, BENT, IN_THE_BEND, run="first")
    classify(project, 60, 60, 3)
    classify(project, 42, 60, 3)
    write(project)
    project.editor.undo()
    write(project, BENT, IN_THE_BEND, run="first")
    assert (class_at(project, 42, 60), class_at(project, 60, 60)) == (0, 3)


def test_a_repair_that_takes_nuclei_away_keeps_their_classes(tmp_path):
    project = Project.create(tmp_path / "p", blank_slide(*SHAPE))
    write(project, disc(50, 50, 12), FAR, run="first")
    classify(project, 50, 50, 3)
    project.close()
    (chunk,) = [path for path in (project.folder / "labels.zarr" / "0" / "c").rglob("*") if path.is_file()]
    data = bytearray(chunk.read_bytes())
    data[len(data) // 2 :] = bytes(byte ^ 0x5A for byte in data[len(data) // 2 :])
    chunk.write_bytes(data)
    again = Project.open(project.folder, blank_slide(*SHAPE))
    assert not check(again, repair=True).is_sound
    assert class_at(again, 50, 50) == -1
    write(again, disc(50, 50, 12), FAR, run="first")
    assert class_at(again, 50, 50) == 3
    again.close()

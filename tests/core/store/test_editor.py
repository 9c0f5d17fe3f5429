"""People's edits: durable at once, undone and done again wherever, the same as on a plain array."""

import shutil
import sqlite3

import numpy as np
import pytest
from editing_process import SLIDE, parts, tiles_of
from fields import Grid, assert_pyramid, assert_same_table, blank_slide, disc, nuclei_of, random_tiles, whole
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from napari_nucleiseg.core.errors import StoreError
from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.store.check import check
from napari_nucleiseg.core.store.merge import State
from napari_nucleiseg.core.store.project import Project
from napari_nucleiseg.core.store.records import REGIONS
from napari_nucleiseg.core.store.retouch import Attributes

GRID = Grid((600, 600), 200)
EVERYTHING = Region(0, 0, *GRID.shape)


@pytest.fixture
def project(fresh_project):
    made = fresh_project()
    for tile in random_tiles(1, GRID):
        made.write_tile(tile, "m@1", "k")
    return made


def painted(project, pixels, nucleus_id, **options):
    """Give pixels ``(n, 2)`` to a nucleus."""
    y0, x0 = pixels.min(0).tolist()
    y1, x1 = (pixels.max(0) + 1).tolist()
    region = Region.from_bounds(y0, x0, y1, x1)
    image = project.labels.read(region)
    image[tuple((pixels - (y0, x0)).T)] = nucleus_id
    return project.editor.paint(region, image, **options)


def assert_in_step(project):
    """Image, pyramid, table and counts say the same; what a model found may be measured with what others cover."""
    image, table = whole(project)
    ids = np.unique(image[image > 0])
    np.testing.assert_array_equal(table.ids, ids)
    for nucleus_id, box, centroid, area, origin in zip(
        table.ids, table.boxes, table.centroids, table.areas_um2, table.origins, strict=True
    ):
        ys, xs = np.nonzero(image == nucleus_id)
        if origin != project.editor.person:
            assert (box[:2] <= (ys.min(), xs.min())).all()
            assert (box[2:] > (ys.max(), xs.max())).all()
            continue
        assert box.tolist() == [ys.min(), xs.min(), ys.max() + 1, xs.max() + 1]
        np.testing.assert_allclose(centroid, (ys.mean(), xs.mean()), atol=1e-6)
        np.testing.assert_allclose(area, len(ys) / 16, rtol=1e-6)
    assert project.census.total() == len(ids)
    assert_pyramid(project)


def test_a_drawn_nucleus_is_in_the_image_the_table_and_the_history(project):
    number = project.editor.new_id()
    changed = painted(project, disc(300, 300, 12), number, kind="draw", attributes={number: Attributes(2)})
    assert changed.ids >= {number}
    assert_in_step(project)
    table = project.nuclei_in(EVERYTHING)
    row = table.ids.tolist().index(number)
    assert (table.classes[row], table.approved[row], table.scores[row]) == (2, True, 1.0)
    assert table.origins[row] == project.editor.person
    (step,) = project.editor.history()
    assert (step.kind, step.person, step.region, step.undone) == ("draw", project.editor.person, changed.region, False)


def test_undo_and_redo_bring_back_every_row_and_pixel(project):
    states = [whole(project)]
    number = project.editor.new_id()
    painted(project, disc(300, 300, 40), number)
    states.append(whole(project))
    painted(project, disc(310, 290, 25), 0, kind="erase")
    states.append(whole(project))
    project.editor.delete([number])
    states.append(whole(project))
    project.editor.classify(states[0][1].ids[:5].tolist(), 3)
    states.append(whole(project))
    for image, table in reversed(states[:-1]):
        assert project.editor.undo()
        now = whole(project)
        np.testing.assert_array_equal(now[0], image)
        assert_same_table(now[1], table)
    assert project.editor.undo() == []
    for image, table in states[1:]:
        assert project.editor.redo()
        now = whole(project)
        np.testing.assert_array_equal(now[0], image)
        assert_same_table(now[1], table)
    assert project.editor.redo() == []
    assert_in_step(project)


def test_a_new_edit_forgets_what_was_undone(project):
    painted(project, disc(100, 100, 8), project.editor.new_id())
    project.editor.undo()
    painted(project, disc(200, 100, 8), project.editor.new_id())
    assert project.editor.redo() == []
    assert len(project.editor.history()) == 1


def test_history_survives_closing_and_names_are_not_used_twice(project):
    before = whole(project)
    first = project.editor.new_id()
    painted(project, disc(100, 100, 8), first)
    folder = project.folder
    project.close()
    with Project.open(folder, blank_slide()) as again:
        assert again.editor.new_id() > first
        assert again.editor.undo()
        np.testing.assert_array_equal(whole(again)[0], before[0])
        assert_same_table(whole(again)[1], before[1])
    with Project.open(folder, blank_slide()) as again:
        assert [step.undone for step in again.editor.history()] == [True]
        assert again.editor.redo()
        assert first in whole(again)[1].ids


def test_jump_goes_to_any_step_and_back(project):
    images = [whole(project)[0]]
    numbers = [0]
    for index in range(5):
        changed = painted(project, disc(100 + 60 * index, 300, 20), project.editor.new_id())
        numbers.append(changed.step)
        images.append(whole(project)[0])
    for target in (2, 5, 0, 3, 4, 1):
        list(project.editor.jump(numbers[target]))
        np.testing.assert_array_equal(whole(project)[0], images[target])
    assert_in_step(project)


def test_parts_of_one_step_are_undone_together(project):
    before = whole(project)
    ids = before[1].ids.tolist()
    changed = project.editor.delete(ids)
    assert len({part.step for part in changed}) == 1 < len(changed)
    assert not whole(project)[0].any()
    assert [step.nuclei for step in project.editor.history()] == [len(ids)]
    assert len(project.editor.undo()) == len(changed)
    np.testing.assert_array_equal(whole(project)[0], before[0])
    assert_same_table(whole(project)[1], before[1])


@pytest.mark.parametrize("key", ["k", "another"])
def test_a_model_brings_nothing_back_that_was_deleted_and_touches_nothing_that_was_edited(project, key):
    ids = whole(project)[1].ids
    gone, kept = ids[::7].tolist(), ids[3::7].tolist()
    project.editor.delete(gone)
    for nucleus_id in kept:
        ys, xs = np.nonzero(whole(project)[0] == nucleus_id)
        painted(project, np.stack([ys, xs], 1)[:1], 0)
    survivors = [nucleus_id for nucleus_id in kept if (whole(project)[0] == nucleus_id).any()]
    masks = {nucleus_id: whole(project)[0] == nucleus_id for nucleus_id in survivors}
    deleted = np.isin(whole(project)[0], 0)
    for tile in random_tiles(1, GRID):
        project.write_tile(tile, "m@2" if key == "another" else "m@1", key)
    image, table = whole(project)
    assert not set(gone) & set(table.ids.tolist())
    for nucleus_id, mask in masks.items():
        np.testing.assert_array_equal(image == nucleus_id, mask)
    assert deleted.any()
    assert_in_step(project)


def test_only_what_the_person_changed_is_changed(project):
    region = Region(50, 50, 100, 100)
    seen = project.labels.read(region)
    # A model writes below while somebody paints.
    project.write_tile(nuclei_of(0, GRID.core(0), [disc(60, 60, 9)], GRID.shape), "m@9", "k")
    now = project.labels.read(region)
    mine = seen.copy()
    mine[80:90, 80:90] = project.editor.new_id()
    changed = project.editor.paint(region, mine, before=seen)
    assert changed.region == Region(130, 130, 10, 10)
    expected = now.copy()
    expected[80:90, 80:90] = mine[80, 80]
    np.testing.assert_array_equal(project.labels.read(region), expected)
    assert_in_step(project)


def test_undo_leaves_what_a_model_has_found_since(project):
    ids = whole(project)[1].ids.tolist()
    project.editor.review(ids[:20], approved=True)
    project.editor.delete(ids[20:30])
    for tile in random_tiles(2, GRID):
        project.write_tile(tile, "m@2", "k")
    project.editor.undo()
    assert_in_step(project)
    project.editor.undo()
    assert_in_step(project)
    project.editor.redo()
    project.editor.redo()
    assert_in_step(project)
    assert check(project).is_sound


def test_nothing_changes_without_a_change(project):
    region = Region(0, 0, 50, 50)
    assert project.editor.paint(region, project.labels.read(region)) is None
    assert project.editor.classify([], 2) is None
    assert project.editor.classify([999_999_999], 2) is None
    assert project.editor.history() == []


def test_a_split_keeps_the_class_and_a_merge_replaces(project):
    table = whole(project)[1]
    big = int(table.ids[table.areas_um2.argmax()])
    project.editor.classify([big], 4)
    ys, xs = np.nonzero(whole(project)[0] == big)
    other = project.editor.new_id()
    right = np.stack([ys, xs], 1)[xs > np.median(xs)]
    painted(project, right, other, kind="split")
    table = whole(project)[1]
    assert table.classes[table.ids.tolist().index(other)] == 4
    painted(project, right, big, kind="merge")
    assert other not in whole(project)[1].ids
    assert_in_step(project)


def test_regions_are_edits_too(project):
    row = (1, "R1", "teach", "[[0,0],[0,9],[9,9]]", 1, 0, "Ada", 5.0)
    project.editor.put(REGIONS, 1, row, kind="region", region=Region(0, 0, 9, 9))
    assert project.ledger.reader.execute("SELECT * FROM regions").fetchall() == [row]
    project.editor.undo()
    assert project.ledger.reader.execute("SELECT count(*) FROM regions").fetchone() == (0,)
    project.editor.redo()
    assert project.ledger.reader.execute("SELECT * FROM regions").fetchall() == [row]


def test_painting_beside_the_slide_or_over_too_much_of_it_is_refused(fresh_project):
    project = fresh_project(blank_slide(40_000, 40_000))
    with pytest.raises(ValueError, match="do not fit"):
        project.editor.paint(Region(39_990, 0, 20, 20), np.zeros((20, 20), np.uint32))
    number = project.editor.new_id()
    painted(project, disc(100, 100, 8), number)
    with pytest.raises(StoreError, match="Take a new label"):
        painted(project, disc(30_000, 30_000, 8), number)
    assert len(project.editor.history()) == 1


def test_reading_only_cannot_edit(project):
    with Project.open(project.folder, blank_slide(), writable=False) as onlooker:
        with pytest.raises(StoreError, match="reading only"):
            onlooker.editor.paint(Region(0, 0, 2, 2), np.ones((2, 2), np.uint32))
        with pytest.raises(StoreError, match="reading only"):
            onlooker.editor.classify([1], 2)


def test_a_project_of_the_first_format_gets_what_editing_needs(project):
    folder = project.folder
    project.close()
    with sqlite3.connect(folder / "project.sqlite") as database:
        for table in ("edits", "regions", "classes", "attention"):
            database.execute(f"DROP TABLE {table}")
        for index in ("nuclei_reviewed", "nuclei_of_class", "nuclei_of_person"):
            database.execute(f"DROP INDEX {index}")
        database.execute("UPDATE meta SET value = '1' WHERE key = 'format'")
    database.close()
    with pytest.raises(StoreError, match="older format 1"):
        Project.open(folder, blank_slide(), writable=False)
    with Project.open(folder, blank_slide()) as converted:
        painted(converted, disc(300, 300, 12), converted.editor.new_id())
        assert converted.editor.undo()
        assert_in_step(converted)


class Plain:
    """What must come out: the same edits on arrays, with the whole state kept for every undo."""

    def __init__(self, image, table):
        self.image, self.classes = image, dict(zip(table.ids.tolist(), table.classes.tolist(), strict=True))
        self.done, self.undone = [], []

    def change(self, image, classes):
        if np.array_equal(image, self.image) and classes == self.classes:
            return
        self.done.append((self.image, self.classes))
        self.undone = []
        alive = set(np.unique(image).tolist())
        self.image, self.classes = image, {key: value for key, value in classes.items() if key in alive}

    def turn(self, origin, target):
        if origin:
            target.append((self.image, self.classes))
            self.image, self.classes = origin.pop()


PLACES = st.tuples(st.integers(10, 150), st.integers(10, 150), st.integers(1, 30))
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("draw"), PLACES),
        st.tuples(st.just("extend"), PLACES),
        st.tuples(st.just("erase"), PLACES),
        st.tuples(st.just("classify"), PLACES),
        st.tuples(st.just("undo"), st.none()),
        st.tuples(st.just("redo"), st.none()),
        st.tuples(st.just("crash"), st.none()),
        st.tuples(st.just("close"), st.none()),
    ),
    max_size=14,
)


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=STEPS, data=st.data())
def test_any_sequence_of_edits_undos_and_crashes_is_the_same_as_on_a_plain_array(tmp_path_factory, steps, data):
    folder = tmp_path_factory.mktemp("edits") / "p"
    project = Project.create(folder, blank_slide(160, 160))
    grid = Grid((160, 160), 80)
    for tile in random_tiles(3, grid, n=12):
        project.write_tile(tile, "m", "k")
    plain = Plain(*whole(project))
    for kind, place in steps:
        project = act(project, plain, kind, place, data)
        image, table = whole(project)
        np.testing.assert_array_equal(image, plain.image)
        assert dict(zip(table.ids.tolist(), table.classes.tolist(), strict=True)) == plain.classes
    assert_in_step(project)
    assert check(project).is_sound
    project.close()
    shutil.rmtree(project.folder)


def act(project, plain, kind, place, data):
    """Do one thing on both; return the project, which is another one after a crash."""
    if kind == "undo":
        project.editor.undo()
        plain.turn(plain.done, plain.undone)
    elif kind == "redo":
        project.editor.redo()
        plain.turn(plain.undone, plain.done)
    elif kind == "crash":
        # What another process would find if this one stopped here.
        copy = project.folder.with_name(f"{project.folder.name}+")
        shutil.copytree(project.folder, copy)
        project.ledger.close()
        project = Project.open(copy, blank_slide(160, 160), take_over=True)
    elif kind == "close":
        project.close()
        project = Project.open(project.folder, blank_slide(160, 160))
    else:
        edit(project, plain, kind, place, data)
    return project


def edit(project, plain, kind, place, data):
    pixels = disc(*place)
    pixels = pixels[((pixels >= 0) & (pixels < 160)).all(1)]
    under = int(plain.image[place[:2]])
    if kind == "classify":
        number = data.draw(st.integers(0, 4))
        if under:
            project.editor.classify([under], number)
            plain.change(plain.image, {**plain.classes, under: number})
        return
    nucleus_id = {"draw": project.editor.new_id(), "extend": under, "erase": 0}[kind]
    painted(project, pixels, nucleus_id, kind=kind)
    image = plain.image.copy()
    image[tuple(pixels.T)] = nucleus_id
    classes = dict(plain.classes)
    if nucleus_id and nucleus_id not in classes:
        former, counts = np.unique(plain.image[tuple(pixels.T)], return_counts=True)
        classes[nucleus_id] = plain.classes.get(int(former[counts.argmax()]), 0)
    plain.change(image, classes)


def test_very_many_nuclei_are_changed_part_by_part_as_one_step(project, monkeypatch):
    monkeypatch.setattr("napari_nucleiseg.core.store.editor.PART", 7)
    editor, ids = project.editor, project.nuclei_in(EVERYTHING).ids[:30].tolist()
    before = whole(project)
    parts = list(editor.in_parts(ids, lambda part, step: editor.review(part, approved=True, step=step)))
    assert [len(part.ids) for part in parts] == [7, 7, 7, 7, 2]
    assert [(step.kind, step.nuclei) for step in editor.history()] == [("approve", 30)]
    # Those that are approved already are passed over.
    again = list(editor.in_parts(ids, lambda part, step: editor.review(part, approved=True, step=step)))
    assert again == [None] * 5
    deleted = next(iter(editor.delete_in_parts(ids)))
    assert deleted.ids <= set(ids[:7])
    assert (editor.count_turn(back=True), editor.count_turn(back=False)) == (1, 0)
    assert editor.count_jump(0) == 6
    assert len(list(editor.jump(0))) == 6
    assert editor.count_jump(parts[0].step) == 5
    assert editor.count_turn(back=False) == 5
    assert_same_table(whole(project)[1], before[1])


def test_a_turn_that_was_broken_off_is_gone_on_with_or_taken_back(project, monkeypatch):
    monkeypatch.setattr("napari_nucleiseg.core.store.editor.PART", 7)
    editor, ids = project.editor, project.nuclei_in(EVERYTHING).ids[:30].tolist()
    list(editor.in_parts(ids, lambda part, step: editor.classify(part, 2, step=step)))
    done = whole(project)
    assert next(editor.turn_in_parts(back=True)).ids == set(ids[28:])
    assert (editor.count_turn(back=True), editor.count_turn(back=False)) == (4, 1)
    assert len(editor.redo()) == 1
    assert_same_table(whole(project)[1], done[1])
    assert next(editor.turn_in_parts(back=True)).ids == set(ids[28:])
    assert len(editor.undo()) == 4
    assert not project.nuclei_in(EVERYTHING).classes.any()
    assert len(editor.redo()) == 5
    assert_same_table(whole(project)[1], done[1])


def test_an_id_that_a_model_has_given_to_another_nucleus_is_left_to_it(fresh_project):
    core = Region(0, 0, 200, 200)
    first, other, third = (nuclei_of(0, core, [disc(y, y, 12)], GRID.shape) for y in (60, 140, 100))
    project = fresh_project()
    project.write_tile(first, "m@1", "k")
    (nucleus,) = whole(project)[1].ids.tolist()
    assert painted(project, disc(60, 64, 8), project.editor.new_id(), kind="draw")
    assert project.editor.undo()
    # The run of another model counts anew: the same number, elsewhere.
    project.write_tile(other, "m@2", "k")
    assert whole(project)[1].ids.tolist() == [nucleus]
    assert project.editor.redo()
    image, table = whole(project)
    assert (image == nucleus).sum() == len(disc(140, 140, 12))
    place = table.centroids[table.ids.tolist().index(nucleus)]
    np.testing.assert_allclose(place, (140, 140), atol=1)
    assert check(project).is_sound
    project.write_tile(third, "m@3", "k")
    assert project.editor.undo()
    assert check(project).is_sound
    image, table = whole(project)
    assert table.ids.tolist() == [nucleus]
    np.testing.assert_allclose(table.centroids[0], (100, 100), atol=1)


def test_the_same_model_may_give_an_id_to_another_nucleus_that_is_left_to_it_too(fresh_project):
    core = Region(0, 0, 200, 200)
    discs = [disc(y, y, 12) for y in (40, 100, 160)]
    project = fresh_project()
    project.write_tile(nuclei_of(0, core, discs, GRID.shape), "m@1", "k")
    first, _, third = whole(project)[1].ids.tolist()
    project.editor.review([first], approved=True)
    project.editor.delete([third])
    assert project.editor.undo()
    # The first is a person's: the others are counted from the next id on, and the middle one is called as the last was.
    project.write_tile(nuclei_of(0, core, discs[1:], GRID.shape), "m@1", "other")
    project.write_tile(nuclei_of(0, core, discs[:2], GRID.shape), "m@1", "k")
    image, table = whole(project)
    assert project.editor.redo()
    np.testing.assert_array_equal(whole(project)[0], image)
    assert_same_table(whole(project)[1], table)
    assert check(project).is_sound


def test_what_another_model_found_at_the_same_place_under_the_same_id_is_not_deleted(fresh_project):
    core = Region(0, 0, 200, 200)
    project = fresh_project()
    project.write_tile(nuclei_of(0, core, [disc(100, 100, 12)], GRID.shape), "m@1", "k")
    (nucleus,) = whole(project)[1].ids.tolist()
    project.editor.delete([nucleus])
    assert project.editor.undo()
    project.write_tile(nuclei_of(0, core, [disc(102, 100, 12)], GRID.shape), "m@2", "k")
    image, table = whole(project)
    assert project.editor.redo()
    np.testing.assert_array_equal(whole(project)[0], image)
    assert_same_table(whole(project)[1], table)
    assert project.editor.undo()
    np.testing.assert_array_equal(whole(project)[0], image)
    assert check(project).is_sound


def beside(project, name, *, first=(), second=()):
    """Write two tiles of one run, whose nuclei may overlap: the pixels that both want are those of the first."""
    for index, shapes in enumerate((first, second)):
        if shapes is not None:
            core = Region(0, 200 * index, 200, 200)
            project.write_tile(nuclei_of(index, core, list(shapes), GRID.shape), name, "k")


def test_what_a_model_has_hidden_stays_hidden_when_its_class_is_undone(fresh_project):
    project = fresh_project()
    beside(project, "m", second=[disc(100, 205, 12)])
    (nucleus,) = whole(project)[1].ids.tolist()
    project.editor.classify([nucleus], 2)
    beside(project, "m", first=[disc(100, 204, 12)], second=None)
    query = "SELECT class, state FROM nuclei WHERE id = ?"
    (kept,) = whole(project)[1].ids.tolist()
    for turn, number in ((project.editor.undo, 0), (project.editor.redo, 2)):
        assert turn()
        assert whole(project)[1].ids.tolist() == [kept] != [nucleus]
        # Its class is that of the nucleus that is kept.
        assert whole(project)[1].classes.tolist() == [number]
        assert project.ledger.reader.execute(query, (nucleus,)).fetchone() == (0, State.DUPLICATE)
        assert check(project).is_sound


def test_deleted_once_more_it_takes_the_pixels_along_that_it_has_won(fresh_project):
    project = fresh_project()
    beside(project, "m", first=[disc(100, 190, 12)], second=[disc(100, 207, 12)])
    nucleus = int(whole(project)[1].ids[-1])
    project.editor.delete([nucleus])
    project.editor.undo()
    beside(project, "m", second=None)
    assert (whole(project)[0] == nucleus).sum() == len(disc(100, 207, 12))
    assert project.editor.redo()
    image, table = whole(project)
    assert not len(table)
    assert not image.any()
    assert check(project).is_sound


def test_drawn_over_once_more_it_is_measured_with_the_pixels_that_it_has_won(fresh_project):
    project = fresh_project()
    beside(project, "m", first=[disc(100, 190, 12)], second=[disc(100, 207, 12)])
    assert painted(project, disc(110, 215, 6), project.editor.new_id(), kind="draw")
    project.editor.undo()
    beside(project, "m", second=None)
    assert project.editor.redo()
    assert_in_step(project)
    assert check(project).is_sound


def test_approved_is_what_is_seen_and_undone_what_the_model_found(fresh_project):
    project = fresh_project()
    beside(project, "m", first=[disc(100, 190, 12)], second=[disc(100, 207, 12)])
    nucleus = int(whole(project)[1].ids[-1])
    found = project.nuclei_in(EVERYTHING)
    project.editor.review([nucleus], approved=True)
    image, table = whole(project)
    seen = int((image == nucleus).sum())
    assert seen < len(disc(100, 207, 12))
    np.testing.assert_allclose(table.areas_um2[-1], seen / 16, rtol=1e-6)
    assert project.editor.undo()
    assert_same_table(project.nuclei_in(EVERYTHING), found)
    assert check(project).is_sound


# Once pixels of a nucleus that no table had were left, or hidden pixels beside the nucleus that claimed them, or
# nuclei in the table of which nothing was to be seen or less than it said.
@pytest.mark.parametrize(
    ("mode", "seed", "last"),
    [
        *(("mixed", *which) for which in ((7, 16), (46, 25), (97, 378), (100051, 229), (100155, 242))),
        ("given back", 30, 64),
        ("given back", None, 250),
    ],
)
def test_edits_between_runs_of_models_leave_a_sound_project(tmp_path, mode, seed, last):
    # Another one each time.
    seed = int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else seed
    with Project.create(tmp_path / "p", SLIDE) as project:
        for tile in tiles_of(0):
            project.write_tile(tile, "m", "0")
        for number in range(last + 1):
            list(parts(project, mode, seed, number))
            if number % 25 == 0 or number == last:
                report = check(project)
                assert report.is_sound, (seed, number, report)
        if mode == "mixed":
            assert_in_step(project)

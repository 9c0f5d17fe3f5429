"""Writing tiles: the outcome is a function of the set of tiles, not of their order; stale goes, people's work stays."""

import numpy as np
import pytest
from fields import Grid, assert_pyramid, assert_same_table, disc, expected_image, nuclei_of, random_tiles, whole
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.store.check import check
from napari_nucleiseg.core.store.nuclei import global_ids

SHAPE = (600, 600)
GRID = Grid(SHAPE, 200)
OTHER_GRID = Grid(SHAPE, 150)
slow = settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # a smaller seed is not a simpler case
)


def write(project, tiles, order=None, model="m@1", options="t0.5"):
    for index in range(len(tiles)) if order is None else order:
        project.write_tile(tiles[index], model, options)


@slow
@given(seed=st.integers(0, 10**6), order=st.permutations(range(9)))
def test_any_order_gives_what_the_rule_says(fresh_project, seed, order):
    tiles = random_tiles(seed, GRID)
    expected, gone = expected_image(tiles, SHAPE)
    project = fresh_project()
    write(project, tiles, order)
    image, table = whole(project)
    np.testing.assert_array_equal(image, expected)
    np.testing.assert_array_equal(table.ids, np.unique(expected[expected > 0]))
    assert not gone & set(table.ids.tolist())
    assert_pyramid(project)
    one = fresh_project()
    write(one, tiles)
    assert_same_table(whole(one)[1], table)


def test_the_random_fields_hold_what_makes_order_matter():
    duplicates = overlaps = triples = 0
    for seed in range(5):
        tiles = random_tiles(seed, GRID)
        _, gone = expected_image(tiles, SHAPE)
        duplicates += len(gone)
        cover = np.zeros(SHAPE, int)
        for tile in tiles:
            cover[tile.box.slices] += tile.labels > 0
        overlaps += int((cover > 1).sum())
        triples += int((cover > 2).sum())
    assert duplicates > 25
    assert overlaps > 1000
    assert triples > 100


@slow
@given(seed=st.integers(0, 10**6), orders=st.tuples(*[st.permutations(range(9))] * 3), half=st.integers(0, 9))
def test_switching_options_back_and_forth_leaves_no_trace(fresh_project, seed, orders, half):
    first, second = random_tiles(seed, GRID), random_tiles(seed + 1, GRID)
    project = fresh_project()
    write(project, first, orders[0], options="a")
    write(project, second, orders[1][:half], options="b")
    for index in orders[2]:
        if index not in project.tiles_done("m@1", "a"):
            project.write_tile(first[index], "m@1", "a")
    assert project.tiles_done("m@1", "a") == set(range(9))
    image, table = whole(project)
    np.testing.assert_array_equal(image, expected_image(first, SHAPE)[0])
    np.testing.assert_array_equal(table.ids, np.unique(image[image > 0]))
    assert_pyramid(project)


@slow
@given(seed=st.integers(0, 10**6), orders=st.tuples(st.permutations(range(9)), st.permutations(range(16))))
def test_another_model_on_another_grid_replaces_all(fresh_project, seed, orders):
    project = fresh_project()
    write(project, random_tiles(seed, GRID), orders[0])
    second = random_tiles(seed + 1, OTHER_GRID)
    write(project, second, orders[1], model="n@2")
    image, table = whole(project)
    np.testing.assert_array_equal(image, expected_image(second, SHAPE)[0])
    assert set(table.origins) == {"n@2"}
    assert project.tiles_done("m@1", "t0.5") == set()
    assert project.tiles_done("n@2", "t0.5") == set(range(16))
    assert check(project).is_sound


def test_writing_a_tile_again_changes_nothing(fresh_project):
    tiles = random_tiles(3, GRID)
    project = fresh_project()
    write(project, tiles)
    before, table = whole(project)
    write(project, tiles, [4, 0, 8, 4])
    after, again = whole(project)
    np.testing.assert_array_equal(after, before)
    assert_same_table(again, table)


def test_a_tile_that_a_new_one_robs_of_nuclei_must_be_done_again(fresh_project):
    project = fresh_project()
    left = nuclei_of(0, GRID.core(0), [disc(100, 100, 10), disc(100, 198, 10)], SHAPE)
    project.write_tile(left, "m", "a")
    project.write_tile(nuclei_of(1, GRID.core(1), [disc(100, 204, 10)], SHAPE), "m", "b")
    assert project.tiles_done("m", "a") == set()
    table = whole(project)[1]
    assert table.ids.tolist() == [1, (1 << 14) + 1]


def test_a_duplicate_comes_back_with_its_own_tile(fresh_project):
    """The winner of a pixel turns out to be a duplicate of a third: what it covered shows again."""
    low, middle, high = disc(195, 100, 10), disc(199, 100, 10), disc(199, 115, 9)
    tiles = [
        nuclei_of(0, GRID.core(0), [low], SHAPE),
        nuclei_of(3, GRID.core(3), [middle], SHAPE),
        nuclei_of(4, GRID.core(4), [high], SHAPE),
    ]
    expected, gone = expected_image(tiles, SHAPE)
    assert gone == {int(global_ids(3, 1)[0])}
    project = fresh_project()
    for index in (2, 1, 0):
        project.write_tile(tiles[index], "m", "a")
    np.testing.assert_array_equal(whole(project)[0], expected)


@slow
@given(seed=st.integers(0, 10**6), order=st.permutations(range(9)))
def test_approved_nuclei_survive_other_options_and_keep_their_pixels_and_id(fresh_project, seed, order):
    project = fresh_project()
    tiles = random_tiles(seed, GRID)
    write(project, tiles, options="a")
    before, table = whole(project)
    chosen = table.ids[::3]
    project.approve(chosen)
    write(project, random_tiles(seed + 1, GRID), order, options="b")
    after, now = whole(project)
    kept = np.isin(before, chosen)
    np.testing.assert_array_equal(after[kept], before[kept])
    assert not np.isin(after[~kept], chosen).any()
    assert set(chosen.tolist()) == set(now.ids[now.approved].tolist())
    assert len(set(now.ids.tolist())) == len(now)
    assert check(project).is_sound
    project.approve(chosen, approved=False)
    assert not whole(project)[1].approved.any()


def test_a_new_nucleus_on_an_approved_one_is_left_out(fresh_project):
    project = fresh_project()
    project.write_tile(nuclei_of(0, GRID.core(0), [disc(100, 100, 12)], SHAPE), "m", "a")
    project.approve([1])
    project.write_tile(nuclei_of(0, GRID.core(0), [disc(103, 100, 12), disc(100, 122, 12)], SHAPE), "m", "b")
    image, table = whole(project)
    # The first lies mostly on the approved one; the second loses only the pixels that they share.
    assert table.ids.tolist() == [1, 3]
    assert (image == 1).sum() == len(disc(100, 100, 12))


def test_what_a_person_drew_is_never_touched(fresh_project, draw):
    project = fresh_project()
    pixels = disc(200, 200, 30)
    drawn = draw(project, pixels)
    write(project, random_tiles(7, GRID))
    write(project, random_tiles(8, GRID), options="b")
    image, table = whole(project)
    assert (image[tuple(pixels.T)] == drawn).all()
    assert (image == drawn).sum() == len(pixels)
    assert table.origins[table.ids == drawn].tolist() == ["Ada"]


def test_tiles_without_nuclei_are_done_too(fresh_project):
    project = fresh_project()
    project.write_tile(nuclei_of(4, GRID.core(4), [], SHAPE), "m", "a")
    assert project.tiles_done("m", "a") == {4}
    project.write_tile(nuclei_of(4, GRID.core(4), [disc(300, 300, 9)], SHAPE), "m", "b")
    project.write_tile(nuclei_of(4, GRID.core(4), [], SHAPE), "m", "a")
    assert not whole(project)[0].any()
    assert project.count_in(Region(0, 0, *SHAPE)) == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"box": Region(590, 590, 20, 20)}, "leaves the slide"),
        ({"labels": np.zeros((3, 3), np.int32)}, "but its box is"),
        ({"labels": np.zeros((19, 19), np.int64)}, "int64, not int32"),
        ({"scores": np.zeros(7, np.float32)}, "7 scores"),
    ],
)
def test_nuclei_that_do_not_fit_together_are_refused(fresh_project, change, words):
    from dataclasses import replace

    project = fresh_project()
    nuclei = replace(nuclei_of(0, GRID.core(0), [disc(100, 100, 9)], SHAPE), **change)
    with pytest.raises(ValueError, match=words):
        project.write_tile(nuclei, "m", "a")
    assert project.tiles_done("m", "a") == set()


def test_no_table_is_looked_through_from_end_to_end_for_a_tile(fresh_project):
    # With a hundred thousand tiles that took longer than the network.
    project = fresh_project()
    tiles = random_tiles(3, GRID)
    for number, options in enumerate(("first", "second", "first")):
        for tile in tiles[: len(tiles) if number < 2 else 1]:
            project.write_tile(tile, "model", options)
    database, statements = project.ledger.writer, []
    database.set_trace_callback(statements.append)
    project.write_tile(tiles[1], "model", "second")
    database.set_trace_callback(None)
    plans = [
        row[3]
        for statement in statements
        if statement.startswith(("SELECT", "UPDATE", "DELETE"))
        for row in database.execute(f"EXPLAIN QUERY PLAN {statement}")
    ]
    assert any("tiles_of_run" in plan for plan in plans)
    assert [plan for plan in plans if plan.startswith("SCAN") and "runs" not in plan and "VIRTUAL" not in plan] == []


def test_a_project_without_the_index_of_tiles_gets_it(fresh_project):
    project = fresh_project()
    project.ledger.writer.execute("DROP INDEX tiles_of_run")
    first, second, *_ = random_tiles(4, GRID)
    project.write_tile(first, "model", "a")
    project.write_tile(first, "model", "b")
    project.write_tile(second, "model", "b")
    assert project.tiles_done("model", "a") == set()
    assert project.tiles_done("model", "b") == {first.tile_index, second.tile_index}
    assert project.ledger.reader.execute("SELECT 1 FROM sqlite_master WHERE name = 'tiles_of_run'").fetchone()

"""What is plotted, without a plot: bins and statistics agree with numpy, a fence with the plain rule, at any points."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.store.nuclei import PERSON_ID_START, NucleiTable
from napari_nucleiseg.viewer.counting import inside_polygon
from napari_nucleiseg.viewer.plot_data import (
    LESS,
    MORE,
    MOST_BINS,
    NEW,
    Cloud,
    cloud_of,
    combined,
    histogram_of,
    in_range,
    inside_fence,
    limits_of,
    summary_of,
    ticks,
)

# On a coarse lattice points lie on edges and corners, and edges are level: that is where a fence can go wrong.
LATTICE = st.integers(-6, 6).map(lambda number: number / 2)
PLACES = LATTICE | st.floats(-3, 3, width=32)
IDS = st.sets(st.integers(1, 40)).map(lambda ids: np.array(sorted(ids), np.uint32))


def places(least, most):
    return arrays(np.float64, st.tuples(st.integers(least, most), st.just(2)), elements=PLACES)


def table_of(ids, areas, scores=0.5):
    count = len(ids)
    return NucleiTable(
        ids=np.array(ids, np.uint32),
        centroids=np.stack([np.arange(count), np.arange(count)], axis=1).astype(float) + np.array(ids)[:, None] * 10,
        boxes=np.tile([0, 0, 4, 4], (count, 1)) + np.array(ids)[:, None],
        areas_um2=np.array(areas, np.float32),
        classes=np.arange(count, dtype=np.int32) % 2,
        scores=np.full(count, scores, np.float32),
        origins=np.full(count, "m", object),
        approved=np.zeros(count, bool),
    )


def block(ids, areas, **values):
    found = {name: np.array(column, np.float32) for name, column in values.items()}
    return SimpleNamespace(table=table_of(ids, areas), values=found)


# ---------------------------------------------------------------------- a fence


@settings(max_examples=300, deadline=None)
@given(places(0, 40), places(3, 12))
def test_a_fence_holds_what_the_plain_rule_says(points, corners):
    assert (inside_fence(points, corners) == inside_polygon(points, corners)).all()


@settings(max_examples=100, deadline=None)
@given(places(1, 30), places(3, 8), st.integers(0, 7), st.sampled_from([(2.0, 0.5), (2.0**-10, 2.0**12)]))
def test_a_fence_depends_neither_on_where_it_begins_nor_on_units_nor_on_order(points, corners, begins, units):
    inside = inside_fence(points, corners)
    assert (inside_fence(points, np.roll(corners, begins, axis=0)) == inside).all()
    assert (inside_fence(points * units, corners * units) == inside).all()
    shuffled = np.random.default_rng(len(points)).permutation(len(points))
    assert (inside_fence(points[shuffled], corners) == inside[shuffled]).all()


def test_a_fence_around_a_corner_leaves_out_what_lies_in_its_bay_and_what_is_not_measured():
    corners = np.array([(0, 0), (0, 4), (4, 4), (4, 3), (1, 3), (1, 0)], float)
    points = np.array([(0.5, 0.5), (3, 3.5), (3, 1), (np.nan, 0.5), (0.5, np.nan), (9, 9)])
    assert inside_fence(points, corners).tolist() == [True, True, False, False, False, False]
    assert not inside_fence(points, corners[:2]).any()  # a line has no inside


# ---------------------------------------------------------------------- selections


@given(IDS, IDS)
def test_selections_are_combined_like_sets(one, other):
    assert set(combined(one, other, NEW)) == set(other)
    assert set(combined(one, other, MORE)) == set(one) | set(other)
    assert set(combined(one, other, LESS)) == set(one) - set(other)
    for how in (NEW, MORE, LESS):
        found = combined(one, other, how)
        assert (np.diff(found.astype(np.int64)) > 0).all()
        assert found.dtype == np.uint32


def test_a_range_holds_both_its_ends_and_nothing_that_is_not_measured():
    values = np.array([1, 2, 3, np.nan, 0.1], np.float32)
    assert in_range(values, 1, 2).tolist() == [True, True, False, False, False]
    # 0.1 is a little less than the nearest number of single precision.
    assert in_range(values, 0.0, 0.1).tolist() == [False] * 5


# ---------------------------------------------------------------------- histogram and statistics


@settings(max_examples=200, deadline=None)
@given(
    arrays(np.float32, st.integers(1, 60), elements=st.floats(-100, 100, width=32) | st.just(np.nan)),
    st.integers(1, 3),
    st.none() | st.tuples(st.floats(-100, 0), st.floats(1, 100)),
)
def test_every_measured_nucleus_is_in_one_bar_of_its_class(values, kinds, limits):
    classes = (np.arange(len(values)) % kinds).astype(np.int32)
    found = histogram_of(values, classes, limits)
    known = np.isfinite(values) if limits is None else in_range(values, *limits)
    if found is None:
        assert not known.any()
        return
    assert found.counts.sum() == known.sum()
    assert 1 < len(found.edges) <= MOST_BINS + 1
    bins = found.bins_of(values)
    assert ((bins >= 0) == known).all()
    for row, number in enumerate(found.numbers):
        assert found.counts[row].sum() == (known & (classes == number)).sum() > 0
        ours = np.bincount(bins[known & (classes == number)], minlength=len(found.edges) - 1)
        assert (ours == found.counts[row]).all()
    slack = 1e-9 * max(1.0, np.abs(found.edges).max())
    assert (values[known] >= found.edges[bins[known]] - slack).all()
    assert (values[known] <= found.edges[bins[known] + 1] + slack).all()


def test_bins_are_as_wide_as_freedman_and_diaconis_say():
    values = np.random.default_rng(0).normal(50, 10, 5000).astype(np.float32)
    found = histogram_of(values, np.zeros(5000, np.int32))
    width = found.edges[1] - found.edges[0]
    low, high = np.percentile(values, (25, 75))
    assert width == pytest.approx(2 * (high - low) / 5000 ** (1 / 3), rel=0.03)
    assert found.edges[0] == values.min()
    assert found.edges[-1] == values.max()


def test_values_that_are_all_alike_make_a_bar():
    found = histogram_of(np.full(7, 3.0, np.float32), np.zeros(7, np.int32))
    assert found.counts.max() == 7
    assert found.edges[0] < 3 < found.edges[-1]
    assert histogram_of(np.full(7, np.nan, np.float32), np.zeros(7, np.int32)) is None


def test_statistics_are_those_of_numpy_over_what_was_measured():
    values = np.random.default_rng(1).gamma(2, 10, 999).astype(np.float32)
    values[::10] = np.nan
    found = summary_of(values)
    known = values[np.isfinite(values)].astype(float)
    assert (found.number, found.missing) == (len(known), 100)
    assert (found.mean, found.spread) == pytest.approx((known.mean(), known.std()))
    assert (found.low, found.median, found.high) == pytest.approx(tuple(np.percentile(known, (25, 50, 75))))
    assert summary_of(values[::10]) is None


# ---------------------------------------------------------------------- axes


@given(st.floats(-1e5, 1e5), st.floats(1e-3, 1e5), st.integers(2, 12))
def test_numbers_of_an_axis_are_round_evenly_spaced_and_inside(low, span, most):
    found = ticks(low, low + span, most)
    assert len(found) <= most
    assert (found >= low - 1e-6 * span).all()
    assert (found <= low + span * (1 + 1e-6)).all()
    if len(found) > 1:
        step = found[1] - found[0]
        assert np.allclose(np.diff(found), step, rtol=1e-3)
        assert float(f"{step:.1e}"[0]) in {1, 2, 5}


def test_an_axis_shows_all_values_with_a_little_room():
    low, high = limits_of(np.array([2, 4, np.nan], np.float32))
    assert (low, high) == pytest.approx((1.94, 4.06))
    low, high = limits_of(np.array([5, 5], np.float32))
    assert low < 5 < high
    assert limits_of(np.array([np.nan], np.float32)) is None


# ---------------------------------------------------------------------- nuclei


def test_blocks_are_joined_in_the_order_of_ids_with_area_and_score():
    cloud = cloud_of([block([7, 9], [70, 90], size=[0.7, 0.9]), block([], [], size=[]), block([2], [20], size=[0.2])])
    assert cloud.ids.tolist() == [2, 7, 9]
    assert cloud.of("area_um2").tolist() == [20, 70, 90]
    assert cloud.of("size") == pytest.approx([0.2, 0.7, 0.9])
    assert cloud.of("score").tolist() == [0.5] * 3
    assert np.isnan(cloud.of("nothing")).all()
    assert cloud.box(1) == Region.from_bounds(7, 7, 11, 11)
    assert len(cloud_of([])) == 0


def test_what_a_person_has_drawn_has_no_score():
    cloud = cloud_of([block([5, PERSON_ID_START + 1], [1, 1])])
    assert np.isnan(cloud.of("score")).tolist() == [False, True]


@given(IDS, IDS)
def test_rows_are_found_by_id_and_strangers_left_out(known, wanted):
    cloud = Cloud(known, np.zeros((len(known), 2)), np.zeros((len(known), 4), np.int64), np.zeros(len(known), np.int32))
    rows = cloud.rows_of(wanted)
    assert cloud.ids[rows].tolist() == sorted(set(known.tolist()) & set(wanted.tolist()))


def test_a_part_keeps_rows_together():
    cloud = cloud_of([block([1, 2, 3], [10, 20, 30], size=[1, 2, 3])])
    part = cloud.part(np.array([True, False, True]))
    assert (part.ids.tolist(), part.of("size").tolist(), part.of("area_um2").tolist()) == ([1, 3], [1, 3], [10, 30])

"""Distances, neighbours and density are those of all pairs."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from napari_nucleiseg.core.geometry import YX, Region
from napari_nucleiseg.core.measurement.columns import NEIGHBOURS
from napari_nucleiseg.core.measurement.neighbours import measure_neighbours, searched

MPP = YX(0.5, 0.25)


def by_all_pairs(centroids):
    apart = cdist(centroids * MPP, centroids * MPP)
    counts = {limit: (apart <= limit).sum(axis=1) for limit in (25, 50)}
    np.fill_diagonal(apart, np.inf)
    nearest = np.sort(np.where(apart <= 100, apart, np.inf), axis=1)[:, :5]
    found = np.isfinite(nearest)
    return {
        "nearest_um": np.where(found[:, 0], nearest[:, 0], np.nan),
        "nearest_5_um": [row[row < np.inf].mean() if (row < np.inf).any() else np.nan for row in nearest],
        "neighbours_25um": counts[25] - 1,
        "density_per_mm2": counts[50] / (math.pi * 0.05**2),
    }


def assert_same(found, truth):
    assert tuple(found) == tuple(column.name for column in NEIGHBOURS)
    for name, values in truth.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-12, err_msg=name)


@pytest.mark.parametrize("count", [6, 40, 900])
def test_all_pairs_agree(count):
    centroids = np.random.default_rng(count).uniform(0, 2000, (count, 2))
    assert_same(measure_neighbours(centroids, centroids[::-1], MPP), by_all_pairs(centroids))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**16), st.integers(0, 900), st.integers(0, 900), st.integers(1, 700), st.integers(1, 700))
def test_what_lies_around_a_block_is_enough(seed, y, x, height, width):
    every = np.random.default_rng(seed).uniform(0, 1500, (300, 2))
    truth = by_all_pairs(every)

    def inside(region):
        return (every >= (region.y, region.x)).all(axis=1) & (every < (region.y1, region.x1)).all(axis=1)

    mine, around = inside(Region(y, x, height, width)), inside(searched(Region(y, x, height, width), MPP))
    found = measure_neighbours(every[mine], every[around], MPP)
    assert_same(found, {name: np.asarray(values)[mine] for name, values in truth.items()})


def test_whoever_is_alone_has_no_neighbours():
    alone = np.array([[10.0, 10.0]])
    found = measure_neighbours(alone, alone, MPP)
    assert np.isnan(found["nearest_um"])
    assert np.isnan(found["nearest_5_um"])
    assert found["neighbours_25um"].tolist() == [0]
    assert found["density_per_mm2"][0] == pytest.approx(127.324, abs=1e-3)


def test_the_limits_belong_to_what_they_limit():
    """Across, a pixel is a quarter of a micrometre."""
    row = np.array([[0.0, 0.0], [0.0, 400.0], [0.0, 804.0]])
    assert measure_neighbours(row, row, MPP)["nearest_um"].tolist()[:2] == [100, 100]
    assert np.isnan(measure_neighbours(row, row, MPP)["nearest_um"][2])
    row[1, 1] = 100
    assert measure_neighbours(row, row, MPP)["neighbours_25um"].tolist() == [1, 1, 0]


def test_two_nuclei_at_one_place_are_neighbours():
    twins = np.array([[5.0, 5.0], [5.0, 5.0]])
    found = measure_neighbours(twins, twins, MPP)
    assert found["nearest_um"].tolist() == [0, 0]
    assert found["neighbours_25um"].tolist() == [1, 1]


def test_an_empty_block_has_empty_columns():
    nobody = np.zeros((0, 2))
    assert all(len(values) == 0 for values in measure_neighbours(nobody, nobody, MPP).values())

"""What is shown of attention, against slow definitions and the properties it must have."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from napari_nucleiseg.core.attention.scaling import SCALES, scaled
from napari_nucleiseg.core.errors import DataError

# Few different values, so that there are ties.
tied_maps = arrays(np.float64, (2, 3, 4), elements=st.integers(0, 6).map(lambda n: n / 64))
masks = arrays(np.bool_, (2, 3, 4))


def slow_percentile(values, value):
    """Tokens below, and the mean place among the equal ones, over all tokens."""
    return (np.sum(values < value) + (np.sum(values == value) + 1) / 2) / len(values)


@settings(deadline=None)
@given(tied_maps, masks)
def test_percentiles_are_ranks_within_each_input_with_ties_averaged_and_glass_left_out(maps, tissue):
    found = scaled(maps, "percentile", tissue=tissue)
    for one, inside, got in zip(maps, tissue, found, strict=True):
        want = [slow_percentile(one[inside], value) for value in one[inside]]
        assert got[inside] == pytest.approx(want, abs=1e-6)
        assert np.isnan(got[~inside]).all()


def test_four_tokens_by_hand():
    maps = np.array([[[0.1, 0.4], [0.4, 0.2]]])
    assert scaled(maps, "percentile")[0].tolist() == [[0.25, 0.875], [0.875, 0.5]]
    assert scaled(maps, "raw")[0].ravel() == pytest.approx([0.1, 0.4, 0.4, 0.2])
    assert scaled(maps / 2, "share")[0].ravel() == pytest.approx(np.array([1, 4, 4, 2]) / 11)


@settings(deadline=None)
@given(tied_maps, masks)
def test_percentiles_do_not_change_with_a_rising_transform(maps, tissue):
    assert np.array_equal(scaled(maps, "percentile"), scaled(np.exp(9 * maps), "percentile"))
    left_out = scaled(maps, "percentile", tissue=tissue)
    assert np.array_equal(left_out, scaled(maps**3, "percentile", tissue=tissue), equal_nan=True)


@settings(deadline=None)
@given(tied_maps, masks)
def test_shares_sum_to_one_over_what_counts(maps, tissue):
    sums = scaled(maps, "share", tissue=tissue, glass=0).sum(axis=(1, 2))
    anything = np.where(tissue, maps, 0).sum(axis=(1, 2)) > 0
    assert sums == pytest.approx(anything.astype(float), abs=1e-5)


@settings(deadline=None)
@given(tied_maps, masks, st.sampled_from(SCALES))
def test_every_scale_is_float32_within_0_and_1(maps, tissue, scale):
    found = scaled(maps, scale, tissue=tissue, glass=0)
    assert found.dtype == np.float32
    assert found.shape == maps.shape
    assert found.min() >= 0
    assert found.max() <= 1
    assert not found[~tissue].any()


def test_a_mask_of_the_tokens_holds_for_every_head():
    maps = np.random.default_rng(0).random((6, 2, 4, 4))
    tissue = np.random.default_rng(1).random((2, 4, 4)) < 0.5
    together = scaled(maps, "percentile", tissue=tissue)
    assert all(
        np.array_equal(together[i], scaled(maps[i], "percentile", tissue=tissue), equal_nan=True) for i in range(6)
    )


@pytest.mark.parametrize("scale", SCALES)
def test_what_is_not_known_yet_stays_so_and_moves_nothing(scale):
    maps = np.random.default_rng(0).random((3, 4, 4))
    maps[1] = np.nan
    maps[2, 0] = np.nan
    found = scaled(maps, scale)
    assert np.array_equal(found[0], scaled(maps[:1], scale)[0])
    assert np.isnan(found[1]).all()
    assert np.array_equal(found[2, 1:], scaled(maps[2:, 1:], scale)[0])
    assert np.isnan(found[2, 0]).all()


def test_input_is_not_changed():
    maps = np.full((1, 2, 2), 0.5, np.float32)
    scaled(maps, "raw", tissue=np.zeros((2, 2), np.bool_))
    assert (maps == 0.5).all()


def test_wrong_arguments_are_told():
    with pytest.raises(DataError, match="choose one of raw, share, percentile"):
        scaled(np.ones((2, 2)), "log")
    with pytest.raises(DataError, match="rows and columns"):
        scaled(np.ones(4), "raw")
    with pytest.raises(DataError, match="tissue mask"):
        scaled(np.ones((2, 2)), "raw", tissue=np.ones((3, 3), np.bool_))


def test_a_head_of_a_large_view_is_ranked_while_nobody_notices():
    maps = np.random.default_rng(0).random((256, 16, 16)).astype(np.float32)
    tissue = np.random.default_rng(1).random(maps.shape) < 0.7
    spent = []
    for _ in range(5):
        began = time.perf_counter()
        scaled(maps, "percentile", tissue=tissue)
        spent.append(time.perf_counter() - began)
    assert min(spent) < 0.1

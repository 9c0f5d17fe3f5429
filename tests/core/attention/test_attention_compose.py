"""Two levels of attention put together, against a loop over cells."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from napari_nucleiseg.core.attention.compose import all_pairs, composed, enlarged, laid_out, over_heads
from napari_nucleiseg.core.errors import DataError

RNG = np.random.default_rng(0)
weights = st.floats(0, 1)
regions = arrays(np.float64, (2, 3), elements=st.floats(0, 1))
patches = arrays(np.float64, (4, 9), elements=st.floats(0, 1))
counts = arrays(np.uint16, (2, 3), elements=st.integers(0, 4))
fine_counts = arrays(np.uint16, (4, 9), elements=st.integers(0, 4))


def slow(region, patch, weight, region_coverage, patch_coverage):
    out = np.full(patch.shape, np.nan)
    for y, x in np.ndindex(patch.shape):
        place = y * region.shape[0] // patch.shape[0], x * region.shape[1] // patch.shape[1]
        a, b = weight * region_coverage[place], (1 - weight) * patch_coverage[y, x]
        if a + b > 0:
            out[y, x] = (a * region[place] + b * patch[y, x]) / (a + b)
    return out


@settings(deadline=None)
@given(regions, patches, weights, counts, fine_counts)
def test_composition_is_the_mean_weighted_by_coverage(region, patch, weight, coarse, fine):
    found = composed(region, patch, weight=weight, region_coverage=coarse, patch_coverage=fine)
    assert found.dtype == np.float32
    assert found == pytest.approx(slow(region, patch, weight, coarse, fine), abs=1e-6, nan_ok=True)


@settings(deadline=None)
@given(regions, patches, weights)
def test_composition_lies_between_its_parts(region, patch, weight):
    found, broad = composed(region, patch, weight=weight), enlarged(region, *patch.shape)
    assert (found >= np.minimum(broad, patch) - 1e-6).all()
    assert (found <= np.maximum(broad, patch) + 1e-6).all()


def test_no_coverage_counts_twice():
    """Published functions divided by a coverage of the patches that they had counted twice."""
    one = composed(np.array([[1.0]]), np.array([[0.0]]), region_coverage=4, patch_coverage=2)
    assert one[0, 0] == pytest.approx(4 / 6)
    same = composed(np.array([[1.0]]), np.array([[1.0]]), region_coverage=4, patch_coverage=2)
    assert same[0, 0] == pytest.approx(1)


def test_weight_goes_from_patches_to_the_region():
    region, patch = np.array([[0.2, 0.8]]), np.full((2, 4), 0.5)
    assert composed(region, patch, weight=0) == pytest.approx(patch)
    assert composed(region, patch, weight=1) == pytest.approx(enlarged(region, 2, 4))
    assert composed(region, patch) == pytest.approx((patch + enlarged(region, 2, 4)) / 2)


def test_patches_know_what_is_glass_and_a_patch_of_glass_does_not_hide_a_token():
    patch = np.array([[np.nan, 0.4, 0.6, 0.6]])
    assert composed(np.array([[np.nan, 1.0]]), patch)[0] == pytest.approx([np.nan, 0.4, 0.8, 0.8], nan_ok=True)
    # What no shifted input covers is no glass.
    covered = composed(np.array([[0.3, 1.0]]), patch, patch_coverage=np.array([[0, 1, 1, 1]]))
    assert covered[0] == pytest.approx([0.3, 0.35, 0.8, 0.8])


def test_all_pairs_are_those_of_one_with_one():
    region, patch = RNG.random((6, 2, 2)), RNG.random((6, 8, 8))
    coarse, fine = np.full((2, 2), 4), np.arange(64).reshape(8, 8) % 3
    pairs = all_pairs(region, patch, weight=0.3, region_coverage=coarse, patch_coverage=fine)
    assert pairs.shape == (6, 6, 8, 8)
    for j, i in np.ndindex(6, 6):
        one = composed(region[j], patch[i], weight=0.3, region_coverage=coarse, patch_coverage=fine)
        assert np.array_equal(pairs[j, i], one)
    assert all_pairs(region, patch)[2, 5] == pytest.approx(composed(region[2], patch[5]))


def test_enlarging_repeats_tokens_of_any_type():
    small = np.array([[1, 2], [3, 4]], np.uint16)
    large = enlarged(small, 4, 6)
    assert large.dtype == np.uint16
    assert large.tolist() == [[1, 1, 1, 2, 2, 2]] * 2 + [[3, 3, 3, 4, 4, 4]] * 2
    assert enlarged(small, 2, 2) is small


def test_patches_are_laid_out_as_they_lie():
    patches = RNG.random((6, 2, 3, 4, 5))
    whole = laid_out(patches)
    assert whole.shape == (6, 8, 15)
    assert np.array_equal(whole[1, 4:8, 5:10], patches[1, 1, 1])


def test_heads_are_put_together_by_mean_or_max():
    maps = RNG.random((3, 6, 2, 2)).astype(np.float32)
    assert over_heads(maps) == pytest.approx(np.array([sum(layer) / 6 for layer in maps]))
    assert np.array_equal(over_heads(maps, "max"), np.array([np.maximum.reduce(layer) for layer in maps]))


def test_wrong_arguments_are_told():
    with pytest.raises(DataError, match="between 0 and 1"):
        composed(np.ones((1, 1)), np.ones((1, 1)), weight=1.5)
    with pytest.raises(DataError, match="multiple of both sides"):
        composed(np.ones((3, 3)), np.ones((4, 4)))
    with pytest.raises(DataError, match="do not fit each other"):
        composed(np.ones((3, 1, 1)), np.ones((2, 1, 1)))
    with pytest.raises(DataError, match="four axes"):
        laid_out(np.ones((2, 2)))
    with pytest.raises(DataError, match="mean or max"):
        over_heads(np.ones((2, 2, 2)), "median")

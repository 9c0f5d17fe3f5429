"""A head as a prior for nuclei: seeds lie where it looks most, and nuclei can be proposed from them."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_nucleiseg.core.attention.grid import TokenGrid
from napari_nucleiseg.core.attention.seeds import prior_of, seeds_of
from napari_nucleiseg.core.edits.proposal import propose
from napari_nucleiseg.core.errors import DataError
from napari_nucleiseg.core.geometry import YX, Region

MPP = YX(0.25, 0.25)
# Tokens of 8 um on a slide of 0.25 um per pixel.
GRID = TokenGrid(8, 8, YX(32, 32), YX(1000, 2000))


def peaks(*places):
    """A flat map with a hill at each place, the first one highest."""
    rows, columns = np.mgrid[:8, :8]
    hills = [(1 - 0.1 * i) * np.exp(-((rows - y) ** 2 + (columns - x) ** 2)) for i, (y, x) in enumerate(places)]
    return np.max(hills, axis=0)


def test_seeds_are_the_centres_of_the_strongest_tokens_in_pixels_of_level_0():
    found = seeds_of(peaks((1, 6), (5, 2)), GRID, MPP)
    # Token 1 reaches from pixel 32 to 63, the middle of whose centres is 47.5.
    assert found.tolist() == [[1000 + 47.5, 2000 + 207.5], [1000 + 175.5, 2000 + 79.5]]


def test_of_two_seeds_that_are_too_near_the_stronger_stays():
    attention = np.zeros((8, 8))
    attention[2, 2], attention[2, 4], attention[6, 6] = 0.8, 0.9, 0.5
    assert len(seeds_of(attention, GRID, MPP, distance_um=16)) == 3
    found = seeds_of(attention, GRID, MPP, distance_um=16.1)
    assert found.tolist() == [[1079.5, 2143.5], [1207.5, 2207.5]]


def test_distances_are_micrometres_down_and_across():
    attention = np.zeros((8, 8))
    attention[2, 2], attention[2, 4], attention[6, 2] = 0.8, 0.9, 0.7
    # Pixels twice as tall as wide: two tokens across are 8 um, four down 32.
    found = seeds_of(attention, GRID, YX(0.25, 0.125), distance_um=10)
    assert len(found) == 2


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.floats(0, 60), st.floats(0, 99))
def test_seeds_are_local_maxima_inside_the_prior_and_apart(seed, distance_um, percentile):
    attention = np.random.default_rng(seed).random((8, 8))
    found = seeds_of(attention, GRID, MPP, percentile=percentile, distance_um=distance_um)
    inside = prior_of(attention, percentile)
    padded = np.pad(attention, 1)
    last = np.inf
    for y, x in found:
        row, column = int((y + 0.5 - 1000) // 32), int((x + 0.5 - 2000) // 32)
        value = attention[row, column]
        assert inside[row, column]
        assert value == padded[row : row + 3, column : column + 3].max()
        assert value <= last
        last = value
    gaps = np.linalg.norm((found[:, None] - found) * 0.25, axis=-1)
    assert (gaps[~np.eye(len(found), dtype=bool)] >= distance_um - 1e-9).all()
    assert len(found)


def test_unknown_tokens_and_flat_maps_have_no_seeds():
    attention = peaks((1, 6), (5, 2))
    attention[:4] = np.nan
    assert len(seeds_of(attention, GRID, MPP)) == 1
    assert not prior_of(attention)[:4].any()
    assert seeds_of(np.full((8, 8), 0.5), GRID, MPP).shape == (0, 2)


def test_the_prior_holds_the_share_that_was_asked_for():
    attention = np.arange(100.0).reshape(10, 10)
    assert prior_of(attention, 75).sum() == 25
    assert prior_of(attention, 75).ravel()[75:].all()


def test_a_map_is_painted_on_a_raster_of_any_size():
    values = np.arange(64.0).reshape(8, 8)
    fine = GRID.on_pixels(values, Region(1000, 2000, 256, 256), (16, 16))
    assert np.array_equal(fine, np.kron(values, np.ones((2, 2))))
    part = GRID.on_pixels(values, Region(984, 1984, 64, 64), (4, 4), outside=-1)
    assert part.tolist() == [[-1] * 4, [-1, 0, 0, 1], [-1, 0, 0, 1], [-1, 8, 8, 9]]


def test_nuclei_are_proposed_from_seeds_on_the_painted_prior():
    attention = peaks((1, 6), (5, 2))
    region = Region(1000, 2000, 256, 256)
    foreground = GRID.on_pixels(prior_of(attention, 90), region, (256, 256))
    image = np.zeros((256, 256), np.uint32)
    for y, x in seeds_of(attention, GRID, MPP, percentile=90):
        patch = propose(foreground, image, (y - region.y, x - region.x))
        assert patch is not None
        assert patch.box.contains_point(y - region.y, x - region.x)


def test_wrong_arguments_are_told():
    attention = peaks((1, 6))
    with pytest.raises(DataError, match="between 0 and 100"):
        prior_of(attention, 101)
    with pytest.raises(DataError, match="0 um or more"):
        seeds_of(attention, GRID, MPP, distance_um=-1)
    with pytest.raises(DataError, match="same region"):
        seeds_of(attention[:4], GRID, MPP)
    with pytest.raises(DataError, match="wait until"):
        seeds_of(np.full((8, 8), np.nan), GRID, MPP)


def test_seeds_of_a_large_view_are_found_at_once():
    attention = np.random.default_rng(0).random((256, 256))
    began = time.perf_counter()
    found = seeds_of(attention, TokenGrid(256, 256, YX(16, 16)), MPP)
    assert len(found) > 1000
    assert time.perf_counter() - began < 2

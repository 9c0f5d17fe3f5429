"""Attention of nuclei, against a loop over nuclei and pixels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skimage.draw import ellipse
from skimage.measure import regionprops_table

from napari_nucleiseg.core.attention.grid import TokenGrid
from napari_nucleiseg.core.attention.per_nucleus import NucleiAttention, cover_of_pixels, cover_of_table
from napari_nucleiseg.core.errors import DataError
from napari_nucleiseg.core.geometry import YX, Region

label_images = arrays(np.uint32, (9, 12), elements=st.sampled_from([0, 0, 1, 2, 7, 4_000_000_000]))


def slow(image, attention, grid):
    """Mean and maximum over the pixels of each nucleus, pixel by pixel."""
    means, maxima = [], []
    ids = [number for number in np.unique(image) if number]
    for number in ids:
        values = []
        for y, x in np.argwhere(image == number):
            row = int(np.floor((y + 0.5 - grid.origin.y) / grid.token_px.y))
            column = int(np.floor((x + 0.5 - grid.origin.x) / grid.token_px.x))
            if 0 <= row < grid.rows and 0 <= column < grid.columns and not np.isnan(attention[row, column]):
                values.append(attention[row, column])
        means.append(np.mean(values) if values else np.nan)
        maxima.append(max(values) if values else np.nan)
    return ids, means, maxima


@settings(deadline=None, max_examples=60)
@given(
    label_images,
    st.tuples(st.floats(0.7, 5), st.floats(0.7, 5)),
    st.tuples(st.floats(-4, 4), st.floats(-4, 4)),
    st.integers(0, 2**32 - 1),
)
def test_means_and_maxima_are_those_of_every_pixel(image, token, origin, seed):
    rng = np.random.default_rng(seed)
    grid = TokenGrid(3, 4, YX(*token), YX(*origin))
    attention = np.where(rng.random(grid.shape) < 0.2, np.nan, rng.random(grid.shape))
    found = cover_of_pixels(image, grid).measure(attention)
    ids, means, maxima = slow(image, attention, grid)
    assert found.ids.dtype == np.uint32
    assert found.ids.tolist() == ids
    assert found.means == pytest.approx(np.array(means), nan_ok=True, abs=1e-6)
    assert found.maxima == pytest.approx(np.array(maxima), nan_ok=True, abs=1e-6)


def test_a_nucleus_across_two_tokens_is_weighted_by_its_pixels():
    image = np.zeros((2, 8), np.uint32)
    image[:, 3:7] = 5
    image[0, 0] = 9
    grid = TokenGrid(1, 2, YX(2, 4))
    found = cover_of_pixels(image, grid).measure(np.array([[0.0, 1.0]]))
    assert found.ids.tolist() == [5, 9]
    assert found.means.tolist() == [0.75, 0]
    assert found.maxima.tolist() == [1, 0]


def test_one_cover_serves_all_heads():
    image = np.kron(np.arange(6, dtype=np.uint32).reshape(2, 3), np.ones((4, 4), np.uint32))
    cover = cover_of_pixels(image, TokenGrid(2, 3, YX(4, 4)))
    for head in np.random.default_rng(0).random((6, 2, 3)):
        assert cover.measure(head).means == pytest.approx(head.ravel()[1:], abs=1e-6)


def test_rows_of_a_table_measure_nearly_what_pixels_do():
    rng = np.random.default_rng(0)
    image, number = np.zeros((256, 256), np.uint32), 0
    for y in range(16, 250, 24):
        for x in range(16, 250, 24):
            number += 1
            image[ellipse(y + rng.uniform(-3, 3), x, rng.uniform(5, 9), rng.uniform(5, 9), rotation=0)] = number
    region = Region(1000, 2000, 256, 256)
    table = regionprops_table(image.astype(np.int32), properties=("centroid", "bbox"))
    centroids = np.stack([table["centroid-0"] + region.y, table["centroid-1"] + region.x], axis=1)
    boxes = np.stack([table[f"bbox-{i}"] for i in range(4)], axis=1) + np.array([region.y, region.x] * 2)
    token = YX(16, 16)
    attention = rng.random((16, 16))
    pixels = cover_of_pixels(image, TokenGrid(16, 16, token)).measure(attention)
    ids = np.arange(1, number + 1, dtype=np.uint32)
    rows = cover_of_table(ids, centroids, boxes, TokenGrid(16, 16, token, YX(region.y, region.x))).measure(attention)
    assert np.array_equal(rows.ids, pixels.ids)
    assert np.abs(rows.means - pixels.means).mean() < 0.02
    assert np.abs(rows.means - pixels.means).max() < 0.1
    assert (rows.maxima <= pixels.maxima + 1e-6).all()


def test_a_row_of_one_token_has_its_value():
    cover = cover_of_table(
        np.array([3], np.uint32), np.array([[11.5, 3.5]]), np.array([[8, 0, 16, 8]]), TokenGrid(2, 1, YX(8, 8))
    )
    found = cover.measure(np.array([[0.25], [0.75]]))
    assert (found.means.tolist(), found.maxima.tolist()) == ([0.75], [0.75])


def test_percentiles_are_ranks_among_the_nuclei_that_are_known():
    means = np.array([0.3, np.nan, 0.1, 0.3, 0.9], np.float32)
    found = NucleiAttention(np.arange(1, 6, dtype=np.uint32), means, means)
    assert found.percentiles == pytest.approx([0.625, np.nan, 0.25, 0.625, 1], nan_ok=True)


@settings(deadline=None)
@given(arrays(np.float32, 9, elements=st.integers(0, 5)))
def test_percentiles_do_not_change_with_a_rising_transform(means):
    ids = np.arange(9, dtype=np.uint32)
    want = NucleiAttention(ids, means, means).percentiles
    assert np.array_equal(want, NucleiAttention(ids, np.exp(means), means).percentiles)


def test_no_nuclei_are_measured_too():
    found = cover_of_pixels(np.zeros((4, 4), np.uint32), TokenGrid(1, 1, YX(4, 4))).measure(np.ones((1, 1)))
    assert len(found.ids) == len(found.means) == len(found.maxima) == len(found.percentiles) == 0
    empty = np.zeros((0, 4), np.int64)
    rows = cover_of_table(np.zeros(0, np.uint32), np.zeros((0, 2)), empty, TokenGrid(1, 1, YX(4, 4)))
    assert len(rows.measure(np.ones((1, 1))).means) == 0


def test_a_map_of_another_region_is_refused():
    with pytest.raises(DataError, match="give both of the same region"):
        cover_of_pixels(np.ones((4, 4), np.uint32), TokenGrid(1, 1, YX(4, 4))).measure(np.ones((2, 2)))


def test_a_grid_of_nothing_is_refused():
    with pytest.raises(DataError, match="choose a larger region"):
        TokenGrid(0, 4, YX(16, 16))
    with pytest.raises(DataError, match="covers nothing"):
        TokenGrid(4, 4, YX(0, 16))

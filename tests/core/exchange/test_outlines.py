"""Outlines: known polygons, and filling them gives the same pixels back."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skimage.draw import polygon2mask

from napari_nucleiseg.core.exchange.outlines import polygons_of


def filled(polygons, shape):
    """Pixels whose centre lies inside; the outer ring adds, holes take away."""
    mask = np.zeros(shape, bool)
    for outer, *holes in polygons:
        part = polygon2mask(shape, outer[:, ::-1] - 0.5)
        for hole in holes:
            part &= ~polygon2mask(shape, hole[:, ::-1] - 0.5)
        mask |= part
    return mask


def test_a_square_runs_along_its_pixel_edges_with_its_corners_cut():
    mask = np.zeros((5, 6), bool)
    mask[1:4, 2:5] = True
    ((ring,),) = polygons_of(mask)
    assert ring[0].tolist() == ring[-1].tolist()
    assert {tuple(point) for point in ring.tolist()} == {
        (2.5, 1), (4.5, 1), (5, 1.5), (5, 3.5), (4.5, 4), (2.5, 4), (2, 3.5), (2, 1.5),
    }  # fmt: skip


def test_a_single_pixel_is_a_diamond_around_its_centre():
    ((ring,),) = polygons_of(np.ones((1, 1), bool))
    assert {tuple(point) for point in ring.tolist()} == {(0.5, 0), (1, 0.5), (0.5, 1), (0, 0.5)}


def test_parts_and_holes_are_told_apart():
    mask = np.zeros((12, 20), bool)
    mask[1:9, 1:9] = True
    mask[4:6, 4:6] = False
    mask[3:7, 12:18] = True
    polygons = sorted(polygons_of(mask), key=len)
    assert [len(polygon) for polygon in polygons] == [1, 2]
    np.testing.assert_array_equal(filled(polygons, mask.shape), mask)


def test_no_pixel_gives_no_polygon():
    assert polygons_of(np.zeros((4, 4), bool)) == []


@settings(max_examples=150, deadline=None)
@given(arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_filling_an_exact_outline_gives_the_same_pixels(mask):
    np.testing.assert_array_equal(filled(polygons_of(mask), mask.shape), mask)


@pytest.mark.parametrize("tolerance_px", [0.2, 0.35, 0.5])
def test_simplified_outlines_have_fewer_points_and_nearly_the_same_pixels(tolerance_px):
    y, x = np.mgrid[:60, :60]
    mask = ((y - 30) / 24) ** 2 + ((x - 28) / 15) ** 2 <= 1
    exact, simple = polygons_of(mask), polygons_of(mask, tolerance_px)
    assert len(simple[0][0]) <= len(exact[0][0])
    back = filled(simple, mask.shape)
    assert np.sum(back & mask) / np.sum(back | mask) > 0.97

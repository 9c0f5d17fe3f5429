"""Outlines: known rings, and filling them gives the same pixels back; whole numbers as text."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from skimage.draw import polygon2mask

from napari_nucleiseg.core.exchange.coordinates import ring_texts
from napari_nucleiseg.core.exchange.outlines import Outlines, doubled_area, simplified, trace

MASKS = arrays(bool, st.tuples(st.integers(1, 12), st.integers(1, 12)))


def traced(mask):
    return trace(mask.astype(np.int64), np.array([1]), np.array([[0, 0, *mask.shape]]), (0, 0))


def filled(outlines, shape):
    """Pixels whose centre lies inside; the outer ring adds, holes take away."""
    mask = np.zeros(shape, bool)
    for _, polygons in outlines.polygons():
        for outer, *holes in polygons:
            part = polygon2mask(shape, outlines.ring(outer)[:, ::-1] - 0.5)
            for hole in holes:
                part &= ~polygon2mask(shape, outlines.ring(hole)[:, ::-1] - 0.5)
            mask |= part
    return mask


def test_a_rectangle_runs_along_its_pixel_edges():
    mask = np.zeros((5, 6), bool)
    mask[1:4, 2:5] = True
    outlines = traced(mask)
    assert outlines.ring(0).tolist() == [[2, 1], [5, 1], [5, 4], [2, 4]]
    assert doubled_area(outlines.ring(0)) == 2 * 9


def test_parts_and_holes_are_told_apart():
    mask = np.zeros((12, 20), bool)
    mask[1:9, 1:9] = True
    mask[4:6, 4:6] = False
    mask[3:7, 12:18] = True
    ((row, polygons),) = traced(mask).polygons()
    assert row == 0
    assert sorted(len(polygon) for polygon in polygons) == [1, 2]


def test_a_hole_goes_to_the_part_around_it_not_to_the_one_around_that():
    mask = np.ones((15, 15), bool)
    mask[2:13, 2:13] = False
    mask[4:11, 4:11] = True
    mask[6:9, 6:9] = False
    outlines = traced(mask)
    ((_, polygons),) = outlines.polygons()
    found = {int(doubled_area(outlines.ring(a)) / 2): int(-doubled_area(outlines.ring(b)) / 2) for a, b in polygons}
    assert found == {225: 121, 49: 9}


def test_no_pixel_gives_no_ring():
    outlines = traced(np.zeros((4, 4), bool))
    assert list(outlines.polygons()) == []
    assert ring_texts(outlines) == []


@settings(max_examples=200, deadline=None)
@given(MASKS)
def test_filling_an_outline_gives_the_same_pixels(mask):
    np.testing.assert_array_equal(filled(traced(mask), mask.shape), mask)


@settings(max_examples=200, deadline=None)
@given(MASKS)
def test_no_ring_touches_itself_and_signs_tell_holes(mask):
    outlines = traced(mask)
    for index, hole in enumerate(outlines.holes):
        ring = outlines.ring(index)
        assert len(np.unique(ring, axis=0)) == len(ring)
        assert (np.count_nonzero(np.diff(ring, axis=0), axis=1) == 1).all()
        assert (doubled_area(ring) < 0) == hole


def test_many_nuclei_of_all_sizes_at_once_are_what_they_are_alone(labels):
    ids = np.unique(labels)[1:]
    boxes = []
    for nucleus in ids:
        ys, xs = np.nonzero(labels == nucleus)
        boxes.append((ys.min(), xs.min(), ys.max() + 1, xs.max() + 1))
    outlines = trace(labels, ids, np.array(boxes), (0, 0))
    assert [row for row, _ in outlines.polygons()] == list(range(len(ids)))
    for row, polygons in outlines.polygons():
        y0, x0, y1, x1 = boxes[row]
        alone = traced(labels[y0:y1, x0:x1] == ids[row])
        own = sorted((outlines.ring(ring) - (x0, y0)).tolist() for polygon in polygons for ring in polygon)
        assert own == sorted(alone.ring(ring).tolist() for ring in range(len(alone.owners)))


@pytest.mark.parametrize("tolerance_px", [0.35, 0.5])
def test_simplified_outlines_have_fewer_points_and_nearly_the_same_pixels(tolerance_px):
    y, x = np.mgrid[:60, :60]
    mask = ((y - 30) / 24) ** 2 + ((x - 28) / 15) ** 2 <= 1
    ring = traced(mask).ring(0) + 200_000
    simple = simplified(ring, tolerance_px)
    assert len(simple) < 0.7 * len(ring)
    back = polygon2mask(mask.shape, simple[:, ::-1] - 200_000.5)
    assert np.sum(back & mask) / np.sum(back | mask) > 0.97


@given(st.lists(st.tuples(st.integers(0, 10**8 - 1), st.integers(0, 10**8 - 1)), min_size=3, max_size=30), st.data())
def test_texts_of_rings_are_json(points, data):
    cut = data.draw(st.integers(1, len(points) - 1))
    rings = points[:cut], points[cut:]
    outlines = Outlines(np.array(points), np.array([0, cut, len(points)]), np.arange(2), np.zeros(2, bool))
    for text, ring in zip(ring_texts(outlines), rings, strict=True):
        assert json.loads(text) == [list(point) for point in (*ring, ring[0])]

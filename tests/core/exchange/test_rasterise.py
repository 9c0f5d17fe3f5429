"""Filling: the even-odd rule at pixel centres, for any rings, as computed the slow way."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_nucleiseg.core.exchange.outlines import trace
from napari_nucleiseg.core.exchange.rasterise import Rings, crossings_of, fill
from napari_nucleiseg.core.geometry import Region

SIDE = 12
LIMITS = Region(0, 0, SIDE, SIDE)
# Quarters, so that the slow way has no rounding either; many lie on pixel centres and edges, some outside.
PLACES = st.integers(-12, 4 * SIDE + 12).map(lambda quarters: quarters / 4)
RING = st.lists(st.tuples(PLACES, PLACES), min_size=1, max_size=7)
SHAPES = st.lists(st.lists(RING, min_size=1, max_size=3), min_size=1, max_size=4)


def rings_of(shapes):
    rings = [ring for shape in shapes for ring in shape]
    owners = np.repeat(np.arange(len(shapes)), [len(shape) for shape in shapes])
    starts = np.concatenate([[0], np.cumsum([len(ring) for ring in rings])])
    return Rings(np.concatenate([np.array(ring, float).reshape(-1, 2) for ring in rings]), starts, owners)


def masks_of(spans, n, shape=(SIDE, SIDE)):
    masks = np.zeros((n, *shape), bool)
    for owner, row, start, stop in zip(spans.owners, spans.rows, spans.starts, spans.stops, strict=True):
        assert start < stop
        assert not masks[owner, row, start:stop].any()
        masks[owner, row, start:stop] = True
    return masks


def slowly(shape):
    """Count for each pixel centre the edges that a ray to the left crosses."""
    mask = np.zeros((SIDE, SIDE), bool)
    for row in range(SIDE):
        for column in range(SIDE):
            x, y = column + 0.5, row + 0.5
            crossed = 0
            for ring in shape:
                for (ax, ay), (bx, by) in zip(ring, ring[1:] + ring[:1], strict=True):
                    if (ay <= y) != (by <= y):
                        crossed += ax + (y - ay) * (bx - ax) / (by - ay) <= x
            mask[row, column] = crossed % 2
    return mask


@settings(max_examples=150, deadline=None)
@given(SHAPES)
def test_any_rings_are_filled_by_the_even_odd_rule(shapes):
    masks = masks_of(fill(rings_of(shapes), LIMITS), len(shapes))
    for mask, shape in zip(masks, shapes, strict=True):
        # At slanted edges through a centre the slow way rounds otherwise.
        unlike = mask ^ slowly(shape)
        assert not unlike.any() or all(on_an_edge(shape, place) for place in np.argwhere(unlike))


def on_an_edge(shape, place):
    y, x = place + 0.5
    return any(
        abs((bx - ax) * (y - ay) - (by - ay) * (x - ax)) < 1e-9
        for ring in shape
        for (ax, ay), (bx, by) in zip(ring, ring[1:] + ring[:1], strict=True)
    )


def test_exported_outlines_come_back_exactly(labels):
    ids = np.unique(labels)[1:]
    boxes = np.array(
        [(ys.min(), xs.min(), ys.max() + 1, xs.max() + 1) for ys, xs in (np.nonzero(labels == i) for i in ids)]
    )
    outlines = trace(labels, ids, boxes, (0, 0))
    rings = Rings(outlines.points.astype(float), outlines.starts, outlines.owners)
    spans = fill(rings, Region(0, 0, *labels.shape))
    back = np.zeros_like(labels)
    for owner, row, start, stop in zip(spans.owners, spans.rows, spans.starts, spans.stops, strict=True):
        back[row, start:stop] = ids[owner]
    np.testing.assert_array_equal(back, labels)


@given(st.lists(st.tuples(PLACES, PLACES), min_size=3, max_size=3), PLACES)
def test_shapes_with_a_common_edge_share_no_pixel_and_leave_none_between(triangle, x):
    # A triangle cut in two by a line from its first corner to the opposite side.
    a, b, c = triangle
    middle = ((b[0] + c[0]) / 2, (b[1] + c[1]) / 2)
    halves = masks_of(fill(rings_of([[[a, b, middle]], [[a, middle, c]]]), LIMITS), 2)
    (whole,) = masks_of(fill(rings_of([[[a, b, middle, c]]]), LIMITS), 1)
    assert not (halves[0] & halves[1]).any()
    np.testing.assert_array_equal(halves[0] | halves[1], whole)


def test_coordinates_beyond_all_bounds_are_cut_before_they_need_memory():
    far = rings_of([[[(-1e300, -1e300), (1e300, -1e300), (1e300, 1e300), (-1e300, 1e300)]]])
    assert crossings_of(far, LIMITS).tolist() == [2 * SIDE]
    assert masks_of(fill(far, LIMITS), 1).all()

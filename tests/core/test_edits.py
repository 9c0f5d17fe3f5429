"""Edits of an instance map agree with slow references, touch nothing else and can be taken back."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from napari_nucleiseg.core import edits
from napari_nucleiseg.core.edits import Edited, Patch
from napari_nucleiseg.core.errors import NucleiSegError
from napari_nucleiseg.core.geometry import Region

A, B, C, NEW = 7, 2**31 + 5, 2**32 - 1, 2**31 + 99
NEIGHBOURS = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1) if (y, x) != (0, 0)]
CROSS = [(-1, 0), (1, 0), (0, -1), (0, 1)]


def frozen(image):
    image = np.array(image, np.uint32)
    image.flags.writeable = False
    return image


quick = settings(max_examples=150, deadline=None, derandomize=True)
shapes = st.tuples(st.integers(1, 13), st.integers(1, 13))
coordinates = st.floats(-4, 16, allow_nan=False, width=32)
points = st.lists(st.tuples(coordinates, coordinates), min_size=0, max_size=6).map(
    lambda found: np.array(found, np.float64).reshape(-1, 2)
)
radii = st.sampled_from([0.2, 0.5, 1, 1.5, 2, 2.5, math.sqrt(5), 4])


@st.composite
def noises(draw):
    """A map of single pixels, with many pieces, corners and holes."""
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    share = draw(st.sampled_from([0.1, 0.3, 0.6]))
    chances = [share, *draw(st.permutations([(1 - share) * part for part in (0.8, 0.15, 0.05)]))]
    return frozen(random.choice([0, A, B, C], draw(shapes), p=chances))


noise = noises()


@st.composite
def blobs(draw):
    """A map of a few discs that cover each other."""
    image = np.zeros((24, 28), np.uint32)
    for number in draw(st.permutations([A, B, C])):
        y, x, radius = draw(st.integers(0, 23)), draw(st.integers(0, 27)), draw(st.integers(1, 8))
        image[disc(image.shape, y, x, radius)] = number
    return frozen(image)


def disc(shape, y, x, radius):
    ys, xs = np.ogrid[: shape[0], : shape[1]]
    return (ys - y) ** 2 + (xs - x) ** 2 <= radius**2


def over_map(shape, patch):
    mask = np.zeros(shape, bool)
    mask[patch.box.slices] = patch.mask
    return mask


def drawn(*rows):
    """A map from text: '.' is background, letters are A, B, C."""
    names = {".": 0, "A": A, "B": B, "C": C}
    return frozen([[names[letter] for letter in row] for row in rows])


def after(image, edited):
    """The edited map; checks what holds of every edit."""
    if edited is None:
        return image
    box = edited.box
    assert edited.before.dtype == edited.after.dtype == np.uint32
    assert edited.before.shape == edited.after.shape == (box.height, box.width)
    np.testing.assert_array_equal(edited.before, image[box.slices])
    changed = edited.before != edited.after
    assert changed[0].any()
    assert changed[-1].any()
    assert changed[:, 0].any()
    assert changed[:, -1].any()
    result = edits.apply(image, edited)
    np.testing.assert_array_equal(result[box.slices], edited.after)
    assert (result != image).sum() == changed.sum()
    np.testing.assert_array_equal(edits.apply(result, edits.inverse(edited)), image)
    assert set(edited.ids.tolist()) == (set(image[result != image]) | set(result[result != image])) - {0}
    return result


def only_changed(image, result, number, gains_from=(0,)):
    """Whether all pixels that changed were gained by one nucleus from these ids, or lost to background."""
    changed = image != result
    gained = changed & (result == number)
    lost = changed & ~gained
    return set(image[gained]) <= set(gains_from) and set(image[lost]) <= {number} and not result[lost].any()


def flood(mask, start, steps):
    """Connected true pixels from a start, one at a time."""
    found, todo = np.zeros_like(mask), [start]
    while todo:
        y, x = todo.pop()
        if 0 <= y < mask.shape[0] and 0 <= x < mask.shape[1] and mask[y, x] and not found[y, x]:
            found[y, x] = True
            todo += [(y + dy, x + dx) for dy, dx in steps]
    return found


def components(mask, steps=NEIGHBOURS):
    rest, found = mask.copy(), []
    while rest.any():
        found.append(flood(rest, tuple(np.argwhere(rest)[0]), steps))
        rest &= ~found[-1]
    return found


def distances(shape, others):
    """Distance of each pixel to the nearest of some points; infinite without points."""
    result = np.full(shape, np.inf)
    ys, xs = np.ogrid[: shape[0], : shape[1]]
    for y, x in others:
        result = np.minimum(result, np.hypot(ys - y, xs - x))
    return result


# Brush


def slow_stroke(shape, centres, radius):
    centres = np.floor(centres + 0.5)
    mask = np.zeros(shape, bool)
    for pixel in np.ndindex(*shape):
        for a, b in zip(centres[: max(1, len(centres) - 1)], centres[min(1, len(centres) - 1) :], strict=True):
            way = b - a
            along = 0 if not way.any() else min(1, max(0, (pixel - a) @ way / (way @ way)))
            mask[pixel] |= np.linalg.norm(a + along * way - pixel) <= max(radius, 0.5) + 1e-7
    return mask


@quick
@given(image=noise, centres=points, radius=radii, over=st.sampled_from(["all", "preserve", 0, A, B]))
def test_the_brush_paints_what_is_near_the_path(image, centres, radius, over):
    options = {"all": {}, "preserve": {"preserve": True}}.get(over, {"only_over": over})
    result = after(image, edits.paint(image, B, centres, radius, **options))
    where = slow_stroke(image.shape, centres, radius) if len(centres) else np.zeros(image.shape, bool)
    if over != "all":
        where &= image == (0 if over == "preserve" else over)
    np.testing.assert_array_equal(result, np.where(where, np.uint32(B), image))


@quick
@given(image=noise, centres=points, radius=radii, only=st.sampled_from([None, A, C]))
def test_the_eraser_erases_what_is_near_the_path(image, centres, radius, only):
    result = after(image, edits.erase(image, centres, radius, only=only))
    where = slow_stroke(image.shape, centres, radius) if len(centres) else np.zeros(image.shape, bool)
    if only is not None:
        where &= image == only
    np.testing.assert_array_equal(result, np.where(where, np.uint32(0), image))


@pytest.mark.parametrize(("radius", "pixels"), [(0.1, 1), (0.5, 1), (1, 5), (1.5, 9), (2, 13), (5, 81)])
def test_a_dab_is_a_disc(radius, pixels):
    edited = edits.paint(np.zeros((40, 40), np.uint32), A, np.array([[20.4, 19.6]]), radius)
    assert (edited.after == A).sum() == pixels
    assert edited.box.centre == (20.5, 20.5)


def test_a_long_thin_stroke_has_no_gap():
    image = np.zeros((600, 900), np.uint32)
    edited = edits.paint(image, A, np.array([[-50.0, -70.0], [590.0, 880.0], [10.0, 890.0]]), 0.5)
    assert len(edits.pieces(edits.apply(image, edited), A)) == 1


def test_a_brush_outside_the_map_paints_nothing():
    image = np.zeros((9, 9), np.uint32)
    assert edits.paint(image, A, np.array([[-30.0, 4.0]]), 3) is None
    assert edits.paint(image, A, np.zeros((0, 2)), 3) is None


# Polygon


def slow_polygon(shape, vertices):
    mask = np.zeros(shape, bool)
    for y, x in np.ndindex(*shape):
        for (ay, ax), (by, bx) in zip(vertices, np.roll(vertices, -1, axis=0), strict=True):
            if (ay <= y) != (by <= y):
                mask[y, x] ^= x >= ax + (y - ay) * (bx - ax) / (by - ay)
    return mask


@quick
@given(image=noise, vertices=points, over_others=st.booleans())
def test_a_polygon_takes_the_largest_free_piece_inside(image, vertices, over_others):
    # Whether a centre exactly on an edge is inside may hang on rounding; whole numbers are tested by hand.
    vertices = vertices + 0.0123
    result = after(image, edits.draw_polygon(image, B, vertices, over_others=over_others))
    if len(vertices) < 3:
        assert result is image
        return
    where = slow_polygon(image.shape, vertices)
    if not over_others:
        where &= (image == 0) | (image == B)
    found = components(where) or [where]
    largest = max(piece.sum() for piece in found)
    candidates = [np.where(piece, np.uint32(B), image) for piece in found if piece.sum() == largest]
    assert any(np.array_equal(result, candidate) for candidate in candidates)


def test_polygons_with_a_common_edge_share_no_pixel_and_leave_none_out():
    image = np.zeros((8, 12), np.uint32)
    corners = [(1, 1), (1, 5), (6, 9), (6, 1)], [(1, 5), (1, 9), (6, 9)]
    left, right = (edits.draw_polygon(image, A, np.array(each, float)) for each in corners)
    both = (edits.apply(image, left) > 0).astype(int) + (edits.apply(image, right) > 0)
    expected = np.zeros_like(both)
    expected[1:6, 1:9] = 1
    np.testing.assert_array_equal(both, expected)


def test_of_a_figure_of_eight_the_larger_half_is_kept():
    bow = np.array([(0.5, 0.5), (10.5, 19.5), (0.5, 19.5), (6.5, 0.5)])
    image = np.zeros((12, 22), np.uint32)
    result = after(image, edits.draw_polygon(image, NEW, bow))
    assert len(components(result == NEW)) == 1
    assert (result == NEW).sum() <= slow_polygon(image.shape, bow).sum()


def test_polygons_without_area_draw_nothing():
    image = np.zeros((9, 9), np.uint32)
    for vertices in (
        [],
        [(1, 1)],
        [(1, 1), (5, 5)],
        [(3, 3)] * 4,
        [(1, 1), (1, 5), (1, 3)],
        [(-9, -9), (-9, -2), (-2, -9)],
    ):
        assert edits.draw_polygon(image, A, np.array(vertices, float)) is None


# Bucket


@quick
@given(image=noise, y=coordinates, x=coordinates, open_background=st.booleans())
def test_the_bucket_fills_the_pixels_that_hang_together(image, y, x, open_background):
    result = after(image, edits.fill(image, B, (y, x), open_background=open_background))
    at = math.floor(y + 0.5), math.floor(x + 0.5)
    if not (0 <= at[0] < image.shape[0] and 0 <= at[1] < image.shape[1]):
        assert result is image
        return
    where = flood(image == image[at], at, NEIGHBOURS if image[at] else CROSS)
    rim = where[0].any() or where[-1].any() or where[:, 0].any() or where[:, -1].any()
    if not image[at] and rim and not open_background:
        where[:] = False
    np.testing.assert_array_equal(result, np.where(where, np.uint32(B), image))


def test_the_bucket_fills_an_outline_that_closes_at_corners():
    image = drawn(".....", "..A..", ".A.A.", "..A..", ".....")
    result = after(image, edits.fill(image, A, (2, 2)))
    np.testing.assert_array_equal(result, drawn(".....", "..A..", ".AAA.", "..A..", "....."))
    assert edits.fill(image, A, (0, 0)) is None
    assert edits.fill(image, A, (1, 2)) is None


def test_the_bucket_reaches_far():
    image = np.zeros((700, 900), np.uint32)
    image[3:690, 5:880] = C
    image[:, 400] = C
    assert (after(image, edits.fill(image, B, (300, 300))) == C).sum() == 0


# Deleting


@quick
@given(image=noise, ids=st.lists(st.sampled_from([A, B, C, 5]), max_size=4))
def test_deleting_removes_those_and_no_others(image, ids):
    result = after(image, edits.delete(image, ids))
    np.testing.assert_array_equal(result, np.where(np.isin(image, np.array(ids, np.uint32)), np.uint32(0), image))


@quick
@given(image=st.one_of(noise, blobs()), vertices=points)
def test_nuclei_with_their_centroid_inside_are_deleted(image, vertices):
    vertices = vertices * 1.5 + 0.0123
    found = edits.delete_inside(image, vertices)
    expected = []
    for number in (A, B, C):
        where = np.argwhere(image == number)
        if len(where) and len(vertices) >= 3:
            y, x = where.mean(axis=0)
            inside = False
            for (ay, ax), (by, bx) in zip(vertices, np.roll(vertices, -1, axis=0), strict=True):
                inside ^= (ay <= y) != (by <= y) and x >= ax + (y - ay) * (bx - ax) / (by - ay)
            expected += [number] * bool(inside)
    if found is None:
        assert expected == []
        return
    edited, ids = found
    assert (ids.dtype, ids.tolist()) == (np.uint32, expected)
    np.testing.assert_array_equal(after(image, edited), np.where(np.isin(image, ids), np.uint32(0), image))


def test_a_box_limits_where_is_looked():
    image = drawn("A....", ".....", "....A")
    result = after(image, edits.delete(image, [A], box=Region(-4, -4, 5, 50)))
    np.testing.assert_array_equal(result, drawn(".....", ".....", "....A"))
    assert edits.delete(image, [A], box=Region(50, 50, 3, 3)) is None
    assert edits.delete_inside(image, np.array([(0, 0), (9, 0), (0, 9)], float), box=Region(50, 50, 3, 3)) is None


# Merging


@quick
@given(image=st.one_of(noise, blobs()), ids=st.sets(st.sampled_from([A, B, C, 5]), max_size=3), seam=st.integers(0, 4))
def test_merging_makes_one_piece_with_the_lowest_id(image, ids, seam):
    present = sorted(ids & set(image[image > 0].tolist()))
    try:
        result = after(image, edits.merge(image, ids, seam_px=seam))
    except NucleiSegError:
        assert len(components(np.isin(image, np.array(present, np.uint32)))) > 1
        return
    if len(present) < 2:
        assert result is image
        return
    mask = np.isin(image, np.array(present, np.uint32))
    others = (image > 0) & ~mask
    np.testing.assert_array_equal(result[others], image[others])
    assert (result[mask] == present[0]).all()
    assert set(result[~mask & ~others].tolist()) <= {0, present[0]}
    assert len(components(result == present[0])) == 1


def test_touching_nuclei_merge_without_taking_a_pixel_more():
    image = drawn("......", ".AABB.", ".AABB.", "......")
    np.testing.assert_array_equal(after(image, edits.merge(image, [B, A])) > 0, image > 0)


def test_a_seam_is_closed_along_its_length():
    image = np.zeros((30, 30), np.uint32)
    image[5:25, 5:13], image[5:25, 15:25] = B, A
    expected = np.zeros_like(image)
    expected[5:25, 5:25] = A
    np.testing.assert_array_equal(after(image, edits.merge(image, [A, B])), expected)


def test_a_slit_of_one_nucleus_is_no_seam():
    image = np.zeros((30, 40), np.uint32)
    image[5:25, 5:18], image[5:25, 20:35] = B, A
    image[5:15, 30:32] = 0
    expected = np.zeros_like(image)
    expected[5:25, 5:35] = A
    expected[5:15, 30:32] = 0
    np.testing.assert_array_equal(after(image, edits.merge(image, [A, B])), expected)


def test_a_wide_gap_is_bridged_and_a_wider_one_refused():
    image = np.zeros((20, 60), np.uint32)
    image[disc(image.shape, 10, 8, 5)] = A
    image[disc(image.shape, 10, 30, 5)] = B
    result = after(image, edits.merge(image, [A, B]))
    assert (result[9:12, 13:26] == A).all()
    assert (result > 0).sum() <= (image > 0).sum() + 3 * 13
    with pytest.raises(NucleiSegError, match="12 pixels apart; at most 11 are bridged"):
        edits.merge(image, [A, B], reach_px=11)


def test_nuclei_are_not_merged_through_another():
    image = np.zeros((20, 40), np.uint32)
    image[5:15, 2:10], image[:, 14:17], image[5:15, 20:30] = A, B, C
    with pytest.raises(NucleiSegError, match="Another nucleus lies between"):
        edits.merge(image, [A, C])
    assert edits.merge(image, [A, B, C]) is not None


def test_a_hole_between_two_is_filled_but_not_one_that_was_there():
    image = drawn(
        "AAAAABBBB",
        "AAAAABBBB",
        "A.AAA..BB",
        "AAAA...BB",
        "AAAA...BB",
        "AAAAA..BB",
        "AAAAABBBB",
    )
    result = after(image, edits.merge(image, [A, B], seam_px=0))
    assert result[2, 1] == 0
    assert (result == A).sum() == image.size - 1


# Splitting


def slow_parts(mask, line):
    """Pieces of a mask where neighbours across the line are parted."""

    def side(p, q, r):
        return (q[0] - p[0]) * (r[1] - p[1]) - (q[1] - p[1]) * (r[0] - p[0]) > 0

    def parted(p, q):
        return any(
            side(a, b, p) != side(a, b, q) and side(p, q, a) != side(p, q, b) for a, b in itertools.pairwise(line)
        )

    rest, found = set(map(tuple, np.argwhere(mask).tolist())), []
    while rest:
        part, todo = set(), [min(rest)]
        while todo:
            pixel = todo.pop()
            if pixel in rest:
                rest.remove(pixel)
                part.add(pixel)
                near = [(pixel[0] + dy, pixel[1] + dx) for dy, dx in NEIGHBOURS]
                todo += [other for other in near if other in rest and not parted(pixel, other)]
        found.append(part)
    return found


def prolonged(line):
    line = [
        point
        for point, before in zip(line, [None, *line[:-1]], strict=True)
        if before is None or (point != before).any()
    ]
    first, last = line[0] - line[1], line[-1] - line[-2]
    return [line[0] + first * 2 / np.linalg.norm(first), *line, line[-1] + last * 2 / np.linalg.norm(last)]


@quick
@given(image=st.one_of(noise, blobs()), line=points)
def test_a_cut_parts_the_nucleus_as_the_slow_way_does(image, line):
    line = line * 1.6 + (0.0123, 0.0057)
    result = after(image, edits.split(image, A, line, itertools.count(NEW), smallest_share=0))
    before = components(image == A)
    if len(line) < 2 or not before or (line == line[0]).all():
        assert result is image
        return
    parts = slow_parts(image == A, prolonged(line))
    assert (result is image) == (len(parts) == len(before))
    np.testing.assert_array_equal(result[image != A], image[image != A])
    whole = [set(map(tuple, np.argwhere(piece).tolist())) for piece in before]
    new = [part for part in parts if part not in whole]
    if new:
        found = [set(map(tuple, np.argwhere(result == number).tolist())) for number in range(NEW, NEW + len(new) - 1)]
        assert all(part in new for part in found)
        assert [len(part) for part in found] == sorted((len(part) for part in new), reverse=True)[1:]
        assert (result[image == A] > 0).all()
        assert set(result[image == A].tolist()) == {A, *range(NEW, NEW + len(new) - 1)}


@quick
@given(image=blobs(), line=points)
def test_a_cut_with_crumbs_gives_parts_in_one_piece_each(image, line):
    assume(len(components(image == A)) == 1)
    result = after(image, edits.split(image, A, line * 1.6, itertools.count(NEW), smallest_share=0.1))
    numbers = np.unique(result[image == A])
    assert all(len(components(result == number)) == 1 for number in numbers)
    if len(numbers) > 1:
        areas = [int((result == number).sum()) for number in numbers]
        assert min(areas) >= 0.1 * sum(areas)
        assert areas[0] == max(areas)


def test_a_cut_leaves_no_gap():
    image = np.zeros((40, 40), np.uint32)
    image[disc(image.shape, 20, 20, 12)] = B
    result = after(image, edits.split(image, B, np.array([(2.0, 16.0), (38.0, 16.0)]), [NEW]))
    assert ((result > 0) == (image > 0)).all()
    assert (result[image == B] == NEW).tolist() == (np.nonzero(image == B)[1] <= 16).tolist()


@pytest.mark.parametrize("line", [[(20, 2), (20, 22)], [(2, 2), (38, 2)], [(20, 20), (20, 20)], [(20, 20)], []])
def test_a_line_that_does_not_cross_cuts_nothing(line):
    image = np.zeros((40, 40), np.uint32)
    image[disc(image.shape, 20, 20, 12)] = B
    assert edits.split(image, B, np.array(line, float), [NEW]) is None


def test_a_closed_line_cuts_out_the_middle():
    image = np.zeros((40, 40), np.uint32)
    image[disc(image.shape, 20, 20, 15)] = B
    turn = np.linspace(0, 2 * np.pi, 40)
    ring = np.stack([20 + 6 * np.sin(turn), 20 + 6 * np.cos(turn)], axis=1)
    result = after(image, edits.split(image, B, ring, [NEW]))
    # What the prolonged ends cut besides hangs together around the tip.
    np.testing.assert_array_equal(result == NEW, disc(image.shape, 20, 20, 6) & (result == NEW))
    assert (result == NEW).sum() > 0.9 * disc(image.shape, 20, 20, 5.5).sum()


def test_a_line_that_stops_a_pixel_short_still_cuts_and_a_two_pixel_nucleus_can_be_cut():
    image = np.zeros((30, 30), np.uint32)
    image[5:25, 5:25] = B
    assert edits.split(image, B, np.array([(5.5, 15.2), (23.5, 15.2)]), [NEW]) is not None
    image = drawn("....", ".AA.", "....")
    np.testing.assert_array_equal(
        after(image, edits.split(image, A, np.array([(0, 1.5), (2, 1.5)]), [B])), drawn("....", ".AB.", "....")
    )
    image = drawn("...", ".A.", "...")
    assert edits.split(image, A, np.array([(0, 1), (2, 1)]), [B]) is None


def test_an_unsteady_line_makes_no_crumbs():
    image = np.zeros((60, 60), np.uint32)
    image[disc(image.shape, 30, 30, 20)] = A
    rows = np.arange(0.0, 60.0)
    line = np.stack([rows, 30 + 1.7 * np.sin(rows * 2.3)], axis=1)
    line = np.concatenate([line, line[::-1] + 0.4])
    result = after(image, edits.split(image, A, line, [NEW]))
    assert len(components(result == A)) == len(components(result == NEW)) == 1


def test_pieces_that_the_line_does_not_cross_keep_the_id():
    image = np.zeros((30, 60), np.uint32)
    image[5:25, 5:25] = A
    image[5:25, 30:36] = A
    result = after(image, edits.split(image, A, np.array([(0, 20), (29, 20)]), [NEW]))
    assert (result[5:25, 30:36] == A).all()
    assert (result[5:25, 20:25] == NEW).all() or (result[5:25, 21:25] == NEW).all()


def test_too_few_or_unfit_new_ids_are_an_error():
    image = np.zeros((30, 30), np.uint32)
    image[5:25, 5:25] = A
    comb = np.array([(0, 10.5), (29, 10.5), (29, 18.5), (0, 18.5)])
    with pytest.raises(ValueError, match="2 new ids are needed, but only 1"):
        edits.split(image, A, comb, [NEW])
    for unfit in ([NEW, NEW], [NEW, A], [0, 1], [2**32, 1]):
        with pytest.raises(ValueError, match=r"must differ|lies between"):
            edits.split(image, A, comb, unfit)


@quick
@given(image=blobs(), line=st.lists(st.tuples(coordinates, coordinates), min_size=2, max_size=30))
def test_a_curved_cut_loses_nothing_and_gives_parts_in_one_piece_each(image, line):
    assume(len(components(image == A)) == 1)
    line = edits.steadied(np.array(line, np.float64) * 1.6, 1.0)
    result = after(image, edits.split(image, A, line, itertools.count(NEW)))
    np.testing.assert_array_equal(result[image != A], image[image != A])
    numbers = np.unique(result[image == A])  # a pixel has one number: the parts are disjoint
    assert 0 not in numbers
    assert A in numbers
    assert set(numbers.tolist()) == {A, *range(NEW, NEW + len(numbers) - 1)}
    np.testing.assert_array_equal(np.isin(result, numbers), np.isin(image, [A, *numbers]))
    assert all(len(components(result == number)) == 1 for number in numbers)


def slow_distance(point, line):
    ways = [np.linspace(a, b, 400) for a, b in itertools.pairwise(line)] or [line]
    return min(float(np.linalg.norm(way - point, axis=1).min()) for way in ways)


@quick
@given(line=points, tolerance=st.sampled_from([0.0, 0.5, 2.0, 9.0]))
def test_a_steadied_line_has_some_corners_of_the_drawn_one_and_strays_no_farther(line, tolerance):
    found = edits.steadied(line, tolerance)
    rest = iter(line.tolist())
    assert all(corner in rest for corner in found.tolist())  # in their order
    if len(line):
        assert found[0].tolist() == line[0].tolist()
        assert found[-1].tolist() == line[-1].tolist()
        assert all(slow_distance(corner, found) <= tolerance + 0.05 for corner in line)
    else:
        assert len(found) == 0


def test_an_unsteady_straight_line_becomes_straight_and_a_bend_stays():
    xs = np.arange(0.0, 50.0)
    shaky = np.stack([10 + 0.8 * np.sin(xs * 1.7), xs], axis=1)
    assert len(edits.steadied(shaky, 2.0)) == 2
    bend = np.concatenate([shaky, np.stack([np.arange(11.0, 60.0), np.full(49, 50.0)], axis=1)])
    steady = edits.steadied(bend, 2.0)
    assert len(steady) == 3
    assert np.abs(steady[1] - (10, 50)).max() < 3
    for wrong in (-1.0, np.nan):
        with pytest.raises(ValueError, match="tolerance"):
            edits.steadied(shaky, wrong)


def test_a_curved_cut_follows_the_line_around_a_lobe():
    image = np.zeros((60, 60), np.uint32)
    image[disc(image.shape, 30, 30, 22)] = A
    turn = np.linspace(-0.6 * np.pi, 0.6 * np.pi, 30)
    arc = np.stack([30 + 10 * np.sin(turn) + 0.0123, 14 + 10 * np.cos(turn) + 0.0057], axis=1)
    result = after(image, edits.split(image, A, arc, [NEW]))
    lobe = disc(image.shape, 30, 14, 9) & (image == A) & (np.arange(60)[None] >= 12)
    assert (result[lobe] == NEW).all()
    assert (result[disc(image.shape, 30, 38, 12)] == A).all()


# Pieces


@quick
@given(image=noise)
def test_pieces_are_the_connected_pixels_and_each_gets_an_id(image):
    expected = components(image == B)
    found = edits.pieces(image, B)
    areas = [int(piece.mask.sum()) for piece in found]
    assert areas == sorted((int(piece.sum()) for piece in expected), reverse=True)
    masks = [over_map(image.shape, piece) for piece in found]
    np.testing.assert_array_equal(np.sum([*masks, np.zeros(image.shape)], axis=0), image == B)
    assert all(len(components(mask)) == 1 for mask in masks)
    result = after(image, edits.keep_largest_piece(image, B, itertools.count(NEW)))
    np.testing.assert_array_equal(result[image != B], image[image != B])
    assert [int((result == number).sum()) for number in (B, *range(NEW, NEW + len(found) - 1)) if found] == areas
    assert all(len(components(result == number)) == 1 for number in np.unique(result[image == B]))


# Outline of one nucleus


@quick
@given(image=noise)
def test_holes_are_what_is_closed_off_from_the_border(image):
    result = after(image, edits.fill_holes(image, A))
    mask = np.pad(image == A, 1)
    hole = ~flood(~mask, (0, 0), CROSS)[1:-1, 1:-1] & (image == 0) & (image == A).any()
    np.testing.assert_array_equal(result, np.where(hole, np.uint32(A), image))


@quick
@given(image=st.one_of(noise, blobs()), radius=radii)
def test_growing_takes_the_background_within_reach_that_hangs_together(image, radius):
    result = after(image, edits.grow(image, C, radius))
    own = np.argwhere(image == C)
    allowed = (distances(image.shape, own) <= radius + 1e-9) & ((image == 0) | (image == C))
    expected = np.zeros(image.shape, bool)
    for piece in components(allowed):
        if (image[piece] == C).any():
            expected |= piece
    np.testing.assert_array_equal(result, np.where(expected, np.uint32(C), image))


@quick
@given(image=st.one_of(noise, blobs()), radius=radii)
def test_shrinking_keeps_what_is_far_from_the_outside(image, radius):
    result = after(image, edits.shrink(image, A, radius))
    kept = (distances(image.shape, np.argwhere(image != A)) > radius + 1e-9) & (image == A)
    expected = image if not kept.any() else np.where((image == A) & ~kept, np.uint32(0), image)
    np.testing.assert_array_equal(result, expected)


@quick
@given(image=blobs(), radius=st.sampled_from([1, 2, 3]))
def test_growing_then_shrinking_contains_a_nucleus_that_stands_alone(image, radius):
    alone = frozen(np.where(image == A, image, 0))
    assume(alone.any())
    grown = after(alone, edits.grow(alone, A, radius))
    back = after(grown, edits.shrink(grown, A, radius))
    assert (back[alone == A] == A).all()


@quick
@given(image=st.one_of(noise, blobs()), radius=st.sampled_from([0.5, 1, 1.5, 3, 5]))
def test_smoothing_never_breaks_removes_or_eats(image, radius):
    result = after(image, edits.smooth(image, B, radius))
    assert only_changed(image, result, B)
    count = len(components(image == B))
    assert min(count, 1) <= len(components(result == B)) <= count


def test_smoothing_removes_a_spur_and_fills_a_dent():
    image = np.zeros((60, 60), np.uint32)
    image[disc(image.shape, 30, 30, 15)] = A
    smooth = after(image, edits.smooth(image, A, 3)) == A
    image[30, 40:58] = A
    image[10:30, 30] = 0
    result = after(image, edits.smooth(image, A, 3)) == A
    assert (result ^ smooth).sum() < 25
    assert not result[30, 50:].any()


def test_smoothing_leaves_the_cut_at_the_border_of_the_map():
    image = np.zeros((40, 40), np.uint32)
    image[:20, 5:35] = A
    result = after(image, edits.smooth(image, A, 4))
    assert (result[0, 5:35] == A).all()
    assert result[19, 5] == 0


def test_a_dumbbell_stays_in_one_piece():
    image = np.zeros((30, 60), np.uint32)
    image[disc(image.shape, 15, 15, 10) | disc(image.shape, 15, 43, 10)] = A
    image[14:17, 20:40] = A
    assert len(components(after(image, edits.smooth(image, A, 4)) == A)) == 1


@pytest.mark.parametrize(
    "image", [drawn("A"), drawn("AAA", "AAA"), drawn("...", ".A.", "..."), drawn("A..", "...", "...")]
)
def test_tiny_nuclei_survive(image):
    assert edits.fill_holes(image, A) is None
    assert edits.smooth(image, A, 3) is None
    assert edits.shrink(image, A, 3) is None
    assert edits.keep_largest_piece(image, A, [B]) is None
    grown = after(image, edits.grow(image, A, 2))
    assert ((grown == A) >= (image == A)).all()


def test_growing_does_not_jump_over_a_neighbour():
    image = drawn("A.B...", "A.B...")
    np.testing.assert_array_equal(after(image, edits.grow(image, A, 5)), drawn("AAB...", "AAB..."))


def test_a_nucleus_that_is_not_there_is_left_alone():
    image = drawn("A..", "...")
    assert edits.grow(image, B, 2) is None
    assert edits.shrink(image, B, 2) is None
    assert edits.smooth(image, B, 2) is None
    assert edits.fill_holes(image, B) is None
    assert edits.split(image, B, np.array([(0, 0), (1, 1)]), [C]) is None
    assert edits.keep_largest_piece(image, B, [C]) is None
    assert edits.pieces(image, B) == ()
    assert edits.grow(image, A, 1, box=Region(1, 1, 1, 1)) is None


# Proposals


def hill(shape, y, x, radius, height=1.0):
    ys, xs = np.ogrid[: shape[0], : shape[1]]
    return (height / (1 + np.exp(np.hypot(ys - y, xs - x) - radius))).astype(np.float32)


def test_a_faint_nucleus_is_proposed_whole():
    image = np.zeros((80, 80), np.uint32)
    foreground = hill(image.shape, 40, 37, 9, 0.3)
    found = over_map(image.shape, edits.propose(foreground, image, (41.3, 36.2)))
    expected = disc(image.shape, 40, 37, 9)
    assert (found ^ expected).sum() < 0.1 * expected.sum()


def test_touching_neighbours_are_left_out_whether_segmented_or_not():
    shape = (60, 80)
    foreground = np.maximum(hill(shape, 30, 28, 10), hill(shape, 30, 45, 10))
    image = np.zeros(shape, np.uint32)
    alone = over_map(shape, edits.propose(foreground, image, (30, 26)))
    expected = disc(shape, 30, 28, 10)
    assert (alone ^ expected).sum() < 0.15 * expected.sum()
    # The neighbour's outline left a rim of foreground over.
    image[disc(shape, 30, 45, 8)] = A
    beside = over_map(shape, edits.propose(foreground, image, (30, 26)))
    assert (beside ^ expected).sum() < 0.15 * expected.sum()
    assert not image[beside].any()


def test_holes_are_filled_but_not_over_a_nucleus():
    image = np.zeros((60, 60), np.uint32)
    foreground = hill(image.shape, 30, 30, 12)
    foreground[28:30, 26:28] = 0
    image[34, 34] = A
    found = over_map(image.shape, edits.propose(foreground, image, (30, 24), level=0.5))
    assert found[28:30, 26:28].all()
    assert not found[34, 34]


def test_a_proposal_on_foreground_without_end_stays_within_its_limit():
    image = np.zeros((100, 100), np.uint32)
    found = edits.propose(np.ones(image.shape, np.float32), image, (50, 50), limit_px=12)
    np.testing.assert_array_equal(over_map(image.shape, found), disc(image.shape, 50, 50, 12))


def test_nothing_is_proposed_where_there_is_nothing():
    image = np.zeros((40, 40), np.uint32)
    image[disc(image.shape, 10, 10, 4)] = A
    foreground = hill(image.shape, 25, 25, 6)
    foreground[0, 0] = np.nan
    assert edits.propose(foreground, image, (-3, 10)) is None
    assert edits.propose(foreground, image, (10, 40.7)) is None
    assert edits.propose(foreground, image, (10, 10)) is None
    assert edits.propose(foreground, image, (39, 1)) is None
    assert edits.propose(foreground, image, (0, 0)) is None
    assert edits.propose(foreground, image, (25, 31.5), level=0.9) is None


@quick
@given(
    image=blobs(),
    hills=st.lists(st.tuples(*[st.integers(0, 27)] * 2, st.integers(1, 9)), min_size=1, max_size=3),
    y=st.floats(0, 23),
    x=st.floats(0, 27),
    limit=st.sampled_from([1, 4.5, 10, 40]),
)
def test_a_proposal_holds_its_seed_in_one_piece_of_free_pixels(image, hills, y, x, limit):
    foreground = np.max([hill(image.shape, *each) for each in hills], axis=0)
    at = math.floor(y + 0.5), math.floor(x + 0.5)
    patch = edits.propose(foreground, image, (y, x), limit_px=limit)
    if image[at] or foreground[at] < 0.02:
        assert patch is None
        return
    found = over_map(image.shape, patch)
    assert found[at]
    assert not image[found].any()
    assert not (found & ~disc(image.shape, *at, limit)).any()
    assert len(components(found)) == 1
    placed = after(image, edits.place(image, NEW, patch))
    np.testing.assert_array_equal(placed, np.where(found, np.uint32(NEW), image))


@quick
@given(image=blobs(), steps=st.integers(-4, 5))
def test_resizing_moves_the_outline_by_whole_pixels(image, steps):
    assume((image == A).any())
    patch = edits.pieces(image, A)[0]
    mask = over_map(image.shape, patch)
    cleared = frozen(np.where(mask, 0, image))
    resized = edits.resize(patch, steps, image=cleared)
    if steps > 0:
        allowed = (distances(image.shape, np.argwhere(mask)) <= steps + 1e-9) & (cleared == 0)
        expected = flood(allowed, tuple(np.argwhere(mask)[0]), NEIGHBOURS)
        np.testing.assert_array_equal(over_map(image.shape, resized), expected)
    elif steps < 0:
        kept = distances(image.shape, np.argwhere(~mask)) > -steps + 1e-9
        largest = max((piece.sum() for piece in components(kept & mask)), default=0)
        assert (0 if resized is None else resized.mask.sum()) == largest
    else:
        assert resized is patch


def test_resizing_without_a_map_has_no_bounds():
    patch = Patch(Region(0, 0, 1, 1), np.ones((1, 1), bool))
    grown = edits.resize(patch, 2)
    assert grown.box == Region(-2, -2, 5, 5)
    assert grown.mask.sum() == 13
    assert edits.resize(patch, -1) is None
    back = edits.resize(grown, -2)
    assert (back.box, back.mask.sum()) == (patch.box, 1)
    image = np.zeros((2, 2), np.uint32)
    assert after(image, edits.place(image, A, grown)).all()
    assert edits.place(image, A, Patch(Region(9, 9, 1, 1), np.ones((1, 1), bool))) is None


# Applying


def test_pixels_that_an_edit_did_not_change_are_as_they_are_now():
    image = drawn("A..", "..A")
    edited = edits.delete(image, [A])
    later = image.copy()
    later[0, 1] = B
    result = edits.apply(later, edited)
    np.testing.assert_array_equal(result, drawn(".B.", "..."))
    np.testing.assert_array_equal(edits.apply(result, edits.inverse(edited)), later)


def test_an_edit_is_not_applied_where_the_map_is_another():
    image = drawn("A..", "..A")
    edited = edits.delete(image, [A])
    with pytest.raises(ValueError, match="the map has changed since"):
        edits.apply(drawn("B..", "..A"), edited)
    with pytest.raises(ValueError, match="leaves the map of 1 x 3 pixels"):
        edits.apply(image[:1], edited)
    with pytest.raises(AttributeError):
        edited.box = Region(0, 0, 1, 1)
    assert isinstance(edited, Edited)


# Arguments


IMAGE = drawn("A..", "...")
LINE = np.array([(0.0, 0.0), (1.0, 1.0)])
PATCH = Patch(Region(0, 1, 1, 1), np.ones((1, 1), bool))


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: edits.paint(IMAGE.astype(np.int32), A, LINE, 1), "uint32 with axes"),
        (lambda: edits.delete(IMAGE[0], [A]), "uint32 with axes"),
        (lambda: edits.paint(IMAGE, 0, LINE, 1), "lies between 1 and"),
        (lambda: edits.paint(IMAGE, 2**32, LINE, 1), "lies between 1 and"),
        (lambda: edits.delete(IMAGE, [-1]), "lies between 1 and"),
        (lambda: edits.paint(IMAGE, A, LINE, 0), "above 0"),
        (lambda: edits.grow(IMAGE, A, math.nan), "above 0"),
        (lambda: edits.shrink(IMAGE, A, -1), "above 0"),
        (lambda: edits.smooth(IMAGE, A, math.inf), "above 0"),
        (lambda: edits.paint(IMAGE, A, LINE[0], 1), r"shape \(n, 2\)"),
        (lambda: edits.erase(IMAGE, LINE * math.nan, 1), "finite"),
        (lambda: edits.paint(IMAGE, A, LINE, 1, preserve=True, only_over=B), "preserved"),
        (lambda: edits.draw_polygon(IMAGE, A, np.zeros((4, 3))), r"shape \(n, 2\)"),
        (lambda: edits.fill(IMAGE, B, (math.nan, 0)), "finite"),
        (lambda: edits.merge(IMAGE, [A, B], seam_px=-1), "negative"),
        (lambda: edits.merge(IMAGE, [A, B], reach_px=math.nan), "negative"),
        (lambda: edits.split(IMAGE, A, LINE, [B], smallest_share=2), "share"),
        (lambda: edits.propose(np.zeros((2, 2), np.float32), IMAGE, (0, 0)), "same shape"),
        (lambda: edits.propose(np.zeros((2, 3), np.float32), IMAGE, (0, 0), level=0), "level"),
        (lambda: edits.propose(np.zeros((2, 3), np.float32), IMAGE, (0, 0), limit_px=0.5), "limit"),
        (lambda: edits.resize(PATCH, 1, image=IMAGE[:, :1]), "leaves the map"),
    ],
)
def test_arguments_without_meaning_get_a_sentence(call, sentence):
    with pytest.raises(ValueError, match=sentence):
        call()

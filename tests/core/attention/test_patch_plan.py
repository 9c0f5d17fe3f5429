"""Patches lie on one grid fixed to the slide, whatever the view, the scan's pixel size or the edge of the slide."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_nucleiseg.core.attention.patches import plan_patches
from napari_nucleiseg.core.errors import DataError, MissingPixelSizeError, PixelSizeError
from napari_nucleiseg.core.geometry import YX, Region
from napari_nucleiseg.core.slides.tissue import TissueMask
from tiny_encoders import SIDE, TOKEN, noise, patch_encoder, region_encoder, slide_of

SPEC = patch_encoder().spec
sides = st.integers(1, 700)
mpps = st.sampled_from([0.11, 0.25, 0.37, 0.5, 0.52, 1.0])


@st.composite
def planned(draw, **options):
    """A slide without colours, a region that touches it, and the plan of that."""
    height, width = draw(sides), draw(sides)
    slide = slide_of(np.zeros((height, width, 3), np.uint8), mpp=YX(draw(mpps), draw(mpps)))
    y, x = draw(st.integers(-50, height - 1)), draw(st.integers(-50, width - 1))
    region = Region.from_bounds(y, x, max(y, 0) + draw(sides), max(x, 0) + draw(sides))
    return slide, region, plan_patches(slide, SPEC, region, **options)


@settings(deadline=None)
@given(planned(most=100))
def test_a_view_needs_the_patches_that_it_touches_and_no_others(found):
    slide, region, plan = found
    grid = plan.grid
    wanted = [number for number in range(len(grid)) if grid.tile(number).core.overlaps(region.intersect(slide.region))]
    assert list(plan.tiles) == wanted
    assert not plan.is_cut
    assert plan.region.contains(region.intersect(slide.region))


@settings(deadline=None)
@given(planned(most=3), st.integers(-200, 200), st.integers(-200, 200))
def test_patches_are_the_same_however_one_pans(found, down, across):
    slide, region, plan = found
    moved = region.translate(down, across)
    if moved.intersect(slide.region).is_empty:
        return
    other = plan_patches(slide, SPEC, moved, most=3)
    assert other.grid == plan.grid
    for tile in set(plan.tiles) & set(other.tiles):
        assert plan.box_of(tile) == other.box_of(tile)
        y, x = (plan.place_of(tile)[axis] * plan.token_step[axis] * SPEC.side + plan.origin[axis] for axis in (0, 1))
        assert (y, x) == pytest.approx(
            [other.place_of(tile)[axis] * other.token_step[axis] * SPEC.side + other.origin[axis] for axis in (0, 1)]
        )


def test_scans_of_20x_and_40x_of_one_tissue_are_looked_at_alike():
    coarse = slide_of(noise(150, 170))
    fine = slide_of(np.repeat(np.repeat(coarse.levels[0], 2, 0), 2, 1), mpp=0.25)
    one = plan_patches(coarse, SPEC, Region(40, 30, 70, 60))
    two = plan_patches(fine, SPEC, Region(80, 60, 140, 120))
    assert (one.top, one.left, one.rows, one.columns) == (two.top, two.left, two.rows, two.columns)
    assert one.tiles == two.tiles
    assert [0.5 * side for side in one.token_step] == [0.25 * side for side in two.token_step] == [4.0, 4.0]
    assert [0.5 * side for side in one.origin] == [0.25 * side for side in two.origin]
    for tile in one.tiles:
        np.testing.assert_array_equal(one.read(coarse, tile), two.read(fine, tile))


def test_of_a_large_view_the_middle_is_looked_at():
    slide = slide_of(np.zeros((40 * SIDE, 50 * SIDE, 3), np.uint8))
    plan = plan_patches(slide, SPEC, slide.region)
    assert (plan.top, plan.left, plan.rows, plan.columns, plan.is_cut) == (12, 17, 16, 16, True)
    assert plan.region.centre == slide.region.centre
    flat = plan_patches(slide, SPEC, Region(0, 0, SIDE, 50 * SIDE))
    assert (flat.top, flat.left, flat.rows, flat.columns, flat.is_cut) == (0, 17, 1, 16, True)
    assert plan_patches(slide, SPEC, Region(0, 0, 16 * SIDE, 16 * SIDE)).is_cut is False


@settings(deadline=None)
@given(planned(most=3))
def test_what_is_cut_lies_within_what_was_wanted(found):
    slide, region, plan = found
    whole = plan_patches(slide, SPEC, region, most=100)
    assert set(plan.tiles) <= set(whole.tiles)
    assert (plan.rows, plan.columns) == (min(whole.rows, 3), min(whole.columns, 3))
    assert plan.is_cut == (plan.tiles != whole.tiles)
    wanted = region.intersect(slide.region)
    if plan.rows == 3:
        middle = plan.origin.y + 1.5 * SIDE * plan.grid.downsample.y
        assert abs(middle - wanted.centre.y) <= SIDE * plan.grid.downsample.y * 0.75


def test_a_view_smaller_than_a_patch_is_one_patch():
    plan = plan_patches(slide_of(noise(200, 200)), SPEC, Region(SIDE + 5, 2 * SIDE + 5, 3, 4))
    assert (plan.rows, plan.columns, plan.region) == (1, 1, Region(SIDE, 2 * SIDE, SIDE, SIDE))


@pytest.mark.parametrize("region", [Region(0, 200, 10, 10), Region(-10, 0, 10, 10), Region(5, 5, 0, 3)])
def test_beside_the_slide_there_is_nothing_to_look_at(region):
    with pytest.raises(DataError, match="move to where there is tissue"):
        plan_patches(slide_of(noise(200, 200)), SPEC, region)


def test_what_the_scanner_left_out_is_not_looked_at():
    slide = slide_of(noise(200, 200), bounds=Region(70, 70, 60, 60))
    assert plan_patches(slide, SPEC, slide.region).region == Region(64, 64, 96, 96)
    with pytest.raises(DataError, match="nothing of the slide"):
        plan_patches(slide, SPEC, Region(0, 0, 70, 70))


def test_pixel_sizes_are_asked_for():
    picture = noise(64, 64)
    with pytest.raises(MissingPixelSizeError):
        plan_patches(slide_of(picture, mpp=None), SPEC, Region(0, 0, 9, 9))
    with pytest.raises(PixelSizeError, match="hipt-256"):
        plan_patches(slide_of(picture, mpp=50.0), SPEC, Region(0, 0, 9, 9))


def test_an_encoder_of_regions_cannot_look_at_pixels():
    with pytest.raises(DataError, match="give an encoder of patches"):
        plan_patches(slide_of(noise(64, 64)), region_encoder().spec, Region(0, 0, 9, 9))


@pytest.mark.parametrize("shift", [0, 5, SIDE - 1])
@pytest.mark.parametrize("shape", [(70, 90), (64, 96), (66, 33), (7, 1)])
def test_patches_are_mirrored_at_the_edges_of_the_slide(shape, shift):
    picture = noise(*shape)
    slide = slide_of(picture)
    plan = replace(plan_patches(slide, SPEC, slide.region), shift_px=shift)

    def mirrored(places, length):
        """What lies at places that may be beyond the end, found step by step."""
        found, at, step = [], 0, 1
        for _ in range(places.stop):
            found.append(at)
            step = -1 if at == length - 1 else 1 if at == 0 else step
            at += step if length > 1 else 0
        return np.array(found)[places]

    for tile in plan.tiles:
        row, column = divmod(tile, plan.grid.columns)
        rows, columns = (slice(n * SIDE + shift, (n + 1) * SIDE + shift) for n in (row, column))
        wanted = picture[np.ix_(mirrored(rows, shape[0]), mirrored(columns, shape[1]))]
        np.testing.assert_array_equal(plan.read(slide, tile), wanted)


def test_shifted_grids_are_the_same_rectangle_moved():
    slide = slide_of(noise(200, 200), mpp=0.25)
    plan = plan_patches(slide, SPEC, Region(70, 70, 60, 60))
    moved = list(plan.shifts(4, 3))
    assert moved[0] == plan
    assert [each.shift_px for each in moved] == [0, 4, 8]
    assert [each.origin for each in moved] == [YX(64 + 8 * n, 64 + 8 * n) for n in range(3)]
    assert {each.tiles for each in moved} == {plan.tiles}


@settings(deadline=None)
@given(planned(), st.floats(-20, 800), st.floats(-20, 800))
def test_a_place_is_found_in_the_patch_and_token_that_hold_it(found, y, x):
    _, _, plan = found
    step = plan.token_step
    cell = plan.cell_at(y, x)
    bottom = plan.origin.y + plan.rows * SPEC.side * step.y
    right = plan.origin.x + plan.columns * SPEC.side * step.x
    if cell is None:
        assert not (plan.origin.y + 1e-6 <= y < bottom - 1e-6 and plan.origin.x + 1e-6 <= x < right - 1e-6)
        return
    tile, token = cell
    assert tile in plan.tiles
    assert 1 <= token <= SPEC.side**2
    row, column = plan.place_of(tile)
    within = divmod(token - 1, SPEC.side)
    top = plan.origin.y + (row * SPEC.side + within[0]) * step.y
    left = plan.origin.x + (column * SPEC.side + within[1]) * step.x
    assert top - 1e-6 <= y <= top + step.y + 1e-6
    assert left - 1e-6 <= x <= left + step.x + 1e-6


@settings(deadline=None)
@given(planned())
def test_the_middle_comes_first_and_all_others_after_it(found):
    _, _, plan = found
    assert sorted(plan.centre_first) == sorted(plan.tiles)
    middle = (plan.rows - 1) / 2, (plan.columns - 1) / 2
    far = [sum((place - centre) ** 2 for place, centre in zip(plan.place_of(tile), middle, strict=True))
           for tile in plan.centre_first]  # fmt: skip
    assert far == sorted(far)


@settings(deadline=None)
@given(planned(), st.integers(0, 9))
def test_tissue_is_told_at_the_middle_of_each_token(found, seed):
    slide, _, plan = found
    step = YX(6.0, 9.0)
    shape = [-(-side // int(factor)) for side, factor in zip(slide.shape, step, strict=True)]
    mask = np.random.default_rng(seed).random(shape) < 0.5
    fractions = plan.tissue_fractions(TissueMask(mask, step))
    assert fractions.shape == (plan.rows * SPEC.side, plan.columns * SPEC.side)
    for row in range(0, fractions.shape[0], 5):
        for column in range(0, fractions.shape[1], 5):
            y = plan.origin.y + (row + 0.5) * plan.token_step.y
            x = plan.origin.x + (column + 0.5) * plan.token_step.x
            inside = mask[min(int(y / 6), shape[0] - 1), min(int(x / 9), shape[1] - 1)]
            assert fractions[row, column] == inside
    assert plan.tissue_fractions(None).min() == 1


def test_tokens_are_parts_of_patches():
    assert SPEC.side * TOKEN == SIDE


def test_grids_that_are_averaged_move_by_parts_of_a_token_or_of_a_patch():
    spec = patch_encoder().spec
    plan = plan_patches(slide_of(noise(64, 64)), spec, Region(0, 0, 64, 64))
    token, patch = spec.patch_px, spec.input_px
    assert [one.shift_px for one in plan.grids(4)] == [0, token // 4, token // 2, 3 * token // 4]
    assert [one.shift_px for one in plan.grids(4, coarse=True)] == [0, patch // 4, patch // 2, 3 * patch // 4]
    assert plan.grids(1) == (plan,)
    assert plan.grids(0, coarse=True) == (plan,)

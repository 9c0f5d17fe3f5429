"""Points as pixels: a dot where a point is and nowhere else, and density that grows with their number."""

import numpy as np
import pytest

from napari_nucleiseg.viewer.plot_raster import CELL_PX, argb, density, dots, nearest

RED, BLUE = (255, 0, 0), (0, 0, 255)


def at(*places):
    return np.array(places, np.int64)


def test_a_dot_is_round_and_lies_where_its_point_does():
    picture = dots(at(10), at(6), np.array([argb(RED)], np.uint32), (20, 30), 3.0)
    ys, xs = np.nonzero(picture)
    assert picture.shape == (20, 30)
    assert (ys.mean(), xs.mean()) == (6, 10)
    assert np.hypot(ys - 6, xs - 10).max() <= 3.1
    assert (picture[6, 10], picture[6, 13], picture[9, 13]) == (0xFFFF0000, 0xFFFF0000, 0)


def test_later_dots_cover_earlier_ones_and_rims_cut_them():
    colours = np.array([argb(RED), argb(BLUE), argb(BLUE)], np.uint32)
    picture = dots(at(5, 5, -9), at(5, 5, 3), colours, (6, 6), 1.0)
    assert set(picture[picture > 0].tolist()) == {0xFF0000FF}
    assert not picture[:, 0].any()  # what lies beside the picture does not come in on the other side
    assert not dots(at(), at(), colours[:0], (4, 4), 2.0).any()


def test_opacity_is_multiplied_in():
    assert argb((200, 100, 0), 0.5) == (128 << 24 | 100 << 16 | 50 << 8)


def test_the_more_points_the_more_opaque_and_colours_mix_by_numbers():
    x = at(*[1] * 100, *[10] * 10, 20, 20, 99)
    y = at(*[1] * 113)
    groups = at(*[0] * 100, *[0] * 10, 0, 1, 0)
    picture = density(x, y, groups, [RED, BLUE], (9, 30))
    opacity = picture >> 24
    assert picture.shape == (9, 30)
    assert opacity[1, 1] == 255 > opacity[1, 10] > opacity[1, 20] > 40
    assert opacity[0, 0] == opacity[1, 1]  # a cell is of several pixels
    assert not picture[CELL_PX:].any()
    mixed = picture[1, 20]
    assert (mixed >> 16) & 255 == mixed & 255 > 0
    assert density(at(), at(), at(), [RED], (4, 4)).shape == (4, 4)


def test_no_point_is_lost_in_density():
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 60, (2, 500))
    picture = density(x, y, rng.integers(0, 3, 500), [RED, BLUE, (9, 9, 9)], (60, 60))
    assert (picture[y, x] > 0).all()


def test_the_nearest_point_is_found_within_reach():
    x, y = np.array([0, 10, np.nan]), np.array([0.0, 0, 5])
    assert nearest(x, y, (7, 1), 8) == 1
    assert nearest(x, y, (7, 9), 8) is None
    assert nearest(x[2:], y[2:], (0, 5), 8) is None
    assert nearest(x[:0], y[:0], (0, 0), 8) is None


@pytest.mark.parametrize("shape", [(1, 1), (2, 7), (10, 3)])
def test_pictures_have_the_size_that_is_asked_for(shape):
    zero = at(0)
    assert density(zero, zero, zero, [RED], shape).shape == shape
    assert dots(zero, zero, np.array([argb(RED)], np.uint32), shape, 2.0).shape == shape

"""Reading at any scale: means, in the right place, the same whichever box they are read in."""

import cv2
import numpy as np
import pytest
import skimage.transform
from slide_files import smaller, tissue

from napari_nucleiseg.core.errors import SlideError
from napari_nucleiseg.core.geometry import YX, Region
from napari_nucleiseg.core.slides.pyramid import Slide

SIZE = 1024


def slide_of(image, *coarser):
    levels = (np.ascontiguousarray(image), *(smaller(image, factor) for factor in coarser))
    return Slide("x", levels, (YX(1.0, 1.0), *(YX(float(factor), float(factor)) for factor in coarser)), None)


def waves(period):
    """Vertical waves of `period` pixels; sample k lies at ``k + 0.5``."""
    row = 127.5 + 100 * np.sin(2 * np.pi * np.arange(SIZE) / period)
    return np.repeat(np.tile(np.rint(row).astype(np.uint8), (64, 1))[..., None], 3, -1)


def shift_between(first, second):
    """Displacement ``(y, x)`` in pixels that best explains the difference of two images (least squares on slopes)."""
    down, across = np.gradient((first + second) / 2.0)
    slopes = np.stack([down.ravel(), across.ravel()], axis=1)
    return np.linalg.lstsq(slopes, (first.astype(float) - second).ravel(), rcond=None)[0]


@pytest.mark.parametrize("step", [0.5, 0.7, 1.0, 1.1008, 1.37, 2.0, 2.2, 3.3, 4.0])
@pytest.mark.parametrize("offset", [0.0, 0.3, 7.77, 100.5])
def test_pixels_lie_where_they_should_to_a_twentieth_of_a_pixel(step, offset):
    period = 64
    count = int(800 / step)
    got = slide_of(waves(period)).read_box(20, offset, step, step, (8, count))[4, :, 0].astype(float)
    at = offset + (np.arange(count) + 0.5) * step - 0.5
    basis = np.stack([np.sin(2 * np.pi * at / period), np.cos(2 * np.pi * at / period), np.ones(count)], 1)
    sine, cosine, mean = np.linalg.lstsq(basis, got, rcond=None)[0]
    assert abs(np.arctan2(cosine, sine) * period / (2 * np.pi)) < 0.05
    assert np.hypot(sine, cosine) == pytest.approx(100 * np.sinc(step / period), rel=0.02)
    assert mean == pytest.approx(127.5, abs=0.6)


@pytest.mark.parametrize("step", [0.6, 1.0, 1.3, 2.0, 2.5, 3.7])
def test_a_flat_colour_stays_exactly_flat(step):
    slide = slide_of(np.full((300, 300, 3), (31, 127, 224), np.uint8))
    assert (slide.read_box(20.25, 30.5, step, step, (50, 60)) == (31, 127, 224)).all()


@pytest.mark.parametrize("step", [1.1, 1.5, 2.2, 2.5, 3.3])
def test_odd_steps_are_close_to_area_means_and_unbiased(step):
    image = tissue(SIZE, SIZE)
    extent = {2.5: 1020}.get(step, 1023)  # whole output pixels, so that both divide alike
    count = round(extent / step)
    ours = slide_of(image).read_box(0, 0, step, step, (count, count)).astype(float)
    areas = cv2.resize(image[:extent, :extent], (count, count), interpolation=cv2.INTER_AREA)
    difference = (ours - areas)[5:-5, 5:-5]
    assert difference.std() < 2
    assert abs(difference.mean()) < 0.1


@pytest.mark.parametrize("step", [2, 3, 4])
def test_whole_steps_are_exact_means(step):
    image = tissue(600, 720)
    ours = slide_of(image).read_box(0, 0, step, step, (600 // step, 720 // step))
    means = skimage.transform.downscale_local_mean(image, (step, step, 1))
    assert np.abs(ours - means).max() <= 0.51


def test_the_original_comes_back_untouched():
    image = tissue(300, 400)
    assert np.array_equal(slide_of(image).read_region(Region(20, 30, 100, 120)), image[20:120, 30:150])


@pytest.mark.parametrize("step", [0.7, 1.1008, 1.5, 2.2, 3.3])
def test_neighbouring_boxes_agree_with_one_box_over_both(step):
    slide = slide_of(tissue(SIZE, SIZE))
    whole = slide.read_box(10.3, 20.7, step, step, (200, 240)).astype(int)
    for y, x in [(0, 0), (0, 120), (100, 0), (100, 120), (37, 91)]:
        part = slide.read_box(10.3 + y * step, 20.7 + x * step, step, step, (100, 120))
        assert np.abs(part - whole[y : y + 100, x : x + 120]).max() <= 2


@pytest.mark.parametrize("step", [2.0, 2.6, 4.0, 5.0, 9.0])
def test_a_coarser_level_gives_what_the_finest_would(step):
    image = tissue(SIZE, SIZE)
    count = int(900 / step)
    alone = slide_of(image).read_box(8, 16, step, step, (count, count)).astype(int)
    stored = slide_of(image, 2, 4, 8).read_box(8, 16, step, step, (count, count))
    difference = (alone - stored)[2:-2, 2:-2]
    assert abs(difference.mean()) < 0.5
    assert difference.std() < 0.15 * alone.std()
    assert np.abs(shift_between(alone[..., 1], stored[..., 1])).max() < 0.05


def test_steps_may_differ_by_axis():
    image = tissue(600, 800)
    got = slide_of(image).read_region(Region(0, 0, 600, 800), (300, 200))
    assert np.abs(got.astype(int) - cv2.resize(image, (200, 300), interpolation=cv2.INTER_AREA)).max() <= 1


def test_outside_is_white_and_inside_keeps_its_place():
    image = tissue(100, 120)
    got = slide_of(image).read_region(Region(-20, -30, 200, 300))
    assert np.array_equal(got[20:120, 30:150], image)
    got[20:120, 30:150] = 255
    assert (got == 255).all()
    assert (slide_of(image).read_region(Region(500, 500, 20, 20), (7, 9)) == 255).all()


@pytest.mark.parametrize("region", [Region(0, 0, 0, 5), Region(0, 0, 5, 0)])
def test_an_empty_region_is_refused(region):
    with pytest.raises(SlideError, match="empty region"):
        slide_of(tissue(100, 120)).read_region(region)

"""Crops are means over whole pixels, of all magnifications alike, from tissue, and never of a slide held out."""

from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import tifffile

from napari_nucleiseg.core.errors import DataError, MissingPixelSizeError
from napari_nucleiseg.core.geometry import YX, Region
from napari_nucleiseg.core.models.registry import network_spec
from napari_nucleiseg.core.slides.registry import open_slide
from napari_nucleiseg.core.slides.tissue import TissueMask
from napari_nucleiseg.core.training.augment import lab_statistics
from napari_nucleiseg.core.training.scales.config import SlideSet
from napari_nucleiseg.core.training.scales.samples import (
    TARGET_COLOURS,
    ScaleSampler,
    ScaleSource,
    find_places,
    standardised,
)
from napari_nucleiseg.core.training.scales.shapes import UNKNOWN, shape_labels, slide_levels
from napari_nucleiseg.core.training.scales.sources import open_sources, part_by_slide

SPEC = network_spec("scale-attention")


@pytest.fixture
def source(tissue):
    return ScaleSource("p0", open_slide(tissue / "p0.tif", mpp_um=0.25))


def whole(slide):
    return TissueMask(np.ones((9, 9), np.bool_), YX(slide.shape[0] / 9, slide.shape[1] / 9))


@pytest.mark.parametrize(
    ("mpp_um", "power", "factor"),
    [(0.25, 40, 1), (0.25, 20, 2), (0.25, 10, 4), (0.2525, 10, 4), (0.23, 20, 2), (0.5, 20, 1), (0.5, 40, None)],
)
def test_a_magnification_is_a_power_of_two_of_the_own_pixel_size(tissue, mpp_um, power, factor):
    assert ScaleSource("", open_slide(tissue / "p0.tif", mpp_um=mpp_um)).factor(power) == factor


def test_without_a_pixel_size_a_picture_is_refused(tissue):
    with pytest.raises(MissingPixelSizeError):
        open_sources([SlideSet(str(tissue))])


def test_folders_are_taken_by_pattern(tissue):
    names = [source.name for source in open_sources([SlideSet(str(tissue), 0.25, include=("p1", "p[23]"))])]
    assert names == ["p1", "p2", "p3"]
    with pytest.raises(DataError, match="matches q"):
        open_sources([SlideSet(str(tissue), 0.25, include=("q*",))])


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_pixels_are_means_over_whole_pixels(source, tissue, factor):
    places = find_places(source, factor, 32, whole(source.slide), 0.9)
    picture = tifffile.imread(tissue / "p0.tif")
    small = cv2.resize(picture, None, fx=1 / factor, fy=1 / factor, interpolation=cv2.INTER_AREA)
    for seed in range(5):
        crop = places.read(*places.choose(np.random.default_rng(seed))[1:], 32)
        found = cv2.matchTemplate(small, crop, cv2.TM_SQDIFF)
        # Levels of a pyramid are means of rounded means.
        assert found.min() / crop.size <= 1


def test_crops_stay_in_their_regions(source):
    regions = (Region(10, 20, 140, 150), Region(200, 30, 60, 250))
    places = find_places(replace(source, regions=regions), 1, 32, whole(source.slide), 0.9)
    inside = [region.expand(0) for region in regions]
    for corners in (places.corners, places.lowest, places.highest):
        for y, x in corners:
            assert any(region.contains(Region(int(y), int(x), 32, 32)) for region in inside)
    assert find_places(replace(source, regions=regions), 4, 40, whole(source.slide), 0.9) is None


def test_crops_lie_on_tissue(source):
    mask = np.zeros((9, 9), np.bool_)
    mask[:, 5:] = True
    places = find_places(source, 1, 32, TissueMask(mask, YX(32, 32)), 0.9)
    assert places.corners[:, 1].min() >= 5 * 32 - 4
    assert find_places(source, 1, 32, TissueMask(mask & False, YX(32, 32)), 0.9) is None


def test_crop_is_a_function_of_seed_and_number(config, source):
    first, again = (ScaleSampler([source], config, SPEC) for _ in range(2))
    other = ScaleSampler([source], replace(config, seed=1), SPEC)
    for number in (0, 7):
        assert np.array_equal(first.crop(number)["image"], again.crop(number)["image"])
    assert not np.array_equal(first.crop(0)["image"], other.crop(0)["image"])


def test_magnifications_are_equally_frequent(config, source):
    batch = ScaleSampler([source], replace(config, batch_size=9), SPEC).batch(0)
    assert np.bincount(batch["level"]).tolist() == [3, 3, 3]
    assert batch["image"].shape == (9, 3, 32, 32)
    assert "haematoxylin" not in batch
    # Nuclei on 10x crops are a quarter as wide: there is more detail from pixel to pixel.
    detail = [float(batch["image"][batch["level"] == level].diff(dim=3).abs().mean()) for level in range(3)]
    assert detail[0] > detail[2]


def test_what_is_missing_for_a_magnification_is_said(config, tissue):
    coarse = ScaleSource("c", open_slide(tissue / "p0.tif", mpp_um=0.5))
    with pytest.raises(DataError, match="no slide is as fine as 40x"):
        ScaleSampler([coarse], config, SPEC)
    with pytest.raises(DataError, match="no place for crops of 10x: a square of 80 µm"):
        ScaleSampler([ScaleSource("", open_slide(tissue / "p0.tif", mpp_um=0.25))], replace(config, crop_px=80), SPEC)


def test_colours_are_brought_to_the_target(config, source):
    plain, brought = (
        ScaleSampler([source], replace(config, reinhard=share, hed_jitter=0), SPEC).picture(2)[0] for share in (0, 1)
    )
    # The mean is met but for what is cut off at white; the spread only within a factor of two.
    before, after = (np.abs(lab_statistics(image)[0] - TARGET_COLOURS[0]).sum() for image in (plain, brought))
    assert after < before / 3


def test_a_picture_can_be_the_target_of_colours(config, source, tissue):
    sampler = ScaleSampler([source], replace(config, stain_target=str(tissue / "p1.tif")), SPEC)
    assert not np.array_equal(sampler.colours, TARGET_COLOURS)


def test_brightest_tenth_becomes_white():
    grey = np.tile(np.arange(200, dtype=np.uint8)[:, None, None], (1, 30, 3))
    white = standardised(grey)
    assert (white == 255).mean() == pytest.approx(0.1, abs=0.02)
    assert white[100, 0, 0] == pytest.approx(100 * 255 / 179, abs=1)


def test_crops_to_measure_on_are_not_jittered_and_others_than_those_to_learn_from(config, source):
    config = replace(config, reinhard=0)
    learned = ScaleSampler([source], config, SPEC)
    measured = ScaleSampler([source], config, SPEC, stream=1, augmented=False)
    assert not np.array_equal(learned.picture(2)[0], measured.picture(2)[0])
    still = ScaleSampler([source], replace(config, hed_jitter=0), SPEC, stream=1)
    assert np.array_equal(measured.picture(2)[0], still.picture(2)[0])


@pytest.mark.parametrize(("count", "share", "held"), [(10, 0.2, 2), (3, 0.1, 1), (2, 0.9, 1), (1, 0.5, 0), (5, 0, 0)])
def test_slides_are_parted_as_a_whole(count, share, held):
    slides = [ScaleSource(str(number), SimpleNamespace(fingerprint=f"{number:x}")) for number in range(count)]
    learned, measured = part_by_slide(slides, share, seed=0)
    if count > 1 or share == 0:
        assert len(measured) == held
    assert {s.name for s in learned} & {s.name for s in measured} == set()
    assert len(learned) + len(measured) == count
    assert learned


@pytest.mark.parametrize("seed", range(6))
def test_a_slide_that_is_named_twice_is_of_one_part(tissue, seed):
    part = SlideSet(str(tissue / "p0.tif"), 0.25, regions=("0:0:144:288",))
    sources = open_sources([part, SlideSet(str(tissue), 0.25), replace(part, regions=("144:0:144:288",))])
    learned, measured = part_by_slide(sources, 0.25, seed)
    assert len({source.name for source in measured}) == 1
    assert {source.name for source in learned} & {source.name for source in measured} == set()
    assert len(learned) + len(measured) == 6
    alone = [source for source in sources if source.name == "p0"]
    assert part_by_slide(alone, 0.9, seed) == (alone, [])


@pytest.mark.parametrize("seed", range(6))
def test_only_what_suits_is_held_out_and_some_of_it_is_left_to_learn_from(seed):
    slides = [ScaleSource(str(number), SimpleNamespace(fingerprint=f"{number:x}")) for number in range(5)]
    _, measured = part_by_slide(slides, 0.2, seed, lambda source: source.name in "12")
    assert [source.name for source in measured] in (["1"], ["2"])
    assert part_by_slide(slides, 0.9, seed, lambda source: source.name == "1") == (slides, [])


def test_shapes_are_marked_on_crops_of_the_highest_magnification_only(config, source):
    config = replace(config, crop_px=64, losses={"shape": 1.0, "haematoxylin": 1.0})
    sampler = ScaleSampler([source], config, SPEC)
    batch = sampler.batch(0, 24)
    known = batch["shape"] >= 0
    assert batch["shape"].shape == (24, 1, 64, 64)
    finest = batch["level"] == 2
    assert not known[~finest].any()
    assert known[finest].float().mean() > 0.8
    marked = batch["shape"][finest] == 1
    assert 0.02 < marked.float().mean() < 0.6
    density = batch["haematoxylin"][finest]
    assert density[marked].mean() > 2 * density[batch["shape"][finest] == 0].mean()
    # The colours are changed after the shapes were marked, and turned with the picture.
    plain = ScaleSampler([source], replace(config, reinhard=0.0, hed_jitter=0.0), SPEC)
    assert all(np.array_equal(plain.crop(n)["shape"], sampler.crop(n)["shape"]) for n in (2, 5, 8))
    assert "shape" not in ScaleSampler([source], replace(config, losses={"scale": 1.0}), SPEC).crop(2)


def test_two_nuclei_that_touch_are_marked_apart():
    picture = np.full((64, 96, 3), (225, 170, 205), np.uint8)
    for x in (30, 56):
        cv2.circle(picture, (x, 32), 12, (95, 55, 140), cv2.FILLED)
    picture = cv2.GaussianBlur(picture, (0, 0), 1.5)
    levels = slide_levels([picture], 0.25)
    marked = shape_labels(picture, 0.25, levels)[0]
    assert cv2.connectedComponents((marked == 1).astype(np.uint8))[0] == 3
    fibre = np.full((64, 96, 3), (225, 170, 205), np.uint8)
    cv2.line(fibre, (0, 32), (95, 32), (95, 55, 140), 2)
    assert set(np.unique(shape_labels(fibre, 0.25, levels))) == {0, UNKNOWN}

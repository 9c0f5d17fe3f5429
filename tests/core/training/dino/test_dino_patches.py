"""Patches are read at the encoder's pixel size where there is tissue, and what is missing is said."""

from dataclasses import replace

import numpy as np
import pytest

from napari_nucleiseg.core.errors import DataError, MissingPixelSizeError
from napari_nucleiseg.core.models.encoders import build_encoder
from napari_nucleiseg.core.slides.registry import open_slide
from napari_nucleiseg.core.training.dino.patches import PatchSamples, read_patches
from napari_nucleiseg.core.training.scales.samples import ScaleSource

PARAMS = {"embed": 16, "depth": 1, "heads": 2, "input_px": 48, "patch_px": 8, "mpp_um": 0.5}


@pytest.fixture
def spec():
    return build_encoder("hipt-256", PARAMS)[0]


@pytest.fixture
def sources(two_kinds):
    """The first picture at the encoder's pixel size, the second at half of it."""
    return [
        ScaleSource(f"p{number}", open_slide(two_kinds / f"p{number}.tif", mpp_um=mpp))
        for number, mpp in ((0, 0.5), (1, 0.25))
    ]


def test_patches_are_the_slides_own_pixels_at_the_encoders_size(sources, spec, config):
    whole = sources[0].slide.read_box(0, 0, 1, 1, (192, 192))
    windows = np.lib.stride_tricks.sliding_window_view(whole, (48, 48), axis=(0, 1)).transpose(0, 1, 3, 4, 2)
    for patch in read_patches(sources[:1], spec, config, 3):
        assert any(np.array_equal(windows[y, x], patch) for y in range(145) for x in range(145))
    # Where the slide has four times as many pixels each is a mean of four, so that noise is halved.
    noise = [np.diff(read_patches([source], spec, config, 20).astype(float), axis=1) for source in sources]
    flat = [np.median(np.abs(item)) for item in noise]
    assert flat[1] < 0.7 * flat[0]


def test_patches_are_chosen_by_the_seed_and_never_twice(sources, spec, config):
    first, again = (read_patches(sources, spec, config, 12) for _ in range(2))
    assert np.array_equal(first, again)
    assert len(np.unique(first.reshape(12, -1), axis=0)) == 12
    other = read_patches(sources, spec, replace(config, seed=1), 12)
    assert not np.array_equal(first, other)
    assert len(read_patches(sources, spec, config, 10_000)) < 1000


def test_crops_are_of_many_patches(sources, spec, config):
    samples = PatchSamples(read_patches(sources, spec, config, 12), config)
    assert len(samples) == 12
    seen = {samples.crops(np.random.default_rng(seed))[0][0].tobytes() for seed in range(8)}
    assert len(seen) == 8


def test_slides_that_are_too_coarse_are_left_out_and_only_such_are_refused(sources, spec, config):
    fine = replace(spec, mpp_um=0.25)
    assert len(read_patches(sources, fine, config, 100)) > 0
    with pytest.raises(DataError, match=r"no slide is as fine as 0\.25 micrometres"):
        read_patches(sources[:1], fine, config, 100)


def test_a_picture_smaller_than_a_patch_and_one_without_tissue_are_refused(sources, spec, config):
    with pytest.raises(DataError, match=r"room for a square of 128 µm \(256 pixels of 0.5 µm\)"):
        read_patches(sources, replace(spec, input_px=256), config, 4)
    glass = np.full((192, 192, 3), 255, np.uint8)
    slide = replace(sources[0].slide, levels=(glass,))
    with pytest.raises(DataError, match="too little tissue"):
        read_patches([ScaleSource("glass", slide)], spec, config, 4)


def test_a_slide_that_does_not_say_its_pixel_size_is_refused(sources, spec, config):
    slide = replace(sources[0].slide, mpp_um=None)
    with pytest.raises(MissingPixelSizeError):
        read_patches([ScaleSource("unknown", slide)], spec, config, 4)

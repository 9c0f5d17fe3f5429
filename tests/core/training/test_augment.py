"""Colour changes do what they say and leave shape and type alone."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from napari_nucleiseg.core.training.augment import augment, jitter_stains, lab_statistics, transfer_stain
from napari_nucleiseg.core.training.config import AugmentConfig

NONE = AugmentConfig(stain=0, stain_transfer=0, colour=0, blur_px=0, noise=0, jpeg=0)


@pytest.fixture
def tissue():
    rng = np.random.default_rng(0)
    image = rng.normal((200, 140, 190), 20, (96, 80, 3))
    image[30:50, 20:40] = rng.normal((90, 60, 140), 10, (20, 20, 3))
    return np.clip(image, 0, 255).astype(np.uint8)


def test_no_stain_change_at_strength_zero(tissue):
    same = jitter_stains(tissue, 0.0, np.random.default_rng(1))
    assert np.abs(same.astype(int) - tissue).max() <= 1


def test_stain_change_is_random_but_repeatable(tissue):
    first = jitter_stains(tissue, 0.3, np.random.default_rng(1))
    assert np.array_equal(first, jitter_stains(tissue, 0.3, np.random.default_rng(1)))
    assert not np.array_equal(first, jitter_stains(tissue, 0.3, np.random.default_rng(2)))
    # White glass has no stain to change.
    white = np.full((8, 8, 3), 255, np.uint8)
    assert jitter_stains(white, 0.3, np.random.default_rng(3)).min() > 235


def test_transfer_reaches_the_target_statistics(tissue):
    target = lab_statistics(tissue) + np.array([[5, 4, -6], [1, 1, 1]], np.float32)
    moved = lab_statistics(transfer_stain(tissue, target, 1.0))
    assert np.abs(moved[0] - target[0]).max() < 2


def test_everything_off_changes_at_most_the_sharpness(tissue):
    changed = [augment(tissue, NONE, (), np.random.default_rng(i)) for i in range(40)]
    assert sum(np.array_equal(image, tissue) for image in changed) > 20


def test_shape_and_type_stay(tissue):
    colours = [lab_statistics(cv2.cvtColor(tissue, cv2.COLOR_RGB2BGR))]
    for seed in range(30):
        image = augment(tissue, AugmentConfig(), colours, np.random.default_rng(seed))
        assert image.shape == tissue.shape
        assert image.dtype == np.uint8


def sharpness(image):
    """Variance of the Laplacian."""
    return cv2.Laplacian(image, cv2.CV_32F).var()


def test_blur_alone_softens_some_crops_and_none_beyond_its_limit(tissue):
    blurring = replace(NONE, blur_px=1.2)
    changed = [augment(tissue, blurring, (), np.random.default_rng(i)) for i in range(100)]
    softer = [image for image in changed if sharpness(image) < 0.98 * sharpness(tissue)]
    assert 20 < len(softer) < 50  # about a third
    limit = sharpness(cv2.GaussianBlur(tissue, (0, 0), 1.2))
    assert min(map(sharpness, softer)) > 0.95 * limit
    assert max(map(sharpness, softer)) > 2 * min(map(sharpness, softer))  # by a random amount
    assert all(np.abs(image.mean((0, 1)) - tissue.mean((0, 1))).max() < 1 for image in softer)

    unchanged = [augment(tissue, NONE, (), np.random.default_rng(i)) for i in range(100)]
    assert min(map(sharpness, unchanged)) >= sharpness(tissue)


def through_jpeg(image, quality):
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)


def test_jpeg_alone_is_a_round_trip_at_a_random_quality(tissue):
    possible = {through_jpeg(tissue, quality).tobytes(): quality for quality in range(30, 90)}
    changed = [augment(tissue, replace(NONE, jpeg=1.0), (), np.random.default_rng(i)) for i in range(60)]
    qualities = [possible[image.tobytes()] for image in changed if image.tobytes() in possible]
    assert len(qualities) > 40  # the others were made sharper first
    assert len(set(qualities)) > 15
    assert min(qualities) < 40
    assert max(qualities) > 79
    assert not any(np.array_equal(image, tissue) for image in changed)


def test_jpeg_is_as_frequent_as_wanted(tissue):
    quarter = replace(NONE, jpeg=0.25)
    sharper_or_same = {augment(tissue, NONE, (), np.random.default_rng(i)).tobytes() for i in range(200)}
    changed = [augment(tissue, quarter, (), np.random.default_rng(i)).tobytes() for i in range(200)]
    assert 30 < sum(image not in sharper_or_same for image in changed) < 70

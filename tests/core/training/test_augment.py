"""Colour changes do what they say and leave shape and type alone."""

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

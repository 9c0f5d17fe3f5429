"""Changes of batches on the device are those of single crops on the processor."""

from __future__ import annotations

from dataclasses import replace

import cv2
import imagecodecs
import numpy as np
import pytest
import torch
from skimage import data

from napari_nucleiseg.core.training.augment import lab_statistics
from napari_nucleiseg.core.training.config import AugmentConfig
from napari_nucleiseg.core.training.device_augment import DeviceAugmentation, jpeg_like, lab_of, rgb_of

CPU = torch.device("cpu")
NOTHING = AugmentConfig(
    scale=1.0, elastic_um=0.0, stain=0.0, stain_transfer=0.0, colour=0.0, blur_px=0.0, noise=0.0, jpeg=0.0
)


@pytest.fixture(scope="module")
def tissue():
    """Two pieces of tissue, uint8 (2, 96, 96, 3)."""
    image = data.immunohistochemistry()
    return np.stack([image[100:196, 100:196], image[300:396, 300:396]])


def tensor(images):
    return torch.from_numpy(images).permute(0, 3, 1, 2).float()


def changed(images, config, seed=0, colours=()):
    made = DeviceAugmentation(config, colours, CPU)
    return made(tensor(images), np.random.default_rng(seed), torch.Generator().manual_seed(seed))


def test_lab_is_that_of_opencv(tissue):
    ours = lab_of(tensor(tissue))[0].permute(1, 2, 0).numpy()
    theirs = cv2.cvtColor(tissue[0].astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    assert np.abs(ours - theirs).max() < 0.5


def test_lab_and_back_changes_nothing(tissue):
    assert torch.allclose(rgb_of(lab_of(tensor(tissue))), tensor(tissue), atol=0.6)


def test_all_switched_off_only_sharpens_now_and_then(tissue):
    found = changed(tissue, NOTHING, seed=1)
    assert any(torch.equal(found[i], tensor(tissue)[i]) for i in range(2))


@pytest.mark.parametrize("field", ["stain", "colour", "blur_px", "noise", "jpeg"])
def test_each_change_changes_and_stays_in_range(tissue, field):
    many = np.repeat(tissue, 8, axis=0)
    found = changed(many, replace(NOTHING, **{field: 0.9}), seed=2)
    assert found.min() >= 0
    assert found.max() <= 255
    differs = (found - tensor(many)).abs().flatten(1).max(1).values > 1
    assert differs.any()


def test_the_colours_of_another_picture_are_taken_on(tissue):
    wanted = np.array([[150, 140, 100], [30, 8, 8]], np.float32)
    found = changed(np.repeat(tissue[:1], 16, axis=0), replace(NOTHING, stain_transfer=1.0), colours=[wanted])
    before = lab_statistics(tissue[0])
    for one in found.permute(0, 2, 3, 1).numpy().clip(0, 255).astype(np.uint8):
        after = lab_statistics(one)
        assert np.abs(after[0] - wanted[0]).sum() < np.abs(before[0] - wanted[0]).sum()


@pytest.mark.parametrize("quality", [30, 50, 70])
def test_blocks_are_rounded_like_those_of_jpeg(tissue, quality):
    ours = jpeg_like(tensor(tissue), torch.full((2, 1, 1, 1), float(quality)))
    code = imagecodecs.jpeg8_encode(tissue[0], level=quality, subsampling="444")
    theirs = tensor(imagecodecs.jpeg8_decode(code)[None])[0]
    assert (ours[0] - theirs).abs().mean() < 1.5
    assert (tensor(tissue)[0] - theirs).abs().mean() > 2 * (ours[0] - theirs).abs().mean()

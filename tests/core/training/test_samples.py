"""Crops: image and labels stay on top of each other under every change of shape, and sizes mean micrometres."""

import numpy as np
import pytest

from napari_nucleiseg.core.training.samples import CropSampler, LabelledImage


def disc_picture(mpp_um, side_um=128, radius_um=4.0):
    """Dark discs of one size on a light ground, at any pixel size."""
    side = round(side_um / mpp_um)
    ys, xs = (np.mgrid[:side, :side] + 0.5) * mpp_um
    labels = np.zeros((side, side), np.int32)
    for k, (y, x) in enumerate([(16 * i + 8, 16 * j + 8) for i in range(8) for j in range(8)], start=1):
        labels[(ys - y) ** 2 + (xs - x) ** 2 < radius_um**2] = k
    image = np.where(labels[..., None] > 0, 60, 220).astype(np.uint8).repeat(3, axis=2)
    return LabelledImage("discs", image, labels, mpp_um, np.zeros(labels.shape, np.float32))


def sampler(picture, **changes):
    settings = {"mpp_um": 0.5, "crop_px": 128, "scale": 1.0, "elastic_um": 0.0, "seed": 0, **changes}
    return CropSampler([([picture], 1.0)], **settings)


@pytest.mark.parametrize("elastic_um", [0.0, 2.0])
@pytest.mark.parametrize("mpp_um", [0.2, 0.25, 0.5, 0.8])
def test_labels_lie_on_their_nuclei(mpp_um, elastic_um):
    draw = sampler(disc_picture(mpp_um), elastic_um=elastic_um, scale=1.3)
    for number in range(6):
        crop = draw.draw(draw.rng(number))
        dark = crop.image[..., 0] < 140
        assert (crop.labels > 0).any()
        overlap = (dark & (crop.labels > 0)).sum() / (dark | (crop.labels > 0)).sum()
        assert overlap > 0.9


@pytest.mark.parametrize("mpp_um", [0.2, 0.25, 0.5])
def test_nuclei_have_the_same_size_in_micrometres_at_every_scan(mpp_um):
    draw = sampler(disc_picture(mpp_um))
    areas = []
    for number in range(8):
        labels = draw.draw(draw.rng(number)).labels
        inner = np.setdiff1d(labels[8:-8, 8:-8], np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
        areas += [np.sum(labels == k) for k in inner if k > 0]
    assert np.median(areas) * 0.25 == pytest.approx(np.pi * 16, rel=0.05)


def test_a_crop_is_a_function_of_its_number():
    draw = sampler(disc_picture(0.25), scale=1.3, elastic_um=1.0)
    first, again, other = (draw.draw(draw.rng(n)).image for n in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_pictures_smaller_than_a_crop_are_mirrored_with_separate_nuclei():
    picture = disc_picture(0.5, side_um=24)
    crop = sampler(picture).draw(np.random.default_rng(0))
    for k in np.unique(crop.labels[crop.labels > 0]):
        ys, xs = np.nonzero(crop.labels == k)
        assert np.ptp(ys) < 40
        assert np.ptp(xs) < 40
    assert (crop.image < 140).any()


def test_shares_decide_how_often_a_set_is_drawn():
    dark, light = disc_picture(0.5), disc_picture(0.5)
    light = LabelledImage("light", np.full_like(light.image, 250), light.labels, 0.5, light.weights)
    draw = CropSampler([([dark] * 3, 0.8), ([light], 0.2)], 0.5, 64, scale=1.0, elastic_um=0.0, seed=0)
    means = [draw.draw(draw.rng(n)).image.mean() for n in range(300)]
    assert np.mean(np.array(means) > 245) == pytest.approx(0.2, abs=0.07)

"""Crops made on the device say of each pixel what crops made on the processor would."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage.draw import disk

from napari_nucleiseg.core.models.registry import network_spec
from napari_nucleiseg.core.training.config import AugmentConfig, DataSet, TrainConfig
from napari_nucleiseg.core.training.device_crops import DeviceBatchMaker
from napari_nucleiseg.core.training.loop import batch_maker
from napari_nucleiseg.core.training.samples import LabelledImage

PLAIN = AugmentConfig(
    scale=1.4, elastic_um=0.0, stain=0.0, stain_transfer=0.0, colour=0.0, blur_px=0.0, noise=0.0, jpeg=0.0
)
CPU = torch.device("cpu")


def picture(side=300, mpp_um=0.25, *, unknown=False):
    rng = np.random.default_rng(5)
    labels = np.zeros((side, side), np.int32)
    for number, (y, x) in enumerate(np.mgrid[30:side:60, 30:side:60].reshape(2, -1).T, start=1):
        labels[disk((y + rng.integers(-8, 8), x + rng.integers(-8, 8)), rng.uniform(8, 16), shape=labels.shape)] = (
            number
        )
    image = np.where(labels[..., None] > 0, 60, 220).astype(np.uint8).repeat(3, axis=2)
    if unknown:
        labels[:, : side // 2] = -1
    return LabelledImage("discs", image, labels, mpp_um, np.zeros(labels.shape, np.float32))


def maker(augment=PLAIN, one=None, **changes):
    config = TrainConfig(train=(DataSet("x", 0.25),), crop_px=96, batch_size=6, augment=augment, **changes)
    return DeviceBatchMaker(config, network_spec("nuclei"), CPU, [([one or picture()], 1.0)])


def raw(made, values):
    return values * made.std + made.mean


def test_a_batch_is_a_function_of_its_number():
    made = maker(AugmentConfig())
    first, again, other = made.batch(3), made.batch(3), made.batch(4)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["image"], other["image"])


def test_the_dark_discs_are_the_nuclei():
    made = maker()
    batch = made.batch(0)
    dark = raw(made, batch["image"]).mean(1, keepdim=True) < 140
    assert ((dark == (batch["nuclei"] > 0.5)).float().mean()) > 0.97
    assert batch["known"].min() == 1


@pytest.mark.parametrize("number", range(4))
def test_offsets_point_to_the_centres_however_a_crop_is_turned(number):
    batch = maker().batch(number)
    checked = 0
    for nuclei, (dy, dx) in zip(batch["nuclei"][:, 0].numpy() > 0.5, batch["offsets"].numpy(), strict=True):
        pieces, count = ndimage.label(nuclei)
        for piece in range(1, count + 1):
            ys, xs = np.nonzero(pieces == piece)
            if min(ys.min(), xs.min()) == 0 or max(ys.max(), xs.max()) == 95:
                continue  # its centre may lie outside
            assert np.abs(ys + dy[ys, xs] - ys.mean()).max() < 1.5
            assert np.abs(xs + dx[ys, xs] - xs.mean()).max() < 1.5
            checked += 1
    assert checked > 10


def test_distance_is_largest_in_the_middle_and_nought_outside():
    batch = maker().batch(1)
    inside = batch["nuclei"] > 0.5
    assert batch["distance"][~inside].max() == 0
    assert batch["distance"][inside].max() == pytest.approx(1, abs=0.02)


def test_touching_nuclei_are_kept_apart_by_a_pixel_of_the_crop():
    one = picture()
    labels = np.zeros_like(one.labels)
    labels[100:200, 60:150], labels[100:200, 150:240] = 1, 2
    made = maker(replace(PLAIN, scale=1.0), replace(one, labels=labels))
    batch = made.batch(0)
    gap = (batch["nuclei"] > 0.5) & (batch["separated"] < 0.5)
    assert gap.any()
    # Two pixels of 0.5 um, on a seam of at most 50 px in each of six crops, turned by any angle.
    assert gap.sum() < 6 * 50 * 4


def test_what_nobody_annotated_is_not_known():
    batch = maker(one=picture(unknown=True)).batch(0)
    assert 0.1 < batch["known"].mean() < 0.9
    assert batch["nuclei"][batch["known"] == 0].max() == 0


def test_small_pictures_are_mirrored_as_far_as_a_crop_sees():
    made = maker(one=picture(side=90))
    image = raw(made, made.batch(2)["image"])
    assert image.min() > 50
    assert image.max() < 230


def test_clean_crops_come_along_where_the_network_teaches_itself():
    batch = maker(AugmentConfig(), self_training=0.5).batch(0)
    assert batch["clean"].shape == batch["image"].shape
    assert not torch.equal(batch["clean"], batch["image"])
    assert "clean" not in maker().batch(0)


def test_the_processor_makes_crops_of_what_cannot_be_turned():
    config = TrainConfig(train=(DataSet("x", 0.25),), crop_px=100)
    assert not DeviceBatchMaker.can_make(config, network_spec("nuclei"))
    assert DeviceBatchMaker.can_make(replace(config, crop_px=96), network_spec("nuclei"))


def test_training_asks_for_them_by_name_and_takes_the_processor_by_itself(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        "napari_nucleiseg.core.training.loop.DeviceBatchMaker.__init__", lambda *_: asked.append("device")
    )
    monkeypatch.setattr("napari_nucleiseg.core.training.loop.BatchMaker.__init__", lambda *_: asked.append("cpu"))
    config, spec = TrainConfig(train=(DataSet("x", 0.25),), out=str(tmp_path)), network_spec("nuclei")
    for where in ("auto", "device", "cpu"):
        batch_maker(replace(config, crops_on=where), spec, CPU)
    batch_maker(config, spec, torch.device("cuda"))
    assert asked == ["cpu", "device", "cpu", "device"]

"""The watershed on a foreground map: the published steps, at every pixel size, with nothing lost."""

import cv2
import numpy as np
import pytest
from scipy import ndimage
from skimage import morphology
from skimage.feature import peak_local_max
from skimage.segmentation import watershed

from napari_nucleiseg.core.decoders.base import DecodeOptions, decoder
from napari_nucleiseg.core.decoders.watershed import disk, part
from napari_nucleiseg.core.evaluation import scores

ALL = DecodeOptions(min_area_um2=0)


def discs(places, radius, shape=(160, 200)):
    labels = np.zeros(shape, np.int32)
    for number, (y, x) in enumerate(places, start=1):
        cv2.circle(labels, (x, y), radius, number, -1)
    return labels


def decoded(labels, mpp_um=0.25, options=ALL):
    found = decoder("watershed")
    return found.decode(found.targets(labels), mpp_um, options)


def test_separate_nuclei_come_back():
    labels = discs([(30, 30), (30, 80), (90, 40), (120, 150)], 14)
    found = decoded(labels)
    assert len(found) == 4
    assert scores(labels, found.labels, distances=False).pq > 0.99


def test_touching_nuclei_are_parted():
    labels = discs([(60, 60), (60, 84)], 14)
    found = decoded(labels)
    assert len(found) == 2
    assert scores(labels, found.labels, distances=False).pq > 0.9


@pytest.mark.parametrize("mpp_um", [0.125, 0.25, 0.5])
def test_sizes_are_micrometres(mpp_um):
    um = np.array([(15.0, 15.0), (15.0, 21.0), (30.0, 15.0)])
    shape = (round(45 / mpp_um), round(45 / mpp_um))
    places = np.round(um / mpp_um).astype(int).tolist()
    assert len(decoded(discs(places, round(3.5 / mpp_um), shape), mpp_um)) == 3


def test_disks_are_those_of_the_paper():
    for radius in (1, 2, 3, 7):
        assert np.array_equal(disk(radius), morphology.disk(radius))
    assert disk(0.5).shape == (1, 1)
    assert disk(3.5).sum() == 37


def test_foreground_is_that_of_the_published_steps():
    rng = np.random.default_rng(0)
    probability = cv2.GaussianBlur(rng.random((160, 200)).astype(np.float32), (0, 0), 4)
    probability = (probability - probability.min()) / np.ptp(probability)
    mask = probability > 0.5
    for radius in (2, 1):
        mask = morphology.opening(mask, morphology.disk(radius))
        mask = morphology.closing(mask, morphology.disk(radius))
    distance = ndimage.gaussian_filter(ndimage.distance_transform_edt(mask), 1)
    peaks = peak_local_max(distance, footprint=morphology.disk(7), labels=mask.astype(int), exclude_border=False)
    markers = np.zeros(mask.shape, bool)
    markers[tuple(peaks.T)] = True
    theirs = watershed(-distance, ndimage.label(markers, np.ones((3, 3)))[0], mask=mask)
    found = decoder("watershed").decode({"nuclei": probability[None]}, 0.25, ALL)
    assert (found.labels > 0)[mask].all()
    assert np.mean((found.labels > 0) != mask) < 0.01  # skimage and OpenCV close alike but at the rim of the picture
    assert scores(theirs.astype(np.int32), found.labels, distances=False).pq > 0.9


def test_a_small_piece_beside_a_large_one_is_kept():
    mask = np.zeros((60, 80), np.uint8)
    mask[10:50, 10:50] = 1
    mask[28:32, 53:57] = 1  # nearer to the large one than a centre may lie
    labels = part(mask, 0.25)
    assert (labels[mask > 0] > 0).all()
    assert labels[30, 55] not in set(np.unique(labels[10:50, 10:50]))


def test_threshold_and_smallest_area_are_heeded():
    maps = {"nuclei": (discs([(40, 40), (100, 120)], 14)[None] > 0).astype(np.float32) * 0.4}
    assert len(decoder("watershed").decode(maps, 0.25, DecodeOptions(threshold=0.5))) == 0
    found = decoder("watershed").decode(maps, 0.25, DecodeOptions(threshold=0.3, min_area_um2=30))
    assert len(found) == 2
    assert len(decoder("watershed").decode(maps, 0.25, DecodeOptions(threshold=0.3, min_area_um2=50))) == 0


@pytest.mark.parametrize("value", [0, 1])
def test_a_field_without_outline_is_no_trouble(value):
    found = decoder("watershed").decode({"nuclei": np.full((1, 40, 50), value, np.float32)}, 0.5, ALL)
    assert found.labels.shape == (40, 50)
    assert (found.labels > 0).all() == bool(value)

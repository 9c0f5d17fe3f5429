"""The classical floor: it finds stained discs, leaves glass empty, and reaches its known scores on real tissue."""

import cv2
import numpy as np
import pytest
import tifffile
from skimage.color import hed2rgb

from napari_nucleiseg.core.decoders.classical import ClassicalOptions, segment_classically
from napari_nucleiseg.core.evaluation import mean_scores, scores

MPP_UM = 0.5


def stained(labels, haematoxylin=0.12, noise=0.004):
    rng = np.random.default_rng(3)
    hed = np.zeros((*labels.shape, 3))
    hed[..., 0] = np.where(labels > 0, haematoxylin, 0.01) + rng.normal(0, noise, labels.shape)
    hed[..., 1] = 0.03
    return (hed2rgb(hed) * 255).astype(np.uint8)


def discs(centres, radius=7, shape=(128, 160)):
    labels = np.zeros(shape, np.int32)
    for k, (y, x) in enumerate(centres, start=1):
        cv2.circle(labels, (x, y), radius, k, cv2.FILLED)
    return labels


def test_separate_and_touching_discs_are_found_one_by_one():
    truth = discs([(20, 20), (20, 60), (60, 40), (60, 53), (100, 120), (110, 20)])
    found = segment_classically(stained(truth), MPP_UM)
    result = scores(truth, found.labels)
    assert (result.f1, len(found)) == (1, 6)
    assert result.pq > 0.85


def test_a_small_hole_is_filled_and_a_large_one_is_not():
    truth = discs([(40, 40), (40, 110)], radius=12)
    holed = truth.copy()
    cv2.circle(holed, (40, 40), 2, 0, cv2.FILLED)
    cv2.circle(holed, (110, 40), 7, 0, cv2.FILLED)
    labels = segment_classically(stained(holed), MPP_UM).labels
    assert labels[40, 40] > 0
    assert labels[40, 110] == 0


@pytest.mark.parametrize("value", [0, 128, 240, 255])
def test_an_even_picture_holds_no_nucleus(value):
    assert len(segment_classically(np.full((64, 64, 3), value, np.uint8), MPP_UM)) == 0


def test_glass_with_noise_holds_no_nucleus():
    assert len(segment_classically(stained(np.zeros((96, 96), int), noise=0.002), MPP_UM)) == 0


def test_small_nuclei_are_dropped_by_their_area_in_square_micrometres():
    truth = discs([(30, 30), (30, 90)], radius=7)
    cv2.circle(truth, (120, 90), 3, 3, cv2.FILLED)
    picture = stained(truth)
    assert len(segment_classically(picture, MPP_UM)) == 3
    assert len(segment_classically(picture, MPP_UM, ClassicalOptions(min_area_um2=15))) == 2


@pytest.mark.parametrize(
    ("data_set", "mpp_um", "floor"),
    [
        ("kumar_train30", 0.25, (0.726, 0.376, 0.328)),
        ("tnbc_dev", 0.25, (0.755, 0.508, 0.440)),
        ("nucls15", 0.2, (0.820, 0.549, 0.512)),
    ],
)
def test_known_floor_on_real_tissue(shared_data, data_set, mpp_um, floor):
    results = []
    for path in sorted((shared_data / data_set / "images").glob("*.png")):
        picture = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
        truth = tifffile.imread(shared_data / data_set / "labels" / f"{path.stem}.tif")
        results.append(scores(truth, segment_classically(picture, mpp_um).labels, distances=False))
    mean = mean_scores(results)
    # The figures of the data set's own floor (the same recipe, other settings), to within 0.01.
    for value, least in zip((mean.dice, mean.aji, mean.pq), floor, strict=True):
        assert least - 0.01 <= value <= least + 0.06

"""The border weight map equals its formula, pixel by pixel."""

import numpy as np
import pytest
from scipy import ndimage

from napari_nucleiseg.core.decoders.base import decoder
from napari_nucleiseg.core.training.weightmap import border_weights


def by_the_formula(labels, w0, sigma):
    """Two nearest nuclei by brute force over whole distance maps."""
    ids = [i for i in np.unique(labels) if i]
    distances = np.sort([ndimage.distance_transform_edt(labels != i) for i in ids], axis=0)
    return w0 * np.exp(-((distances[0] + distances[1]) ** 2) / (2 * sigma**2))


def random_labels(seed, count=12, side=64):
    rng = np.random.default_rng(seed)
    labels = np.zeros((side, side), np.int32)
    for k in range(1, count + 1):
        y, x, h, w = (*rng.integers(0, side - 10, 2), *rng.integers(3, 10, 2))
        labels[y : y + h, x : x + w] = k
    return labels


@pytest.mark.parametrize("seed", range(5))
def test_equals_the_formula(seed):
    labels = random_labels(seed)
    expected = by_the_formula(labels, 10, 5)
    # Windows end where the term falls below w0 * exp(-8).
    assert np.abs(border_weights(labels, 10, 5) - expected).max() < 10 * np.exp(-8) * 1.01


def test_thin_gap_weighs_most():
    labels = np.zeros((40, 40), np.int32)
    labels[10:30, 5:19] = 1
    labels[10:30, 20:35] = 2
    weights = border_weights(labels, 10, 5)
    assert weights[20, 19] == pytest.approx(10 * np.exp(-(2**2) / 50), rel=1e-4)
    assert weights[labels == 0].max() == weights[20, 19]


def test_the_gap_cut_between_touching_nuclei_weighs_most():
    labels = np.zeros((40, 40), np.int32)
    labels[10:30, 5:20] = 1
    labels[10:30, 20:35] = 2
    separated = decoder("border").targets(labels)["separated"][0]
    gap = (labels > 0) & (separated == 0)
    assert gap.sum() == 40
    assert border_weights(labels, 10, 5)[gap].min() > 9.5


def test_fewer_than_two_nuclei_have_no_border():
    labels = np.zeros((20, 20), np.int32)
    assert not border_weights(labels).any()
    labels[5:9, 5:9] = 1
    assert not border_weights(labels).any()

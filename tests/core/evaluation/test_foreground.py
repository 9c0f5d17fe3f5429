"""Hammoude and XOR by their definitions, and what the published protocol does to a prediction of everything."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from napari_nucleiseg.core.errors import DataError
from napari_nucleiseg.core.evaluation import (
    best_cluster,
    dice,
    foreground_scores,
    hammoude,
    overlaps,
    scores_with_leaked_truth,
    xor,
)

MASKS = arrays(np.uint8, (7, 9), elements=st.integers(0, 2))


def disc(radius, side=256):
    y, x = np.mgrid[:side, :side] - side // 2
    return (y**2 + x**2 <= radius**2).astype(np.uint8)


@given(truth=MASKS, pred=MASKS)
def test_hammoude_and_xor_are_their_definitions(truth, pred):
    table = overlaps(truth, pred)
    a, b = truth > 0, pred > 0
    either, both = (a | b).sum(), (a & b).sum()
    if not either:
        assert (hammoude(table), xor(table)) == (0, 0)
        return
    assert hammoude(table) == pytest.approx(1 - both / either)
    assert xor(table) == (pytest.approx((a ^ b).sum() / a.sum()) if a.any() else math.inf)


@given(truth=MASKS, pred=MASKS)
def test_scores_obey_their_bounds_and_each_other(truth, pred):
    table = overlaps(truth, pred)
    assert 0 <= hammoude(table) <= 1
    assert hammoude(table) <= xor(table) + 1e-12
    # Dice and IoU are one number in two forms.
    iou = 1 - hammoude(table)
    assert dice(table) == pytest.approx(2 * iou / (1 + iou))


def test_foreground_scores_hold_the_three():
    truth, pred = disc(40), disc(30)
    table = overlaps(truth, pred)
    assert foreground_scores(truth, pred) == (dice(table), hammoude(table), xor(table))


def test_the_best_cluster_overlaps_best_and_not_merely_most():
    truth = disc(40)
    clusters = np.where(disc(38) > 0, 5, 2)
    assert best_cluster(truth, clusters) == 5
    # One cluster of nearly everything holds all of the truth, but another fits it.
    clusters = np.full(truth.shape, 1)
    clusters[truth > 0] = 3
    assert best_cluster(truth, clusters) == 3


def test_the_leaky_protocol_rewards_saying_nothing():
    truth, everything = disc(40), np.zeros((256, 256), np.uint8)
    honest = foreground_scores(truth, everything + 1)
    leaked = scores_with_leaked_truth(truth, everything)
    assert honest.dice == pytest.approx(0.142, abs=0.002)
    assert leaked.dice == pytest.approx(0.883, abs=0.01)


def test_scores_refuse_images_of_two_sizes():
    with pytest.raises(DataError, match="predict at the size of the truth"):
        scores_with_leaked_truth(disc(4, 32), disc(4, 33))
    with pytest.raises(DataError, match="without pixels"):
        best_cluster(np.zeros((0, 4), int), np.zeros((0, 4), int))

"""Scores against hand-computed cases, a brute-force reference, and the properties they must have."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from napari_nucleiseg.core.errors import DataError
from napari_nucleiseg.core.evaluation import (
    aji,
    aji_plus,
    detection,
    dice,
    f1,
    mean_scores,
    overlaps,
    panoptic_quality,
    scores,
)


def strip(*ids):
    """One row of pixels is enough to compute every score by hand."""
    return np.array([ids], np.int32)


EMPTY = strip(0, 0, 0, 0)
label_images = arrays(np.int32, (7, 9), elements=st.integers(0, 5))


def test_overlaps_counts_areas_and_shared_pixels_of_sparse_ids():
    truth = np.array([[0, 7, 7, 0], [4_000_000_000, 7, 7, 0]], np.uint32)
    pred = np.array([[0, 0, 5, 5], [9, 9, 5, 5]], np.uint16)
    table = overlaps(truth, pred)
    assert table.truth_ids.tolist() == [7, 4_000_000_000]
    assert table.pred_ids.tolist() == [5, 9]
    assert table.truth_areas.tolist() == [4, 1]
    assert table.pred_areas.tolist() == [4, 2]
    pairs = {
        (table.truth_ids[a], table.pred_ids[b]): n
        for a, b, n in zip(table.truth_index, table.pred_index, table.intersections, strict=True)
    }
    assert pairs == {(7, 5): 2, (7, 9): 1, (4_000_000_000, 9): 1}


def test_one_missed_and_one_spurious_nucleus():
    # A: 4 px, found with 3 of them and 1 px too many; B: 2 px, missed; one prediction of 3 px on nothing.
    truth = strip(1, 1, 1, 1, 0, 0, 2, 2, 0, 0, 0)
    pred = strip(0, 6, 6, 6, 6, 0, 0, 0, 8, 8, 8)
    table = overlaps(truth, pred)
    assert aji(table) == pytest.approx(3 / (5 + 2 + 3))
    assert aji_plus(table) == pytest.approx(3 / 10)
    assert panoptic_quality(table) == pytest.approx((0.5 * 0.6, 0.5, 0.6))
    assert f1(table) == pytest.approx(0.5)
    assert dice(table) == pytest.approx(2 * 3 / (6 + 7))


def test_merged_nuclei_use_one_prediction_twice_in_aji_but_once_in_aji_plus():
    truth = strip(1, 1, 1, 2, 2)
    pred = strip(4, 4, 4, 4, 4)
    table = overlaps(truth, pred)
    assert aji(table) == pytest.approx((3 + 2) / (5 + 5))
    assert aji_plus(table) == pytest.approx(3 / (5 + 2))
    assert panoptic_quality(table) == pytest.approx((2 / 3 * 3 / 5, 2 / 3, 3 / 5))
    assert dice(table) == 1


def test_split_nucleus_counts_the_unused_half_as_union():
    truth = strip(1, 1, 1, 1, 1)
    pred = strip(4, 4, 4, 5, 5)
    table = overlaps(truth, pred)
    assert aji(table) == pytest.approx(3 / (5 + 2))
    assert aji_plus(table) == pytest.approx(3 / (5 + 2))
    assert panoptic_quality(table).dq == pytest.approx(2 / 3)


def test_assignment_of_aji_plus_is_best_as_a_whole_not_greedy():
    # Greedy would take (1, 4) first and leave 2 alone: IoU(1,4) = 3/6, IoU(1,5) = 2/6, IoU(2,4) = 2/6.
    truth = strip(1, 1, 1, 1, 1, 2, 2, 2, 0)
    pred = strip(5, 5, 4, 4, 4, 4, 4, 0, 5)
    table = overlaps(truth, pred)
    ious = dict(zip(zip(table.truth_index, table.pred_index, strict=True), table.ious, strict=True))
    assert ious == pytest.approx({(0, 0): 3 / 7, (0, 1): 2 / 6, (1, 0): 2 / 6})
    # 2/6 + 2/6 beats 3/7.
    assert aji_plus(table) == pytest.approx((2 + 2) / (6 + 6))
    # Truth 1 takes 4 (3/7), truth 2 takes 4 again (2/6), 5 is never chosen.
    assert aji(table) == pytest.approx((3 + 2) / (7 + 6 + 3))


def test_an_iou_of_exactly_half_is_a_match_for_f1_but_not_for_panoptic_quality():
    table = overlaps(strip(1, 1, 0), strip(3, 0, 0))
    assert table.ious.tolist() == [0.5]
    assert panoptic_quality(table) == (0, 0, 0)
    assert f1(table) == 1
    assert detection(table, 0.51).f1 == 0


def test_f1_at_a_low_threshold_matches_as_many_as_possible():
    truth = strip(1, 1, 1, 1, 1, 2, 2, 2, 0)
    pred = strip(5, 5, 4, 4, 4, 4, 4, 0, 5)
    assert f1(overlaps(truth, pred), 0.3) == 1


def test_empty_images_are_defined():
    nothing = overlaps(EMPTY, EMPTY)
    assert (aji(nothing), aji_plus(nothing), dice(nothing), f1(nothing)) == (1, 1, 1, 1)
    assert panoptic_quality(nothing) == (1, 1, 1)
    full = strip(0, 1, 1, 0)
    for table in (overlaps(EMPTY, full), overlaps(full, EMPTY)):
        assert (aji(table), aji_plus(table), dice(table), f1(table)) == (0, 0, 0, 0)
        assert panoptic_quality(table) == (0, 0, 0)


def test_images_without_pixels_score_as_empty():
    assert scores(np.zeros((0, 5), int), np.zeros((0, 5), int)).pq == 1


@pytest.mark.parametrize(
    ("truth", "pred", "sentence"),
    [
        (np.zeros((4, 4), int), np.zeros((4, 5), int), "predicted labels are 4 x 5 px but the true ones 4 x 4 px"),
        (np.zeros((4, 4, 3), int), np.zeros((4, 4, 3), int), "must be one image"),
        (np.zeros((4, 4)), np.zeros((4, 4), int), "must be whole numbers, not float64"),
        (np.zeros((4, 4), int), np.full((4, 4), -1), "predicted labels must lie between 0 and"),
    ],
)
def test_what_is_not_a_pair_of_label_images_is_refused(truth, pred, sentence):
    with pytest.raises(DataError, match=sentence):
        overlaps(truth, pred)


def brute_force(truth, pred):
    """The definitions, written down naively: every pair looked at, every assignment tried."""
    masks_t = [truth == i for i in np.unique(truth) if i]
    masks_p = [pred == i for i in np.unique(pred) if i]
    if not masks_t and not masks_p:
        return 1.0, 1.0, 1.0, 1.0
    inter = np.array([[np.sum(t & p) for p in masks_p] for t in masks_t]).reshape(len(masks_t), len(masks_p))
    union = np.array([[np.sum(t | p) for p in masks_p] for t in masks_t]).reshape(inter.shape)
    iou = inter / np.maximum(union, 1)

    def jaccard(pairs):
        used = {b for _, b in pairs}
        rest_t = sum(m.sum() for a, m in enumerate(masks_t) if a not in {a for a, _ in pairs})
        rest_p = sum(m.sum() for b, m in enumerate(masks_p) if b not in used)
        return sum(inter[p] for p in pairs) / (sum(union[p] for p in pairs) + rest_t + rest_p)

    best = [(a, int(iou[a].argmax())) for a in range(len(masks_t)) if inter.shape[1] and iou[a].max() > 0]
    found = iou[iou > 0.5]
    pq = 2 * found.sum() / (len(masks_t) + len(masks_p))
    foreground = 2 * np.sum((truth > 0) & (pred > 0)) / (np.sum(truth > 0) + np.sum(pred > 0))
    size = max(inter.shape)
    square = np.zeros((size, size))
    square[: inter.shape[0], : inter.shape[1]] = iou
    highest = max(sum(square[a, b] for a, b in enumerate(order)) for order in permutations(range(size)))
    return jaccard(best), highest, pq, foreground


@settings(max_examples=60, deadline=None)
@given(label_images, label_images)
def test_scores_equal_the_definitions_by_brute_force(truth, pred):
    table = overlaps(truth, pred)
    expected_aji, expected_iou_sum, expected_pq, expected_dice = brute_force(truth, pred)
    assert aji(table) == pytest.approx(expected_aji)
    assert panoptic_quality(table).pq == pytest.approx(expected_pq)
    assert dice(table) == pytest.approx(expected_dice)
    if not table.both_empty:
        from napari_nucleiseg.core.evaluation.agreement import one_to_one

        rows = one_to_one(table, table.ious)
        assert table.ious[rows].sum() == pytest.approx(expected_iou_sum)
        assert len(set(table.truth_index[rows])) == len(set(table.pred_index[rows])) == len(rows)


@settings(max_examples=60, deadline=None)
@given(label_images)
def test_a_perfect_prediction_scores_one(truth):
    result = scores(truth, truth)
    for name in ("dice", "aji", "aji_plus", "pq", "dq", "sq", "f1", "precision", "recall"):
        assert getattr(result, name) == pytest.approx(1), name
    assert result.ahd == 0
    assert result.ahd_as_coded == 0


@settings(max_examples=60, deadline=None)
@given(label_images, label_images, st.permutations([11, 2, 300, 70_000, 4]))
def test_scores_do_not_depend_on_the_ids(truth, pred, ids):
    renamed = np.array([0, *ids], np.int32)[pred]
    table, other = overlaps(truth, pred), overlaps(truth, renamed)
    for score in (dice, f1, lambda t: panoptic_quality(t).pq):
        assert score(table) == pytest.approx(score(other))
    # Where two assignments tie, the ids decide; without ties AJI and AJI+ agree as well.
    ious = table.ious
    if len(np.unique(ious)) == len(ious):
        assert aji(table) == pytest.approx(aji(other))


@settings(max_examples=60, deadline=None)
@given(label_images, label_images)
def test_symmetric_scores_are_symmetric(truth, pred):
    there, back = overlaps(truth, pred), overlaps(pred, truth)
    for score in (dice, f1, lambda t: panoptic_quality(t).pq):
        assert score(there) == pytest.approx(score(back))
    assert detection(there).precision == pytest.approx(detection(back).recall)


@settings(max_examples=60, deadline=None)
@given(label_images, label_images)
def test_scores_lie_between_zero_and_one_and_pq_is_its_factors(truth, pred):
    result = scores(truth, pred, distances=False)
    for name in ("dice", "aji", "aji_plus", "pq", "dq", "sq", "f1", "precision", "recall"):
        assert 0 <= getattr(result, name) <= 1 + 1e-12
    assert result.pq == pytest.approx(result.dq * result.sq)


def test_mean_scores_averages_over_images_and_leaves_unknown_distances_out():
    good = scores(strip(1, 1, 0), strip(1, 1, 0))
    missed = scores(strip(1, 1, 0), strip(0, 0, 0))
    mean = mean_scores([good, missed])
    assert mean.pq == 0.5
    assert mean.ahd == 0
    assert (mean.truth_count, mean.pred_count) == (2, 1)
    assert missed.as_dict()["ahd"] is None
    with pytest.raises(DataError, match="no image"):
        mean_scores([])

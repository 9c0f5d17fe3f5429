"""AUC and c-index against slow definitions, and intervals that are as wide as they should be."""

import math

import numpy as np
import pytest

from napari_nucleiseg.core.training.cohort.metrics import bootstrap_interval, class_pairs, score_of, survival_pairs


def slow_auc(labels, scores, folds):
    """Macro, one against the rest, pair by pair."""
    each = []
    for one in range(scores.shape[1]):
        right = counted = 0.0
        for i in range(len(labels)):
            for j in range(len(labels)):
                if labels[i] == one and labels[j] != one and folds[i] == folds[j]:
                    counted += 1
                    right += 1.0 if scores[i, one] > scores[j, one] else 0.5 * (scores[i, one] == scores[j, one])
        if counted:
            each.append(right / counted)
    return sum(each) / len(each)


def slow_c_index(times, events, risks, folds):
    right = counted = 0.0
    for i in range(len(times)):
        for j in range(len(times)):
            if i == j or not events[i] or folds[i] != folds[j]:
                continue
            if times[i] < times[j] or (times[i] == times[j] and not events[j]):
                counted += 1
                right += 1.0 if risks[i] > risks[j] else 0.5 * (risks[i] == risks[j])
    return right / counted


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("fold_count", [1, 3])
def test_auc_is_the_slow_one(classes, fold_count):
    rng = np.random.default_rng(classes)
    labels, folds = rng.integers(0, classes, 40), rng.integers(0, fold_count, 40)
    scores = rng.random((40, classes)).round(1)  # with ties
    found = score_of(class_pairs(labels, scores, folds))
    assert found == pytest.approx(slow_auc(labels, scores, folds))
    if fold_count == 1:
        assert found == score_of(class_pairs(labels, scores))


@pytest.mark.parametrize("fold_count", [1, 3])
def test_c_index_is_the_slow_one(fold_count):
    rng = np.random.default_rng(5)
    times, events = rng.integers(1, 12, 40).astype(float), rng.random(40) > 0.4
    risks, folds = rng.random(40).round(1), rng.integers(0, fold_count, 40)
    found = score_of(survival_pairs(times, events, risks, folds))
    assert found == pytest.approx(slow_c_index(times, events, risks, folds))


def test_perfect_reversed_and_silent_scores():
    labels, scores = np.array([0, 0, 1, 1]), np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.1, 0.9]])
    assert score_of(class_pairs(labels, scores)) == 1
    assert score_of(class_pairs(labels, 1 - scores)) == 0
    assert score_of(class_pairs(labels, np.ones((4, 2)))) == 0.5
    times, events = np.array([1.0, 2.0, 3.0]), np.array([True, True, False])
    assert score_of(survival_pairs(times, events, -times)) == 1
    assert score_of(survival_pairs(times, events, times)) == 0


def test_where_no_pair_counts_nothing_is_said():
    assert math.isnan(score_of(class_pairs(np.zeros(3, int), np.random.default_rng(0).random((3, 2)))))
    lost = survival_pairs(np.array([1.0, 2.0]), np.zeros(2, bool), np.array([1.0, 2.0]))
    assert math.isnan(score_of(lost))
    assert all(math.isnan(end) for end in bootstrap_interval(lost, ["a", "b"], rounds=20))


def test_drawing_anew_is_counting_slides_several_times():
    rng = np.random.default_rng(3)
    labels, scores = rng.integers(0, 2, 20), rng.random((20, 2)).round(1)
    (pairs, _) = class_pairs(labels, scores)
    counts = rng.integers(0, 4, 20)
    many = np.repeat(np.arange(20), counts)
    again, _ = class_pairs(labels[many], scores[many])
    expected = again.share(np.ones((1, len(many)), np.float32))
    np.testing.assert_allclose(pairs.share(counts[None].astype(np.float32)), expected)


def test_intervals_are_seeded_hold_the_score_and_grow_with_fewer_patients():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, 200)
    right = np.clip(0.5 + 0.2 * (labels - 0.5) + 0.3 * rng.normal(size=200), 0, 1)
    pairs = class_pairs(labels, np.stack((1 - right, right), axis=1))
    alone, together = [f"{i}" for i in range(200)], [f"{i // 10}" for i in range(200)]
    low, high = bootstrap_interval(pairs, alone, rounds=300, seed=4)
    assert (low, high) == bootstrap_interval(pairs, alone, rounds=300, seed=4)
    assert (low, high) != bootstrap_interval(pairs, alone, rounds=300, seed=5)
    assert low < score_of(pairs) < high
    # Hanley and McNeil: about 0.034 at this AUC with a hundred of each.
    assert 0.1 < high - low < 0.2
    few = labels.argsort(kind="stable")[::10]
    small = class_pairs(labels[few], np.stack((1 - right, right), axis=1)[few])
    wide = bootstrap_interval(small, [f"{i}" for i in range(20)], rounds=300)
    assert wide[1] - wide[0] > 1.5 * (high - low)
    # Slides of a patient that are copies of each other say no more than one.
    copies = np.repeat(few, 10)
    copied = class_pairs(labels[copies], np.stack((1 - right, right), axis=1)[copies])
    assert bootstrap_interval(copied, together, rounds=300) == pytest.approx(
        bootstrap_interval(small, [f"{i:02d}" for i in range(20)], rounds=300), abs=0.05
    )

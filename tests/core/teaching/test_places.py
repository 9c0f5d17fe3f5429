"""Scores of places add up to those of the whole picture; chance is told from a gain."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tissue import example

from napari_nucleiseg.core.evaluation import scores
from napari_nucleiseg.core.teaching.agreement import compare, measure, together
from napari_nucleiseg.core.teaching.examples import UNKNOWN


def worse(labels, seed, share=0.3):
    """Drop some nuclei, move the others by a pixel, add a spurious one."""
    rng = np.random.default_rng(seed)
    seen = np.roll(labels, (1, 1), (0, 1))
    gone = rng.random(int(labels.max()) + 1) < share
    seen[gone[seen]] = 0
    seen[:4, :4] = labels.max() + 1
    return seen


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), share=st.floats(0, 1))
def test_places_add_up_to_the_scores_of_the_picture(seed, share):
    one = example(seed=seed)
    seen = worse(one.labels, seed, share)
    found, whole = measure(one, seen), scores(one.labels, seen, distances=False)
    assert (found.aji, found.pq, found.f1) == pytest.approx((whole.aji, whole.pq, whole.f1))
    assert found.nuclei == whole.truth_count


def test_nothing_seen_where_there_is_nothing_is_perfect():
    empty = example(labels=np.zeros((96, 96), np.int32))
    found = measure(empty, np.zeros((96, 96), np.int32))
    assert (found.aji, found.pq, found.f1, found.nuclei) == (1, 1, 1, 0)


def test_what_lies_where_nobody_looked_does_not_count():
    one = example()
    labels = one.labels.copy()
    labels[:, 48:] = UNKNOWN
    half = example(labels=labels)
    seen = one.labels.copy()
    seen[:, 60:] = 77
    assert measure(half, seen).pq == 1
    assert measure(one, seen).pq < 1


def test_the_same_model_gains_nothing():
    one = example()
    seen = measure(one, worse(one.labels, 1))
    gain = compare([seen], [seen])
    assert (gain.choice, gain.low, gain.high, gain.not_worse) == (0, 0, 0, 1)


def test_a_clear_gain_is_sure_and_a_loss_as_surely_one():
    examples = [example(number) for number in range(4)]
    poor = [measure(one, worse(one.labels, 2)) for one in examples]
    good = [measure(one, one.labels) for one in examples]
    gain, loss = compare(poor, good), compare(good, poor)
    assert gain.low > 0.1
    assert gain.not_worse == 1
    assert loss.not_worse == 0
    assert loss.choice == pytest.approx(-gain.choice)
    assert together(good).aji - together(poor).aji == pytest.approx(gain.aji)


def test_a_change_of_two_nuclei_in_opposite_ways_is_not_sure():
    one = example()
    without = [np.where(one.labels == gone, 0, one.labels) for gone in (1, 16)]
    gain = compare([measure(one, without[0])], [measure(one, without[1])])
    assert gain.low < 0 < gain.high
    assert 0.2 < gain.not_worse < 0.8


def test_resampling_is_a_function_of_the_seed():
    one = example()
    pair = [measure(one, worse(one.labels, 1))], [measure(one, worse(one.labels, 2))]
    assert compare(*pair, seed=4) == compare(*pair, seed=4) != compare(*pair, seed=5)

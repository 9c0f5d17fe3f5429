"""Heads compared with nuclei, against slow definitions and hand-computed cases."""

import time

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from napari_nucleiseg.core.attention.ranking import area_fractions, ordered, rank_heads, told_apart
from napari_nucleiseg.core.errors import DataError

RNG = np.random.default_rng(0)
scores = arrays(np.float64, (3, 20), elements=st.integers(0, 5).map(float))
targets = arrays(np.bool_, 20)


def slow_auroc(values, positive):
    """Chance that a positive one is higher than a negative one, ties half."""
    pairs = [(a > b) + (a == b) / 2 for a in values[positive] for b in values[~positive]]
    return sum(pairs) / len(pairs)


def slow_precision(values, positive):
    """Precision at each threshold, weighted by the recall that it adds."""
    total, before = 0.0, 0.0
    for level in sorted(set(values), reverse=True):
        taken = values >= level
        recall = (taken & positive).sum() / positive.sum()
        total += (recall - before) * (taken & positive).sum() / taken.sum()
        before = recall
    return total


@settings(deadline=None)
@given(scores, targets)
def test_auroc_and_average_precision_are_as_defined_with_ties(values, positive):
    assume(positive.any() and not positive.all())
    auroc, precision = told_apart(values, positive)
    assert auroc == pytest.approx([slow_auroc(row, positive) for row in values])
    assert precision == pytest.approx([slow_precision(row, positive) for row in values])


@settings(deadline=None)
@given(scores, targets)
def test_auroc_of_the_opposite_is_what_is_left_of_one(values, positive):
    assume(positive.any() and not positive.all())
    assert told_apart(-values, positive)[0] == pytest.approx(1 - told_apart(values, positive)[0])


@settings(deadline=None)
@given(scores, targets)
def test_auroc_does_not_change_with_a_rising_transform(values, positive):
    assume(positive.any() and not positive.all())
    assert np.array_equal(told_apart(values, positive)[0], told_apart(np.exp(values), positive)[0])


@settings(deadline=None)
@given(arrays(np.float64, (2, 3, 4, 5), elements=st.floats(0.01, 1)), st.integers(0, 2**32 - 1))
def test_shares_sum_to_one(attention, seed):
    rng = np.random.default_rng(seed)
    tissue = rng.random((4, 5))
    nuclei = tissue * rng.random((4, 5))
    nuclei[0, 0], nuclei[0, 1] = 0.5, 0
    for one in rank_heads(attention, nuclei, tissue, tissue_only=False):
        assert sum(one.attention) == pytest.approx(1)
        assert sum(one.uniform) == pytest.approx(1)
        assert min(one.attention) >= 0


def test_the_head_that_looks_at_nuclei_comes_first_and_the_opposite_last():
    nuclei = (RNG.random((8, 8)) < 0.3) * 0.8
    attention = RNG.random((2, 3, 8, 8)) + 0.1
    attention[1, 2] = nuclei + 0.01
    attention[0, 1] = 1 - nuclei
    found = rank_heads(attention, nuclei)
    assert (found[0].layer, found[0].head, found[0].auroc, found[0].average_precision) == (1, 2, 1, 1)
    assert (found[-1].layer, found[-1].head, found[-1].auroc) == (0, 1, 0)
    assert found[0].gain > 1 > found[-1].gain
    best = ordered(found, "gain")[0]
    assert (best.layer, best.head) == (1, 2)


def test_attention_goes_where_the_areas_are():
    nuclei, tissue = np.array([[0.5, 0.0, 0.0]]), np.array([[1.0, 0.5, 0.0]])
    attention = np.array([[[[0.6, 0.3, 0.1]]]])
    one = rank_heads(attention, nuclei, tissue)[0]
    assert one.attention == pytest.approx((0.3, 0.3 + 0.15, 0.15 + 0.1))
    assert one.uniform == pytest.approx((0.5 / 3, 1 / 3, 1.5 / 3))
    assert one.gain == pytest.approx(1.8)


def test_equal_attention_gains_nothing_and_is_chance():
    nuclei = np.array([[0.5, 0.0], [0.3, 0.1]])
    one = rank_heads(np.full((1, 1, 2, 2), 0.2), nuclei)[0]
    assert one.auroc == 0.5
    assert one.average_precision == 0.5
    assert one.gain == pytest.approx(1)


def test_glass_is_not_compared_unless_it_is_asked_for():
    nuclei, tissue = np.array([[1.0, 0.0, 0.0, 0.0]]), np.array([[1.0, 1.0, 0.0, 0.0]])
    attention = np.array([[[[0.4, 0.5, 0.1, 0.1]]]])
    assert rank_heads(attention, nuclei, tissue)[0].auroc == 0
    assert rank_heads(attention, nuclei, tissue, tissue_only=False)[0].auroc == pytest.approx(2 / 3)


def test_a_token_of_nuclei_is_compared_wherever_the_tissue_ends():
    nuclei, tissue = np.array([[0.3, 1.0, 0.0]]), np.array([[0.3, 1.0, 1.0]])
    attention = np.array([[[[0.1, 0.5, 0.3]]]])
    assert rank_heads(attention, nuclei, tissue)[0].auroc == 0.5
    # A tissue mask that misses a nucleus is wrong there.
    assert rank_heads(attention, nuclei, tissue * [0, 1, 1])[0].attention == pytest.approx(
        (0.53 / 0.9, 0.3 / 0.9, 0.07 / 0.9)
    )


def test_a_token_is_one_of_nuclei_from_the_given_part_of_its_area_on():
    nuclei = np.array([[0.25, 0.2, 0.0]])
    attention = np.array([[[[0.1, 0.5, 0.3]]]])
    assert rank_heads(attention, nuclei)[0].auroc == 0
    assert rank_heads(attention, nuclei, least_nuclei=0.2)[0].auroc == 0.5


def test_tokens_that_are_not_known_are_left_out():
    nuclei = (RNG.random((4, 8)) < 0.5) * 1.0
    attention = RNG.random((2, 2, 4, 8))
    unknown = attention.copy()
    unknown[..., 4:] = np.nan
    assert rank_heads(unknown, nuclei) == rank_heads(attention[..., :4], nuclei[:, :4])


@pytest.mark.parametrize(
    ("nuclei", "sentence"),
    [(np.zeros((2, 2)), "move to where nuclei were found"), (np.ones((2, 2)), "choose a larger view")],
)
def test_a_view_in_which_there_is_nothing_to_compare_is_told(nuclei, sentence):
    with pytest.raises(DataError, match=sentence):
        rank_heads(np.ones((1, 1, 2, 2)), nuclei)


def test_wrong_arguments_are_told():
    nuclei, attention = np.array([[1.0, 0.0]]), np.ones((1, 1, 1, 2))
    for wrong, sentence in (
        ((attention[0], nuclei), "give all of the same tokens"),
        ((attention, nuclei, np.ones((2, 2))), "give all of the same tokens"),
        ((-attention, nuclei), "0 or more and finite"),
        ((attention * 0, nuclei), "attends to nothing"),
        ((attention * np.nan, nuclei), "wait until"),
        ((attention, nuclei * 9), "give fractions"),
    ):
        with pytest.raises(DataError, match=sentence):
            rank_heads(*wrong)
    with pytest.raises(DataError, match="above 0"):
        rank_heads(attention, nuclei, least_nuclei=0)


def test_fractions_are_areas_for_tokens_of_any_size():
    mask = RNG.random((30, 44)) < 0.4
    whole = area_fractions(mask, 10, 11)
    assert whole == pytest.approx(mask.reshape(10, 3, 11, 4).mean(axis=(1, 3)), abs=1e-6)
    # Tokens of 30 / 4 by 44 / 8 pixels: every pixel cut into 2 by 2.
    finer = np.kron(mask, np.ones((2, 2)))
    assert area_fractions(mask, 4, 8) == pytest.approx(finer.reshape(4, 15, 8, 11).mean(axis=(1, 3)), abs=1e-5)
    with pytest.raises(DataError, match="finer level"):
        area_fractions(mask, 31, 4)


def test_all_heads_of_a_view_are_ranked_at_once():
    attention, nuclei = RNG.random((12, 6, 64, 64)).astype(np.float32), RNG.random((64, 64))
    spent = []
    for _ in range(3):
        began = time.perf_counter()
        found = rank_heads(attention, nuclei)
        spent.append(time.perf_counter() - began)
    assert len(found) == 72
    assert min(spent) < 0.4

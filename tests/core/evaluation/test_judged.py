"""Each nucleus is right or a mistake, blocks are counted as whole images are, and neighbours are matched as all are."""

import importlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import linear_sum_assignment

from napari_nucleiseg.core.errors import DataError
from napari_nucleiseg.core.evaluation import Kind, OverlapCounter, agreement, judged, overlaps
from napari_nucleiseg.core.evaluation.slide_report import Verdicts

# The package calls its function by the module's name.
OVERLAPS = importlib.import_module("napari_nucleiseg.core.evaluation.overlaps")
label_images = arrays(np.uint32, (11, 13), elements=st.sampled_from([0, 0, 1, 2, 3, 70_000, 2**32 - 1]))
FIELDS = ("truth_ids", "pred_ids", "truth_areas", "pred_areas", "truth_index", "pred_index", "intersections")


@st.composite
def rectangles(draw):
    """Rectangles over each other, so that all kinds occur."""
    labels = np.zeros((12, 12), np.uint32)
    for number in range(1, draw(st.integers(0, 7)) + 1):
        y, x = draw(st.integers(0, 10)), draw(st.integers(0, 10))
        labels[y : y + draw(st.integers(1, 8)), x : x + draw(st.integers(1, 8))] = number
    return labels


@given(label_images, label_images, st.integers(1, 12), st.randoms(use_true_random=False), st.integers(1, 60))
def test_blocks_in_any_order_count_as_the_whole_image(truth, pred, side, random, most_rows):
    whole = overlaps(truth, pred)
    corners = [(y, x) for y in range(0, 11, side) for x in range(0, 13, side)]
    random.shuffle(corners)
    counter = OverlapCounter()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OVERLAPS, "_MOST_ROWS", most_rows)
        for y, x in corners:
            counter.add(truth[y : y + side, x : x + side], pred[y : y + side, x : x + side])
        counted = counter.table()
    for name in FIELDS:
        assert getattr(counted, name).tolist() == getattr(whole, name).tolist(), name


def test_blocks_that_do_not_fit_are_refused_and_none_are_empty():
    assert OverlapCounter().table().both_empty
    with pytest.raises(DataError, match="predict at the size of the truth"):
        OverlapCounter().add(np.zeros((2, 2), int), np.zeros((2, 3), int))


@given(rectangles(), rectangles())
def test_every_nucleus_is_judged_and_pairs_of_panoptic_quality_are_never_missed(truth, pred):
    table = overlaps(truth, pred)
    ours, theirs = judged(table)
    assert set(ours.tolist()) <= {Kind.SAME, Kind.MISSED, Kind.SPLIT, Kind.MERGED}
    assert set(theirs.tolist()) <= {Kind.SAME, Kind.ADDED, Kind.SPLIT, Kind.MERGED}
    found = table.ious > 0.5
    assert not (ours[table.truth_index[found]] == Kind.MISSED).any()
    assert not (theirs[table.pred_index[found]] == Kind.ADDED).any()
    # What is right is right on both sides, and nothing is right without a partner.
    assert np.count_nonzero(ours == Kind.SAME) == np.count_nonzero(theirs == Kind.SAME)
    assert set(np.flatnonzero(ours == Kind.SAME)) <= set(table.truth_index[found])
    counts = Verdicts.count(ours, theirs)
    assert counts.correct + counts.missed + counts.split <= table.truth_count
    assert counts.correct + counts.added + counts.merged <= table.pred_count


@given(rectangles())
def test_what_agrees_with_itself_is_right(labels):
    table = overlaps(labels, labels)
    assert Verdicts.count(*judged(table)).as_dict() == {
        "correct": table.truth_count, "missed": 0, "added": 0, "split": 0, "merged": 0
    }  # fmt: skip


@given(rectangles(), rectangles(), st.integers(1, 5))
def test_matching_neighbours_among_themselves_is_as_good_as_matching_all(truth, pred, at_once):
    table = overlaps(truth, pred)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(agreement, "_PAIRS_AT_ONCE", at_once)
        rows = agreement.one_to_one(table, table.ious)
    assert len(set(table.truth_index[rows])) == len(set(table.pred_index[rows])) == len(rows)
    gains = np.zeros((table.truth_count, table.pred_count))
    gains[table.truth_index, table.pred_index] = table.ious
    best = gains[linear_sum_assignment(gains, maximize=True)].sum()
    assert table.ious[rows].sum() == pytest.approx(best)

"""Two sets of nuclei of one view: every nucleus gets one kind, and looking the other way round turns it over."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_nucleiseg.core.errors import DataError
from napari_nucleiseg.core.teaching.differences import Kind, compare_maps


def view(*boxes):
    """An instance map of boxes ``(id, y0, x0, y1, x1)``."""
    labels = np.zeros((40, 40), np.int32)
    for number, y0, x0, y1, x1 in boxes:
        labels[y0:y1, x0:x1] = number
    return labels


@st.composite
def views(draw):
    """Small maps with any ids: rectangles over each other, so that all kinds occur."""
    labels = np.zeros((12, 12), np.uint32)
    for _ in range(draw(st.integers(0, 6))):
        y, x = draw(st.integers(0, 10)), draw(st.integers(0, 10))
        height, width = draw(st.integers(1, 8)), draw(st.integers(1, 8))
        labels[y : y + height, x : x + width] = draw(st.sampled_from([1, 2, 3, 7, 500, 2**32 - 1]))
    return labels


@pytest.mark.parametrize(
    ("former", "now", "kind"),
    [
        ([(4, 0, 0, 8, 8)], [(9, 0, 0, 8, 8)], Kind.SAME),
        ([(4, 0, 0, 8, 8)], [(9, 0, 0, 8, 5)], Kind.CHANGED),
        ([(4, 0, 0, 8, 8)], [], Kind.MISSED),
        ([], [(4, 0, 0, 8, 8)], Kind.ADDED),
        ([(4, 0, 0, 8, 8)], [(1, 0, 0, 8, 4), (2, 0, 4, 8, 8)], Kind.SPLIT),
        ([(1, 0, 0, 8, 4), (2, 0, 4, 8, 8)], [(4, 0, 0, 8, 8)], Kind.MERGED),
    ],
)
def test_each_kind_is_told(former, now, kind):
    found = compare_maps(view(*former), view(*now))
    assert {name: count for name, count in found.counts.items() if count} == {kind: 1}
    assert found.former[kind].tolist() == sorted(box[0] for box in former)
    assert found.now[kind].tolist() == sorted(box[0] for box in now)
    assert np.unique(found.codes).tolist() == [0, kind]


def test_the_summary_is_a_sentence_for_people():
    former = view((1, 0, 0, 8, 8), (2, 10, 0, 18, 8), (3, 20, 0, 28, 8))
    now = view((1, 0, 0, 8, 8), (2, 10, 0, 18, 4), (5, 10, 4, 18, 8), (6, 30, 30, 36, 36), (7, 30, 0, 36, 9))
    assert compare_maps(former, now).summary == "2 added, 1 missed, 1 split; 1 as before"
    assert compare_maps(former, former).summary == "nothing differs; 3 as before"
    assert compare_maps(view(), view()).summary == "no nuclei here"


def test_of_many_and_many_the_pairs_that_agree_are_taken_out():
    # 1 became larger at the cost of 2, of which a piece was made a nucleus of its own.
    former = view((1, 0, 0, 8, 8), (2, 0, 8, 8, 18))
    now = view((1, 0, 0, 8, 14), (2, 0, 14, 8, 16), (3, 0, 16, 8, 18))
    found = compare_maps(former, now)
    assert found.former[Kind.CHANGED].tolist() == [1]
    assert found.now[Kind.CHANGED].tolist() == [1]
    assert found.former[Kind.SPLIT].tolist() == [2]
    assert found.now[Kind.SPLIT].tolist() == [2, 3]


@settings(max_examples=150, deadline=None)
@given(views(), views())
def test_every_nucleus_has_exactly_one_kind(former, now):
    found = compare_maps(former, now)
    for labels, kinds in ((former, found.former), (now, found.now)):
        told = np.concatenate([kinds[kind] for kind in Kind])
        assert sorted(told.tolist()) == np.unique(labels[labels > 0]).tolist()
    assert len(found.former[Kind.ADDED]) == len(found.now[Kind.MISSED]) == 0
    assert np.array_equal(found.codes > 0, (former > 0) | (now > 0))


@settings(max_examples=150, deadline=None)
@given(views(), views())
def test_swapping_the_maps_turns_every_kind_over(former, now):
    there, back = compare_maps(former, now), compare_maps(now, former)
    turned = {Kind.ADDED: Kind.MISSED, Kind.MISSED: Kind.ADDED, Kind.SPLIT: Kind.MERGED, Kind.MERGED: Kind.SPLIT}
    for kind in Kind:
        other = turned.get(kind, kind)
        assert there.counts[kind] == back.counts[other]
        assert there.former[kind].tolist() == back.now[other].tolist()
        assert there.now[kind].tolist() == back.former[other].tolist()


@settings(max_examples=50, deadline=None)
@given(views())
def test_equal_maps_are_the_same_throughout(labels):
    found = compare_maps(labels, labels.copy())
    assert found.are_equal
    assert found.counts[Kind.SAME] == len(np.unique(labels[labels > 0]))


def test_maps_of_two_shapes_are_refused():
    with pytest.raises(DataError, match="40 x 40"):
        compare_maps(view(), np.zeros((8, 8), np.int32))

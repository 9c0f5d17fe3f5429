"""The like of what is marked is found, negatives push away, thresholds are monotone, nothing crashes."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_nucleiseg.core.errors import DataError
from napari_nucleiseg.core.fewshot.field import FeatureField, normalised
from napari_nucleiseg.core.fewshot.search import (
    METHODS,
    LikeOptions,
    Mark,
    candidates_of,
    colour_field,
    find_the_like,
)
from napari_nucleiseg.core.fewshot.threshold import automatic_threshold, refined
from napari_nucleiseg.core.geometry import YX

MPP = 0.5


@pytest.fixture(scope="module")
def field(two_kinds):
    return colour_field(two_kinds.image, MPP)


@pytest.mark.parametrize("method", METHODS)
def test_of_two_kinds_only_the_marked_one_is_proposed(two_kinds, field, method):
    marks = [Mark(two_kinds.point(number)) for number in two_kinds.blue[:2]]
    found = find_the_like(field, two_kinds.labels, marks, LikeOptions(method))
    assert sorted(found.ids) == list(two_kinds.blue)
    assert (np.diff(found.scores) <= 0).all()
    assert list(found.like) == list(two_kinds.blue[:2])
    inside = [found.likeness[two_kinds.labels == number].mean() for number in two_kinds.blue]
    beside = [found.likeness[two_kinds.labels == number].mean() for number in two_kinds.brown]
    assert min(inside) > max(beside)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("switch", [{"kernels": True}, {"distractors": 2}, {"whole": False}, {"rounds": 5}])
def test_switches_rank_the_marked_kind_first(two_kinds, field, method, switch):
    found = find_the_like(field, two_kinds.labels, [Mark(two_kinds.point(2))], LikeOptions(method, **switch))
    highest = found.all_ids[np.argsort(-found.all_scores)][: len(two_kinds.brown)]
    assert set(highest) == set(two_kinds.brown)


@pytest.mark.parametrize("method", METHODS)
def test_a_negative_mark_lowers_what_is_like_it(two_kinds, field, method):
    marks = [Mark(two_kinds.point(1)), Mark(two_kinds.point(2))]
    before = find_the_like(field, two_kinds.labels, marks, LikeOptions(method))
    against = [*marks[:1], Mark(two_kinds.point(2), is_like=False)]
    after = find_the_like(field, two_kinds.labels, against, LikeOptions(method))
    is_brown = np.isin(after.all_ids, two_kinds.brown)
    assert after.all_scores[is_brown].mean() < before.all_scores[is_brown].mean()
    assert 2 in before.ids
    assert 2 not in after.ids
    assert list(after.unlike) == [2]


def test_the_last_word_on_a_nucleus_counts(two_kinds, field):
    marks = [Mark(two_kinds.point(1)), Mark(two_kinds.point(3)), Mark(two_kinds.point(3), is_like=False)]
    found = find_the_like(field, two_kinds.labels, marks)
    assert (list(found.like), list(found.unlike)) == ([1], [3])


def test_a_region_means_the_nuclei_in_it(two_kinds, field):
    mask = np.zeros(two_kinds.labels.shape, bool)
    mask[0:24, 0:24] = True  # the first disc; a sliver of none
    found = find_the_like(field, two_kinds.labels, [Mark(mask)])
    assert list(found.like) == [1]
    assert set(two_kinds.blue) <= set(found.ids)


def test_a_point_beside_candidates_means_a_disc(two_kinds, field):
    empty = np.where(np.isin(two_kinds.labels, two_kinds.blue[:1]), 0, two_kinds.labels).astype(np.int32)
    found = find_the_like(field, empty, [Mark(two_kinds.point(1))], LikeOptions(disc_um=2.0))
    assert len(found.like) == 0
    assert set(found.ids) == set(two_kinds.blue[1:])


@pytest.mark.parametrize("method", METHODS)
def test_without_candidates_there_is_only_the_heatmap(two_kinds, field, method):
    found = find_the_like(field, np.zeros_like(two_kinds.labels), [Mark(two_kinds.point(1))], LikeOptions(method))
    assert len(found) == len(found.all_ids) == 0
    assert found.likeness.shape == two_kinds.labels.shape
    blue = np.isin(two_kinds.labels, two_kinds.blue)
    assert found.likeness[blue].mean() > found.likeness[two_kinds.labels == 0].mean()


def test_ids_may_have_gaps(two_kinds, field):
    found = find_the_like(field, two_kinds.labels * 100_003, [Mark(two_kinds.point(1))])
    assert sorted(found.ids) == [number * 100_003 for number in two_kinds.blue]


def test_a_given_threshold_is_used_and_above_agrees_with_it(two_kinds, field):
    marks = [Mark(two_kinds.point(1)), Mark(two_kinds.point(2), is_like=False)]
    free = find_the_like(field, two_kinds.labels, marks)
    for threshold in (0.0, 0.3, 0.6, 0.9):
        found = find_the_like(field, two_kinds.labels, marks, LikeOptions(threshold=threshold))
        assert found.threshold == threshold
        np.testing.assert_array_equal(found.ids, free.above(threshold))


@pytest.mark.parametrize(
    ("marks", "options", "said"),
    [
        ([], LikeOptions(), "mark at least one"),
        ([Mark((1.0, 1.0), is_like=False)], LikeOptions(), "mark at least one"),
        ([Mark((-30.0, 1.0))], LikeOptions(), "beside the view"),
        ([Mark(np.zeros((200, 200), bool))], LikeOptions(), "empty"),
        ([Mark(np.ones((3, 3), bool))], LikeOptions(), "shape"),
        ([Mark((12.0, 12.0))], LikeOptions("best"), "no method"),
        ([Mark((12.0, 12.0))], LikeOptions(threshold=2.0), "between 0 and 1"),
        ([Mark((12.0, 12.0))], LikeOptions(distractors=-1), "fewer than 0"),
        ([Mark((12.0, 12.0))], LikeOptions(disc_um=0.0), "radius"),
    ],
)
def test_what_makes_no_sense_gets_a_sentence(two_kinds, field, marks, options, said):
    with pytest.raises(DataError, match=said):
        find_the_like(field, two_kinds.labels, marks, options)


def test_candidates_of_another_view_are_refused(two_kinds, field):
    with pytest.raises(DataError, match="must be equal"):
        find_the_like(field, two_kinds.labels[:50], [Mark((12.0, 12.0))])


def test_candidates_are_many_and_hold_the_discs(two_kinds):
    found = candidates_of(two_kinds.image, MPP)
    both = len(two_kinds.blue) + len(two_kinds.brown)
    assert len(np.unique(found)) > 1.5 * both
    for number in two_kinds.blue[::5]:
        disc = two_kinds.labels == number
        best = np.bincount(found[disc]).argmax()
        assert (disc & (found == best)).sum() / (disc | (found == best)).sum() > 0.6
    assert len(np.unique(candidates_of(two_kinds.image, MPP, superpixels=False))) < len(np.unique(found))


def test_known_nuclei_keep_their_ids_and_pixels(two_kinds):
    known = np.where(two_kinds.labels == 5, 77, 0).astype(np.int32)
    found = candidates_of(two_kinds.image, MPP, known)
    np.testing.assert_array_equal(found == 77, known == 77)
    assert found[found > 77].size


@st.composite
def queries(draw):
    """A field of noise, candidates of any kind, some marks, any method."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows, columns = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    features = normalised([rng.normal(size=(draw(st.integers(1, 5)), rows, columns)).astype(np.float32)])
    shape = 2 * rows, 2 * columns
    field = FeatureField(features, 2, 1.0, YX(0, 0), shape, 1.0)
    labels = rng.integers(0, draw(st.integers(1, 12)), shape).astype(np.int32)
    marks = [
        Mark((float(rng.integers(shape[0])), float(rng.integers(shape[1]))), is_like=bool(rng.integers(2)))
        for _ in range(draw(st.integers(0, 4)))
    ]
    # The last word counts, so that something is always like.
    marks.append(Mark((float(rng.integers(shape[0])), float(rng.integers(shape[1])))))
    options = LikeOptions(
        draw(st.sampled_from(METHODS)),
        distractors=draw(st.integers(0, 3)),
        kernels=draw(st.booleans()),
        window=draw(st.integers(1, 3)),
        whole=draw(st.booleans()),
        rounds=draw(st.integers(0, 3)),
    )
    return field, labels, marks, options


@given(queries())
@settings(deadline=None, max_examples=120)
def test_whatever_is_marked_scores_lie_in_0_to_1_and_thresholds_are_monotone(query):
    field, labels, marks, options = query
    found = find_the_like(field, labels, marks, options)
    np.testing.assert_array_equal(found.all_ids, np.unique(labels[labels > 0]))
    for values in (found.all_scores, found.likeness):
        assert np.isfinite(values).all()
        assert not values.size or 0 <= values.min() <= values.max() <= 1
    assert found.likeness.shape == labels.shape
    assert set(found.like) <= set(found.ids)
    assert not set(found.unlike) & set(found.ids)
    before = set(found.above(-1.0))
    for threshold in np.linspace(0, 1, 7):
        now = set(found.above(float(threshold)))
        assert now <= before
        before = now


def test_the_map_does_not_tell_one_side_of_a_nucleus_from_the_other(two_kinds, field):
    """As beside outputs that point to the centre: a feature says one thing left of it, another one right of it."""
    labels = two_kinds.labels
    turning = np.zeros(labels.shape, np.float32)
    for number in np.unique(labels)[1:]:
        ys, xs = np.nonzero(labels == number)
        turning[ys, xs] = np.where(xs < xs.mean(), 1.5, -0.5)
    rows, columns = field.features.shape[1:]
    strip = cv2.resize(turning, (columns, rows), interpolation=cv2.INTER_AREA)[None]
    turned = replace(field, features=np.concatenate((field.features, np.repeat(strip, 8, axis=0))))
    mark = Mark(two_kinds.point(int(two_kinds.blue[0])))

    def sides(found):
        left = found.likeness[np.isin(labels, two_kinds.blue) & (turning > 0)].mean()
        return abs(left - found.likeness[np.isin(labels, two_kinds.blue) & (turning < 0)].mean())

    whole = find_the_like(turned, labels, [mark], LikeOptions(method="sg-one", whole=True))
    by_place = find_the_like(turned, labels, [mark], LikeOptions(method="sg-one", whole=False))
    assert sides(whole) < sides(by_place) / 3


def test_scores_that_hardly_differ_have_a_threshold():
    scores = np.full(50, 0.7, np.float32)
    scores[:20] = np.nextafter(np.float32(0.7), np.float32(1))
    assert 0.69 < automatic_threshold(scores, parted=False) < 0.71


def test_candidates_that_hardly_differ_are_parted():
    vectors = np.zeros((50, 2), np.float32)
    vectors[:, 0] = 1
    vectors[:30, 1] = 3e-7
    near, far = refined(vectors, np.array([[0.0, 1.0]], np.float32), np.zeros((0, 2), np.float32), rounds=3)
    assert np.isfinite(near).all()
    assert np.isfinite(far).all()

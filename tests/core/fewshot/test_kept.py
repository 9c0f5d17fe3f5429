"""Marks of one view count in another: kept with a piece of their field, laid beside the view at hand."""

import numpy as np
import pytest

from napari_nucleiseg.core.fewshot.kept import find_across, keep
from napari_nucleiseg.core.fewshot.options import LikeOptions, Mark
from napari_nucleiseg.core.fewshot.search import colour_field

MPP_UM = 0.5
OPTIONS = LikeOptions(method="sg-one")
BLUE, BROWN = (70, 50, 120), (110, 75, 25)


def view(colours, shape=(96, 160)):
    """A picture of squares in these colours, from left to right, and their numbers."""
    picture = np.full((*shape, 3), (214, 170, 205), np.uint8)
    picture += np.random.default_rng(0).integers(0, 9, picture.shape, np.uint8)
    labels = np.zeros(shape, np.int32)
    for place, colour in enumerate(colours):
        square = slice(40, 54), slice(10 + 30 * place, 24 + 30 * place)
        picture[square], labels[square] = colour, place + 1
    return colour_field(picture, MPP_UM), labels


@pytest.fixture
def blue():
    """A mark of a blue square, made in a view of its own."""
    field, labels = view([BLUE, BROWN, BROWN, BLUE])
    return keep(field, labels == 1, is_like=True)


def test_a_kept_mark_finds_the_like_in_another_view(blue):
    field, labels = view([BROWN, BLUE, BROWN, BLUE, BROWN])
    found = find_across(field, labels, [], [blue], OPTIONS)
    assert sorted(found.above(0.6).tolist()) == [2, 4]
    assert found.all_ids.tolist() == [1, 2, 3, 4, 5]
    assert found.likeness.shape == field.shape
    assert found.likeness[labels == 2].mean() > found.likeness[labels == 1].mean()
    assert found.like.tolist() == []


def test_it_counts_beside_marks_of_the_view(blue):
    field, labels = view([BROWN, BLUE, BROWN, BLUE])
    mask = labels == 3
    for mark in (Mark((46.0, 76.0), is_like=False), Mark(mask, is_like=False)):
        found = find_across(field, labels, [mark], [blue], OPTIONS)
        assert found.unlike.tolist() == [3]
        assert 3 not in found.above(0.0).tolist()
        assert {2, 4} <= set(found.above(0.5).tolist())


@pytest.mark.parametrize("method", ["panet", "alp", "nearest", "sg-one"])
def test_every_method_takes_it(blue, method):
    field, labels = view([BROWN, BLUE, BROWN, BLUE])
    found = find_across(field, labels, [], [blue, blue], LikeOptions(method=method, distractors=1, kernels=True))
    scores = dict(zip(found.all_ids.tolist(), found.all_scores.tolist(), strict=True))
    assert min(scores[2], scores[4]) > max(scores[1], scores[3])
    assert np.isfinite(found.likeness).all()


def test_a_view_narrower_than_the_mark_takes_what_fits():
    field, labels = view([BLUE, BROWN, BLUE, BROWN])
    kept = keep(field, labels > 0, is_like=True)
    narrow, few = view([BLUE, BROWN], shape=(96, 70))
    assert len(find_across(narrow, few, [], [kept], OPTIONS).all_ids) == 2


def test_the_other_side_is_kept_and_nothing_is_no_mark(blue):
    field, labels = view([BROWN, BLUE, BROWN, BLUE])
    brown = keep(field, labels == 1, is_like=False)
    found = find_across(field, labels, [], [blue, brown], OPTIONS)
    assert found.all_scores[1] - found.all_scores[0] > 0.3
    assert keep(field, labels > 99, is_like=True) is None


def test_without_kept_marks_it_is_the_search_itself():
    field, labels = view([BROWN, BLUE, BROWN, BLUE])
    found = find_across(field, labels, [Mark((46.0, 46.0))], [], OPTIONS)
    assert found.like.tolist() == [2]
    assert 4 in found.above(0.6).tolist()

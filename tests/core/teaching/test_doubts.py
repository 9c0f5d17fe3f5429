"""Labels that no hold-out can find wrong are found wrong by the tissue itself."""

import cv2
import numpy as np
import pytest
from tissue import example, painted

from napari_nucleiseg.core.teaching.doubts import doubts
from napari_nucleiseg.core.teaching.examples import UNKNOWN


def said_of(one, sure=None, probability=None):
    """What is said of an example where the model is sure of the nuclei of an instance map (none)."""
    blank = np.full(one.labels.shape, 0.5, np.float32) if probability is None else probability
    return doubts(one, lambda: (blank, np.zeros_like(one.labels) if sure is None else sure))


@pytest.mark.parametrize("seed", range(5))
def test_careful_labels_raise_no_doubt(seed):
    assert said_of(example(seed=seed), sure=painted(seed=seed)[1]) == []


@pytest.mark.parametrize(
    ("move", "towards"), [((4, 0), "up"), ((-4, 0), "down"), ((0, 4), "left"), ((-5, -5), "down and right")]
)
def test_shifted_labels(move, towards):
    one = example(labels=np.roll(painted(seed=1)[1], move, (0, 1)))
    (said,) = said_of(one)
    distance = np.hypot(*move) * 0.5
    assert f"{distance:.1f} µm further {towards}." in said
    assert said.startswith("Region 1 of a.svs seems to be shifted")


def test_a_shift_that_a_hand_makes_is_none():
    assert said_of(example(labels=np.roll(painted(seed=1)[1], (1, 1), (0, 1)))) == []


@pytest.mark.parametrize("seed", range(4))
def test_outlines_that_take_in_what_is_around(seed):
    image, labels = painted(seed=seed, step=32, radius=7)

    def widened(pixels):
        disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * pixels + 1, 2 * pixels + 1))
        return example(image=image, labels=cv2.dilate(labels.astype(np.float32), disc).astype(np.int32))

    (said,) = said_of(widened(4))
    assert "has outlines that are too wide" in said
    assert said_of(widened(1)) == []
    # Where nuclei do not stand out nobody can tell.
    pale = example(image=np.full_like(image, 200), labels=widened(4).labels)
    assert said_of(pale) == []


def test_an_empty_region_where_the_model_is_sure_of_nuclei():
    empty, seen = example(labels=np.zeros((96, 96), np.int32)), painted(seed=1)[1]
    assert "no nucleus is outlined" in said_of(empty, sure=seen)[0]
    assert said_of(empty, sure=np.where(seen <= 3, seen, 0)) == []


@pytest.mark.parametrize("seed", range(4))
def test_every_second_nucleus_left_out(seed):
    image, whole = painted(seed=seed)
    half = example(image=image, labels=np.where(whole % 2, whole, 0).astype(np.int32))
    (said,) = said_of(half, sure=whole)
    assert said.startswith("Region 1 of a.svs counts as corrected, but 8 nuclei are not outlined in it")
    # One that was forgotten is none, nor is what the model does not take for nuclei, and what is pale is not meant.
    assert said_of(example(image=image, labels=np.where(whole == 3, 0, whole)), sure=whole) == []
    assert said_of(half) == []
    pale = image.copy()
    pale[whole % 2 == 0] = 210, 160, 190
    assert said_of(example(image=pale, labels=half.labels), sure=whole) == []


def test_nuclei_that_nobody_vouched_for_are_not_left_out():
    image, whole = painted(seed=2)
    approved = example(image=image, labels=np.where(whole % 2, whole, UNKNOWN).astype(np.int32))
    assert said_of(approved, sure=whole) == []


def test_nuclei_in_pieces():
    labels = np.random.default_rng(0).integers(1, 17, (96, 96)).astype(np.int32)
    labels[painted(seed=1)[1] == 0] = 0
    assert "in pieces" in said_of(example(labels=labels))[0]


def test_nuclei_far_too_small_point_to_the_pixel_size():
    assert "Check the slide's pixel size" in said_of(example(mpp_um=0.12))[0]


def test_everything_one_nucleus():
    assert "µm². Split it" in said_of(example(labels=np.ones((96, 96), np.int32)))[0]


def test_nuclei_on_ink():
    image, labels = painted(seed=1)
    image = image.copy()
    image[:64] = (20, 60, 130)
    assert any("ink" in said for said in said_of(example(image=image, labels=labels)))


def test_what_nobody_looked_at_is_not_judged():
    labels = painted(seed=1)[1]
    labels[:, 40:] = UNKNOWN
    assert said_of(example(labels=labels)) == []
    assert said_of(example(labels=np.full((96, 96), UNKNOWN, np.int32))) == []

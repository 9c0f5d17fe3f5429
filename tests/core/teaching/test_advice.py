"""Advice is short, plain, true, and names the most useful thing first."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from tissue import example, painted

from napari_nucleiseg.core.store.regions import HOLD_OUT, TEACH
from napari_nucleiseg.core.teaching.advice import LONGEST, advise
from napari_nucleiseg.core.teaching.collect import LOOSE, Lesson

CLASSES = {1: "Tumor", 2: "Stroma", 3: "Immune cells", 4: "Epithelium"}


def few(count, number=1, role=TEACH, **more):
    """An example with so many nuclei."""
    _, labels = painted(seed=number)
    return example(number, role, labels=np.where(labels > count, 0, labels).astype(np.int32), **more)


def recoloured(number, factor, role=TEACH, slide="b.svs"):
    image, _ = painted(seed=number)
    return example(number, role, slide, image=cv2.convertScaleAbs(image, alpha=factor))


def said(*examples, left_out=(), classes=CLASSES):
    return advise(Lesson(tuple(examples), (), tuple(left_out)), classes)


def test_with_nothing_corrected_it_says_what_to_do_first():
    advice = said()
    assert not advice.ready
    assert advice.counts == {TEACH: (0, 0), HOLD_OUT: (0, 0)}
    assert advice.sentences == (
        "Nothing has been corrected for teaching yet.",
        "Draw a region around 20 to 50 nuclei, correct the nuclei in it, and mark it as done.",
    )


def test_a_handful_of_nuclei_is_not_enough():
    advice = said(few(3))
    assert not advice.ready
    assert advice.counts[TEACH] == (3, 1)
    assert advice.sentences[0] == "So far: 3 nuclei in 1 region."
    assert advice.sentences[1].startswith("At least 8 nuclei are needed.")


def test_two_regions_of_each_role_and_two_stains_need_nothing():
    advice = said(example(1), recoloured(2, 0.8), example(3, HOLD_OUT), recoloured(4, 0.8, HOLD_OUT))
    assert advice.ready
    assert advice.counts == {TEACH: (32, 2), HOLD_OUT: (32, 2)}
    assert advice.sentences == ("Ready to teach: 32 nuclei in 2 regions, 32 nuclei in 2 regions held out.",)


@pytest.mark.parametrize(
    ("examples", "ready", "sentence"),
    [
        ((example(1), example(2)), True, "No region is held out"),
        ((example(1),), True, "All nuclei come from one region"),
        ((example(1), example(2), example(3, HOLD_OUT)), True, "All regions are of one slide"),
        ((example(1), example(2, slide="b.svs"), example(3, HOLD_OUT)), True, "Your slides are all stained alike"),
        ((example(1), recoloured(2, 0.7, HOLD_OUT)), True, "A region that you hold out is stained unlike"),
        ((example(1), few(5, 2, HOLD_OUT)), False, "Only 5 nuclei held out"),
        ((replace(example(1), region=LOOSE, number=0),), True, "Your nuclei lie outside of regions"),
        ((few(9),), False, "Too few nuclei to judge a new model by"),
        ((example(1, HOLD_OUT), example(2, HOLD_OUT)), False, "All regions are held out"),
    ],
)
def test_what_is_missing_is_named(examples, ready, sentence):
    advice = said(*examples)
    assert advice.ready is ready
    assert [one for one in advice.sentences if one.startswith(sentence)], advice.sentences


def test_classes_are_named_only_where_people_use_them():
    shown = example(1, classes=(0, 1)), example(2, classes=(1, 3)), example(3, HOLD_OUT)
    text = " ".join(said(*shown).sentences)
    assert "In one region only: Immune cells." in text
    assert "Not shown yet: Stroma, Epithelium." in text
    assert "Tumor" not in text
    assert "Stroma" not in " ".join(said(example(1), example(2)).sentences)


def test_what_is_left_out_comes_before_what_would_be_nice():
    why = "Region 7 is left out: nothing in it was corrected or approved. Mark it as done if all is right."
    advice = said(example(1), left_out=[why])
    assert advice.sentences[1] == why
    assert len(advice.sentences) > 2
    many = said(example(1), left_out=[why, why, why])
    assert many.sentences[1:3] == (why, "2 other regions are left out, too.")


def test_every_sentence_fits_the_panel_whatever_the_names():
    long = "a very long name indeed " * 8
    names = {number: f"{number} {long}" for number in range(1, 9)}
    advice = said(
        example(1, classes=(1, 2, 3)),
        few(4, 2, HOLD_OUT),
        left_out=[f"{long} is left out: {long}. Mark it."],
        classes=names,
    )
    assert all(0 < len(sentence) <= LONGEST for sentence in advice.sentences), advice.sentences
    huge = Lesson(tuple(example(number, role) for number in range(1, 4) for role in (TEACH, HOLD_OUT)))
    assert all(len(sentence) <= LONGEST for sentence in advise(huge, names).sentences)

"""Planes that a person vouches for: how they are written, and what of them is held out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from napari_nucleiseg.core.errors import TeachingError, UnsupportedImageError, VoxelSizeError
from napari_nucleiseg.core.geometry import ZYX
from napari_nucleiseg.core.teaching.stacks.lesson import LEAST_TO_LEARN, StackLesson, divide_stack
from napari_nucleiseg.core.teaching.stacks.planes import planes_of, written
from napari_nucleiseg.core.teaching.verdict import LEAST_NUCLEI

VOXEL = ZYX(1.0, 0.5, 0.5)


def lesson(labels, planes, **changes):
    facts = {"name": "cells", "volume": np.zeros(labels.shape, np.uint8), "voxel_um": VOXEL, **changes}
    return StackLesson(labels=labels, planes=planes, **facts)


def squares(rows, columns, *, planes=(2, 3), depth=6, side=6):
    """Labels with a grid of square nuclei that reach through all `planes`."""
    labels = np.zeros((depth, rows * 2 * side, columns * 2 * side), np.int32)
    for number in range(rows * columns):
        y, x = (number // columns) * 2 * side, (number % columns) * 2 * side
        for z in planes:
            labels[z, y + 2 : y + 2 + side, x + 2 : x + 2 + side] = number + 1
    return labels


@given(st.sets(st.integers(0, 99)))
def test_what_is_written_is_read_again(planes):
    assert planes_of(written(planes), 100) == tuple(sorted(planes))


def test_planes_are_read_as_people_write_them():
    assert planes_of("12, 16 ,20-24,", 30) == (12, 16, 20, 21, 22, 23, 24)
    assert planes_of("3–4, 4", 5) == (3, 4)
    assert planes_of(" ", 5) == ()
    assert written((5, 1, 2, 3)) == "1-3, 5"
    for text, told in (
        ("two", "“two” is no plane"),
        ("1.5", "is no plane"),
        ("4-2", "write 2-4"),
        ("3, 9", "no plane 9"),
    ):
        with pytest.raises(TeachingError, match=told):
            planes_of(text, 8)


def test_a_nucleus_is_on_one_side_only():
    labels = squares(6, 10)
    one = lesson(labels, (2, 3))
    division = divide_stack(one)
    assert division.held_nuclei >= LEAST_NUCLEI
    assert division.learned_nuclei + division.held_nuclei == 60
    rows, columns = division.held
    held = np.unique(labels[2:4, rows, columns])
    for plane, known in division.labels.items():
        assert not np.isin(known, held[held > 0]).any()
        assert (known[rows, columns] < 0).all()
        elsewhere = known >= 0
        assert np.array_equal(known[elsewhere], labels[plane][elsewhere])
    learned = np.unique(np.concatenate([known[known > 0] for known in division.labels.values()]))
    assert len(learned) == division.learned_nuclei
    assert f"({division.held_nuclei} nuclei)" in division.told


def test_no_more_is_held_out_than_is_needed_to_judge():
    shares = {}
    for columns in (8, 30):
        division = divide_stack(lesson(squares(4, columns), (2, 3)))
        shares[columns] = division.held_nuclei / (4 * columns)
        assert division.held_nuclei >= LEAST_NUCLEI
    assert shares[30] == pytest.approx(0.25, abs=0.1)
    assert shares[8] >= 0.4


def test_where_few_nuclei_are_there_most_are_learned_from():
    division = divide_stack(lesson(squares(3, 4), (2,)))
    assert division.held_nuclei < LEAST_NUCLEI
    assert division.learned_nuclei >= LEAST_TO_LEARN
    with pytest.raises(TeachingError, match="only 6 nuclei on plane 2"):
        divide_stack(lesson(squares(2, 3), (2,)))
    with pytest.raises(TeachingError, match="only 0 nuclei on plane 5"):
        divide_stack(lesson(squares(2, 3), (5,)))


def test_what_cannot_be_taught_is_said():
    labels = squares(3, 4)
    lesson(labels, (2,)).checked()
    for wrong, error, told in (
        (lesson(labels, ()), TeachingError, "Say which planes are right"),
        (lesson(labels, (1, 6)), TeachingError, "there is no plane 6"),
        (lesson(labels[:4], (1,), volume=np.zeros(labels.shape)), TeachingError, "make them equal"),
        (lesson(labels, (1,), voxel_um=ZYX(0.0, 1, 1)), VoxelSizeError, "cannot be right"),
        (lesson(labels, (1,), volume=np.zeros(labels.shape, complex)), UnsupportedImageError, "real numbers"),
    ):
        with pytest.raises(error, match=told):
            wrong.checked()


def test_planes_are_named_for_people_and_labels_have_a_fingerprint():
    labels = squares(3, 4)
    assert lesson(labels, (2,)).told == "plane 2"
    assert lesson(labels, (2, 3)).told == "planes 2 to 3"
    assert lesson(labels, (1, 3, 5)).told == "3 planes, 1 to 5"
    other = labels.copy()
    other[2, 2, 2] = 99
    assert lesson(labels, (2,)).digest != lesson(other, (2,)).digest
    assert lesson(labels, (3,)).digest == lesson(other, (3,)).digest

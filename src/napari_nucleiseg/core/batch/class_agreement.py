"""Nuclei of each class of a reference: how well they are found, and which class they are given."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.batch.judged_side import NO_CLASS, Side
from napari_nucleiseg.core.evaluation.overlaps import Overlaps
from napari_nucleiseg.core.evaluation.scores import table_scores
from napari_nucleiseg.core.evaluation.slide_report import ClassScores, Confusion

NO_CLASS_NAME = "no class"


def class_scores(table: Overlaps, sides: tuple[Side, Side]) -> tuple[tuple[ClassScores, ...], bool]:
    """Score the nuclei of each class of the reference.

    Classes of both sides are the same if their names are, whatever their case. Where no nucleus that was found has a
    class, one counts for the class of the nucleus of the reference that it shares most pixels with, and for none if it
    lies on none.

    Parameters
    ----------
    table : Overlaps
        Of what is evaluated.
    sides : tuple of Side
        The reference, and what was found.

    Returns
    -------
    tuple of ClassScores, bool
        By number of the class; and whether classes of what was found were compared.
    """
    truth, pred = sides[0].classes_of(table.truth_ids), sides[1].classes_of(table.pred_ids)
    compared = bool((pred != NO_CLASS).any())
    pred = _renumbered(pred, sides) if compared else _borrowed(table, truth)
    is_found = np.zeros(table.truth_count, np.bool_)
    is_found[table.truth_index[table.ious > 0.5]] = True
    scored = []
    for number in np.unique(truth[truth != NO_CLASS]).tolist():
        mine = truth == number
        smaller, _ = table.only(mine, pred == number)
        share = float(is_found[mine].mean())
        scored.append(ClassScores(_name(sides[0], number), table_scores(smaller), share))
    return tuple(scored), compared


def confusion_of(table: Overlaps, sides: tuple[Side, Side]) -> Confusion | None:
    """Return which classes nuclei have that agree with one of the reference (IoU above 0.5).

    Parameters
    ----------
    table : Overlaps
        Of what is evaluated.
    sides : tuple of Side
        The reference, and what was found.

    Returns
    -------
    Confusion or None
        None if no nucleus of the reference has a class.
    """
    every = sides[0].classes_of(table.truth_ids), sides[1].classes_of(table.pred_ids)
    if not (every[0] != NO_CLASS).any():
        return None
    found = table.ious > 0.5
    pairs = every[0][table.truth_index[found]], every[1][table.pred_index[found]]
    numbers = [np.unique(side[side != NO_CLASS]).tolist() for side in every]
    # The same classes stand in the same order on both sides, those that only one side knows behind them.
    order = {_name(sides[0], number).casefold(): place for place, number in enumerate(numbers[0])}
    numbers[1].sort(key=lambda number: order.get(_name(sides[1], number).casefold(), len(order)))
    for known in numbers:
        known.append(NO_CLASS)
    counts = tuple(
        tuple(int(np.count_nonzero((pairs[0] == row) & (pairs[1] == column))) for column in numbers[1])
        for row in numbers[0]
    )
    reference, predicted = (
        tuple(_name(side, number) for number in known) for side, known in zip(sides, numbers, strict=True)
    )
    return Confusion(reference, predicted, counts)


def _renumbered(pred: NDArray[np.int64], sides: tuple[Side, Side]) -> NDArray[np.int64]:
    """Return the numbers that the classes of what was found have in the reference; `NO_CLASS` of unknown names."""
    known = {name.casefold(): number for number, name in sides[0].class_names.items()}
    numbers, place = np.unique(pred, return_inverse=True)
    new = [known.get(_name(sides[1], number).casefold(), NO_CLASS) for number in numbers.tolist()]
    return np.array(new, np.int64)[place]


def _borrowed(table: Overlaps, truth: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the class of the true nucleus that each predicted one shares most pixels with; of equals the first's."""
    order = np.lexsort((table.truth_index, -table.intersections, table.pred_index))
    owners, firsts = np.unique(table.pred_index[order], return_index=True)
    borrowed = np.full(table.pred_count, NO_CLASS, np.int64)
    borrowed[owners] = truth[table.truth_index[order[firsts]]]
    return borrowed


def _name(side: Side, number: int) -> str:
    return NO_CLASS_NAME if number == NO_CLASS else side.class_names.get(number, f"Class {number}")

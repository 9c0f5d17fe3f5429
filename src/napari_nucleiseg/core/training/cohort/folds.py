"""Which slides are learned from and which are judged: folds that hold each kind alike and never part a patient."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.errors import DataError


def stratified_folds(strata: Sequence[str], patients: Sequence[str], folds: int, seed: int) -> NDArray[np.int64]:
    """Deal patients out to folds, those of each kind evenly.

    Parameters
    ----------
    strata : sequence of str, length n
        Kind of each slide: its class, or whether the event was seen. A patient with slides of several kinds counts for
        that which fewest patients have.
    patients : sequence of str, length n
        Whose slide it is; all slides of a patient come into one fold.
    folds : int
        At least 2.
    seed : int
        The same seed gives the same folds, whatever the order of the slides.

    Returns
    -------
    ndarray of int64, shape (n,)
        Fold of each slide, 0 to `folds` - 1; patients who count for a kind differ by at most one between folds, all
        patients by at most one, too. Of two kinds each is in every fold.

    Raises
    ------
    DataError
        If fewer patients have slides of a kind than there are folds.
    """
    kinds_of: dict[str, set[str]] = {}
    for patient, kind in zip(patients, strata, strict=True):
        kinds_of.setdefault(patient, set()).add(kind)
    having = Counter(kind for kinds in kinds_of.values() for kind in kinds)
    for kind in sorted(having):
        if having[kind] < folds:
            raise DataError(
                f"{having[kind]} patients with {kind} are too few for {folds} folds; choose fewer folds, label slides "
                "of more patients, or leave these out"
            )
    alike: dict[tuple[str, ...], list[str]] = {}
    for patient in sorted(kinds_of):
        kinds = sorted(kinds_of[patient])
        alike.setdefault((min(kinds, key=lambda kind: (having[kind], kind)), *kinds), []).append(patient)
    rng = np.random.default_rng(seed)
    fold_of: dict[str, int] = {}
    # In this order those of a kind follow each other, also where some have another one besides.
    for _, own in sorted(alike.items()):
        for patient in rng.permutation(own):
            # Goes on where those before stopped, so that no fold gets the odd ones of all kinds.
            fold_of[str(patient)] = len(fold_of) % folds
    return np.array([fold_of[patient] for patient in patients], np.int64)

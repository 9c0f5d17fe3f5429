"""Which slides are learned from and which are judged: folds that hold each kind alike and never part a patient."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.errors import DataError


def stratified_folds(strata: Sequence[str], patients: Sequence[str], folds: int, seed: int) -> NDArray[np.int64]:
    """Deal patients out to folds, those of each stratum evenly.

    Parameters
    ----------
    strata : sequence of str, length n
        Kind of each slide: its class, or whether the event was seen. A patient is of the kind that most of its slides
        are of.
    patients : sequence of str, length n
        Whose slide it is; all slides of a patient come into one fold.
    folds : int
        At least 2.
    seed : int
        The same seed gives the same folds, whatever the order of the slides.

    Returns
    -------
    ndarray of int64, shape (n,)
        Fold of each slide, 0 to `folds` - 1; patients of a stratum differ by at most one between folds, all patients
        by at most one, too.

    Raises
    ------
    DataError
        If a stratum has fewer patients than there are folds.
    """
    kinds: dict[str, Counter[str]] = {}
    for patient, stratum in zip(patients, strata, strict=True):
        kinds.setdefault(patient, Counter())[stratum] += 1
    of_patient = {patient: min(count, key=lambda kind: (-count[kind], kind)) for patient, count in kinds.items()}
    rng = np.random.default_rng(seed)
    fold_of: dict[str, int] = {}
    for stratum in sorted(set(strata)):
        own = sorted(patient for patient, kind in of_patient.items() if kind == stratum)
        if len(own) < folds:
            raise DataError(
                f"{len(own)} patients with {stratum} are too few for {folds} folds; choose fewer folds, label slides "
                "of more patients, or leave these out"
            )
        for patient in rng.permutation(own):
            # Goes on where the stratum before stopped, so that no fold gets the odd ones of all strata.
            fold_of[str(patient)] = len(fold_of) % folds
    return np.array([fold_of[patient] for patient in patients], np.int64)

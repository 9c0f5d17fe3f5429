"""Folds: patients stay whole, strata are even, and the seed alone decides."""

import numpy as np
import pytest

from napari_nucleiseg.core.errors import DataError
from napari_nucleiseg.core.training.cohort.folds import stratified_folds


def cohort(seed=0, count=97):
    rng = np.random.default_rng(seed)
    patients = [f"p{number}" for number in rng.integers(0, 40, count)]
    strata = ["ab"[int(patient[1:]) % 3 == 0] for patient in patients]
    return strata, patients


def test_no_patient_is_on_both_sides():
    strata, patients = cohort()
    folds = stratified_folds(strata, patients, 5, 0)
    assert set(folds.tolist()) == set(range(5))
    assert len(set(zip(patients, folds.tolist(), strict=True))) == len(set(patients))


def test_strata_and_sizes_are_even():
    strata, patients = cohort()
    folds = stratified_folds(strata, patients, 5, 0)
    of_patient = dict(zip(patients, zip(strata, folds.tolist(), strict=True), strict=True))
    for kinds in ("a", "b", "ab"):
        counts = [sum(kind in kinds and own == fold for kind, own in of_patient.values()) for fold in range(5)]
        assert max(counts) - min(counts) <= 1


def test_the_seed_decides_and_the_order_of_slides_does_not():
    strata, patients = cohort()
    folds = stratified_folds(strata, patients, 5, 3)
    turned = stratified_folds(strata[::-1], patients[::-1], 5, 3)
    np.testing.assert_array_equal(folds, turned[::-1])
    assert (folds != stratified_folds(strata, patients, 5, 4)).any()


def test_a_patient_is_of_the_kind_of_most_of_its_slides():
    folds = stratified_folds(list("aabaabbb"), ["p", "p", "p", "q", "q", "r", "s", "s"], 2, 0)
    assert folds[0] != folds[3]
    assert folds[5] != folds[6]


def test_too_few_patients_are_told():
    with pytest.raises(DataError, match="2 patients with b are too few for 3 folds; choose fewer folds"):
        stratified_folds(list("aaaabb"), list("123456"), 3, 0)
    with pytest.raises(DataError, match="1 patients with a are too few"):
        stratified_folds(["a", "a"], ["p", "p"], 2, 0)

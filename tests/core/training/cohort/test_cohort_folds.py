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


def test_a_patient_counts_for_the_kind_that_fewest_have():
    folds = stratified_folds(list("aabaabbb"), ["p", "p", "p", "q", "q", "r", "s", "s"], 2, 0)
    assert folds[0] != folds[3]
    assert folds[5] != folds[6]


@pytest.mark.parametrize("kinds", ["ab", "aaab", "abbb"])
def test_patients_with_slides_of_both_kinds_bring_each_into_every_fold(kinds):
    patients = [f"p{number}" for number in range(20) for _ in kinds]
    folds = stratified_folds(list(kinds) * 20, patients, 5, 0)
    assert np.bincount(folds).tolist() == [4 * len(kinds)] * 5
    assert len(set(zip(patients, folds.tolist(), strict=True))) == 20


@pytest.mark.parametrize("seed", range(20))
def test_each_of_two_kinds_is_in_every_fold_whatever_patients_have(seed):
    rng = np.random.default_rng(seed)
    of_patients = ["a"] * rng.integers(4) + ["b"] * rng.integers(4) + ["ab"] * rng.integers(5, 12)
    slides = [(kind, f"p{number}") for number, kinds in enumerate(of_patients) for kind in kinds]
    strata, patients = zip(*slides, strict=True)
    folds = stratified_folds(strata, patients, 5, seed)
    assert set(zip(strata, folds.tolist(), strict=True)) == {(kind, fold) for kind in "ab" for fold in range(5)}
    assert len(set(zip(patients, folds.tolist(), strict=True))) == len(of_patients)


def test_where_patients_have_one_kind_each_folds_stay_as_they_were():
    folds = stratified_folds(list("babaabbabb"), list("0123456788"), 3, 7)
    assert folds.tolist() == [1, 0, 2, 2, 1, 1, 0, 0, 2, 2]


def test_too_few_patients_are_told():
    with pytest.raises(DataError, match="2 patients with b are too few for 3 folds; choose fewer folds"):
        stratified_folds(list("aaaabb"), list("123456"), 3, 0)
    with pytest.raises(DataError, match="1 patients with a are too few"):
        stratified_folds(["a", "a"], ["p", "p"], 2, 0)

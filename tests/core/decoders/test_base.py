"""What a user may turn: values that make no sense are refused in words."""

import math

import pytest

from napari_nucleiseg.core.decoders.base import DecodeOptions


@pytest.mark.parametrize("area", [math.nan, math.inf, -math.inf, -1.0])
def test_a_smallest_area_that_is_negative_or_not_finite_is_refused_in_one_sentence(area):
    said = DecodeOptions(min_area_um2=area).validation_error()
    assert said == f"the smallest area cannot be negative and must be a finite number ({area} um2)"


@pytest.mark.parametrize("threshold", [math.nan, math.inf, 0.0, 1.0])
def test_a_threshold_outside_of_0_and_1_is_refused(threshold):
    assert "between 0 and 1" in DecodeOptions(threshold=threshold).validation_error()


def test_no_smallest_area_and_a_large_one_make_sense():
    assert DecodeOptions(min_area_um2=0.0).validation_error() is None
    assert DecodeOptions(min_area_um2=1e6).validation_error() is None

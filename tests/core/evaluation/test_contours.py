"""The two Hausdorff distances against cases computed by hand."""

import numpy as np
import pytest

from napari_nucleiseg.core.evaluation import ahd, ahd_as_coded


def image(*boxes, shape=(20, 30)):
    labels = np.zeros(shape, np.int32)
    for k, (y0, x0, y1, x1) in enumerate(boxes, start=1):
        labels[y0:y1, x0:x1] = 3 * k
    return labels


def test_a_row_shifted_by_two_pixels():
    # Rows one pixel thin are all outline: 10 px, shifted by 2, so 8 px at 0 and two at 1 and 2, both ways.
    truth, pred = image((5, 5, 6, 15)), image((5, 7, 6, 17))
    assert ahd(truth, pred) == pytest.approx((1 + 2) / 10)
    # From the truth to the intersection (x = 7..14): at most 2 px.
    assert ahd_as_coded(truth, pred) == pytest.approx(2)


def test_a_square_inside_a_square():
    # 3 x 3 inside 5 x 5, centred: inner outline 8 px, all 1 px from the outer; outer outline 16 px, of which
    # the 4 corners are sqrt(2) away, the rest 1.
    truth, pred = image((4, 4, 9, 9)), image((5, 5, 8, 8))
    assert ahd(truth, pred) == pytest.approx((1 + (12 + 4 * np.sqrt(2)) / 16) / 2)
    assert ahd_as_coded(truth, pred) == pytest.approx(np.sqrt(2), abs=1e-5)
    # A prediction that covers the truth wholly costs nothing in the published code.
    assert ahd_as_coded(pred, truth) == 0


def test_as_coded_takes_the_worst_of_all_predictions_that_touch():
    truth = image((5, 0, 6, 10))
    pred = image((5, 0, 6, 8), (5, 8, 6, 10))
    assert ahd_as_coded(truth, pred) == pytest.approx(8)


def test_missed_nuclei_are_skipped_and_no_overlap_is_unknown():
    both, one = image((2, 2, 6, 6), (10, 10, 14, 14)), image((2, 2, 6, 6))
    assert ahd(both, one) == 0
    assert ahd_as_coded(both, one) == 0
    elsewhere = image((15, 20, 18, 25))
    assert np.isnan(ahd(one, elsewhere))
    assert np.isnan(ahd_as_coded(one, elsewhere))


def test_empty_images_are_at_distance_zero():
    assert ahd(image(), image()) == 0
    assert ahd_as_coded(image(), image()) == 0


def test_touching_nuclei_have_an_outline_between_them():
    truth = image((5, 5, 10, 10), (5, 10, 10, 15))
    merged = image((5, 5, 10, 15))
    assert ahd(truth, truth) == 0
    assert ahd(truth, merged) > 0.5


def test_large_outlines_give_the_same_distance_by_tree(monkeypatch):
    from napari_nucleiseg.core.evaluation import contours

    truth, pred = image((4, 4, 15, 22)), image((5, 6, 16, 27))
    dense = ahd(truth, pred)
    monkeypatch.setattr(contours, "_DENSE_LIMIT", 1)
    assert ahd(truth, pred) == pytest.approx(dense)

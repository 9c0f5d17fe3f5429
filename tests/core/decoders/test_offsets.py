"""The vote decoder and its runners-up: ideal maps give the nuclei back, whatever their size, place and noise."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_nucleiseg.core.decoders.base import DecodeOptions, decoder
from napari_nucleiseg.core.decoders.measure import smooth_probability
from napari_nucleiseg.core.errors import ModelError
from napari_nucleiseg.core.evaluation import scores

MPP_UM = 0.5
ALL = DecodeOptions(min_area_um2=0)


def ellipses(seed, count=40, shape=(200, 260), gap=2):
    """Non-overlapping ellipses at least `gap` pixels apart, 5 to 9 px in half-axis."""
    rng = np.random.default_rng(seed)
    labels = np.zeros(shape, np.int32)
    for k in range(1, count + 1):
        y, x = rng.integers(10, shape[0] - 10), rng.integers(10, shape[1] - 10)
        axes = (int(rng.integers(5, 10)), int(rng.integers(5, 10)))
        stamp = np.zeros(shape, np.uint8)
        cv2.ellipse(stamp, (int(x), int(y)), axes, float(rng.uniform(0, 180)), 0, 360, 1, -1)
        around = cv2.dilate(stamp, np.ones((2 * gap + 1, 2 * gap + 1), np.uint8)) > 0
        if not labels[around].any():
            labels[stamp > 0] = k
    return labels


@pytest.mark.parametrize(("name", "floor"), [("offsets", 0.97), ("distance", 0.95), ("border", 0.85)])
def test_ideal_maps_give_separate_nuclei_back(name, floor):
    labels = ellipses(0)
    found = decoder(name).decode(decoder(name).targets(labels), MPP_UM, ALL)
    agreement = scores(labels, found.labels, distances=False)
    assert agreement.pred_count == agreement.truth_count
    assert agreement.pq > floor


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), noise=st.floats(0, 1))
def test_votes_survive_noise(seed, noise):
    labels = ellipses(seed, count=25)
    maps = decoder("offsets").targets(labels)
    rng = np.random.default_rng(seed)
    maps["offsets"] = maps["offsets"] + rng.normal(0, noise, maps["offsets"].shape).astype(np.float32)
    found = decoder("offsets").decode(maps, MPP_UM, ALL)
    assert len(found) == len(np.unique(labels)) - 1
    assert scores(labels, found.labels, distances=False).pq > 0.9


def test_touching_nuclei_are_told_apart_by_their_offsets():
    labels = np.zeros((40, 60), np.int32)
    labels[10:30, 10:28] = 1
    labels[10:30, 28:46] = 2
    found = decoder("offsets").decode(decoder("offsets").targets(labels), MPP_UM, ALL)
    assert len(found) == 2
    assert scores(labels, found.labels, distances=False).aji == pytest.approx(1.0)


def test_measures_are_those_of_the_pixels():
    labels = ellipses(3)
    maps = decoder("offsets").targets(labels)
    maps["nuclei"] = maps["nuclei"] * 0.75
    found = decoder("offsets").decode(maps, MPP_UM, ALL)
    assert len(found) > 10
    probability = smooth_probability(maps["nuclei"][0], MPP_UM)
    for index in range(len(found)):
        ys, xs = np.nonzero(found.labels == index + 1)
        assert found.areas[index] == len(ys)
        assert found.centroids[index] == pytest.approx((ys.mean(), xs.mean()), abs=1e-3)
        assert tuple(found.boxes[index]) == (ys.min(), xs.min(), ys.max() + 1, xs.max() + 1)
        assert found.scores[index] == pytest.approx(probability[ys, xs].mean(), abs=1e-5)


@pytest.mark.parametrize("mpp_um", [0.25, 0.5, 0.7])
def test_maps_as_they_are_stored_give_the_same_nuclei(mpp_um):
    maps = decoder("offsets").targets(ellipses(4))
    noise = np.random.default_rng(4).normal(0, 0.2, maps["nuclei"].shape)
    stored = {
        "nuclei": np.rint(np.clip(maps["nuclei"] * 0.8 + noise, 0, 1) * 255).astype(np.uint8),
        "offsets": maps["offsets"].astype(np.float16),
    }
    numbers = {"nuclei": stored["nuclei"].astype(np.float32) / 255, "offsets": stored["offsets"].astype(np.float32)}
    one, other = (decoder("offsets").decode(each, mpp_um, ALL) for each in (stored, numbers))
    assert len(one) > 10
    np.testing.assert_array_equal(one.labels, other.labels)
    np.testing.assert_allclose(one.scores, other.scores, atol=1e-6)


def test_pixels_and_labels_say_the_same():
    labels = ellipses(5)
    found = decoder("offsets").decode(decoder("offsets").targets(labels), MPP_UM, DecodeOptions(min_area_um2=25))
    assert 0 < len(found) < len(np.unique(labels)) - 1
    again = np.zeros(found.labels.size, np.int32)
    again[found.pixels.flat] = found.pixels.labels
    np.testing.assert_array_equal(again.reshape(found.labels.shape), found.labels)


def test_a_pinhole_in_the_probability_leaves_no_hole_in_the_nucleus():
    labels = np.zeros((40, 40), np.int32)
    labels[10:30, 10:30] = 1
    maps = decoder("offsets").targets(labels)
    maps["nuclei"][0, 20, 20] = 0.2
    found = decoder("offsets").decode(maps, MPP_UM, ALL)
    assert found.labels[20, 20] == 1


def test_small_nuclei_are_dropped_and_the_rest_numbered_without_gaps():
    labels = np.zeros((60, 60), np.int32)
    labels[5:9, 5:9] = 1  # 16 px = 4 um2
    labels[20:40, 20:40] = 2
    found = decoder("offsets").decode(decoder("offsets").targets(labels), MPP_UM, DecodeOptions(min_area_um2=5))
    assert found.areas.tolist() == [pytest.approx(400, abs=12)]
    assert set(np.unique(found.labels)) == {0, 1}


@pytest.mark.parametrize("name", ["offsets", "distance", "border"])
def test_empty_field_has_no_nuclei(name):
    maps = decoder(name).targets(np.zeros((32, 48), np.int32))
    found = decoder(name).decode(maps, MPP_UM, ALL)
    assert len(found) == 0
    assert found.labels.shape == (32, 48)
    assert not found.labels.any()


def test_targets_of_the_border_decoder_leave_a_gap_between_touching_nuclei_only():
    labels = np.zeros((20, 30), np.int32)
    labels[5:15, 5:15] = 1
    labels[5:15, 15:25] = 2
    separated = decoder("border").targets(labels)["separated"][0]
    assert not separated[5:15, 14:16].any()
    assert separated[5:15, 5:14].all()
    assert separated[5:15, 16:25].all()


def test_unknown_decoder_names_those_there_are():
    with pytest.raises(ModelError, match="offsets, distance, border, watershed"):
        decoder("magic")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (DecodeOptions(threshold=0), "between 0 and 1"),
        (DecodeOptions(threshold=1.5), "between 0 and 1"),
        (DecodeOptions(min_area_um2=-1), "cannot be negative"),
    ],
)
def test_impossible_options_are_explained(options, words):
    assert words in options.validation_error()
    assert DecodeOptions().validation_error() is None

"""Decoding a batch on a device says what decoding picture after picture in numpy says."""

from functools import partial

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from napari_nucleiseg.core.decoders.base import DecodeOptions, decoder
from napari_nucleiseg.core.decoders.measure import instances_of, smooth_probability
from napari_nucleiseg.core.decoders.offsets import nearest_peak
from napari_nucleiseg.core.decoders.offsets_on_device import blurred, label_offsets, nearest_peaks, numbered
from napari_nucleiseg.core.evaluation import scores
from napari_nucleiseg.core.inference.instances import as_float
from napari_nucleiseg.core.slides.synthetic import synthetic_slide

THRESHOLD = 0.5
SIDE_UM = 200


def stored_maps(mpp_um, seed=0, density=4000, side_um=SIDE_UM, **changes):
    """Maps of drawn tissue as a network's are stored, with noise: nuclei uint8 (1, y, x), offsets float16 (2, y, x)."""
    side = round(side_um / mpp_um)
    slide = synthetic_slide(side, side, mpp_um, seed, density_per_mm2=density, touching=0.3, glass=False, **changes)
    _, labels = np.unique(slide.truth_labels(slide.region), return_inverse=True)
    targets = decoder("offsets").targets(labels.reshape(side, side).astype(np.int32))
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, 0.4 / mpp_um, targets["offsets"].shape)
    nuclei = cv2.GaussianBlur(targets["nuclei"][0], (0, 0), 0.5 / mpp_um) + rng.normal(0, 0.1, (side, side))
    return {
        "nuclei": np.rint(np.clip(nuclei, 0, 1) * 255).astype(np.uint8)[None],
        "offsets": (targets["offsets"] + noise).astype(np.float16),
    }


def on_device(maps, mpp_um, threshold=THRESHOLD):
    """Label images (b, y, x) of maps of several pictures, or of one: (y, x)."""
    several = isinstance(maps, list)
    together = {
        name: torch.from_numpy(np.stack([one[name] for one in (maps if several else [maps])]))
        for name in ("nuclei", "offsets")
    }
    found = label_offsets(together["nuclei"], together["offsets"], mpp_um, threshold).numpy()
    return found if several else found[0]


def in_numpy(maps, mpp_um, threshold=THRESHOLD, min_area_um2=0.0):
    needed = decoder("offsets")
    return needed.decode(as_float(maps, needed.as_stored), mpp_um, DecodeOptions(threshold, min_area_um2))


def same_but_for_numbers(one, other):
    pairs = np.unique(np.stack([one.ravel(), other.ravel()]), axis=1)
    return len(np.unique(pairs[0])) == pairs.shape[1] == len(np.unique(pairs[1]))


@pytest.mark.parametrize("mpp_um", [0.5, 0.25, 0.44])
def test_nuclei_are_those_of_numpy(mpp_um):
    """A sum in another order moves a rare pixel over the threshold; nothing else may differ."""
    for seed in range(3):
        maps = stored_maps(mpp_um, seed)
        found, expected = on_device(maps, mpp_um), in_numpy(maps, mpp_um)
        assert len(expected) > 100
        assert found.dtype == np.int32
        agreement = scores(expected.labels, found, distances=False)
        assert agreement.f1 >= 0.995
        assert agreement.pq >= 0.995
        assert (same_but_for_numbers(found, expected.labels)) or (np.mean((found > 0) != (expected.labels > 0)) < 1e-5)


def test_areas_and_scores_are_those_of_numpy():
    maps = stored_maps(0.5)
    expected = in_numpy(maps, 0.5, min_area_um2=8.0)
    probability = smooth_probability(as_float(maps)["nuclei"][0], 0.5)
    found = instances_of(on_device(maps, 0.5), probability, 8.0 / 0.25)
    # They may be numbered in another order.
    one, other = (
        np.column_stack([a.areas, a.boxes, a.centroids, a.scores])[np.lexsort(a.boxes.T)] for a in (found, expected)
    )
    np.testing.assert_allclose(one, other, rtol=1e-5)


def test_two_pictures_together_are_two_alone():
    maps = [stored_maps(0.5, seed) for seed in (4, 5)]
    together = on_device(maps, 0.5)
    for one, labels in zip(maps, together, strict=True):
        np.testing.assert_array_equal(labels, on_device(one, 0.5))
        assert labels.min() == 0
    np.testing.assert_array_equal(together, on_device(maps, 0.5))


def test_each_picture_counts_from_one():
    maps = [stored_maps(0.5, seed) for seed in (4, 5)]
    for labels in on_device(maps, 0.5):
        ids = np.unique(labels)
        assert ids[1] == 1
        assert ids[-1] < 1.1 * len(ids)


def test_an_empty_picture_has_no_nuclei_even_beside_a_full_one():
    full = stored_maps(0.5)
    empty = {name: np.zeros_like(values) for name, values in full.items()}
    found = on_device([empty, full], 0.5)
    assert not found[0].any()
    assert found[1].any()


@pytest.mark.parametrize("threshold", [0.2, 0.8])
def test_the_threshold_counts(threshold):
    maps = stored_maps(0.5)
    found = on_device(maps, 0.5, threshold)
    expected = in_numpy(maps, 0.5, threshold).labels
    assert np.count_nonzero(found) == pytest.approx(np.count_nonzero(expected), rel=1e-4)
    assert np.count_nonzero(found) != pytest.approx(np.count_nonzero(on_device(maps, 0.5)), rel=0.05)


def test_floats_are_taken_as_they_are():
    maps = stored_maps(0.5)
    floats = {name: values.astype(np.float32) for name, values in as_float(maps).items()}
    np.testing.assert_array_equal(on_device(floats, 0.5), on_device(maps, 0.5))


def test_offsets_that_are_no_numbers_spoil_nothing_but_their_own_pixels():
    maps = stored_maps(0.5)
    expected = on_device(maps, 0.5)
    maps["offsets"][:, 100, 100:103] = (np.nan, np.inf, -np.inf)
    found = on_device(maps, 0.5)
    assert (found > 0).sum() >= (expected > 0).sum() - 3
    assert scores(expected, found, distances=False).f1 > 0.99


@settings(max_examples=30, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    sigma=st.floats(0.2, 6),
    seed=st.integers(0, 1000),
)
def test_the_blur_is_that_of_opencv(shape, sigma, seed):
    """Also where a picture is thinner than the blur is wide."""
    values = np.random.default_rng(seed).random((2, *shape), dtype=np.float32)
    expected = [cv2.GaussianBlur(one, (0, 0), sigma) for one in values]
    np.testing.assert_allclose(blurred(torch.from_numpy(values), sigma).numpy(), expected, atol=2e-6)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), mpp_um=st.sampled_from([0.25, 0.5, 1.0]), cell_um=st.sampled_from([0.5, 1.0, 1.3]))
def test_peaks_and_their_discs_are_those_of_numpy(seed, mpp_um, cell_um):
    rng = np.random.default_rng(seed)
    votes = np.zeros((30, 50), np.float32)
    at = tuple(rng.integers(0, length, 40) for length in votes.shape)
    votes[at] = rng.integers(1, 200, 40)
    found = nearest_peaks(torch.from_numpy(votes)[None], cell_um, mpp_um)[0].numpy()
    assert same_but_for_numbers(found, nearest_peak(votes, cell_um, mpp_um))


def shapes_of_peaks():
    """Long lines, also of corners that touch, a cup, scattered cells and a square, nothing, everything."""
    lines = np.zeros((80, 80), bool)
    lines[3, 5:69] = lines[8:70, 2] = True
    lines[np.arange(10, 70), np.arange(10, 70)] = lines[np.arange(10, 30), np.arange(70, 50, -1)] = True
    lines[72:76, [30, 34]] = lines[76, 31:34] = True  # and a cup, whose rims come before what joins them
    blobs = np.random.default_rng(0).random((80, 80)) > 0.75
    blobs[20:30, 40:50] = True
    return np.stack([lines, blobs, np.zeros((80, 80), bool), np.ones((80, 80), bool)])


def test_touching_peaks_are_one():
    peaks = shapes_of_peaks()
    found = numbered(torch.from_numpy(peaks)).numpy()
    for one, ids in zip(peaks, found, strict=True):
        count, expected = cv2.connectedComponents(one.astype(np.uint8), connectivity=8)
        assert same_but_for_numbers(ids, expected)
        assert ids.max() == count - 1


def test_peaks_are_numbered_as_a_page_is_read():
    peaks = np.zeros((1, 5, 9), bool)
    peaks[0, 0, 8] = peaks[0, 2, 1] = peaks[0, 2, 5] = peaks[0, 3, 4] = True
    found = numbered(torch.from_numpy(peaks)).numpy()[0]
    assert [found[0, 8], found[2, 1], found[2, 5], found[3, 4]] == [1, 2, 3, 3]


def test_a_nucleus_between_two_peaks_of_one_height_is_whole():
    """Votes that meet between two cells make two highest cells of one nucleus."""
    nuclei = np.zeros((1, 40, 40), np.uint8)
    nuclei[0, 10:30, 10:30] = 255
    ys, xs = np.mgrid[:40, :40].astype(np.float32)
    offsets = np.stack([19.5 - ys, np.where(xs < 20, 19.0, 20.0) - xs]).astype(np.float16)
    found = on_device({"nuclei": nuclei, "offsets": offsets}, 0.5)
    assert np.unique(found).tolist() == [0, 1]
    assert same_but_for_numbers(found, in_numpy({"nuclei": nuclei, "offsets": offsets}, 0.5).labels)


@pytest.mark.parametrize("shape", [(1, 1), (1, 30), (25, 2), (3, 3)])
def test_tiny_pictures_are_decoded(shape):
    rng = np.random.default_rng(1)
    maps = {
        "nuclei": rng.integers(100, 256, (1, *shape), dtype=np.uint8),
        "offsets": rng.normal(0, 2, (2, *shape)).astype(np.float16),
    }
    decode = partial(in_numpy, maps, 0.5)
    assert same_but_for_numbers(on_device(maps, 0.5), decode().labels)

"""Distances to the centre: ideal and blurred maps give touching nuclei back, as the published steps do."""

import cv2
import numpy as np
import pytest

from napari_nucleiseg.core.decoders.base import DecodeOptions, decoder
from napari_nucleiseg.core.decoders.hover import filled, large_pieces, separation, sobel_side
from napari_nucleiseg.core.evaluation import scores

ALL = DecodeOptions(min_area_um2=0)


def discs(places, radius, shape=(80, 100)):
    """Discs, the former on top of the later."""
    labels = np.zeros(shape, np.int32)
    for number, (y, x) in reversed(list(enumerate(places, start=1))):
        cv2.circle(labels, (x, y), radius, number, -1)
    return labels


def crowd(seed, mpp_um, count=60, side_um=128.0):
    """Ellipses of 5 to 10 um drawn one beside the other: many touch, a few are cut by their neighbours."""
    rng = np.random.default_rng(seed)
    side = round(side_um / mpp_um)
    labels = np.zeros((side, side), np.int32)
    for number in range(1, count + 1):
        y, x = rng.integers(0, side, 2)
        axes = [int(value) for value in np.round(rng.uniform(2.5, 5, 2) / mpp_um)]
        stamp = np.zeros(labels.shape, np.uint8)
        cv2.ellipse(stamp, (int(x), int(y)), axes, float(rng.uniform(0, 180)), 0, 360, 1, -1)
        free = (stamp > 0) & (labels == 0)
        if free.sum() > 0.8 * stamp.sum():
            labels[free] = number
    return labels


def as_seen(maps, mpp_um):
    """Maps as a network gives them: outlines and jumps blurred, some noise."""
    rng = np.random.default_rng(0)
    blurred = [cv2.GaussianBlur(one, (0, 0), 0.5 / mpp_um) for one in (*maps["nuclei"], *maps["hover"])]
    noise = rng.normal(0, 0.05, maps["hover"].shape)
    return {"nuclei": blurred[0][None], "hover": (np.stack(blurred[1:]) + noise).astype(np.float32)}


def decoded(maps, mpp_um=0.5, options=ALL):
    return decoder("hover").decode(maps, mpp_um, options)


def quality(labels, found):
    return scores(labels, found, distances=False).pq


@pytest.mark.parametrize("seen", [lambda maps, _: maps, as_seen])
def test_touching_discs_come_back(seen):
    labels = discs([(30, 30), (30, 45), (43, 38), (60, 70), (60, 86)], 8)
    assert len(np.unique(labels[35:40, 30:46])) > 2  # they touch
    found = decoded(seen(decoder("hover").targets(labels), 0.5))
    assert len(found) == 5
    assert quality(labels, found.labels) > 0.9


@pytest.mark.parametrize("mpp_um", [0.25, 0.5, 1.0])
def test_a_crowd_comes_back_at_every_pixel_size(mpp_um):
    labels = crowd(1, mpp_um)
    maps = decoder("hover").targets(labels)
    assert quality(labels, decoded(maps, mpp_um).labels) > 0.95
    assert quality(labels, decoded(as_seen(maps, mpp_um), mpp_um).labels) > 0.9


def test_targets_go_from_minus_one_to_one_downwards_and_to_the_right():
    labels = np.zeros((30, 40), np.int32)
    labels[5:16, 10:31] = 3
    down, across = decoder("hover").targets(labels)["hover"]
    np.testing.assert_allclose(down[5:16, 20], np.linspace(-1, 1, 11), atol=1e-6)
    np.testing.assert_allclose(across[10, 10:31], np.linspace(-1, 1, 21), atol=1e-6)
    assert not down[labels == 0].any()
    assert not across[labels == 0].any()


def test_each_side_of_a_lopsided_nucleus_uses_the_whole_range():
    labels = np.zeros((30, 40), np.int32)
    labels[5:25, 5:10] = 1
    labels[13:17, 5:35] = 1
    down, across = decoder("hover").targets(labels)["hover"]
    for values in (down, across):
        inside = values[labels > 0]
        assert (inside.min(), inside.max()) == (-1, 1)


def test_a_nucleus_of_one_pixel_is_its_own_centre():
    labels = np.zeros((9, 9), np.int32)
    labels[4, 4] = 1
    assert not decoder("hover").targets(labels)["hover"].any()


def test_an_empty_field_has_no_nuclei():
    maps = decoder("hover").targets(np.zeros((32, 48), np.int32))
    found = decoded(maps)
    assert len(found) == 0
    assert found.labels.shape == (32, 48)
    assert not found.labels.any()


def test_small_nuclei_are_dropped_by_the_option_and_a_speck_always():
    labels = discs([(20, 20), (50, 60)], 8)
    labels[70, 90] = 9
    labels[60:64, 10:14] = 8  # 16 px = 4 um2
    maps = decoder("hover").targets(labels)
    assert len(decoded(maps)) == 3
    assert len(decoded(maps, options=DecodeOptions(min_area_um2=5))) == 2


def test_what_lies_elsewhere_in_the_tile_changes_no_nucleus():
    alone, crowded = discs([(40, 20)], 8), discs([(40, 20), (40, 70), (40, 82), (52, 76)], 8)
    found = [decoded(decoder("hover").targets(labels)).labels[:, :45] > 0 for labels in (alone, crowded)]
    assert found[0].any()
    np.testing.assert_array_equal(*found)
    apart = [separation(decoder("hover").targets(labels)["hover"], 0.5)[:, :45] for labels in (alone, crowded)]
    np.testing.assert_array_equal(*apart)


def test_mirrored_and_transposed_maps_give_the_same_nuclei():
    labels = crowd(4, 0.5)
    maps = decoder("hover").targets(labels)
    turned = decoder("hover").targets(np.ascontiguousarray(labels[::-1].T))
    np.testing.assert_allclose(turned["hover"][0], maps["hover"][1, ::-1].T, atol=1e-5)
    np.testing.assert_allclose(turned["hover"][1], -maps["hover"][0, ::-1].T, atol=1e-5)


def test_the_kernel_has_the_published_side_at_the_published_pixel_size():
    assert [sobel_side(mpp_um) for mpp_um in (0.25, 0.5, 1.0, 2.0, 0.1)] == [21, 7, 3, 3, 31]


def test_slopes_do_not_depend_on_the_pixel_size():
    lowest = [separation(decoder("hover").targets(crowd(2, mpp_um))["hover"], mpp_um).mean() for mpp_um in (0.25, 0.5)]
    assert lowest[0] == pytest.approx(lowest[1], abs=0.03)


def test_holes_are_filled_and_bays_are_not():
    mask = np.zeros((12, 20), bool)
    mask[2:9, 2:9] = True
    mask[4:6, 4:6] = False
    mask[2:9, 11:18] = True
    mask[4:6, 14:] = False
    after = filled(mask)
    assert after[2:9, 2:9].all()
    np.testing.assert_array_equal(after[:, 10:], mask[:, 10:])
    assert not filled(np.zeros((4, 4), bool)).any()
    assert filled(np.ones((4, 4), bool)).all()


def test_pieces_are_kept_by_their_size():
    mask = np.zeros((10, 10), np.uint8)
    mask[1:3, 1:3] = 1
    mask[5:9, 5:9] = 1
    assert large_pieces(mask, 5).sum() == 16
    assert large_pieces(mask, 4).sum() == 20


@pytest.mark.filterwarnings("ignore:Parameter `min_size` is deprecated:FutureWarning")
@pytest.mark.parametrize(("mpp_um", "seed"), [(0.25, 0), (0.5, 5)])
def test_nuclei_are_those_of_monai(mpp_um, seed):
    post = pytest.importorskip("monai.apps.pathology.transforms.post.array")
    maps = as_seen(decoder("hover").targets(crowd(seed, mpp_um)), mpp_um)
    steps = post.HoVerNetInstanceMapPostProcessing(
        activation=lambda x: x, mask_threshold=0.5, sobel_kernel_size=sobel_side(mpp_um)
    )
    # Its own call goes on to outlines; theirs are horizontal distances first.
    mask = steps.generate_watershed_mask(maps["nuclei"])
    border = steps.generate_instance_border(mask, np.ascontiguousarray(maps["hover"][::-1]))
    markers = steps.generate_watershed_markers(mask, border)
    theirs = steps.watershed(steps.generate_distance_map(mask, border), mask, markers)
    agreement = scores(np.asarray(theirs)[0].astype(np.int32), decoded(maps, mpp_um).labels, distances=False)
    assert agreement.truth_count > 40
    assert agreement.dq >= 0.95

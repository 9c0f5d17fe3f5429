"""Nuclei of stacks: what the targets say is found again; planes that nobody annotated are no border."""

import numpy as np
import pytest

from napari_nucleiseg.core.decoders.base import DecodeOptions, decoder
from napari_nucleiseg.core.decoders.volume import volume_of
from stack_parts import balls, stack_scores

MPP_UM = 0.5
VOLUME = decoder("volume")


def touching():
    """Two balls that touch, of 5 um each, on voxels of half a micrometre."""
    z, y, x = np.mgrid[:20, :20, :36]
    labels = np.zeros(z.shape, np.int32)
    for number, middle in ((1, 10), (2, 21)):
        labels[(z - 10) ** 2 + (y - 10) ** 2 + (x - middle) ** 2 <= 30] = number
    return labels


def test_what_the_targets_say_is_found_again():
    labels = balls(voxel_um=(0.5, 0.5, 0.5), shape=(48, 64, 64), count=10, gap_um=0)[1]
    found = VOLUME.decode(VOLUME.targets(labels), MPP_UM, DecodeOptions())
    assert len(found) == 10
    assert stack_scores(labels, found.labels).pq > 0.9


def test_balls_that_touch_are_two_and_are_measured():
    labels = touching()
    maps = VOLUME.targets(labels)
    assert maps["separated"].sum() < maps["nuclei"].sum()
    found = VOLUME.decode(maps, MPP_UM, DecodeOptions())
    assert len(found) == 2
    order = np.argsort(found.centroids[:, 2])
    assert found.centroids[order] == pytest.approx(np.array([[10, 10, 10], [10, 10, 21]]), abs=0.5)
    assert found.areas.sum() == (found.labels > 0).sum()
    assert found.boxes.shape == (2, 6)
    for number, box in enumerate(found.boxes, start=1):
        inside = np.argwhere(found.labels == number)
        assert (box[:3] == inside.min(axis=0)).all()
        assert (box[3:] == inside.max(axis=0) + 1).all()
    assert (found.scores > 0.5).all()


def test_distance_is_one_in_the_middle_and_small_at_the_border():
    labels = touching()
    distance = VOLUME.targets(labels)["distance"][0]
    assert distance[10, 10, 10] == pytest.approx(1)
    assert distance[10, 10, 5] < 0.3
    assert distance[labels == 0].max() == 0


def test_small_pieces_are_dropped_by_the_volume_of_a_ball():
    labels = np.zeros((12, 12, 24), np.int32)
    labels[2:4, 2:4, 2:4] = 1
    labels[4:10, 4:10, 14:20] = 2
    assert volume_of(np.pi) == pytest.approx(4 / 3 * np.pi)
    found = VOLUME.decode(VOLUME.targets(labels), MPP_UM, DecodeOptions(min_area_um2=3))
    assert len(found) == 1
    assert found.labels[6, 6, 16] == 1


def test_empty_maps_hold_no_nucleus():
    maps = VOLUME.targets(np.zeros((8, 8, 8), np.int32))
    found = VOLUME.decode(maps, MPP_UM, DecodeOptions())
    assert len(found) == 0
    assert found.centroids.shape == (0, 3)
    assert found.boxes.shape == (0, 6)


def test_a_plane_alone_has_the_distance_within_that_plane():
    labels = touching()
    sparse = np.full_like(labels, -1)
    sparse[10] = labels[10]
    maps = VOLUME.targets(sparse)
    assert maps["distance"][0, 10, 10, 10] == pytest.approx(1)
    # Were the planes beside it background, every voxel would be a border.
    assert maps["distance"][0, 10, 10, 6] < 0.5
    assert maps["nuclei"][0, 9].max() == 0

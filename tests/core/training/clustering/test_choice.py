"""Clusters are ordered by stain, the richest group is proposed, and what is chosen becomes nuclei."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from stained import stained_picture

from napari_nucleiseg.core.decoders.base import DecodeOptions
from napari_nucleiseg.core.errors import DataError
from napari_nucleiseg.core.training.clustering.choice import nuclei_of_clusters, proposed_clusters, ranked, richest


def test_the_cluster_of_the_nuclei_comes_first_and_is_proposed():
    image, mask = stained_picture()
    found = ranked(np.where(mask, 7, 2).astype(np.int16), image)
    assert [item.cluster for item in found] == [7, 2]
    assert proposed_clusters(found) == (7,)
    assert found[0].haematoxylin > 2 * found[1].haematoxylin
    assert found[0].darkness > found[1].darkness
    assert found[0].share == pytest.approx(mask.mean())


def test_two_clusters_of_nuclei_are_proposed_together():
    image, mask = stained_picture()
    left = np.arange(image.shape[1]) < 28
    labels = np.where(mask, np.where(left, 4, 9), 0)
    assert set(proposed_clusters(ranked(labels, image))) == {4, 9}


def test_a_speck_of_ink_is_no_group_of_its_own():
    image, mask = stained_picture(64, 64)
    image[:1, :3] = (0, 0, 30)
    labels = np.where(mask, 1, 0)
    labels[:1, :3] = 2
    found = ranked(labels, image)
    assert found[0].cluster == 2
    assert proposed_clusters(found) == (2, 1)


def test_pixels_that_were_not_looked_at_do_not_count():
    image, mask = stained_picture()
    labels = np.where(mask, 1, 0).astype(np.int16)
    labels[:, 30:] = -1
    found = ranked(labels, image)
    assert {item.cluster for item in found} == {0, 1}
    assert sum(item.share for item in found) == pytest.approx(1)
    with pytest.raises(DataError, match="no pixel is labelled"):
        ranked(np.full_like(labels, -1), image)


def test_label_map_and_picture_are_of_one_size():
    with pytest.raises(DataError, match="must be of one size"):
        ranked(np.zeros((5, 6), int), stained_picture()[0])


@settings(max_examples=50, deadline=None)
@given(labels=arrays(np.int16, (9, 11), elements=st.integers(-1, 5)), seed=st.integers(0, 99))
def test_every_cluster_is_listed_once_from_rich_to_poor(labels, seed):
    image = np.random.default_rng(seed).integers(0, 256, (9, 11, 3), dtype=np.uint8)
    if (labels < 0).all():
        return
    found = ranked(labels, image)
    assert sorted(item.cluster for item in found) == sorted(set(labels[labels >= 0].tolist()))
    stains = [item.haematoxylin for item in found]
    assert stains == sorted(stains, reverse=True)
    proposed = [item.proposed for item in found]
    assert proposed[0]
    assert proposed == sorted(proposed, reverse=True)
    assert len(found) == 1 or not proposed[-1]


def test_the_split_is_where_the_variance_between_is_largest():
    assert richest(np.array([0.9, 0.8, 0.2, 0.1]), np.array([10, 10, 10, 10])) == 2
    assert richest(np.array([0.9]), np.array([5])) == 1
    assert richest(np.array([0.9, 0.5, 0.4]), np.array([50, 50, 50])) == 1


def test_chosen_clusters_become_parted_nuclei():
    _, mask = stained_picture(64, 64)
    labels = np.where(mask, 3, 1)
    nuclei = nuclei_of_clusters(labels, (3,), 0.5)
    assert len(nuclei) == 16
    assert (nuclei.labels > 0).sum() == pytest.approx(mask.sum(), rel=0.1)
    assert len(nuclei_of_clusters(labels, (), 0.5)) == 0
    assert len(nuclei_of_clusters(labels, (3,), 0.5, DecodeOptions(min_area_um2=100))) == 0
    assert len(nuclei_of_clusters(labels, (1, 3), 0.5)) >= 1

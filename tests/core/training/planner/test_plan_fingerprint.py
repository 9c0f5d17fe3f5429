"""What is measured of pictures is what was drawn into them."""

import math

import numpy as np
import pytest

from labelled_discs import NUCLEUS, TISSUE, disc_image, disc_labels, write_discs
from napari_nucleiseg.core.errors import DataError
from napari_nucleiseg.core.training.config import DataSet
from napari_nucleiseg.core.training.planner.fingerprint import (
    Spread,
    count_touching,
    measure_picture,
    spread_of,
    take_fingerprint,
)


def test_sizes_nuclei_and_shares_are_those_of_the_picture(tmp_path):
    labels = disc_labels(side=120, radius=8, gap=8)
    write_discs(tmp_path, labels)
    facts = take_fingerprint([DataSet(str(tmp_path), 0.5)])
    count = int(labels.max())
    area_px = np.bincount(labels.ravel())[1:].mean()
    assert (facts.pictures, facts.nuclei) == (1, count)
    assert (facts.side_px.median, facts.side_um.median, facts.mpp_um, facts.mpp_given) == (120, 60, 0.5, True)
    assert facts.diameter_um.median == pytest.approx(math.sqrt(4 / math.pi * area_px) * 0.5)
    assert facts.distance_um.median == pytest.approx((2 * 8 + 1 + 8) * 0.5)
    assert facts.foreground_share == pytest.approx((labels > 0).mean())
    assert facts.smallest_area_um2 == pytest.approx(area_px / 4)
    assert (facts.touching_share, facts.labelled_share) == (0, 1)
    assert facts.nuclei_per_picture == Spread(count, count, count)
    assert facts.area_mm2 == pytest.approx(0.06**2)


def test_colours_are_the_mean_and_deviation_of_the_tissue(tmp_path):
    labels = disc_labels()
    image = disc_image(labels) / 255
    write_discs(tmp_path, labels)
    facts = take_fingerprint([DataSet(str(tmp_path), 0.5)])
    assert facts.mean == pytest.approx(image.reshape(-1, 3).mean(axis=0))
    assert facts.std == pytest.approx(image.reshape(-1, 3).std(axis=0))


def test_glass_is_no_tissue():
    labels = disc_labels()
    image = disc_image(labels, tissue=(240, 240, 240))
    sums = measure_picture(image, labels.astype(np.int32), 0.5).colour_sums
    assert sums[1] / sums[0] == pytest.approx(np.array(NUCLEUS) / 255)


def test_stains_spread_where_pictures_differ(tmp_path):
    pale, dark = ((235, 205, 225), (120, 100, 160)), (TISSUE, NUCLEUS)
    for number, (tissue, nucleus) in enumerate((pale, dark)):
        write_discs(tmp_path / "two", disc_labels(), stem=str(number), tissue=tissue, nucleus=nucleus)
        write_discs(tmp_path / "one", disc_labels(), stem=str(number))
    spread = {name: take_fingerprint([DataSet(str(tmp_path / name), 0.5)]).stain_spread for name in ("one", "two")}
    assert spread["one"] == pytest.approx(0)
    assert spread["two"] > 0.1


def test_nuclei_touch_with_a_pixel_between_them_and_not_with_two():
    apart, near = (np.zeros((20, 20), np.int32) for _ in range(2))
    for labels, gap in ((apart, 2), (near, 1)):
        labels[5:10, 2:7] = 1
        labels[5:10, 7 + gap : 12 + gap] = 2
        labels[15:18, 2:5] = 3
    assert (count_touching(apart), count_touching(near)) == (0, 2)
    assert count_touching(near.T.copy()) == 2


def test_a_nucleus_cut_by_the_edge_says_nothing_about_sizes():
    labels = disc_labels().astype(np.int32)
    labels[0, 40:43] = labels.max() + 1
    picture = measure_picture(disc_image(labels), labels, 0.5)
    assert picture.nuclei == labels.max()
    assert len(picture.areas_um2) == labels.max() - 1


def test_the_pixel_size_is_estimated_from_the_nuclei(tmp_path):
    write_discs(tmp_path, disc_labels(radius=10))
    facts = take_fingerprint([DataSet(str(tmp_path), None, nucleus_um=5.0)])
    assert not facts.mpp_given
    assert facts.diameter_um.median == pytest.approx(5.0, rel=0.01)
    assert facts.mpp_um == pytest.approx(5.0 / 20, rel=0.1)


def test_what_nobody_annotated_is_not_counted():
    labels = disc_labels().astype(np.int32)
    labels[:48] = -1
    picture = measure_picture(disc_image(labels), labels, 0.5)
    assert picture.annotated == labels.size / 2
    assert picture.nuclei == len(np.unique(labels[48:])) - 1


def test_pictures_without_nuclei_are_measured_all_the_same(tmp_path):
    write_discs(tmp_path, np.zeros((64, 64), np.uint16))
    facts = take_fingerprint([DataSet(str(tmp_path), None)])
    assert (facts.nuclei, facts.touching_share, facts.smallest_area_um2) == (0, 0, 0)
    assert facts.diameter_um == facts.distance_um == Spread()
    assert facts.sets[0].empty_pictures == 1
    assert all(math.isfinite(value) for value in (*facts.mean, *facts.std, facts.stain_spread, facts.light_spread))


def test_sets_are_measured_one_by_one_and_together(tmp_path):
    write_discs(tmp_path / "a", disc_labels())
    write_discs(tmp_path / "b", np.zeros((64, 64), np.uint16))
    seen = []
    facts = take_fingerprint(
        [DataSet(str(tmp_path / "a"), 0.25), DataSet(str(tmp_path / "b"), 0.5)],
        lambda done, total: seen.append((done, total)),
    )
    assert seen == [(1, 2), (2, 2)]
    assert [item.nuclei for item in facts.sets] == [facts.nuclei, 0]
    assert [item.mpp_um for item in facts.sets] == [0.25, 0.5]


def test_quantiles_of_nothing_are_zeros():
    assert spread_of([]) == Spread(0, 0, 0)
    assert spread_of([3.0]) == Spread(3, 3, 3)


def test_a_folder_that_is_no_data_set_is_said(tmp_path):
    with pytest.raises(DataError, match="needs two folders"):
        take_fingerprint([DataSet(str(tmp_path), 0.5)])

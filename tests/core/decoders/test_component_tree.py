"""Nuclei by their shape, each at its own level: pale beside dark, touching pairs, nothing where there is nothing."""

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.color import hed2rgb

from napari_nucleiseg.core.decoders.classical import segment_classically
from napari_nucleiseg.core.decoders.component_tree import (
    ShapeOptions,
    StainLevels,
    haematoxylin_of,
    segment_by_shape,
    stain_levels,
)
from napari_nucleiseg.core.evaluation import mean_scores, scores

MPP_UM = 0.5


def picture(discs, shape=(128, 160)):
    """Discs (y, x, radius, haematoxylin) on pink tissue, slightly blurred as a lens does, and their labels."""
    labels, stain = np.zeros(shape, np.int32), np.full(shape, 0.01, np.float32)
    for number, (y, x, radius, density) in enumerate(discs, start=1):
        cv2.circle(labels, (x, y), radius, number, cv2.FILLED)
        cv2.circle(stain, (x, y), radius, density, cv2.FILLED)
    stain = cv2.GaussianBlur(stain, (0, 0), 1) + np.random.default_rng(3).normal(0, 0.003, shape)
    hed = np.stack([stain, np.full(shape, 0.03), np.zeros(shape)], axis=-1)
    return (hed2rgb(hed) * 255).astype(np.uint8), labels


def test_a_pale_nucleus_beside_dark_ones_is_found_at_its_own_level():
    image, truth = picture([(25, 25, 7, 0.16), (25, 70, 7, 0.16), (70, 40, 8, 0.055), (90, 110, 7, 0.16)])
    result = scores(truth, segment_by_shape(image, MPP_UM).labels)
    assert result.f1 == 1
    assert result.pq > 0.8
    # One threshold for all of them loses it.
    assert scores(truth, segment_classically(image, MPP_UM).labels).f1 < 1


def test_nuclei_that_touch_are_parted_where_they_are_darker_than_the_bridge():
    image, truth = picture([(60, 50, 8, 0.14), (60, 67, 8, 0.14)])
    assert len(segment_by_shape(image, MPP_UM)) == 2
    assert scores(truth, segment_by_shape(image, MPP_UM).labels).f1 == 1


@pytest.mark.parametrize("value", [0, 128, 240, 255])
def test_an_even_picture_holds_no_nucleus(value):
    assert len(segment_by_shape(np.full((64, 64, 3), value, np.uint8), MPP_UM)) == 0


def test_by_the_stain_of_its_slide_a_crop_without_a_nucleus_is_left_empty():
    full, _ = picture([(25, 25, 7, 0.16), (70, 70, 7, 0.16)])
    empty, _ = picture([(25, 25, 7, 0.02), (70, 70, 7, 0.02)])
    levels = stain_levels([haematoxylin_of(full, MPP_UM), haematoxylin_of(empty, MPP_UM)])
    assert len(segment_by_shape(full, MPP_UM, levels=levels)) == 2
    assert len(segment_by_shape(empty, MPP_UM, levels=levels)) == 0
    assert len(segment_by_shape(full, MPP_UM, levels=StainLevels(0.05, 0.05, 0.05))) == 0


def test_areas_are_square_micrometres_and_ragged_shapes_none_of_a_nucleus():
    image, _ = picture([(40, 40, 7, 0.16), (40, 110, 3, 0.16)])
    assert len(segment_by_shape(image, MPP_UM, ShapeOptions(min_area_um2=5))) == 2
    assert len(segment_by_shape(image, MPP_UM, ShapeOptions(min_area_um2=15))) == 1
    assert len(segment_by_shape(image, MPP_UM, ShapeOptions(max_area_um2=15, min_area_um2=5))) == 1
    ring = image.copy()
    ring[:] = image[0, 0]
    cv2.ellipse(ring, (80, 64), (30, 30), 0, 0, 250, (95, 55, 140), 4)
    assert len(segment_by_shape(ring, MPP_UM, ShapeOptions(max_area_um2=1e6, piece_solidity=2))) == 0


def test_plump_pieces_of_a_crowd_without_rims_count_unless_they_are_switched_off():
    image, truth = picture([(60, 50, 9, 0.14), (60, 66, 9, 0.14), (60, 82, 9, 0.14)])
    alone = segment_by_shape(image, MPP_UM, ShapeOptions(piece_solidity=2, max_area_um2=100))
    with_pieces = segment_by_shape(image, MPP_UM, ShapeOptions(max_area_um2=100))
    assert scores(truth, with_pieces.labels).f1 > scores(truth, alone.labels).f1
    assert with_pieces.scores.min() > 0


def test_scores_lie_between_0_and_1_and_blurred_outlines_score_less():
    image, _ = picture([(40, 40, 8, 0.16), (40, 110, 8, 0.16)])
    image[:, 80:] = cv2.GaussianBlur(image, (0, 0), 2.5)[:, 80:]
    found = segment_by_shape(image, MPP_UM, ShapeOptions(least_edge=0.05))
    left, right = (found.scores[found.labels[40, x] - 1] for x in (40, 110))
    assert 0 < right < left <= 1


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 95), st.integers(0, 119), st.integers(2, 14), st.floats(0.02, 0.2)),
        min_size=0,
        max_size=9,
    )
)
def test_whatever_lies_there_nuclei_are_whole_plump_and_of_permitted_size(discs):
    image, _ = picture(discs, (96, 120))
    options = ShapeOptions()
    found = segment_by_shape(image, MPP_UM, options)
    assert sorted(set(np.unique(found.labels)) - {0}) == list(range(1, len(found) + 1))
    for number in range(1, len(found) + 1):
        mask = (found.labels == number).astype(np.uint8)
        assert cv2.connectedComponents(mask, connectivity=8)[0] == 2
        area = int(mask.sum()) * MPP_UM**2
        assert options.min_area_um2 <= area <= options.max_area_um2 * 1.05


@pytest.mark.parametrize(("data_set", "chosen"), [("kumar_train30", slice(0, None, 7)), ("tnbc_dev", slice(0, 15, 3))])
def test_on_real_tissue_more_nuclei_are_right_than_by_one_threshold(shared_data, data_set, chosen):
    floor, shape = [], []
    for path in sorted((shared_data / data_set / "images").glob("*.png"))[chosen]:
        image = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
        truth = tifffile.imread(shared_data / data_set / "labels" / f"{path.stem}.tif")
        floor.append(scores(truth, segment_classically(image, 0.25).labels, distances=False))
        shape.append(scores(truth, segment_by_shape(image, 0.25).labels, distances=False))
    assert mean_scores(shape).pq > mean_scores(floor).pq + 0.02
    assert mean_scores(shape).f1 > mean_scores(floor).f1 + 0.02

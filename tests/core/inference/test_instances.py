"""From maps to owned nuclei: who owns what, and outlines at level 0 that are smooth, whole and well measured."""

import dataclasses

import cv2
import numpy as np
import pytest
from blank import blank_slide
from darkness import darkness_spec

from napari_nucleiseg.core.decoders.base import DecodeOptions
from napari_nucleiseg.core.decoders.offsets import DECODER
from napari_nucleiseg.core.geometry import YX, Region
from napari_nucleiseg.core.inference.enlarge import enlarge, grow, measure
from napari_nucleiseg.core.inference.instances import as_float, find_nuclei
from napari_nucleiseg.core.inference.plan import plan_inference

SPEC = darkness_spec(tile_px=64, halo_px=32)
ANY_SIZE = DecodeOptions(0.5, 0.0)


def disc_field(shape, centres, radius=6.0):
    """Ideal maps and labels of discs at `centres`; the probability falls from 1 to 0 over two pixels at the rim."""
    ys, xs = np.mgrid[: shape[0], : shape[1]].astype(np.float64)
    probability, labels = np.zeros(shape), np.zeros(shape, np.int32)
    offsets = np.zeros((2, *shape))
    for number, (y, x) in enumerate(centres, 1):
        soft = np.clip((radius - np.hypot(ys - y, xs - x)) / 2 + 0.5, 0, 1)
        mine = soft > probability
        probability[mine], labels[mine] = soft[mine], number
        offsets[:, mine] = np.stack([y - ys, x - xs])[:, mine]
    maps = {
        "nuclei": np.rint(probability * 255).astype(np.uint8)[None],
        "offsets": offsets.astype(np.float16),
    }
    return maps, np.where(maps["nuclei"][0] > 127, labels, 0)


def tile_maps(maps, tile):
    rows, columns = tile.inside_px.slices
    return {name: values[:, rows, columns] for name, values in maps.items()}


def slide_plan(shape_px, factor=1.0):
    slide = blank_slide(round(shape_px[0] * factor), round(shape_px[1] * factor), 0.5 / factor)
    return plan_inference(slide, SPEC)


def owners(centre, factor=1.0):
    plan = slide_plan((192, 192), factor)
    maps, _ = disc_field((192, 192), [centre])
    found = {t.index: find_nuclei(t, tile_maps(maps, t), plan, SPEC, ANY_SIZE) for t in plan.tiles}
    return {index: nuclei for index, nuclei in found.items() if len(nuclei)}


def test_a_nucleus_belongs_to_the_tile_that_holds_its_centre():
    found = owners((80.0, 100.0))
    assert set(found) == {4}
    nuclei = found[4]
    assert nuclei.tile_index == 4
    np.testing.assert_allclose(nuclei.centroids, [[80, 100]], atol=0.01)


def test_a_nucleus_on_the_seam_is_whole():
    found = owners((70.0, 100.0))  # reaches rows 64 to 76: tile 4 alone holds the centre
    assert set(found) == {4}
    assert found[4].areas_um2[0] == pytest.approx(np.pi * 36 * 0.25, rel=0.05)
    found = owners((66.0, 66.0))
    assert set(found) == {4}
    # Smoothing rounds the one-pixel tips of a disc on a pixel grid off.
    assert found[4].boxes.tolist() == [[61, 61, 72, 72]]


@pytest.mark.parametrize(("y", "tiles"), [(62.4, {1}), (62.6, {1, 4}), (64.4, {1, 4}), (64.6, {4})])
def test_a_centre_within_a_pixel_of_the_seam_is_owned_twice_rather_than_not_at_all(y, tiles):
    found = owners((y, 100.0))
    assert set(found) == tiles


def test_at_the_pixel_size_of_the_model_labels_are_those_of_the_decoder():
    plan = slide_plan((64, 64))
    maps, expected = disc_field((64, 64), [(10, 10), (30, 40), (63, 63)])
    nuclei = find_nuclei(plan.tiles[0], maps, plan, SPEC, ANY_SIZE)
    labels = np.zeros((64, 64), np.int32)
    labels[nuclei.box.slices] = nuclei.labels
    decoded = DECODER.decode(as_float(maps), 0.5, ANY_SIZE)
    np.testing.assert_array_equal(labels, decoded.labels)
    # Smoothing rounds the four one-pixel tips of each disc off, and nothing else.
    assert not (labels[expected == 0] > 0).any()
    assert np.sum((labels == 0) & (expected > 0)) <= 4 * 3
    np.testing.assert_array_equal(nuclei.boxes, decoded.boxes)
    np.testing.assert_allclose(nuclei.areas_um2, decoded.areas * 0.25)


@pytest.mark.parametrize("factor", [2.0, 4.0, 1.7, 0.5])
def test_measurements_are_those_of_the_labels(factor):
    plan = slide_plan((192, 192), factor)
    rng = np.random.default_rng(1)
    maps, _ = disc_field((192, 192), rng.uniform(5, 187, (60, 2)))
    for tile in plan.tiles:
        nuclei = find_nuclei(tile, tile_maps(maps, tile), plan, SPEC, ANY_SIZE)
        assert Region(0, 0, *plan.grid.slide_shape).contains(nuclei.box)
        assert nuclei.labels.shape == (nuclei.box.height, nuclei.box.width)
        assert set(np.unique(nuclei.labels)) - {0} == set(range(1, len(nuclei) + 1))
        um2 = (0.5 / factor) ** 2
        for number in range(1, len(nuclei) + 1):
            ys, xs = np.nonzero(nuclei.labels == number)
            ys, xs = ys + nuclei.box.y, xs + nuclei.box.x
            assert nuclei.areas_um2[number - 1] == pytest.approx(len(ys) * um2, rel=1e-5)
            np.testing.assert_allclose(nuclei.centroids[number - 1], [ys.mean(), xs.mean()], atol=1e-6)
            assert nuclei.boxes[number - 1].tolist() == [ys.min(), xs.min(), ys.max() + 1, xs.max() + 1]
            assert 0.5 < nuclei.scores[number - 1] <= 1


@pytest.mark.parametrize("factor", [2.0, 4.0, 3.3])
def test_outlines_follow_the_probability_not_the_pixels(factor):
    """A disc enlarged must be nearer to the true disc than nearest neighbours are, by far."""
    plan = slide_plan((64, 64), factor)
    maps, coarse = disc_field((64, 64), [(31.3, 30.6)], radius=8.3)
    nuclei = find_nuclei(plan.tiles[0], maps, plan, SPEC, ANY_SIZE)
    shape = plan.grid.slide_shape
    smooth = np.zeros(shape, bool)
    smooth[nuclei.box.slices] = nuclei.labels > 0
    blocky = cv2.resize(coarse.astype(np.uint8), shape[::-1], interpolation=cv2.INTER_NEAREST) > 0
    ys, xs = np.mgrid[: shape[0], : shape[1]]
    true = np.hypot((ys + 0.5) / factor - 0.5 - 31.3, (xs + 0.5) / factor - 0.5 - 30.6) < 8.3

    def wrong(mask):
        return (mask != true).sum() / true.sum()

    assert wrong(smooth) < 0.03
    assert wrong(smooth) < 0.6 * wrong(blocky)


def test_growing_does_not_take_pixels_of_a_neighbour():
    """Two discs side by side, one owned by the next tile: the other must not spread over its rim."""
    factor = 2.0
    plan = slide_plan((192, 192), factor)
    maps, _ = disc_field((192, 192), [(80.0, 59.0), (80.0, 70.5)])
    found = {t.index: find_nuclei(t, tile_maps(maps, t), plan, SPEC, ANY_SIZE) for t in plan.tiles}
    left, right = found[3], found[4]
    assert len(left) == len(right) == 1
    canvas = np.zeros(plan.grid.slide_shape, np.int32)
    canvas[left.box.slices] += left.labels > 0
    canvas[right.box.slices] += right.labels > 0
    assert canvas.max() == 1


def test_a_tile_without_nuclei_is_empty_but_valid():
    plan = slide_plan((64, 64), 2.0)
    maps, _ = disc_field((64, 64), [])
    nuclei = find_nuclei(plan.tiles[0], maps, plan, SPEC, ANY_SIZE)
    assert len(nuclei) == 0
    assert plan.tiles[0].core.contains(nuclei.box)
    assert nuclei.labels.shape == (nuclei.box.height, nuclei.box.width)
    assert nuclei.boxes.shape == (0, 4)


def test_small_nuclei_are_dropped_by_their_area_in_micrometres():
    plan = slide_plan((64, 64), 2.0)
    maps, _ = disc_field((64, 64), [(30.0, 30.0)], radius=4)  # 50 px at 0.5 um: 12.6 um2
    assert len(find_nuclei(plan.tiles[0], maps, plan, SPEC, DecodeOptions(0.5, 11.0))) == 1
    assert len(find_nuclei(plan.tiles[0], maps, plan, SPEC, DecodeOptions(0.5, 14.0))) == 0


def test_float_maps_and_stored_maps_agree():
    plan = slide_plan((64, 64), 2.0)
    maps, _ = disc_field((64, 64), [(10, 10), (30, 40)])
    stored, floats = (find_nuclei(plan.tiles[0], m, plan, SPEC, ANY_SIZE) for m in (maps, as_float(maps)))
    np.testing.assert_array_equal(stored.labels, floats.labels)
    np.testing.assert_allclose(stored.centroids, floats.centroids)


def test_enlarging_without_a_probability_is_nearest_neighbours():
    plan = slide_plan((8, 8), 2.0)
    labels = np.arange(64, dtype=np.int32).reshape(8, 8)
    fine = enlarge(labels, None, window_px=Region(0, 0, 8, 8), box=Region(0, 0, 16, 16), grid=plan.grid, threshold=0.5)
    np.testing.assert_array_equal(fine, labels.repeat(2, 0).repeat(2, 1))


@pytest.mark.parametrize("factor", [2.0, 3.0])
def test_whole_factors_and_others_sample_the_same_places(factor):
    """The fast way for whole factors and the general one agree, also where the slide cuts the box."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 300, (20, 24)).astype(np.int32)
    gate = cv2.GaussianBlur(rng.integers(0, 256, (20, 24), dtype=np.uint8), (0, 0), 1)
    window, box = Region(7, 9, 20, 24), Region(int(7 * factor), int(9 * factor), 37, 43)
    fine = {}
    for f in (factor, factor * (1 + 1e-9)):
        grid = dataclasses.replace(slide_plan((64, 64)).grid, downsample=YX(f, f))
        fine[f] = enlarge(labels, gate, window_px=window, box=box, grid=grid, threshold=0.5)
    one, other = fine.values()
    assert (one != other).mean() < 0.02  # bytes on the threshold are rounded differently
    assert (one > 0).mean() > 0.3


def test_growing_fills_background_only():
    labels = np.zeros((5, 8), np.int32)
    labels[2, 2], labels[2, 4:6] = 70_000, 9
    grown = grow(labels)
    assert grown[2].tolist() == [0, 70_000, 70_000, 70_000, 9, 9, 9, 0]
    assert grown[1].tolist() == [0, 70_000, 70_000, 70_000, 9, 9, 9, 0]
    assert (grown[[0, 4]] == 0).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 30), (30, 1), (40, 50)])
def test_measures_are_those_of_the_pixels(shape):
    rng = np.random.default_rng(shape[0])
    labels = rng.integers(0, 9, shape).astype(np.int32)
    found = measure(labels, 12)
    for number in range(1, 13):
        ys, xs = np.nonzero(labels == number)
        assert found.areas[number - 1] == len(ys)
        if len(ys):
            np.testing.assert_allclose(found.centroids[number - 1], [ys.mean(), xs.mean()])
            assert found.boxes[number - 1].tolist() == [ys.min(), xs.min(), ys.max() + 1, xs.max() + 1]

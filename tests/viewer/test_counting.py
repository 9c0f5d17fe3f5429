from types import SimpleNamespace

import numpy as np
import pytest

from napari_nucleiseg.core.geometry import YX, Region
from napari_nucleiseg.core.inference.plan import TileGrid
from napari_nucleiseg.core.slides.pyramid import Slide
from napari_nucleiseg.viewer.counting import Done, count_polygon, count_view, inside_polygon, measured_area
from napari_nucleiseg.viewer.segmentation import polygon_cover

SLIDE = Slide(path="x", levels=(np.zeros((2048, 3072, 3), np.uint8),), downsamples=(YX(1, 1),), mpp_um=YX(0.5, 0.5))
GRID = TileGrid((2048, 3072), YX(1.0, 1.0), tile_px=512, halo_px=32, size_multiple=16, margin_px=0)
MM2_PER_TILE = 512 * 512 * 0.25e-6


def area_of(tiles, region, **more):
    """Area and share if all that was ever looked at are these tiles of the grid."""
    return measured_area(SLIDE, [GRID.tile(tile).core for tile in tiles], region, Done(GRID, tiles), **more)


def test_area_is_that_of_the_tiles_that_are_done():
    area, share = area_of({0, 1, 7}, SLIDE.region)
    assert area == pytest.approx(3 * MM2_PER_TILE, rel=0.01)
    assert share == pytest.approx(3 / 24, rel=0.01)


def test_only_the_region_counts():
    region = Region(0, 256, 512, 512)  # half of tile 0, half of tile 1
    area, share = area_of({0}, region)
    assert area == pytest.approx(MM2_PER_TILE / 2, rel=0.01)
    assert share == pytest.approx(0.5, rel=0.01)


def test_glass_is_no_tissue():
    mask = np.zeros((32, 48), bool)
    mask[:, :8] = True  # the first 512 columns
    tissue = SimpleNamespace(mask=mask, downsample=YX(64, 64))
    area, share = area_of(set(range(24)), SLIDE.region, tissue=tissue)
    assert area == pytest.approx(4 * MM2_PER_TILE, rel=0.01)
    assert share == 1


def test_a_view_of_glass_has_no_area_and_nothing_left_to_do():
    tissue = SimpleNamespace(mask=np.zeros((32, 48), bool), downsample=YX(64, 64))
    assert area_of(set(), SLIDE.region, tissue=tissue) == (0.0, 1.0)


def test_area_of_a_polygon():
    triangle = np.array([[0.0, 0], [1024, 0], [0, 1024]])
    area, share = area_of(set(range(24)), Region(0, 0, 1024, 1024), polygon=triangle)
    assert area == pytest.approx(1024 * 1024 / 2 * 0.25e-6, rel=0.01)
    assert share == 1


def test_inside_polygon_agrees_with_skimage():
    from skimage.measure import points_in_poly

    rng = np.random.default_rng(0)
    polygon = np.array([[10.3, 10.1], [80.2, 20.7], [50.5, 50.5], [90.1, 90.9], [15.2, 70.4]])  # not convex
    points = rng.uniform(0, 100, (2000, 2))
    np.testing.assert_array_equal(inside_polygon(points, polygon), points_in_poly(points, polygon))


def test_counting_in_a_polygon_looks_at_centroids():
    centroids = np.array([[10.0, 10], [10, 900], [900, 10], [30, 40]])
    project = SimpleNamespace(
        nuclei_in=lambda _region: SimpleNamespace(centroids=centroids), tiles_in=lambda _region: [SLIDE.region]
    )
    triangle = np.array([[0.0, 0], [800, 0], [0, 800]])
    counts = count_polygon(project, SLIDE, triangle)
    assert counts.nuclei == 2
    assert counts.where == "shape"
    assert counts.per_mm2 == pytest.approx(2 / (800 * 800 / 2 * 0.25e-6), rel=0.01)


def test_a_thin_shape_is_still_covered():
    line = np.array([[100.0, 100.0], [100.5, 3000.0], [101.0, 100.0]])
    cover = polygon_cover(line, (200_000, 200_000))
    assert cover.mask.any()
    assert max(cover.mask.shape) <= 4096
    x = np.nonzero(cover.mask)[1]
    assert (x * cover.downsample.x <= 100).any()
    assert ((x + 1) * cover.downsample.x >= 3000).any()


def test_nuclei_are_counted_where_no_plan_is_known():
    project = SimpleNamespace(count_in=lambda _region: 30, tiles_in=lambda _region: [Region(0, 0, 512, 256)])
    counts = count_view(project, SLIDE, Region(0, 0, 512, 512))
    assert (counts.nuclei, counts.segmented) == (30, pytest.approx(0.5, rel=0.01))
    assert counts.per_mm2 == pytest.approx(30 / (MM2_PER_TILE / 2), rel=0.01)


def test_density_is_that_of_all_that_was_looked_at_and_the_share_that_of_the_present_settings():
    tiles = [GRID.tile(tile).core for tile in (0, 1)]
    area, share = measured_area(SLIDE, tiles, Region(0, 0, 512, 1024), Done(GRID, {0}))
    assert (area, share) == (pytest.approx(2 * MM2_PER_TILE, rel=0.01), pytest.approx(0.5, rel=0.01))
    area, share = measured_area(SLIDE, tiles, Region(0, 512, 512, 512), Done(GRID, {0}))
    assert (area, share) == (pytest.approx(MM2_PER_TILE, rel=0.01), 1)

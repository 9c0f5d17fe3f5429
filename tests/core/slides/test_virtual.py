"""Levels that files do not have: exact means in exact places, and no step that is too large."""

import itertools

import numpy as np
import pytest
from slide_files import tissue

from napari_nucleiseg.core.geometry import YX
from napari_nucleiseg.core.slides.pyramid import Slide
from napari_nucleiseg.core.slides.tilecache import TileCache
from napari_nucleiseg.core.slides.tiled import TiledLevel
from napari_nucleiseg.core.slides.virtual import (
    COARSEST_SIDE,
    LARGEST_STEP,
    exact_downsample,
    halved,
    mean_2x2,
    with_virtual_levels,
)


class Shape:
    """A level of any size that holds nothing and counts what is asked of it."""

    def __init__(self, height, width):
        self.shape, self.dtype, self.ndim, self.read = (height, width, 3), np.dtype(np.uint8), 3, 0

    def __getitem__(self, key):
        rows, cols = (len(range(*part.indices(size))) for part, size in zip(key, self.shape, strict=False))
        self.read += rows * cols
        return np.zeros((rows, cols, 3), np.uint8)


TILES = [(256, 256), (240, 240), (512, 512), (1024, 256), (241, 300), (2000, 2000), (5000, 5000)]


def slide_of(*levels):
    shapes = [level.shape[:2] for level in levels]
    return Slide("x", levels, tuple(exact_downsample(shapes[0], shape) for shape in shapes), None)


def mean_of_pairs(image):
    """Area mean by the book: an odd last row or column is a mean of what there is."""
    height, width = -(-image.shape[0] // 2), -(-image.shape[1] // 2)
    out = np.empty((height, width, 3))
    for y in range(height):
        for x in range(width):
            out[y, x] = image[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].reshape(-1, 3).mean(0)
    return out


@pytest.mark.parametrize("shape", [(64, 64), (65, 64), (64, 33), (31, 77), (1, 1), (1, 9), (9, 1)])
def test_a_halved_level_is_the_mean_of_what_there_is(shape):
    image = tissue(*shape)
    level = halved(image, YX(2.0, 2.0))
    assert np.abs(np.asarray(level) - mean_of_pairs(image)).max() <= 0.5


def test_tiles_of_a_halved_level_meet_without_a_seam():
    image = tissue(1100, 1301)
    whole = np.asarray(halved(image, YX(2.0, 2.0)))
    assert whole.shape == (550, 651, 3)
    parts = halved(image, YX(2.0, 2.0))
    for y, x in [(500, 500), (0, 511), (511, 0), (537, 640)]:
        assert np.array_equal(parts[y : y + 13, x : x + 11], whole[y : y + 13, x : x + 11])
    assert np.abs(whole[:, :650] - image[:, :1300].reshape(550, 2, 650, 2, 3).mean((1, 3))).max() <= 0.5


@pytest.mark.parametrize("tile", TILES)
def test_each_tile_of_the_file_is_decoded_once_for_the_level_made_of_it(tile):
    asked = []

    def read(row, col):
        asked.append((row, col))
        return np.full((*tile, 3), 200, np.uint8)

    finer = TiledLevel((5000, 4300), tile, read)
    level = halved(finer, YX(2.0, 2.0), keep_finer=False)
    assert (level[:] == 200).all()
    assert len(asked) == len(set(asked)) == -(-5000 // tile[0]) * -(-4300 // tile[1])
    assert max(level.tile_shape) <= 1024


@pytest.mark.parametrize("rows", [1, 16, 33, 64])
def test_each_strip_is_decoded_once_for_the_level_made_of_it(rows):
    asked = []

    def read(row, _col):
        asked.append(row)
        return tissue(600, 500)[row * rows : (row + 1) * rows]

    finer = TiledLevel((600, 500), (rows, 500), read, expose_chunks=False)
    level = halved(finer, YX(2.0, 2.0), keep_finer=False)
    assert np.abs(np.asarray(level) - mean_of_pairs(tissue(600, 500))).max() <= 0.5
    assert not hasattr(level, "chunks")
    assert sorted(asked) == list(range(-(-600 // rows)))


@pytest.mark.parametrize("keep_finer", [False, True])
@pytest.mark.parametrize("tile", [(256, 256), (512, 128), (64, 96), (241, 300)])
def test_tiles_made_one_by_one_are_the_means_of_the_whole(tile, keep_finer):
    image = tissue(1033, 901)

    def read(row, col):
        whole = np.full((*tile, 3), 7, np.uint8)  # tiles of the last row and column go on beyond the image
        part = image[row * tile[0] : (row + 1) * tile[0], col * tile[1] : (col + 1) * tile[1]]
        whole[: part.shape[0], : part.shape[1]] = part
        return whole

    finer = TiledLevel(image.shape[:2], tile, read, cache=TileCache())
    level = halved(finer, YX(2.0, 2.0), keep_finer=keep_finer)
    assert np.array_equal(np.asarray(level), mean_2x2(image))


def test_what_is_read_for_a_coarser_level_only_passes_through_memory_that_is_used_again():
    image, out, kept = tissue(1024, 1024), np.empty((256, 256, 3), np.uint8), []

    def read(row, col):
        return image[row * 256 : row * 256 + 256, col * 256 : col * 256 + 256]

    def read_passing(row, col):
        out[:] = read(row, col)
        return out

    finer = TiledLevel((1024, 1024), (256, 256), lambda *at: kept.append(at) or read(*at), read_passing=read_passing)
    level = halved(finer, YX(2.0, 2.0), keep_finer=False)
    before = len(level._cache)
    assert np.array_equal(level[:256, :256], mean_2x2(image)[:256, :256])
    assert kept == []
    assert len(level._cache) == before + 1  # its own; none of the finer level
    assert np.array_equal(finer[:256, :256], image[:256, :256])
    assert kept == [(0, 0)]
    finer.forget()


def test_means_of_means_keep_the_brightness():
    image = np.random.default_rng(0).integers(0, 256, (1024, 1024, 3), np.uint8)
    level = image
    for _ in range(4):
        level = halved(level, YX(1.0, 1.0))
    assert np.abs(np.asarray(level).astype(float).mean() - image.mean()) < 0.6


@pytest.mark.parametrize(
    ("factors", "added"),
    [
        ((1, 4, 16), (1, 2, 4, 8, 16)),
        ((1, 2, 4, 8, 16), (1, 2, 4, 8, 16)),
        ((1, 16), (1, 2, 4, 8, 16)),
        ((1, 3, 9), (1, 2, 3, 6, 9)),
        ((1, 10), (1, 2, 4, 10)),
        ((1, 2.5, 6), (1, 2.5, 6)),
    ],
)
def test_levels_are_inserted_where_the_step_is_too_large(factors, added):
    levels = [Shape(round(8192 / factor), round(8192 / factor)) for factor in factors]
    filled = with_virtual_levels(slide_of(*levels))
    got = [factor.y for factor in filled.downsamples if factor.y <= factors[-1] * 1.01]
    assert got == pytest.approx(added, rel=1e-3)


@pytest.mark.parametrize("shape", [(100_000, 80_000), (3000, 70_000), (5000, 5000), (900, 900), (1, 1)])
def test_any_slide_ends_in_a_small_level_by_small_steps(shape):
    filled = with_virtual_levels(slide_of(Shape(*shape)))
    assert max(filled.levels[-1].shape[:2]) <= COARSEST_SIDE
    factors = [factor.x for factor in filled.downsamples]
    assert all(b / a <= LARGEST_STEP for a, b in itertools.pairwise(factors))
    for level, factor in zip(filled.levels, filled.downsamples, strict=True):
        assert level.shape[0] == -(-shape[0] // factor.y)
        assert level.shape[1] == -(-shape[1] // factor.x)


def test_a_view_of_a_virtual_level_reads_only_what_it_covers():
    fine = Shape(100_000, 100_000)
    filled = with_virtual_levels(slide_of(fine))
    filled.levels[2][40_000 // 4 : 41_000 // 4, 0:256]
    assert fine.read <= 4096 * 4096
    before = fine.read
    filled.levels[2][40_000 // 4 : 41_000 // 4, 0:256]
    assert fine.read == before


def test_a_slide_that_needs_nothing_is_returned_as_it_is():
    slide = slide_of(Shape(1000, 1000), Shape(500, 500))
    assert with_virtual_levels(slide) is slide


def test_closing_gives_back_what_the_added_levels_kept():
    closed = []
    slide = slide_of(tissue(1500, 1500))
    slide.on_close = lambda: closed.append(True)
    filled = with_virtual_levels(slide)
    level = filled.levels[1]
    assert isinstance(level, TiledLevel)
    level[:]
    kept = len(level._cache)
    filled.close()
    assert closed == [True]
    assert len(level._cache) == kept - 9


@pytest.mark.parametrize(
    ("full", "level", "expected"),
    [
        ((32914, 46000), (8228, 11500), (4, 4)),
        ((32914, 46000), (2057, 2875), (16, 16)),
        ((3567, 4443), (1783, 2221), (2, 2)),
        ((1001, 999), (501, 500), (2, 2)),
        ((1000, 1000), (333, 333), (3, 3)),
        ((1000, 2000), (301, 602), (1000 / 301, 2000 / 602)),
        ((100_000, 80_000), (98, 78), (1024, 1024)),
        ((1000, 1), (500, 1), (2, 2)),
        ((1, 1), (1, 1), (1, 1)),
        ((1000, 1000), (1000, 1000), (1, 1)),
        ((10_000, 20_000), (2500, 10_000), (4, 2)),
    ],
)
def test_downsamples_are_whole_where_the_sizes_are_those_of_a_whole_factor(full, level, expected):
    assert exact_downsample(full, level) == pytest.approx(expected, rel=1e-9)

"""Blocks of a stack at another voxel size."""

import numpy as np
import pytest

from napari_nucleiseg.core.errors import UnsupportedImageError, VoxelSizeError
from napari_nucleiseg.core.geometry import ZYX
from napari_nucleiseg.core.slides.voxels import check_volume, checked_voxel, extent, grey, grey_levels, read_block

NOISE = np.random.default_rng(0).integers(0, 256, (9, 20, 30)).astype(np.uint8)
BYTES = (0.0, 255.0)


def test_at_its_own_size_a_block_is_what_is_stored():
    block = read_block(NOISE, ZYX(1, 1, 1), (2, 3, 4), (5, 8, 16), BYTES)
    assert block.dtype == np.float32
    assert block == pytest.approx(NOISE[2:7, 3:11, 4:20] / 255)


def test_beyond_the_stack_it_is_mirrored():
    block = read_block(NOISE, ZYX(1, 1, 1), (-3, -2, 28), (15, 4, 6), BYTES)
    padded = np.pad(NOISE, ((3, 3), (2, 0), (0, 4)), mode="reflect")
    assert block == pytest.approx(padded[:, :4, 28:] / 255)
    single = read_block(NOISE[:1], ZYX(1, 1, 1), (-2, 0, 0), (4, 20, 30), BYTES)
    assert (single == single[0]).all()


def test_a_slope_stays_where_it_is_at_any_size():
    z, y, x = np.mgrid[:24, :30, :40].astype(np.float32)
    slope = z + 2 * y + 3 * x
    for step in (ZYX(0.5, 0.5, 0.5), ZYX(2, 3, 4), ZYX(0.4, 1.7, 2.5)):
        block = read_block(slope, step, (2, 2, 2), (4, 4, 4), (0.0, 200.0)) * 200
        at = [(2 + np.arange(4) + 0.5) * factor - 0.5 for factor in step]
        want = at[0][:, None, None] + 2 * at[1][:, None] + 3 * at[2]
        assert block == pytest.approx(want, abs=1e-3)


def test_larger_voxels_average():
    block = read_block(NOISE, ZYX(3, 3, 3), (0, 0, 0), (3, 6, 10), BYTES)
    assert block.std() < 0.4 * (NOISE / 255).std()
    assert extent(NOISE.shape, ZYX(3, 3, 3)) == (3, 7, 10)
    assert extent(NOISE.shape, ZYX(100, 1, 1)) == (1, 20, 30)


def test_grey_levels_leave_outliers_out_and_stained_nuclei_are_bright():
    stack = np.full((40, 64, 64), 100, np.uint16)
    stack[:, 10:30, 10:30] = 900
    stack[20, 0, 0] = 65535
    assert grey_levels(stack) == (100.0, 900.0)
    assert grey_levels(np.zeros((3, 4, 4), np.uint8)) == (0.0, 1.0)
    colour = np.full((1, 2, 2, 3), 200, np.uint8)
    colour[0, 0, 0] = (60, 40, 120)
    assert grey(colour)[0].tolist() == [[pytest.approx(255 - 220 / 3, abs=1e-3), 55.0], [55.0, 55.0]]


def test_what_cannot_be_a_stack_or_a_voxel_is_refused():
    assert checked_voxel((1, 0.5, 0.25)) == ZYX(1.0, 0.5, 0.25)
    for wrong in ((0, 1, 1), (1, 1), (1, float("nan"), 1), (1, 1, 1000)):
        with pytest.raises(VoxelSizeError, match="cannot be right: z, y and x must each lie between"):
            checked_voxel(wrong)
    with pytest.raises(UnsupportedImageError, match=r"must have the axes z, y, x"):
        check_volume(np.zeros((2, 3, 4, 5)))
    with pytest.raises(UnsupportedImageError, match="complex128"):
        check_volume(np.zeros((2, 3, 4), np.complex128))

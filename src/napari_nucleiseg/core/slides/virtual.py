"""Levels that a file does not have: area means of the next finer one, made tile by tile on reading."""

from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np

from napari_nucleiseg.core.geometry import YX
from napari_nucleiseg.core.slides.pyramid import LevelArray, Slide, UInt8Image
from napari_nucleiseg.core.slides.tiled import LARGEST_STRIP_BYTES, TiledLevel
from napari_nucleiseg.core.slides.tilememory import tile_memory

LARGEST_STEP = 2.5
"""Between neighbours; a viewer shows up to this many times more pixels than the screen has, on each axis."""

COARSEST_SIDE = 1024
"""Levels are added until the longer side of the coarsest is at most this many pixels."""

TILE_SIDE = 256
"""Near which tiles of an added level are made; a viewer reads whole ones, larger than what it shows by that much."""

LARGEST_TILE_SIDE = 1024
_LARGEST_WHOLE_FACTOR = 64


def exact_downsample(full: tuple[int, int], level: tuple[int, int]) -> YX:
    """Return level-0 pixels per pixel of a level, ``(y, x)``, from the two shapes.

    Files state sizes, not factors, and cut or round what does not divide: 32,914 pixels at a quarter
    are 8,228. Where both sizes are within a pixel of one whole factor, it is that factor.

    Parameters
    ----------
    full, level : tuple of int
        ``(height, width)`` in pixels.
    """
    ratios = YX(full[0] / level[0], full[1] / level[1])
    # The longer side says it best: a side of one pixel may be any factor's.
    ratio = ratios[int(np.argmax(level))]
    for factor in (2 ** round(math.log2(ratio)), round(ratio)) if ratio >= 1 else ():
        is_told_apart = factor <= _LARGEST_WHOLE_FACTOR or factor & (factor - 1) == 0
        if is_told_apart and all(abs(size / factor - got) < 1 for size, got in zip(full, level, strict=True)):
            return YX(float(factor), float(factor))
    return ratios


def halved(finer: LevelArray, downsample: YX, *, keep_finer: bool = True) -> TiledLevel:
    """Return a level of half the size whose pixels are means of 2 x 2 pixels of `finer`.

    The last row and column of an odd size are means of what there is.

    Parameters
    ----------
    finer : LevelArray
        ``(y, x, 3)`` uint8.
    downsample : YX
        Level-0 pixels per pixel of the new level.
    keep_finer : bool
        Whether tiles of `finer` that are decoded for this stay in the cache. They take four times the
        bytes of what is made of them, and would push that out before the view comes back to it.
    """
    height, width = -(-finer.shape[0] // 2), -(-finer.shape[1] // 2)
    tile_shape, in_strips = _tile_shape(finer, width)
    parts = in_tiles = False
    if isinstance(finer, TiledLevel):
        # A tile of `finer` that lies in two of these would be decoded twice.
        parts = any(2 * mine % theirs for mine, theirs in zip(tile_shape, finer.tile_shape, strict=True))
        keep_finer = keep_finer or (parts and not in_strips)
        in_tiles = not parts and all(side % 2 == 0 for side in finer.tile_shape)

    def read_tile(row: int, col: int) -> UInt8Image:
        y, x = row * tile_shape[0] * 2, col * tile_shape[1] * 2
        rows, cols = slice(y, y + 2 * tile_shape[0]), slice(x, x + 2 * tile_shape[1])
        if isinstance(finer, TiledLevel) and in_tiles:
            return _mean_of_tiles(finer, rows, cols, keep=keep_finer)
        if isinstance(finer, TiledLevel) and not keep_finer:
            return mean_2x2(finer.read_through(rows, cols))
        return mean_2x2(np.asarray(finer[rows, cols]))

    return TiledLevel(
        (height, width), tile_shape, read_tile, downsample=downsample, expose_chunks=not in_strips, pool_from=2
    )


def _mean_of_tiles(finer: TiledLevel, rows: slice, cols: slice, *, keep: bool) -> UInt8Image:
    """Return `mean_2x2` of whole tiles of even sides, each taken from where it was decoded."""
    bottom, right = min(rows.stop, finer.shape[0]), min(cols.stop, finer.shape[1])
    # A whole tile also at the slide's edges: memory is kept by size.
    made = tile_memory.empty(((rows.stop - rows.start) // 2, (cols.stop - cols.start) // 2, 3))
    made = made[: -(-(bottom - rows.start) // 2), : -(-(right - cols.start) // 2)]
    height, width = finer.tile_shape
    for y in range(rows.start, bottom, height):
        for x in range(cols.start, right, width):
            place = (y // height, x // width)
            tile = finer.tile(*place) if keep else finer.passing_tile(*place)
            part = mean_2x2(tile[: bottom - y, : right - x])
            top, left = (y - rows.start) // 2, (x - cols.start) // 2
            made[top : top + part.shape[0], left : left + part.shape[1]] = part
    return made


def _tile_shape(finer: LevelArray, width: int) -> tuple[tuple[int, int], bool]:
    """Return ``(height, width)`` of tiles made of whole tiles of `finer`, and whether they are full-width strips."""
    if not isinstance(finer, TiledLevel):
        return (TILE_SIDE, TILE_SIDE), False
    rows, columns = finer.tile_shape
    if finer.is_strips and rows * columns * 3 <= LARGEST_STRIP_BYTES:
        return (rows if rows % 2 else rows // 2, width), True
    return (_tile_side(rows), _tile_side(columns)), False


def _tile_side(finer: int) -> int:
    """Return half a multiple of a tile side, near `TILE_SIDE`; `TILE_SIDE` itself where tiles are very large."""
    count = max(1, round(2 * TILE_SIDE / finer))
    count += count * finer % 2
    side = count * finer // 2
    return side if side <= LARGEST_TILE_SIDE else TILE_SIDE


def mean_2x2(block: UInt8Image) -> UInt8Image:
    """Return means of 2 x 2 pixels, rounded; an odd last row or column counts double.

    Parameters
    ----------
    block : ndarray of uint8, shape (y, x, 3)
        RGB.

    Returns
    -------
    ndarray of uint8, shape (ceil(y / 2), ceil(x / 2), 3)
        RGB.
    """
    height, width = block.shape[:2]
    if height % 2 or width % 2:
        block = np.pad(block, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    half = (block.shape[1] // 2, block.shape[0] // 2)
    return np.asarray(cv2.resize(block, half, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def with_virtual_levels(slide: Slide) -> Slide:
    """Return the slide with levels inserted so that no step is larger than `LARGEST_STEP`, down to a small one."""
    levels: list[LevelArray] = []
    downsamples: list[YX] = []
    made: list[TiledLevel] = []
    for index, (level, downsample) in enumerate(zip(slide.levels, slide.downsamples, strict=True)):
        levels.append(level)
        downsamples.append(downsample)
        following = slide.downsamples[index + 1] if index + 1 < len(slide.levels) else None
        while _wants_level(levels[-1], downsamples[-1], following):
            y, x = downsamples[-1]
            is_made = bool(made) and levels[-1] is made[-1]
            made.append(halved(levels[-1], YX(2 * y, 2 * x), keep_finer=is_made))
            levels.append(made[-1])
            downsamples.append(YX(2 * y, 2 * x))
    if not made:
        return slide

    def close() -> None:
        slide.close()
        for level in made:
            level.forget()

    return replace(slide, levels=tuple(levels), downsamples=tuple(downsamples), on_close=close)


def _wants_level(level: LevelArray, downsample: YX, following: YX | None) -> bool:
    if following is not None:
        return max(following) / max(downsample) > LARGEST_STEP
    return max(level.shape[:2]) > COARSEST_SIDE

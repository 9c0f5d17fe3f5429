"""Colours as the scanner meant them: the embedded ICC profile applied, to sRGB, on request."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from PIL import Image, ImageCms

from napari_nucleiseg.core.errors import SlideError
from napari_nucleiseg.core.geometry import YX
from napari_nucleiseg.core.slides.pyramid import LevelArray, Slide, UInt8Image
from napari_nucleiseg.core.slides.tiled import TiledLevel

TILE_SIDE = 512
Convert = Callable[[UInt8Image], UInt8Image]


def icc_to_srgb(slide: Slide) -> Slide:
    """Return the slide with its colours converted to sRGB, tile by tile on reading.

    Models are trained on pixels as they are stored; this is for the eye, and for comparing scanners.

    Parameters
    ----------
    slide : Slide
        Any; one without a profile, or whose profile is sRGB already, comes back as it is.

    Raises
    ------
    SlideError
        If the profile is damaged or not one of RGB colours.
    """
    if slide.icc_profile is None:
        return slide
    convert = srgb_converter(slide.icc_profile)
    if _changes_nothing(convert):
        return slide
    levels = tuple(
        _converted(level, downsample, convert)
        for level, downsample in zip(slide.levels, slide.downsamples, strict=True)
    )

    def close() -> None:
        slide.close()
        for level in levels:
            level.forget()

    return replace(slide, levels=levels, icc_profile=None, on_close=close)


def srgb_converter(profile: bytes) -> Convert:
    """Return a function that converts ``(y, x, 3)`` uint8 RGB of `profile` to sRGB; threads may share it.

    Parameters
    ----------
    profile : bytes
        An ICC profile.

    Raises
    ------
    SlideError
        If it is damaged or not one of RGB colours.
    """
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        intent = ImageCms.Intent(ImageCms.getDefaultIntent(source))
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), "RGB", "RGB", intent)
    except (ImageCms.PyCMSError, OSError, ValueError) as error:
        raise SlideError(
            f"the colour profile of this slide cannot be used ({error}); show it without colour correction."
        ) from error

    def convert(image: UInt8Image) -> UInt8Image:
        return np.array(transform.apply(Image.fromarray(np.ascontiguousarray(image))), dtype=np.uint8)

    return convert


def _changes_nothing(convert: Convert) -> bool:
    """Whether colours all over the range come back within one grey level."""
    steps = np.linspace(0, 255, 9).astype(np.uint8)
    grid = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), axis=-1).reshape(81, 9, 3)
    return bool(np.abs(convert(grid).astype(int) - grid).max() <= 1)


def _converted(level: LevelArray, downsample: YX, convert: Convert) -> TiledLevel:
    tile_shape = level.tile_shape if isinstance(level, TiledLevel) else (TILE_SIDE, TILE_SIDE)
    height, width = tile_shape

    def read_tile(row: int, col: int) -> UInt8Image:
        return convert(level[row * height : (row + 1) * height, col * width : (col + 1) * width])

    return TiledLevel(
        (level.shape[0], level.shape[1]),
        tile_shape,
        read_tile,
        downsample=downsample,
        expose_chunks=not (isinstance(level, TiledLevel) and level.is_strips),
    )

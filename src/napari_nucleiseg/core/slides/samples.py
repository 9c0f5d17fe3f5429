"""What pixels are stored as, and how they become 8-bit RGB."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.errors import UnsupportedImageError
from napari_nucleiseg.core.slides.pyramid import BACKGROUND, UInt8Image

ToRGB = Callable[[NDArray[Any]], UInt8Image]
Colours = Literal["grey", "inverted grey", "rgb", "ycbcr", "palette"]
Alpha = Literal["none", "straight", "premultiplied"]


@dataclass(frozen=True, slots=True, eq=False)
class SampleFormat:
    """How the samples of an image are to be understood.

    Parameters
    ----------
    samples : int
        Samples per pixel, alpha included.
    dtype : numpy.dtype
        Of one sample.
    colours : str
        What the samples mean.
    alpha : str
        Whether the last sample is opacity, and whether colours are already multiplied by it.
    palette : ndarray of uint8, shape (3, entries), optional
        RGB of each value, for ``"palette"``.
    white : float
        Value of a sample that is shown as 255; other than that only where samples are not of 8 bits.
    opaque : float
        Value of a sample of opacity that hides all behind it.
    """

    samples: int
    dtype: np.dtype[Any]
    colours: Colours = "rgb"
    alpha: Alpha = "none"
    palette: UInt8Image | None = None
    white: float = 255.0
    opaque: float = 255.0

    @property
    def is_rgb(self) -> bool:
        """Whether pixels can be used as they are."""
        return self.samples == 3 and self.dtype == np.uint8 and self.colours == "rgb" and self.white == 255

    @property
    def colour_samples(self) -> int:
        """How many of the samples are colour; what else there is comes after them."""
        return 3 if self.colours in ("rgb", "ycbcr") else 1

    def with_range(self, brightest: float, largest: float) -> SampleFormat:
        """Return the format with white and opaque for the brightest colour, and the largest sample of all, seen.

        Opacity fills the type of the samples also where the colours are of fewer bits.
        """
        white, opaque = white_level(self.dtype, brightest), white_level(self.dtype, largest)
        return replace(self, white=white, opaque=opaque)


def white_level(dtype: np.dtype[Any], brightest: float) -> float:
    """Return the value that stands for white, from the brightest sample seen.

    Cameras of 10, 12 or 14 bits store 16: the range is the smallest power of two that holds
    what is there, so that bright field fills 8 bits and no tissue is stretched by its content.

    Raises
    ------
    UnsupportedImageError
        If the type of the samples is not one that pictures have.
    """
    if dtype == np.uint8:
        return 255.0
    if dtype == np.bool_:
        return 1.0
    if dtype.kind == "f":
        return 1.0 if brightest <= 1.0 else white_level(np.dtype(np.uint16), brightest)
    if dtype.kind != "u" or dtype.itemsize > 2:
        raise UnsupportedImageError(
            f"its pixels are {dtype} numbers, as in label images or measurements; pictures of tissue are 8-bit or "
            "16-bit. Open labels as labels, or save it as 8-bit RGB."
        )
    bits = max(8, int(np.ceil(np.log2(max(brightest, 1.0) + 1))))
    return float(2**bits - 1)


def to_rgb(image: NDArray[Any], form: SampleFormat) -> UInt8Image:
    """Return `image` as 8-bit RGB over white.

    Parameters
    ----------
    image : ndarray, shape (y, x, samples)
        As stored.
    form : SampleFormat
        What it holds.

    Returns
    -------
    ndarray of uint8, shape (y, x, 3)
        RGB, 0 to 255.
    """
    if form.colours == "palette" and form.palette is not None:
        index = np.minimum(image[..., 0], form.palette.shape[1] - 1)
        return np.ascontiguousarray(form.palette.T[index], dtype=np.uint8)
    colour, opacity = (image, None) if form.alpha == "none" else (image[..., :-1], image[..., -1:])
    colour = _to_8_bit(colour, form.white)
    if form.colours == "inverted grey":
        colour = 255 - colour
    if form.colours == "ycbcr":
        # OpenCV orders the chroma planes Cr, Cb.
        colour = np.asarray(cv2.cvtColor(np.ascontiguousarray(colour[..., [0, 2, 1]]), cv2.COLOR_YCrCb2RGB))
    colour = np.repeat(colour[..., :1], 3, axis=-1) if colour.shape[-1] < 3 else colour[..., :3]
    if opacity is None:
        return np.ascontiguousarray(colour)
    opacity = _to_8_bit(opacity, form.opaque)
    return over_white(np.concatenate([colour, opacity], axis=-1), premultiplied=form.alpha == "premultiplied")


def over_white(rgba: UInt8Image, *, premultiplied: bool) -> UInt8Image:
    """Lay pixels of some opacity over white.

    Parameters
    ----------
    rgba : ndarray of uint8, shape (y, x, 4)
        RGB and opacity (0 is transparent).
    premultiplied : bool
        Whether RGB is multiplied by the opacity already.

    Returns
    -------
    ndarray of uint8, shape (y, x, 3)
        RGB.
    """
    rgba = np.ascontiguousarray(rgba)
    opacity = cv2.extractChannel(rgba, 3)
    rgb = np.asarray(cv2.cvtColor(rgba, cv2.COLOR_RGBA2RGB), dtype=np.uint8)
    if opacity.min() == 255:
        return rgb
    # Mostly pixels are there or not: those become white here, and the few between are mixed one by one.
    mixed = np.asarray(cv2.add(rgb, cv2.merge([cv2.bitwise_not(opacity)] * 3)), dtype=np.uint8)
    between = cv2.inRange(opacity, 1, 254) > 0
    if between.any():
        mixed[between] = _mixed_with_white(rgba[between], premultiplied=premultiplied)
    return mixed


def _mixed_with_white(rgba: UInt8Image, *, premultiplied: bool) -> UInt8Image:
    colour, weight = rgba[..., :3].astype(np.uint16), rgba[..., 3:].astype(np.uint16)
    front = colour if premultiplied else (colour * weight + 127) // 255
    mixed: UInt8Image = np.minimum(front + (255 - weight) * BACKGROUND // 255, 255).astype(np.uint8)
    return mixed


def _to_8_bit(image: NDArray[Any], largest: float) -> UInt8Image:
    if image.dtype == np.uint8 and largest == 255:
        return image
    scaled = image.astype(np.float32) * np.float32(255.0 / largest)
    eight: UInt8Image = np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
    return eight

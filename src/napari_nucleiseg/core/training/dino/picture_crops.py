"""Views of a patch: crops of random size and place whose colours and sharpness are changed."""

from __future__ import annotations

import math
from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.slides.pyramid import UInt8Image
from napari_nucleiseg.core.training.dino.config import DinoConfig

_RATIO = 4 / 3  # most that a crop is wider than high, or higher than wide
_TRIES = 10
_GREY = np.array((0.299, 0.587, 0.114), np.float32)
_HUES = 180  # of OpenCV's circle in 8 bits
_SOLARISED = np.where(np.arange(256) < 128, np.arange(256), 255 - np.arange(256)).astype(np.uint8)


class Changes(Protocol):
    """How much a view may be changed; see `DinoConfig`."""

    @property
    def flip(self) -> float:
        """Share that is mirrored."""

    @property
    def turns(self) -> bool:
        """Whether views are turned by quarters."""

    @property
    def jitter(self) -> tuple[float, ...]:
        """Largest changes of brightness, contrast, saturation and hue."""

    @property
    def jitter_share(self) -> float:
        """Share with changed colours."""

    @property
    def grey(self) -> float:
        """Share in grey."""

    @property
    def blur_px(self) -> tuple[float, ...]:
        """Least and most standard deviation of the blur, pixels."""


def patch_views(
    patch: UInt8Image, config: DinoConfig, rng: np.random.Generator
) -> tuple[list[UInt8Image], list[UInt8Image]]:
    """Return the global and the local views of a patch.

    Parameters
    ----------
    patch : ndarray of uint8, shape (y, x, 3)
        RGB.
    config : DinoConfig
        Sizes and changes; the published ones are its defaults.
    rng : Generator
        Chooses.
    """
    large, small = [], []
    for place in range(config.global_crops):
        view = resized_crop(patch, config.global_px, config.global_scale, rng)
        changed = change(view, config, config.blur[min(place, 1)], rng)
        if place and rng.random() < config.solarise:
            changed = _SOLARISED[changed]
        large.append(changed)
    for _ in range(config.local_crops):
        view = resized_crop(patch, config.local_px, config.local_scale, rng)
        small.append(change(view, config, config.blur[2], rng))
    return large, small


def resized_crop(patch: UInt8Image, side: int, scale: tuple[float, ...], rng: np.random.Generator) -> UInt8Image:
    """Cut a rectangle that covers a random share of a patch, and bring it to ``(side, side, 3)``.

    Bicubic where it is enlarged, by area where it is made smaller: OpenCV's bicubic would skip pixels there, which that
    of the paper (Pillow's) does not.
    """
    rows, columns = patch.shape[:2]
    for _ in range(_TRIES):
        area = rng.uniform(scale[0], scale[1]) * rows * columns
        ratio = math.exp(rng.uniform(-math.log(_RATIO), math.log(_RATIO)))
        height, width = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
        if 0 < height <= rows and 0 < width <= columns:
            break
    else:
        height = width = min(rows, columns)
    y, x = int(rng.integers(rows - height + 1)), int(rng.integers(columns - width + 1))
    how = cv2.INTER_CUBIC if height < side or width < side else cv2.INTER_AREA
    resized: UInt8Image = cv2.resize(patch[y : y + height, x : x + width], (side, side), interpolation=how)  # type: ignore[assignment]
    return resized


def change(view: UInt8Image, config: Changes, blurred: float, rng: np.random.Generator) -> UInt8Image:
    """Mirror, turn, colour and blur a view, each by its chance."""
    if rng.random() < config.flip:
        view = view[:, ::-1]
    if config.turns:
        view = np.rot90(view, int(rng.integers(4)))
    view = np.ascontiguousarray(view)
    if rng.random() < config.jitter_share:
        view = jitter_colours(view, config.jitter, rng)
    if rng.random() < config.grey:
        view = _mixed(view, 0.0)
    if rng.random() < blurred:
        view = cv2.GaussianBlur(view, (0, 0), rng.uniform(config.blur_px[0], config.blur_px[1]))  # type: ignore[assignment]
    return view


def jitter_colours(view: UInt8Image, strengths: tuple[float, ...], rng: np.random.Generator) -> UInt8Image:
    """Change brightness, contrast, saturation and hue, in random order.

    Parameters
    ----------
    view : ndarray of uint8, shape (y, x, 3)
        RGB.
    strengths : tuple of float
        Factors lie between 1 - strength and 1 + strength for the first three; hue moves by up to the last, a share of
        the circle.
    rng : Generator
        Chooses.
    """
    brightness, contrast, saturation = (rng.uniform(max(0.0, 1 - item), 1 + item) for item in strengths[:3])
    hue = rng.uniform(-strengths[3], strengths[3])
    for which in rng.permutation(4):
        if which == 0:
            view = cv2.LUT(view, _line(brightness, 0.0))  # type: ignore[assignment]
        elif which == 1:
            mean = float(np.dot(cv2.mean(view)[:3], _GREY))
            view = cv2.LUT(view, _line(contrast, (1 - contrast) * mean))  # type: ignore[assignment]
        elif which == 2:
            view = _mixed(view, saturation)
        elif hue:
            view = _turned(view, hue)
    return view


def _line(slope: float, offset: float) -> NDArray[np.uint8]:
    table: NDArray[np.uint8] = np.clip(np.arange(256) * slope + offset + 0.5, 0, 255).astype(np.uint8)
    return table


def _mixed(view: UInt8Image, share: float) -> UInt8Image:
    """Mix a view with its own grey; 0 is grey, 1 as it was, more is gaudier."""
    matrix = np.eye(3, dtype=np.float32) * share + np.float32(1 - share) * _GREY[None]
    mixed: UInt8Image = cv2.transform(view, matrix.astype(np.float32))  # type: ignore[assignment]
    return mixed


def _turned(view: UInt8Image, hue: float) -> UInt8Image:
    """Move the hue by a share of its circle."""
    hsv = cv2.cvtColor(view, cv2.COLOR_RGB2HSV)
    table = ((np.arange(256) + round(hue * _HUES)) % _HUES).astype(np.uint8)
    hsv[..., 0] = table[hsv[..., 0]]
    turned: UInt8Image = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)  # type: ignore[assignment]
    return turned

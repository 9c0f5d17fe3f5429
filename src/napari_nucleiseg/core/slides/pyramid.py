"""What a slide is to the rest of the package: lazy levels, exact downsamples, pixel size in micrometres."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, Self, runtime_checkable

import cv2
import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.errors import MissingPixelSizeError, SlideError
from napari_nucleiseg.core.geometry import YX, Region

UInt8Image = NDArray[np.uint8]
BACKGROUND = 255


@runtime_checkable
class LevelArray(Protocol):
    """One pyramid level: a read-only, lazy ``(y, x, 3)`` uint8 RGB array that napari and dask can use as it is."""

    @property
    def shape(self) -> tuple[int, ...]:
        """``(height, width, 3)``."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Always uint8."""

    @property
    def ndim(self) -> int:
        """Always 3."""

    def __getitem__(self, key: Any) -> UInt8Image:
        """Read the pixels that `key` (slices, integers, steps, Ellipsis) selects."""

    def __array__(self, dtype: Any = None, /, *, copy: bool | None = None) -> NDArray[Any]:
        """Read the whole level."""


@dataclass(frozen=True, slots=True)
class DamagedTile:
    """A tile that could not be decoded; it is shown as background and skipped by models.

    Parameters
    ----------
    region : Region
        Where it lies, level-0 pixels.
    reason : str
        Why it could not be decoded.
    downsample : YX
        Level-0 pixels per pixel of its level ``(y, x)``: the other levels may be whole there.
    """

    region: Region
    reason: str
    downsample: YX = YX(1.0, 1.0)


@dataclass(eq=False)
class Slide:
    """An open whole-slide image (or picture) with lazy levels.

    Parameters
    ----------
    path : str
        Where it was opened from.
    levels : tuple of LevelArray
        Finest first, each ``(y, x, 3)`` uint8 RGB.
    downsamples : tuple of YX
        Level-0 pixels per pixel of each level, ``(y, x)``; exact, not rounded; first is ``(1, 1)``.
    mpp_um : YX or None
        Micrometres per level-0 pixel ``(y, x)``; None if the file does not say.
    objective_power : float or None
        Nominal magnification of the scan.
    vendor : str
        Maker or format, for people.
    reader : str
        Name of the reader that opened it.
    bounds : Region or None
        The part of level 0 that holds pixels (OpenSlide bounds); None means all.
    associated : mapping of str to callable
        Lazy loaders of label, macro and thumbnail: each returns ``(y, x, 3)`` uint8.
    icc_profile : bytes or None
        The embedded colour profile.
    properties : mapping of str to str
        Raw metadata of the file.
    notes : tuple of str
        What a person should know before trusting the slide, each a sentence: what was chosen where there was a choice.
    stored_downsamples : tuple of YX
        Those of the levels that the file holds; the others are made on reading, each of the stored one before it.
        Default all of `downsamples`.
    fingerprint : str
        Short content hash that identifies the slide wherever it lies.
    damage : list of DamagedTile
        Tiles of all levels found unreadable so far (grows as tiles are read); see `damage_at`.
    """

    path: str
    levels: tuple[LevelArray, ...]
    downsamples: tuple[YX, ...]
    mpp_um: YX | None
    objective_power: float | None = None
    vendor: str = "unknown"
    reader: str = ""
    bounds: Region | None = None
    associated: Mapping[str, Callable[[], UInt8Image]] = field(default_factory=dict, repr=False)
    icc_profile: bytes | None = field(default=None, repr=False)
    properties: Mapping[str, str] = field(default_factory=dict, repr=False)
    notes: tuple[str, ...] = ()
    stored_downsamples: tuple[YX, ...] = ()
    fingerprint: str = ""
    damage: list[DamagedTile] = field(default_factory=list)
    on_close: Callable[[], None] = field(default=lambda: None, repr=False)

    def __deepcopy__(self, _memo: Any) -> Self:
        return self  # who copies a layer means the same file

    def __post_init__(self) -> None:
        self.stored_downsamples = self.stored_downsamples or self.downsamples

    @property
    def stored_levels(self) -> int:
        """How many levels the file holds."""
        return len(self.stored_downsamples)

    @property
    def shape(self) -> tuple[int, int]:
        """Level-0 ``(height, width)`` in pixels."""
        height, width = self.levels[0].shape[:2]
        return int(height), int(width)

    @property
    def region(self) -> Region:
        """The whole of level 0."""
        return Region(0, 0, *self.shape)

    @property
    def content(self) -> Region:
        """The part of level 0 that holds pixels."""
        return self.bounds or self.region

    def require_mpp(self) -> YX:
        """Return `mpp_um`.

        Raises
        ------
        MissingPixelSizeError
            If the slide does not state it.
        """
        if self.mpp_um is None:
            raise MissingPixelSizeError(
                f"{self.path} does not say how large its pixels are. "
                "Give the micrometres per pixel (0.25 for most 40x scans, 0.5 for 20x)."
            )
        return self.mpp_um

    def level_for_downsample(self, downsample: float) -> int:
        """Return the coarsest level that is still at least as fine as `downsample`."""
        chosen = 0
        for index, factor in enumerate(self.downsamples):
            if max(factor) <= downsample * 1.001:
                chosen = index
        return chosen

    def damage_at(self, downsample: YX) -> list[DamagedTile]:
        """Return the tiles found unreadable so far in the one stored level that `read_box` takes its pixels from.

        Parameters
        ----------
        downsample : YX
            Level-0 pixels per pixel that is read, ``(y, x)``.
        """
        level = self.level_for_downsample(min(downsample))
        stored = [factor for factor in self.downsamples[: level + 1] if factor in self.stored_downsamples]
        # The list grows while other threads read: look at a copy.
        return [tile for tile in tuple(self.damage) if tile.downsample == stored[-1]]

    def read_region(self, region: Region, shape: tuple[int, int] | None = None) -> UInt8Image:
        """Read a rectangle, resampled by area averaging from the nearest finer level.

        Parameters
        ----------
        region : Region
            Level-0 pixels; parts outside the slide come back as background (white).
        shape : tuple of int, optional
            Wanted output ``(height, width)`` in pixels; default the region's own (level 0).

        Returns
        -------
        ndarray of uint8, shape (height, width, 3)
            RGB.
        """
        height, width = shape or (region.height, region.width)
        if region.is_empty or height < 1 or width < 1:
            raise SlideError(f"cannot read an empty region ({region}) of {self.path}")
        return self.read_box(region.y, region.x, region.height / height, region.width / width, (height, width))

    def read_box(
        self, y: float, x: float, downsample_y: float, downsample_x: float, shape: tuple[int, int]
    ) -> UInt8Image:
        """Read `shape` output pixels whose top-left corner lies at level-0 ``(y, x)``, possibly fractional.

        Parameters
        ----------
        y, x : float
            Top-left corner of the first output pixel, level-0 pixels.
        downsample_y, downsample_x : float
            Level-0 pixels per output pixel.
        shape : tuple of int
            Output ``(height, width)``.

        Returns
        -------
        ndarray of uint8, shape (height, width, 3)
            RGB; background (white) outside the slide.
        """
        index = self.level_for_downsample(min(downsample_y, downsample_x))
        level, (fy, fx) = self.levels[index], self.downsamples[index]
        step_y, step_x = downsample_y / fy, downsample_x / fx
        top, left = y / fy, x / fx
        if abs(step_y - 1) < 1e-6 and abs(step_x - 1) < 1e-6 and _is_whole(top) and _is_whole(left):
            return _read_padded(level, round(top), round(left), *shape)
        # Wide enough for the blur and the linear sampling, so that neighbouring boxes agree at their seam.
        margin = 2 + int(np.ceil(3 * _blur_width(max(step_y, step_x))))
        y0, x0 = int(np.floor(top)) - margin, int(np.floor(left)) - margin
        y1 = int(np.ceil(top + shape[0] * step_y)) + margin
        x1 = int(np.ceil(left + shape[1] * step_x)) + margin
        source = _read_padded(level, y0, x0, y1 - y0, x1 - x0)
        return _resample(source, YX(top - y0, left - x0), YX(step_y, step_x), shape)

    def close(self) -> None:
        """Release the file; levels must not be read afterwards."""
        self.on_close()


def _is_whole(value: float) -> bool:
    return abs(value - round(value)) < 1e-6


def _read_padded(level: LevelArray, y: int, x: int, height: int, width: int) -> UInt8Image:
    """Read a rectangle of one level that may leave it; outside is background."""
    full_h, full_w = level.shape[:2]
    y0, x0, y1, x1 = max(y, 0), max(x, 0), min(y + height, full_h), min(x + width, full_w)
    if (y0, x0, y1, x1) == (y, x, y + height, x + width):
        block = np.asarray(level[y0:y1, x0:x1])
        # A picture in memory gives views of itself; what is read is the caller's to change.
        return block if block.flags.writeable else block.copy()
    out = np.full((height, width, 3), BACKGROUND, np.uint8)
    if y1 > y0 and x1 > x0:
        out[y0 - y : y1 - y, x0 - x : x1 - x] = level[y0:y1, x0:x1]
    return out


def _blur_width(step: float) -> float:
    """Return the Gaussian sigma, in source pixels, that turns pixels into means over `step` of them.

    A box of width `step` has a variance of ``(step^2 - 1) / 12`` beyond that of a pixel.
    """
    return float(np.sqrt(max(step**2 - 1, 0) / 12))


def _resample(source: UInt8Image, origin: YX, step: YX, shape: tuple[int, int]) -> UInt8Image:
    """Sample `shape` pixels of size `step` from `origin`: area mean when coarser, linear when finer.

    Whole steps at whole offsets are exact means (cv2 INTER_AREA); otherwise the source is first
    brought to the output's pixel size by a Gaussian of the matching width and sampled linearly.
    """
    if all(_is_whole(value) for value in (*origin, *step)) and min(step) >= 1:
        y0, x0 = round(origin.y), round(origin.x)
        block = source[y0 : y0 + round(step.y) * shape[0], x0 : x0 + round(step.x) * shape[1]]
        return np.asarray(cv2.resize(block, shape[::-1], interpolation=cv2.INTER_AREA), dtype=np.uint8)
    if max(step) > 1:
        # OpenCV takes 0 for "choose one"; a thousandth of a pixel leaves that axis as it is.
        sigma_y, sigma_x = (max(_blur_width(value), 1e-3) for value in step)
        source = np.asarray(cv2.GaussianBlur(source, (0, 0), sigma_x, sigmaY=sigma_y), dtype=np.uint8)
    matrix = np.array(
        [[step.x, 0, origin.x + step.x / 2 - 0.5], [0, step.y, origin.y + step.y / 2 - 0.5]], dtype=np.float64
    )
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.asarray(
        cv2.warpAffine(source, matrix, shape[::-1], flags=flags, borderMode=cv2.BORDER_REPLICATE), dtype=np.uint8
    )

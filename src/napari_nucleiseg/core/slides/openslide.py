"""Slides that only OpenSlide understands: MRXS, NDPI, SCN, BIF, VMS, Philips TIFF and others."""

from __future__ import annotations

import ctypes
import logging
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from napari_nucleiseg.core.errors import MissingDependencyError, SlideError
from napari_nucleiseg.core.geometry import YX, Region
from napari_nucleiseg.core.slides.bytesource import Opener
from napari_nucleiseg.core.slides.dicomfiles import fingerprint_of
from napari_nucleiseg.core.slides.pixelsize import StatedPixelSize, stated_mpp, to_number
from napari_nucleiseg.core.slides.pyramid import DamagedTile, Slide, UInt8Image
from napari_nucleiseg.core.slides.samples import over_white
from napari_nucleiseg.core.slides.scratch import scratch
from napari_nucleiseg.core.slides.tiff import needs_openslide
from napari_nucleiseg.core.slides.tiled import TiledLevel, UnreadableTileError
from napari_nucleiseg.core.slides.virtual import exact_downsample

if TYPE_CHECKING:
    from openslide import OpenSlide

logger = logging.getLogger(__name__)

SUFFIXES = (".mrxs", ".ndpi", ".scn", ".bif", ".vms", ".vmu", ".svslide", ".czi")
TILE_SIDE = 256
"""Near which tiles of the file are read together, one or some; what it is where the file says nothing of tiles."""

LARGEST_TILE_SIDE = 1024
_SMALLEST_TILE_SIDE = 64
_OPAQUE = 0xFF000000  # of a pixel as one number; opacity is its highest byte


def matches(path: str) -> bool:
    """Whether OpenSlide knows the file, or would if it were installed and the file complete."""
    if path.lower().endswith(SUFFIXES):
        return True
    try:
        library = _library()
    except MissingDependencyError:
        return needs_openslide(path)
    try:
        return library.OpenSlide.detect_format(path) is not None
    except (library.OpenSlideError, OSError):
        return False


def read(path: str, mpp_um: YX | None = None, opener: Opener | None = None) -> Slide:
    """Open a slide with OpenSlide.

    Level 0 is OpenSlide's own; where the maker scanned only a part of it, `Slide.bounds` says which.

    Parameters
    ----------
    path : str
        A local file.
    mpp_um : YX, optional
        Micrometres per pixel; overrides what the file says.
    opener : callable, optional
        Cannot be used: OpenSlide reads local files only.

    Raises
    ------
    SlideError
        If it is damaged, gone, or not local.
    MissingDependencyError
        If openslide-python is not installed.
    """
    if opener is not None:
        raise SlideError(f"{path} is in a format that can only be read from a local disk; download it first.")
    handle = _Handle(path, _library())
    slide = handle.current
    damage: list[DamagedTile] = []
    levels = tuple(_level(handle, index, damage) for index in range(slide.level_count))
    properties = dict(slide.properties)
    size = _pixel_size(properties)
    if size.reason:
        properties["nucleiseg.pixel-size"] = size.reason

    def close() -> None:
        handle.close()
        for level in levels:
            level.forget()

    return Slide(
        path=path,
        levels=levels,
        downsamples=tuple(_downsample(slide, index) for index in range(slide.level_count)),
        mpp_um=mpp_um or size.mpp_um,
        objective_power=to_number(properties.get("openslide.objective-power")),
        vendor=properties.get("openslide.vendor", "unknown"),
        reader="openslide",
        bounds=_bounds(properties, slide.dimensions),
        associated={name: partial(_read_associated, handle, name) for name in slide.associated_images},
        icc_profile=_profile(slide),
        properties=properties,
        notes=_notes(properties),
        fingerprint=_fingerprint(properties),
        damage=damage,
        on_close=close,
    )


def _library() -> ModuleType:
    try:
        import openslide
    except (ImportError, OSError) as error:  # OSError: the package without its library
        raise MissingDependencyError(
            'this slide needs OpenSlide: pip install "napari-nucleiseg[slides]", then open it again.'
        ) from error
    return openslide


@dataclass(eq=False)
class _Handle:
    """An open slide that is replaced after an error.

    OpenSlide refuses all further work with a slide once one tile of it failed. Handles are dropped,
    not closed: threads may be reading through the old one, and the last of them closes it.
    """

    path: str
    library: ModuleType

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._slide: OpenSlide | None = self._open()

    @property
    def current(self) -> OpenSlide:
        """The slide to read from now."""
        slide = self._slide
        if slide is None:
            raise SlideError(f"{self.path} was closed; open it again.")
        return slide

    def call(self, work: Callable[[OpenSlide], Any]) -> Any:
        """Do `work`; after a failure (maybe another thread's) once more, with a slide that nobody else uses.

        Raises
        ------
        UnreadableTileError
            If it fails twice.
        SlideError
            If the file is gone.
        """
        shared = self.current
        try:
            return work(shared)
        except (self.library.OpenSlideError, OSError) as error:
            logger.debug("opening %s anew after: %s", self.path, error)
        own = self._open()
        try:
            result = work(own)
        except (self.library.OpenSlideError, OSError) as error:
            self._replace(shared, self._open())
            raise UnreadableTileError(f"cannot be decoded ({error})") from error
        self._replace(shared, own)
        return result

    def close(self) -> None:
        """Release the file once nobody reads from it."""
        with self._lock:
            self._slide = None

    def _replace(self, failed: OpenSlide, fresh: OpenSlide) -> None:
        with self._lock:
            if self._slide is failed:
                self._slide = fresh

    def _open(self) -> OpenSlide:
        try:
            slide: OpenSlide = self.library.OpenSlide(self.path)
        except (self.library.OpenSlideError, OSError) as error:
            raise SlideError(
                f"{self.path} cannot be read by OpenSlide ({error}); "
                "check that the file and what belongs to it are complete, and that the drive is connected."
            ) from error
        return slide


def _level(handle: _Handle, index: int, damage: list[DamagedTile]) -> TiledLevel:
    slide = handle.current
    width, height = slide.level_dimensions[index]
    downsample = _downsample(slide, index)
    rows, columns = (_tile_side(slide, index, axis) for axis in ("height", "width"))

    def read_tile(row: int, col: int) -> UInt8Image:
        y, x = row * rows, col * columns
        size = (min(columns, width - x), min(rows, height - y))
        place = (round(x * downsample.x), round(y * downsample.y))
        rgb: UInt8Image = handle.call(lambda opened: _read_rgb(handle.library, opened, place, index, size))
        return rgb

    return TiledLevel((height, width), (rows, columns), read_tile, downsample=downsample, damage=damage)


def _tile_side(slide: OpenSlide, index: int, axis: str) -> int:
    """Return a multiple of the side of the file's own tiles, so that no tile is decoded for a part of it."""
    stated = to_number(slide.properties.get(f"openslide.level[{index}].tile-{axis}"))
    if stated is None or not _SMALLEST_TILE_SIDE <= stated <= LARGEST_TILE_SIDE:
        return TILE_SIDE
    return int(stated) * max(1, round(TILE_SIDE / stated))


def _read_rgb(
    library: ModuleType, slide: OpenSlide, place: tuple[int, int], index: int, size: tuple[int, int]
) -> UInt8Image:
    """Return a region as ``(y, x, 3)`` uint8 RGB over white.

    It is what ``read_region`` gives, laid over white, in a tenth less time: OpenSlide fills memory of ours with
    premultiplied BGRA, which ``read_region`` copies through a picture of PIL.

    Parameters
    ----------
    library : module
        ``openslide``.
    slide : OpenSlide
        To read from.
    place : tuple of int
        ``(x, y)`` of the first pixel, level-0 pixels.
    index : int
        The level.
    size : tuple of int
        ``(width, height)``, pixels of the level.
    """
    fill = getattr(library.lowlevel, "_read_region", None)
    opened = getattr(slide, "_osr", None)
    if fill is None or opened is None or sys.byteorder != "little":
        return over_white(np.asarray(slide.read_region(place, index, size)), premultiplied=False)
    width, height = size
    bgra = scratch((height, width, 4))
    fill(opened, bgra.ctypes.data_as(ctypes.POINTER(ctypes.c_uint32)), *place, index, width, height)
    if bgra.view(np.uint32).min() >= _OPAQUE:
        return np.asarray(cv2.cvtColor(bgra, cv2.COLOR_BGRA2RGB), dtype=np.uint8)
    return over_white(_straight(bgra), premultiplied=False)


def _straight(bgra: UInt8Image) -> UInt8Image:
    """Return premultiplied BGRA as RGBA whose colours are not multiplied, rounded down as by ``read_region``."""
    rgba = np.asarray(cv2.cvtColor(bgra, cv2.COLOR_BGRA2RGBA), dtype=np.uint8)
    between = cv2.inRange(cv2.extractChannel(rgba, 3), 1, 254) > 0
    if between.any():
        colour, weight = rgba[between, :3].astype(np.uint16), rgba[between, 3:]
        rgba[between, :3] = (255 * colour // weight).astype(np.uint8)
    return rgba


def _downsample(slide: OpenSlide, index: int) -> YX:
    stated = float(slide.level_downsamples[index])
    if abs(stated - round(stated)) < 1e-9:
        return YX(stated, stated)
    # OpenSlide gives the mean of both axes' ratios where the file states sizes only.
    (full_w, full_h), (width, height) = slide.dimensions, slide.level_dimensions[index]
    return exact_downsample((full_h, full_w), (height, width))


def _bounds(properties: Mapping[str, str], dimensions: tuple[int, int]) -> Region | None:
    values = [to_number(properties.get(f"openslide.bounds-{name}")) for name in ("y", "x", "height", "width")]
    y, x, height, width = (None if value is None else int(value) for value in values)
    if y is None or x is None or not height or not width:
        return None
    full = Region(0, 0, dimensions[1], dimensions[0])
    bounds = Region(y, x, height, width).intersect(full)
    return None if bounds.is_empty or bounds == full else bounds


def _pixel_size(properties: Mapping[str, str]) -> StatedPixelSize:
    y, x = (to_number(properties.get(f"openslide.mpp-{axis}")) for axis in ("y", "x"))
    if not y or not x:
        return StatedPixelSize()
    return stated_mpp(y, x, "OpenSlide's mpp")


def _fingerprint(properties: Mapping[str, str]) -> str:
    """Return that of a DICOM series, whichever file of it was opened; of other slides none: it is made of the file."""
    uid = properties.get("dicom.SOPInstanceUID")
    return fingerprint_of(uid) if uid and properties.get("openslide.vendor") == "dicom" else ""


def _notes(properties: Mapping[str, str]) -> tuple[str, ...]:
    kinds = [properties.get(f"dicom.ImageType[{number}]") for number in range(8)]
    if "RESAMPLED" not in kinds:
        return ()
    return ("Its finest level was made from a finer one that is missing or damaged: copy the whole series again.",)


def _profile(slide: OpenSlide) -> bytes | None:
    try:
        profile = slide.color_profile
    except (OSError, ValueError) as error:
        logger.warning("the colour profile cannot be read: %s", error)
        return None
    return None if profile is None else bytes(profile.tobytes())


def _read_associated(handle: _Handle, name: str) -> UInt8Image:
    try:
        rgba = handle.call(lambda slide: np.asarray(slide.associated_images[name].convert("RGBA")))
    except UnreadableTileError as error:
        raise SlideError(f"the {name} image of this slide is damaged: {error}.") from error
    return over_white(rgba, premultiplied=False)

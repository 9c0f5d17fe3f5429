"""The one table of slide readers, and the door to them."""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

from napari_nucleiseg.core.errors import MissingDependencyError, SlideError, UnsupportedImageError
from napari_nucleiseg.core.geometry import YX
from napari_nucleiseg.core.slides.bytesource import Opener, is_address
from napari_nucleiseg.core.slides.fingerprint import fingerprint
from napari_nucleiseg.core.slides.pixelsize import given_mpp, is_plausible
from napari_nucleiseg.core.slides.pyramid import Slide
from napari_nucleiseg.core.slides.virtual import with_virtual_levels

logger = logging.getLogger(__name__)

# Each module has ``SUFFIXES``, ``matches(path) -> bool``, cheap and never raising, and
# ``read(path, mpp_um, opener) -> Slide``. The first that matches and can read it does; modules are
# imported when a path is tried on them.
# OpenSlide goes before pictures: the file of an MRXS slide is a JPEG of its thumbnail.
_READERS = ("tiff", "zarr", "dicom", "openslide", "picture")
_PACKAGE = "napari_nucleiseg.core.slides"

FILENAME_PATTERNS: tuple[str, ...] = (
    "*.svs",
    "*.tif",
    "*.tiff",
    "*.btf",
    "*.tf2",
    "*.tf8",
    "*.qptiff",
    "*.ndpi",
    "*.mrxs",
    "*.scn",
    "*.bif",
    "*.vms",
    "*.vmu",
    "*.svslide",
    "*.czi",
    "*.dcm",
    "*.zarr",
    "*.png",
    "*.jpg",
    "*.jpeg",
    "*.jpe",
    "*.jfif",
    "*.bmp",
    "*.dib",
    "*.jp2",
    "*.j2k",
    "*.webp",
)
"""Names that are offered to the readers; folders may hold OME-Zarr or DICOM whatever their name."""


def open_slide(
    path: str | os.PathLike[str],
    *,
    mpp_um: float | tuple[float, float] | None = None,
    opener: Opener | None = None,
) -> Slide:
    """Open a whole-slide image or a picture; pixels are read when they are asked for.

    Parameters
    ----------
    path : path-like
        File, folder (OME-Zarr, DICOM), or an address that `opener` opens.
    mpp_um : float or tuple of float, optional
        Micrometres per level-0 pixel, one number or ``(y, x)``; overrides what the file says.
    opener : callable, optional
        Opens an address as a seekable binary file (``fsspec.open`` does).

    Returns
    -------
    Slide
        With levels added where the file leaves too large a step (see `virtual`).

    Raises
    ------
    SlideError
        If it is missing, damaged or no slide, or `mpp_um` cannot be true.
    UnsupportedImageError
        If it is an image that models cannot work on.
    MissingDependencyError
        If an optional package is needed; the message says which to install.
    """
    name = os.fspath(path)
    given = None if mpp_um is None else given_mpp(mpp_um)
    if opener is None and is_address(name):
        raise SlideError(
            f"{name} is an address, and remote stores are not supported yet; copy it to a disk and open that."
        )
    if opener is None and not Path(name).exists():
        raise SlideError(f"{name} does not exist; check the name, and that its drive is connected.")
    slide = _read(name, given, opener)
    slide = _with_checked_mpp(slide, given)
    if not slide.fingerprint:
        slide = replace(slide, fingerprint=fingerprint(name, opener))
    return with_virtual_levels(slide)


def can_open(path: str | os.PathLike[str]) -> bool:
    """Whether a reader knows `path`, by its name and first bytes; cheap, never raises."""
    name = os.fspath(path)
    return any(reader.matches(name) for reader in _readers())


def _readers() -> Iterator[ModuleType]:
    """Yield the readers in turn, each imported when its turn comes."""
    for name in _READERS:
        yield importlib.import_module(f"{_PACKAGE}.{name}")


def _read(name: str, mpp_um: YX | None, opener: Opener | None) -> Slide:
    first: SlideError | MissingDependencyError | None = None
    for reader in _readers():
        if not reader.matches(name):
            continue
        try:
            slide: Slide = reader.read(name, mpp_um, opener)
        except UnsupportedImageError:
            raise
        except (SlideError, MissingDependencyError) as error:
            logger.debug("%s could not read %s: %s", reader.__name__, name, error)
            first = first or error
        else:
            return slide
    if first is not None:
        raise first
    if Path(name).is_dir():
        raise SlideError(f"{name} is a folder without a slide in it; OME-Zarr and DICOM folders can be opened.")
    raise SlideError(
        f"{name} is no slide or picture of a kind that can be read: "
        "choose an SVS, TIFF, OME-TIFF, NDPI, MRXS, SCN, BIF, OME-Zarr, DICOM, PNG or JPEG file."
    )


def _with_checked_mpp(slide: Slide, given: YX | None) -> Slide:
    if given is not None:
        return replace(slide, mpp_um=given)
    stated = slide.mpp_um
    if stated is None and slide.properties.get("nucleiseg.pixel-size"):
        logger.warning("%s: pixel size %s", slide.path, slide.properties["nucleiseg.pixel-size"])
    if stated is None or all(is_plausible(value) for value in stated):
        return slide
    reason = f"ignored: the file says {stated.y:.5g} x {stated.x:.5g} µm, which no slide has"
    logger.warning("%s: pixel size %s", slide.path, reason)
    return replace(slide, mpp_um=None, properties={**slide.properties, "nucleiseg.pixel-size": reason})

"""DICOM whole-slide images, a folder or any one file of a series, through wsidicom (extra ``dicom``)."""

from __future__ import annotations

import hashlib
import importlib
import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_nucleiseg.core.errors import MissingDependencyError, SlideError, UnsupportedImageError
from napari_nucleiseg.core.geometry import YX
from napari_nucleiseg.core.slides.bytesource import Opener
from napari_nucleiseg.core.slides.pixelsize import StatedPixelSize, stated_mpp, to_number
from napari_nucleiseg.core.slides.pyramid import DamagedTile, Slide, UInt8Image
from napari_nucleiseg.core.slides.tiled import TiledLevel, UnreadableTileError
from napari_nucleiseg.core.slides.virtual import exact_downsample

if TYPE_CHECKING:
    from pydicom import Dataset

logger = logging.getLogger(__name__)

SUFFIXES = (".dcm",)
_WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"
_TAGS = (
    "SOPInstanceUID",
    "SeriesInstanceUID",
    "ImageType",
    "Manufacturer",
    "ManufacturerModelName",
    "OpticalPathSequence",
    "PhotometricInterpretation",
    "TotalPixelMatrixRows",
    "TotalPixelMatrixColumns",
)
_MOST_LOOKED_AT = 24
_ASSOCIATED = {"LABEL": "label", "OVERVIEW": "macro", "THUMBNAIL": "thumbnail"}


@dataclass(frozen=True, slots=True)
class _File:
    """What the header of one file says."""

    path: Path
    header: Dataset

    @property
    def kind(self) -> str:
        """VOLUME (a level), LABEL, OVERVIEW or THUMBNAIL."""
        image_type = list(self.header.get("ImageType") or ["", ""])
        return str(image_type[2]) if len(image_type) > 2 else ""

    @property
    def series(self) -> str:
        return str(self.header.get("SeriesInstanceUID", ""))

    @property
    def pixels(self) -> int:
        rows, columns = (self.header.get(f"TotalPixelMatrix{axis}") for axis in ("Rows", "Columns"))
        return int(rows or 0) * int(columns or 0)


def matches(path: str) -> bool:
    """Whether `path` is a DICOM file, or a folder with one in it; looks at few files and never raises."""
    try:
        place = Path(path)
        if place.is_file():
            return _is_dicom(place)
        return place.is_dir() and any(_is_dicom(file) for file in _candidates(place)[:_MOST_LOOKED_AT])
    except (OSError, ValueError):
        return False


def read(path: str, mpp_um: YX | None = None, opener: Opener | None = None) -> Slide:
    """Open a DICOM whole-slide image.

    Parameters
    ----------
    path : str
        Folder of a series, or any file of it; the other files of that series beside it belong to the slide.
    mpp_um : YX, optional
        Micrometres per level-0 pixel; default what the files say.
    opener : callable, optional
        Not supported.

    Raises
    ------
    SlideError
        If it is damaged, incomplete or not local.
    UnsupportedImageError
        If it is no colour whole-slide image.
    MissingDependencyError
        If wsidicom is not installed.
    """
    if opener is not None:
        raise SlideError(f"{path} is a DICOM series, which can only be read from a local disk; download it first.")
    library = _library()
    files = _series_files(path)
    base = max((file for file in files if file.kind == "VOLUME"), key=lambda file: file.pixels)
    _check_colour(path, base)
    errors = _decoding_errors(library)
    try:
        source = library.WsiDicom.open([file.path for file in files])
        levels = sorted(source.levels, key=lambda level: -level.size.width)
    except errors as error:
        raise SlideError(f"{path} cannot be read as DICOM ({error}); copy the whole series again.") from error
    damage: list[DamagedTile] = []
    arrays = tuple(_level(source, level, levels[0], damage, errors) for level in levels)
    stated = _pixel_size(levels[0], errors)

    def close() -> None:
        for array in arrays:
            array.forget()
        source.close()

    return Slide(
        path=path,
        levels=arrays,
        downsamples=tuple(_downsample(levels[0], level) for level in levels),
        mpp_um=mpp_um or stated.mpp_um,
        objective_power=to_number(_optical_path(base, "ObjectiveLensPower")),
        vendor=_vendor(base),
        reader="dicom",
        associated=_associated(path, source, files, errors),
        icc_profile=_optical_path(base, "ICCProfile"),
        properties=_properties(base, stated),
        fingerprint=hashlib.sha256(str(base.header.get("SOPInstanceUID", path)).encode()).hexdigest()[:32],
        damage=damage,
        on_close=close,
    )


def _library() -> ModuleType:
    try:
        return importlib.import_module("wsidicom")
    except ImportError as error:
        raise MissingDependencyError(
            'this slide is DICOM and needs wsidicom: pip install "napari-nucleiseg[dicom]", then open it again.'
        ) from error


def _decoding_errors(library: ModuleType) -> tuple[type[Exception], ...]:
    """Return all that wsidicom and its codecs raise; its own errors share no base but Exception."""
    own = vars(importlib.import_module(f"{library.__name__}.errors")).values()
    kinds = tuple(kind for kind in own if isinstance(kind, type) and issubclass(kind, Exception))
    return (*kinds, OSError, ValueError, RuntimeError, KeyError, IndexError, AttributeError, TypeError, EOFError)


def _is_dicom(file: Path) -> bool:
    with file.open("rb") as opened:
        return opened.read(132)[128:] == b"DICM"


def _candidates(folder: Path) -> list[Path]:
    """Return the files of a folder that may be DICOM, likeliest first."""
    files = [entry for entry in sorted(folder.iterdir()) if _may_be_dicom(entry.suffix.lower()) and entry.is_file()]
    return sorted(files, key=lambda file: file.suffix.lower() != ".dcm")


def _may_be_dicom(suffix: str) -> bool:
    # Many are named by a number of the kind 1.2.840.1, of which the last part looks like a suffix.
    return suffix in {"", *SUFFIXES} or suffix[1:].isdigit()


def _series_files(path: str) -> list[_File]:
    """Return the files of the one series that `path` means."""
    place = Path(path)
    folder = place if place.is_dir() else place.parent
    found = [file for file in map(_read_header, _candidates(folder)) if file is not None]
    if not place.is_dir():
        own = _read_header(place)
        if own is None:
            raise UnsupportedImageError(
                f"{path} is DICOM, but no whole-slide image; only whole-slide microscopy can be opened here."
            )
        found = [file for file in found if file.series == own.series and file.path != own.path] + [own]
    slides = sorted({file.series for file in found if file.kind == "VOLUME"})
    if not slides:
        raise SlideError(
            f"{path} holds no level of a DICOM whole-slide image (only {_kinds(found)}); put all files of the series "
            "in one folder and open that."
        )
    if len(slides) > 1:
        names = [next(file.path.name for file in found if file.series == series) for series in slides]
        raise SlideError(
            f"{path} holds {len(slides)} DICOM slides; open one file of the wanted one: {', '.join(names)}."
        )
    # Label and macro may come as a series of their own.
    return [file for file in found if file.series == slides[0] or file.kind != "VOLUME"]


def _kinds(files: Sequence[_File]) -> str:
    return ", ".join(sorted({file.kind.lower() for file in files if file.kind})) or "other DICOM files"


def _read_header(path: Path) -> _File | None:
    """Return what a whole-slide file says; None where it is something else or damaged."""
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError

    try:
        header = dcmread(path, stop_before_pixels=True, specific_tags=[*_TAGS, "SOPClassUID"])
    except (InvalidDicomError, OSError, ValueError, EOFError, KeyError) as error:
        logger.debug("%s is not read as DICOM: %s", path, error)
        return None
    return _File(path, header) if str(header.get("SOPClassUID", "")) == _WHOLE_SLIDE else None


def _check_colour(path: str, base: _File) -> None:
    colours = str(base.header.get("PhotometricInterpretation", ""))
    if not colours.startswith("MONOCHROME"):
        return
    paths = base.header.get("OpticalPathSequence") or ()
    names = [str(item.get("OpticalPathDescription") or item.get("OpticalPathIdentifier") or "?") for item in paths]
    raise UnsupportedImageError(
        f"{path} has {len(names) or 1} grey channel{'s' * (len(names) > 1)} ({', '.join(names) or 'unnamed'}), as in "
        "fluorescence; models need 8-bit RGB of stained tissue. Save the channels you want to see as an RGB picture."
    )


def _vendor(base: _File) -> str:
    maker = str(base.header.get("Manufacturer") or "")
    return "DICOM" if maker.lower() in {"", "unknown"} else f"{maker} (DICOM)"


def _optical_path(base: _File, name: str) -> Any:
    paths = base.header.get("OpticalPathSequence") or ()
    return paths[0].get(name) if paths else None


def _properties(base: _File, stated: StatedPixelSize) -> dict[str, str]:
    facts = {f"dicom.{name}": str(base.header.get(name)) for name in _TAGS if name != "OpticalPathSequence"}
    facts = {name: value for name, value in facts.items() if value != "None"}
    return {**facts, "nucleiseg.pixel-size": stated.reason} if stated.reason else facts


def _pixel_size(level: Any, errors: tuple[type[Exception], ...]) -> StatedPixelSize:
    try:
        spacing = level.pixel_spacing
        return stated_mpp(float(spacing.height) * 1000, float(spacing.width) * 1000, "DICOM pixel spacing")
    except errors as error:
        logger.debug("no pixel spacing: %s", error)
        return StatedPixelSize()


def _downsample(finest: Any, level: Any) -> YX:
    return exact_downsample((finest.size.height, finest.size.width), (level.size.height, level.size.width))


def _level(
    source: Any, level: Any, finest: Any, damage: list[DamagedTile], errors: tuple[type[Exception], ...]
) -> TiledLevel:
    image = level.default_instance.image_data
    guard: AbstractContextManager[Any] = nullcontext() if getattr(image, "thread_safe", False) else Lock()

    def read_tile(row: int, column: int) -> UInt8Image:
        try:
            with guard:
                return _as_rgb(source.read_tile(level.level, (column, row)))
        except errors as error:
            raise UnreadableTileError(f"cannot be decoded ({error})") from error

    return TiledLevel(
        (level.size.height, level.size.width),
        (level.tile_size.height, level.tile_size.width),
        read_tile,
        downsample=_downsample(finest, level),
        damage=damage,
    )


def _as_rgb(picture: Any) -> UInt8Image:
    """Turn what wsidicom gives, a Pillow image, into ``(y, x, 3)`` uint8."""
    return np.array(picture.convert("RGB"), dtype=np.uint8)


def _associated(
    path: str, source: Any, files: Sequence[_File], errors: tuple[type[Exception], ...]
) -> dict[str, Callable[[], UInt8Image]]:
    readers = {"label": source.read_label, "macro": source.read_overview, "thumbnail": source.read_thumbnail}

    def loader(name: str) -> Callable[[], UInt8Image]:
        def load() -> UInt8Image:
            try:
                return _as_rgb(readers[name]())
            except errors as error:
                raise SlideError(f"the {name} of {path} cannot be read ({error}).") from error

        return load

    there = sorted({_ASSOCIATED[file.kind] for file in files if file.kind in _ASSOCIATED})
    return {name: loader(name) for name in there}

"""Which files of a folder are a DICOM whole slide, by what their headers say."""

from __future__ import annotations

import hashlib
import importlib
import logging
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from napari_nucleiseg.core.errors import MissingDependencyError, SlideError, UnsupportedImageError

if TYPE_CHECKING:
    from pydicom import Dataset

logger = logging.getLogger(__name__)

SUFFIXES = (".dcm",)
TAGS = (
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
_WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"
_PICTURES = ("LABEL", "OVERVIEW", "THUMBNAIL")
_IDENTITY_TAGS = ("SOPClassUID", "ConcatenationUID", "InConcatenationTotalNumber")
_JPEG_2000 = tuple(f"1.2.840.10008.1.2.4.{number}" for number in (90, 91, 201, 202, 203))
_MOST_LOOKED_AT = 24


@dataclass(frozen=True, slots=True)
class DicomFile:
    """What the header of one file says."""

    path: Path
    header: Dataset

    @property
    def kind(self) -> str:
        """VOLUME (a level), LABEL, OVERVIEW or THUMBNAIL."""
        image_type = list(self.header.get("ImageType") or ["", ""])
        return str(image_type[2]) if len(image_type) > 2 else ""

    @property
    def is_whole_slide(self) -> bool:
        """Whether it is whole-slide microscopy: a level, label, macro or thumbnail."""
        return _WHOLE_SLIDE in (_class_uid(self.header), self.header.get("SOPClassUID"))

    @property
    def is_cut(self) -> bool:
        """Whether the header ends before it says what the file holds."""
        said = [str(uid) for uid in (self.header.get("SOPClassUID"), _class_uid(self.header)) if uid]
        if not self.is_whole_slide:
            return all(_WHOLE_SLIDE.startswith(uid) for uid in said)
        return self.kind not in _PICTURES and not self.pixels

    @property
    def series(self) -> str:
        """UID that the files of a slide share."""
        return str(self.header.get("SeriesInstanceUID", ""))

    @property
    def own_uid(self) -> str:
        """UID that no other file has."""
        return str(self.header.get("SOPInstanceUID", self.path))

    @property
    def concatenation(self) -> str:
        """UID that the files of one image share where it is cut into several."""
        return str(self.header.get("ConcatenationUID") or "")

    @property
    def pixels(self) -> int:
        """How many pixels the whole image has, of which the file may hold a part."""
        rows, columns = (self.header.get(f"TotalPixelMatrix{axis}") for axis in ("Rows", "Columns"))
        return int(rows or 0) * int(columns or 0)

    @property
    def order(self) -> tuple[bool, int, str]:
        """Levels first, finest first; what is of one size by its UID, for files may have any name."""
        return self.kind != "VOLUME", -self.pixels, self.own_uid

    @property
    def is_ycbcr(self) -> bool:
        """See `stays_ycbcr`."""
        return stays_ycbcr(self.header.get("PhotometricInterpretation"), self.header.file_meta.get("TransferSyntaxUID"))


def matches(path: str) -> bool:
    """Whether `path` is a DICOM file, or a folder with one in it; looks at few files and never raises."""
    try:
        place = Path(path)
        if place.is_file():
            return _is_dicom(place)
        return place.is_dir() and any(_is_dicom(file) for file in _candidates(place)[:_MOST_LOOKED_AT])
    except (OSError, ValueError):
        return False


def fingerprint_of(uid: str) -> str:
    """Return the fingerprint of a slide whose finest level has a SOP instance UID."""
    return hashlib.sha256(uid.encode()).hexdigest()[:32]


def slides_in(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return one file of each slide in a folder, that of its finest level, and the DICOM files that are damaged.

    Raises
    ------
    MissingDependencyError
        If pydicom is not installed.
    """
    dicom_library("pydicom")
    files, damaged = _look_at(folder)
    levels = [file for file in files if file.kind == "VOLUME"]
    finest = {file.series: file for file in sorted(levels, key=lambda file: file.order, reverse=True)}
    return sorted(file.path for file in finest.values()), [cut for cut, _ in damaged]


def dicom_library(name: str) -> ModuleType:
    """Import wsidicom or pydicom.

    Raises
    ------
    MissingDependencyError
        If it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingDependencyError(
            'this slide is DICOM and needs wsidicom: pip install "napari-nucleiseg[dicom]", then open it again.'
        ) from error


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


def series_files(path: str) -> tuple[list[DicomFile], list[Path]]:
    """Return the files of the one series that `path` means, the finest level first, and damaged ones beside them.

    A damaged one that says that it is of another series is none of them.
    """
    place = Path(path)
    found, damaged = _look_at(place if place.is_dir() else place.parent)
    if not place.is_dir():
        own = _read_header(place)
        if own is None or own.is_cut:
            raise SlideError(f"{path} cannot be read as DICOM: it is cut off; copy the whole series again.")
        if not own.is_whole_slide:
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
    files = [file for file in found if file.series == slides[0] or file.kind != "VOLUME"]
    # wsidicom shows the first where there is a choice; it must not depend on names, or on the file that is opened.
    return sorted(files, key=lambda file: file.order), [cut for cut, left in damaged if slides[0].startswith(left)]


def _look_at(folder: Path) -> tuple[list[DicomFile], list[tuple[Path, str]]]:
    """Return the whole-slide files of a folder, and those that are DICOM, or named so, but empty or cut off.

    With each of these comes what is left of the UID of its series.
    """
    found, damaged = [], []
    for path in _candidates(folder):
        file = _read_header(path)
        if file is None or file.is_cut:
            if (file is not None or path.suffix.lower() in SUFFIXES) and not path.name.startswith("."):
                damaged.append((path, file.series if file else ""))
        elif file.is_whole_slide:
            found.append(file)
    return found, damaged


def _kinds(files: Sequence[DicomFile]) -> str:
    return ", ".join(sorted({file.kind.lower() for file in files if file.kind})) or "other DICOM files"


def _class_uid(header: Dataset) -> object:
    return header.file_meta.get("MediaStorageSOPClassUID")


def _read_header(path: Path) -> DicomFile | None:
    """Return what a DICOM file says; None where it is something else or damaged."""
    from pydicom import dcmread
    from pydicom.errors import BytesLengthException, InvalidDicomError

    try:
        header = dcmread(path, stop_before_pixels=True, specific_tags=[*TAGS, *_IDENTITY_TAGS])
        # Elements are read only when they are asked for: a number that is cut in half is found here.
        logger.debug("%s says %d things", path, len((*header.file_meta, *header)))
    except (InvalidDicomError, BytesLengthException, struct.error, OSError, ValueError, EOFError, KeyError) as error:
        logger.debug("%s is not read as DICOM: %s", path, error)
        return None
    return DicomFile(path, header)


def stays_ycbcr(colours: object, syntax: object) -> bool:
    """Whether decoding leaves luminance and two colours: JPEG 2000 does unless it made them itself (RCT, ICT)."""
    return colours == "YBR_FULL" and syntax in _JPEG_2000

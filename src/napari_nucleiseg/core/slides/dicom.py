"""DICOM whole-slide images, a folder or any one file of a series, through wsidicom (extra ``dicom``)."""

from __future__ import annotations

import importlib
import logging
import struct
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from itertools import chain
from pathlib import Path
from threading import Lock
from types import ModuleType
from typing import Any

import cv2
import numpy as np

from napari_nucleiseg.core.errors import SlideError, UnsupportedImageError
from napari_nucleiseg.core.geometry import YX
from napari_nucleiseg.core.slides.bytesource import Opener
from napari_nucleiseg.core.slides.dicomfiles import (
    SUFFIXES,
    TAGS,
    DicomFile,
    dicom_library,
    fingerprint_of,
    matches,
    series_files,
    stays_ycbcr,
)
from napari_nucleiseg.core.slides.fingerprint import note_given_before
from napari_nucleiseg.core.slides.pixelsize import StatedPixelSize, stated_mpp, to_number
from napari_nucleiseg.core.slides.pyramid import BACKGROUND, DamagedTile, Slide, UInt8Image
from napari_nucleiseg.core.slides.tiled import TiledLevel, UnreadableTileError
from napari_nucleiseg.core.slides.virtual import exact_downsample

__all__ = ("SUFFIXES", "matches", "read")

logger = logging.getLogger(__name__)

_ASSOCIATED = {"LABEL": "label", "OVERVIEW": "macro", "THUMBNAIL": "thumbnail"}


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
        If it is no colour whole-slide image, or its finest level cannot be read.
    MissingDependencyError
        If wsidicom is not installed.
    """
    if opener is not None:
        raise SlideError(f"{path} is a DICOM series, which can only be read from a local disk; download it first.")
    library = dicom_library("wsidicom")
    files, damaged = series_files(path)
    _check_colour(path, files[0])
    _check_complete(path, files, damaged)
    errors = _decoding_errors(library)
    with ExitStack() as undo:
        try:
            source = library.WsiDicom.open([file.path for file in files])
            undo.callback(source.close)
            slide = _slide(path, source, files, errors)
        except errors as error:
            raise SlideError(f"{path} cannot be read as DICOM ({error}); copy the whole series again.") from error
        undo.pop_all()
    slide.mpp_um = mpp_um or slide.mpp_um
    slide.notes += _note_of_damaged(damaged)
    return slide


def _slide(path: str, source: Any, files: Sequence[DicomFile], errors: tuple[type[Exception], ...]) -> Slide:
    base = files[0]
    levels = _levels(path, source, base)
    damage: list[DamagedTile] = []
    arrays = tuple(_level(source, level, levels[0], damage, errors) for level in levels)
    _check_a_tile(path, arrays[0], damage)
    stated = _pixel_size(levels[0], errors)
    fingerprint = fingerprint_of(base.own_uid)
    # Former versions took the first by name of the files of the finest level.
    note_given_before(fingerprint, {fingerprint_of(str(file.uids.instance)) for file in levels[0].datasets})

    def close() -> None:
        for array in arrays:
            array.forget()
        source.close()

    return Slide(
        path=path,
        levels=arrays,
        downsamples=tuple(_downsample(levels[0], level, errors) for level in levels),
        mpp_um=stated.mpp_um,
        objective_power=to_number(_optical_path(base, "ObjectiveLensPower")),
        vendor=_vendor(base),
        reader="dicom",
        associated=_associated(path, source, files, errors),
        icc_profile=_optical_path(base, "ICCProfile"),
        properties=_properties(base, stated),
        notes=_notes(source, levels[0], base, errors),
        fingerprint=fingerprint,
        damage=damage,
        on_close=close,
    )


def _decoding_errors(library: ModuleType) -> tuple[type[Exception], ...]:
    """Return all that wsidicom, pydicom and codecs raise; their own errors share no base but Exception."""
    own = [vars(importlib.import_module(f"{name}.errors")).values() for name in (library.__name__, "pydicom")]
    kinds = tuple(kind for kind in chain(*own) if isinstance(kind, type) and issubclass(kind, Exception))
    plain = (OSError, ValueError, RuntimeError, KeyError, IndexError, AttributeError, TypeError, EOFError)
    return (*kinds, *plain, struct.error)


def _check_colour(path: str, base: DicomFile) -> None:
    colours = str(base.header.get("PhotometricInterpretation", ""))
    if not colours.startswith("MONOCHROME"):
        return
    paths = base.header.get("OpticalPathSequence") or ()
    names = [str(item.get("OpticalPathDescription") or item.get("OpticalPathIdentifier") or "?") for item in paths]
    raise UnsupportedImageError(
        f"{path} has {len(names) or 1} grey channel{'s' * (len(names) > 1)} ({', '.join(names) or 'unnamed'}), as in "
        "fluorescence; models need 8-bit RGB of stained tissue. Save the channels you want to see as an RGB picture."
    )


def _check_complete(path: str, files: Sequence[DicomFile], damaged: Sequence[Path]) -> None:
    base = files[0]
    parts = {file.own_uid for file in files if file.concatenation == base.concatenation}
    missing = int(base.header.get("InConcatenationTotalNumber") or 1) - len(parts)
    if base.concatenation and missing > 0:
        raise _incomplete(f"{path} lacks {missing} of the files that hold its finest level")
    if damaged and "RESAMPLED" in (base.header.get("ImageType") or ()):
        raise _incomplete(
            f"{path} lacks its finest level: {_names(damaged)} is empty or cut off, and the finest one here "
            f"({base.path.name}) was made from a finer one"
        )


def _incomplete(what: str) -> UnsupportedImageError:
    # Of this kind, so that no other reader shows the rest of the series as if it were the slide.
    return UnsupportedImageError(f"{what}; copy the whole series again.")


def _note_of_damaged(damaged: Sequence[Path]) -> tuple[str, ...]:
    if not damaged:
        return ()
    return (f"{_names(damaged)} beside it is empty or cut off: if it belongs to this slide, copy it again.",)


def _names(paths: Sequence[Path]) -> str:
    return ", ".join(path.name for path in paths[:3]) + (f" (and {len(paths) - 3} more)" if len(paths) > 3 else "")


def _levels(path: str, source: Any, base: DicomFile) -> list[Any]:
    """Return the levels of the scan that `base` is the finest of, finest first."""
    for number, scan in enumerate(source.pyramids):
        levels = sorted(scan, key=lambda level: -level.size.width)
        size = levels[0].size
        if _holds(levels[0], base) and size.width * size.height == base.pixels:
            source.set_selected_pyramid(number)
            return levels
    raise _incomplete(
        f"the finest level of {path} cannot be read: {base.path.name} is cut off, or of a kind that wsidicom "
        "does not know"
    )


def _holds(level: Any, file: DicomFile) -> bool:
    return any(str(dataset.uids.instance) == file.own_uid for dataset in level.datasets)


def _check_a_tile(path: str, finest: TiledLevel, damage: Sequence[DamagedTile]) -> None:
    """Read one tile, and one more if it is damaged: without its index of tiles a whole file would be shown white."""
    middle = (finest.shape[0] // 2 // finest.tile_shape[0], finest.shape[1] // 2 // finest.tile_shape[1])
    for place in dict.fromkeys([middle, (0, 0)]):
        known = len(damage)
        finest.tile(*place)
        if len(damage) == known:
            return
    finest.forget()
    raise _incomplete(f"the finest level of {path} is damaged, no tile of it can be read: it {damage[0].reason}")


def _notes(source: Any, finest: Any, base: DicomFile, errors: tuple[type[Exception], ...]) -> tuple[str, ...]:
    """Say what was chosen where the series leaves a choice."""
    notes = []
    own = _spacing(finest, errors)
    scans = [max(scan, key=lambda level: level.size.width) for scan in source.pyramids]
    spacings = [_spacing(scan, errors) or own for scan in scans]
    # A level that says it lies elsewhere is a scan of its own, but a coarse one.
    others = [scan for scan, at in zip(scans, spacings, strict=True) if own is None or at is None or at.x < 1.5 * own.x]
    sizes = [f"{scan.size.height} x {scan.size.width}" for scan in others if not _holds(scan, base)]
    if sizes:
        shown = f"{finest.size.height} x {finest.size.width}"
        notes.append(
            f"The series holds {len(sizes) + 1} scans; that of {shown} pixels is shown, not {', '.join(sizes)}."
        )
    planes = finest.focal_planes
    if len(planes) > 1:
        plane = finest.default_instance.default_z
        notes.append(f"It was scanned in {len(planes)} focal planes; the one at {plane:g} µm is shown.")
    elif len(finest.instances) > 1:
        notes.append(f"Its finest level is there {len(finest.instances)} times; that of {base.path.name} is shown.")
    return tuple(notes)


def _vendor(base: DicomFile) -> str:
    maker = str(base.header.get("Manufacturer") or "")
    return "DICOM" if maker.lower() in {"", "unknown"} else f"{maker} (DICOM)"


def _optical_path(base: DicomFile, name: str) -> Any:
    paths = base.header.get("OpticalPathSequence") or ()
    return paths[0].get(name) if paths else None


def _properties(base: DicomFile, stated: StatedPixelSize) -> dict[str, str]:
    facts = {f"dicom.{name}": str(base.header.get(name)) for name in TAGS if name != "OpticalPathSequence"}
    facts = {name: value for name, value in facts.items() if value != "None"}
    return {**facts, "nucleiseg.pixel-size": stated.reason} if stated.reason else facts


def _pixel_size(level: Any, errors: tuple[type[Exception], ...]) -> StatedPixelSize:
    spacing = _spacing(level, errors)
    if spacing is None:
        return StatedPixelSize()
    return stated_mpp(spacing.y * 1000, spacing.x * 1000, "DICOM pixel spacing")


def _spacing(level: Any, errors: tuple[type[Exception], ...]) -> YX | None:
    """Return the millimetres per pixel of a level."""
    try:
        spacing = level.pixel_spacing
        return YX(float(spacing.height), float(spacing.width))
    except errors as error:
        logger.debug("no pixel spacing: %s", error)
        return None


def _downsample(finest: Any, level: Any, errors: tuple[type[Exception], ...]) -> YX:
    full, shape = ((one.size.height, one.size.width) for one in (finest, level))
    by_size = exact_downsample(full, shape)
    fine, coarse = _spacing(finest, errors), _spacing(level, errors)
    if (by_size.y == by_size.x and by_size.y.is_integer()) or not fine or not coarse or 0 in (*fine, *coarse):
        return by_size
    by_spacing = YX(*(_whole_if_near(more / less) for more, less in zip(coarse, fine, strict=True)))
    # Where a level is filled up to whole tiles, its size says too little.
    added = [got - size / factor for got, size, factor in zip(shape, full, by_spacing, strict=True)]
    room = (level.tile_size.height, level.tile_size.width)
    is_filled_up = max(added) >= 1 and all(-1 < more < side for more, side in zip(added, room, strict=True))
    return by_spacing if is_filled_up else by_size


def _whole_if_near(factor: float) -> float:
    return float(round(factor)) if abs(factor - round(factor)) < 0.002 * factor else factor


def _plane(finest: Any, level: Any) -> float | None:
    """Return the focal plane of a level to show, None for the level's own."""
    if len(finest.instances) == 1:
        return None
    plane: float = finest.default_instance.default_z
    return plane if plane in level.focal_planes else None


def _level(
    source: Any, level: Any, finest: Any, damage: list[DamagedTile], errors: tuple[type[Exception], ...]
) -> TiledLevel:
    image = level.default_instance.image_data
    guard: AbstractContextManager[Any] = nullcontext() if getattr(image, "thread_safe", False) else Lock()
    plane = _plane(finest, level)
    is_ycbcr = stays_ycbcr(image.photometric_interpretation, image.transfer_syntax)

    def read_tile(row: int, column: int) -> UInt8Image:
        try:
            with guard:
                return _as_rgb(source.read_tile(level.level, (column, row), plane), is_ycbcr=is_ycbcr)
        except errors as error:
            raise UnreadableTileError(f"cannot be decoded ({error})") from error

    return TiledLevel(
        (level.size.height, level.size.width),
        (level.tile_size.height, level.tile_size.width),
        read_tile,
        downsample=_downsample(finest, level, errors),
        damage=damage,
    )


def _as_rgb(picture: Any, *, is_ycbcr: bool) -> UInt8Image:
    """Turn what wsidicom gives, a Pillow image, into ``(y, x, 3)`` uint8 RGB."""
    pixels = np.array(picture.convert("RGB"), dtype=np.uint8)
    if not is_ycbcr or pixels.min() == BACKGROUND:  # white is what wsidicom gives where there is no tile
        return pixels
    return np.asarray(cv2.cvtColor(pixels[..., [0, 2, 1]], cv2.COLOR_YCrCb2RGB), dtype=np.uint8)


def _associated(
    path: str, source: Any, files: Sequence[DicomFile], errors: tuple[type[Exception], ...]
) -> dict[str, Callable[[], UInt8Image]]:
    readers = {"label": source.read_label, "macro": source.read_overview, "thumbnail": source.read_thumbnail}

    def loader(name: str) -> Callable[[], UInt8Image]:
        def load() -> UInt8Image:
            try:
                return _as_rgb(readers[name](), is_ycbcr=is_ycbcr[name])
            except errors as error:
                raise SlideError(f"the {name} of {path} cannot be read ({error}).") from error

        return load

    is_ycbcr = {_ASSOCIATED[file.kind]: file.is_ycbcr for file in files if file.kind in _ASSOCIATED}
    return {name: loader(name) for name in sorted(is_ycbcr)}

"""Which slides and pictures a list of paths means, and under which names their results are kept."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from napari_nucleiseg.core.batch.earlier import EarlierResults
from napari_nucleiseg.core.errors import MissingDependencyError, SlideError
from napari_nucleiseg.core.exchange.formats import FORMATS
from napari_nucleiseg.core.slides import dicomfiles
from napari_nucleiseg.core.slides.bytesource import is_address
from napari_nucleiseg.core.slides.pyramid import Slide
from napari_nucleiseg.core.slides.registry import FILENAME_PATTERNS, can_open

_PROJECT_SUFFIX = ".nucleiseg"
_LABEL_STORES = (FORMATS["zarr"].ending, FORMATS["zarr-0.4"].ending)
_SLIDE_SUFFIXES = tuple(pattern.removeprefix("*") for pattern in FILENAME_PATTERNS)
_STORE_SUFFIX = ".zarr"
# A picture up to this many pixels is segmented in memory; above, it goes through a project like a slide.
LARGEST_PICTURE_PX = 2**26
# What the TIFF reader calls files that no scanner has signed.
_NO_MAKERS = ("generic-tiff", "imagej", "ome")


@dataclass(frozen=True, slots=True)
class Input:
    """A slide to segment and the name of its results."""

    path: str
    stem: str


def find_inputs(paths: Iterable[str | os.PathLike[str]]) -> tuple[Input, ...]:
    """Return the slides and pictures that `paths` name; of folders those in it, sorted by name.

    In a folder, what is named like a slide counts as one even if it is empty or damaged: opening it says so. Results
    of earlier runs do not count. A folder of DICOM files is itself the slide if it holds one series and nothing else;
    otherwise one file of each series stands for it.

    Raises
    ------
    SlideError
        If a folder holds no slide, or two slides would write to the same name.
    """
    found: list[str] = []
    for given in paths:
        name = os.fspath(given)
        if is_address(name):
            found.append(name)  # as a path it would lose a slash
            continue
        path = Path(name)
        if not path.is_dir() or (can_open(path) and not dicomfiles.matches(name)):
            found.append(str(path))
        else:
            found.extend(map(str, _slides_of(path)))
    return _named(list(dict.fromkeys(found)))


def _slides_of(folder: Path) -> list[Path]:
    earlier = EarlierResults(folder)
    inside = [entry for entry in sorted(folder.iterdir()) if _is_input(entry) and not earlier.hold(entry)]
    if dicomfiles.matches(str(folder)):
        return _with_series(folder, [entry for entry in inside if not _is_of_series(entry)])
    if not inside:
        raise SlideError(f"{folder} holds no slide or picture; name a folder that does, or the files themselves.")
    return inside


def _with_series(folder: Path, others: list[Path]) -> list[Path]:
    """Return `others` and one file of each DICOM series of a folder; the folder itself if that is one slide."""
    try:
        slides, damaged = dicomfiles.slides_in(folder)
    except MissingDependencyError:
        return [folder, *others]  # opening the folder says what to install
    if not others and len(slides) < 2:
        return [folder]
    return sorted([*others, *slides, *damaged])


def _is_of_series(entry: Path) -> bool:
    return entry.is_file() and (entry.suffix.lower() in dicomfiles.SUFFIXES or dicomfiles.matches(str(entry)))


def _is_input(entry: Path) -> bool:
    name = entry.name.lower()
    if name.startswith(".") or entry.suffix == _PROJECT_SUFFIX or name.endswith(_LABEL_STORES):
        return False
    is_named_so = name.endswith(_STORE_SUFFIX) if entry.is_dir() else name.endswith(_SLIDE_SUFFIXES)
    return is_named_so or can_open(entry)


def _named(paths: list[str]) -> tuple[Input, ...]:
    by_stem: dict[str, str] = {}
    for path in paths:
        stem = stem_of(path)
        if stem in by_stem:
            raise SlideError(
                f"{by_stem[stem]} and {path} would both be written to {stem}; "
                "rename one, or segment them into different folders."
            )
        by_stem[stem] = path
    return tuple(Input(path, stem) for stem, path in by_stem.items())


def stem_of(path: str | os.PathLike[str]) -> str:
    """Return the name of a slide without its ending (``a.ome.tif`` and ``a.ome.zarr`` are ``a``).

    A number is none: scanners name DICOM files by UIDs such as ``1.2.840.7``, and the last part tells them apart.
    """
    name = Path(os.path.abspath(path))  # noqa: PTH100  # a link has a name of its own: its target's may be another's
    is_whole = name.suffix[1:].isdecimal() or (name.is_dir() and name.suffix != ".zarr")
    return (name.name if is_whole else name.stem).removesuffix(".ome")


def is_picture(slide: Slide) -> bool:
    """Whether it is a plain picture rather than a scan: it gets a label TIFF instead of a project.

    A TIFF may be either. It is a scan if its maker or an objective is stated, if it holds a pyramid (levels that are
    made on opening do not count), or if it is large: then it gets what a whole slide gets, a project that an
    interrupted run goes on with, and a tissue mask.
    """
    if slide.reader != "tifffile":
        return slide.reader == "picture"
    from_scanner = slide.vendor not in _NO_MAKERS or slide.objective_power is not None
    return not from_scanner and slide.stored_levels == 1 and slide.region.area <= LARGEST_PICTURE_PX

"""Which pages of a TIFF make the levels of its slide, and which are label, macro and thumbnail."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

import tifffile

from napari_nucleiseg.core.errors import UnsupportedImageError
from napari_nucleiseg.core.slides.tiffpage import Page, keyframe_of

logger = logging.getLogger(__name__)

_ASSOCIATED = ("label", "macro", "thumbnail", "overview")
_LIKE_LEVEL = 0.02  # levels have the aspect of the first, give or take rounding
_COLOUR_NAMES = ({"red", "r"}, {"green", "g"}, {"blue", "b"})


@dataclass(frozen=True, slots=True)
class TiffLayout:
    """The pages of a slide.

    Parameters
    ----------
    levels : tuple of tuple of page
        Finest first; each one page, or three where colours are pages of their own.
    associated : dict of str to page
        Label, macro, thumbnail.
    series : int
        Which series of the file (in OME-TIFF: which image) the levels come from.
    notes : dict of str to str
        What was chosen where there was a choice; goes into the properties.
    """

    levels: tuple[tuple[Page, ...], ...]
    associated: dict[str, Page] = field(default_factory=dict)
    series: int = 0
    notes: dict[str, str] = field(default_factory=dict)


def lay_out(tiff: tifffile.TiffFile, channel_names: Sequence[str]) -> TiffLayout:
    """Find the levels of a TIFF.

    Parameters
    ----------
    tiff : TiffFile
        Open.
    channel_names : sequence of str
        Names of the channels of the image, if the file states them.

    Raises
    ------
    UnsupportedImageError
        If it holds no image, or channels that are not the colours of a bright-field picture.
    """
    if not len(tiff.pages):
        raise UnsupportedImageError("it is a TIFF without an image.")
    if tiff.is_svs:
        return _from_pages(tiff)
    index, series = max(enumerate(tiff.series), key=lambda item: _area(item[1]), default=(0, None))
    if series is None:
        raise UnsupportedImageError("it is a TIFF without an image.")
    simple = not tiff.is_ome and len(series.levels) == 1 and len(tiff.pages) > 1
    if simple and series.keyframe.is_tiled and set(series.axes) <= set("YXS"):
        return _from_pages(tiff)
    return _from_series(tiff, index, channel_names)


def _area(series: tifffile.TiffPageSeries) -> int:
    sizes = dict(zip(series.axes, series.shape, strict=True))
    is_named = series.name.strip().lower() in _ASSOCIATED
    return 0 if is_named else sizes.get("Y", 0) * sizes.get("X", 0)


def _from_pages(tiff: tifffile.TiffFile) -> TiffLayout:
    """Take tiled pages of one aspect as levels (the second page of an SVS is a thumbnail in strips)."""
    first = tiff.pages.first
    levels: list[Page] = []
    associated: dict[str, Page] = {}
    for page in tiff.pages:
        if not isinstance(page, tifffile.TiffPage) or 0 in page.shape:
            continue
        if page is first or (page.is_tiled and _is_level_of(first, page)):
            levels.append(page)
        else:
            name = _associated_name(page)
            associated.setdefault(name, page)
    levels.sort(key=lambda page: -keyframe_of(page).imagelength)
    return TiffLayout(tuple((page,) for page in levels), associated)


def _is_level_of(first: tifffile.TiffPage, page: tifffile.TiffPage) -> bool:
    same = (page.samplesperpixel, page.dtype) == (first.samplesperpixel, first.dtype)
    tall, wide = first.imagelength / page.imagelength, first.imagewidth / page.imagewidth
    # One pixel of rounding matters in the smallest levels.
    slack = _LIKE_LEVEL + 1 / page.imagelength + 1 / page.imagewidth
    return same and wide >= 1 and tall >= 1 and abs(tall / wide - 1) <= slack and not _is_label(page)


def _is_label(page: tifffile.TiffPage) -> bool:
    return _associated_name(page) in ("label", "macro")


def _associated_name(page: tifffile.TiffPage) -> str:
    """Return what an extra page shows; Aperio writes it as the first word of the second line."""
    words = page.description.lower().replace("\r", "\n").split("\n")[-1].split()
    for name in ("label", "macro"):
        if name in words[:1]:
            return name
    # Aperio: sub-file type 1 is the label, 9 the macro.
    return {1: "label", 9: "macro"}.get(int(page.subfiletype), "thumbnail") if not page.is_tiled else "thumbnail"


def _from_series(tiff: tifffile.TiffFile, index: int, channel_names: Sequence[str]) -> TiffLayout:
    series = tiff.series[index]
    notes: dict[str, str] = {}
    levels = tuple(_pages_of_plane(level, channel_names, notes) for level in series.levels)
    associated = {
        other.name.strip().lower(): other.pages[0]
        for other in tiff.series
        if other is not series and other.name.strip().lower() in _ASSOCIATED and other.pages[0] is not None
    }
    return TiffLayout(levels, associated, index, notes)


def _pages_of_plane(
    level: tifffile.TiffPageSeries, channel_names: Sequence[str], notes: dict[str, str]
) -> tuple[Page, ...]:
    """Return the pages of one focal plane: one, or one a colour."""
    sizes = dict(zip(level.axes, level.shape, strict=True))
    if "Y" not in sizes or "X" not in sizes:
        raise UnsupportedImageError("it holds no two-dimensional image.")
    outer = [(axis, size) for axis, size in zip(level.axes, level.shape, strict=True) if axis not in "YXS"]
    channels = sizes.get("C", 1)
    if channels > 1:
        _check_colours(channels, channel_names)
    chosen: list[int] = [0]
    for axis, size in outer:
        picks = range(size) if axis == "C" else [size // 2 if axis == "Z" else 0]
        if axis != "C" and size > 1:
            notes[f"nucleiseg.plane.{axis}"] = f"{picks[0]} of {size}"
        chosen = [base * size + pick for base in chosen for pick in picks]
    if max(chosen) >= len(level.pages):
        # A stack in one block of bytes (ImageJ hyperstack) has one page for all of it.
        raise UnsupportedImageError("it is a stack in one block; save the plane you want as a picture of its own.")
    pages = [level.pages[number] for number in chosen]
    if any(page is None for page in pages):
        raise UnsupportedImageError("part of it is in another file that is missing here.")
    return tuple(page for page in pages if page is not None)


def _check_colours(channels: int, names: Sequence[str]) -> None:
    lowered = [name.strip().lower() for name in names]
    if (
        channels == 3
        and len(lowered) == 3
        and all(name in known for name, known in zip(lowered, _COLOUR_NAMES, strict=True))
    ):
        return
    listed = f" ({', '.join(names)})" if names else ""
    raise UnsupportedImageError(
        f"it has {channels} fluorescence or other channels{listed}; these models need bright-field colour. "
        "Save one channel as a grey picture, or a bright-field rendering as RGB, and open that."
    )

"""Which pages of a TIFF make the levels of its slide, and which are label, macro and thumbnail."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import tifffile

from napari_nucleiseg.core.errors import UnsupportedImageError
from napari_nucleiseg.core.slides.channels import names_a_dye
from napari_nucleiseg.core.slides.tiffpage import Page, keyframe_of

logger = logging.getLogger(__name__)

_ASSOCIATED = ("label", "macro", "thumbnail", "overview")
_LIKE_LEVEL = 0.02  # levels have the aspect of the first, give or take rounding
_COLOUR_NAMES = ({"red", "r"}, {"green", "g"}, {"blue", "b"})
_STACKS = {
    "Z": "a stack of {} focal planes",
    "T": "a series of {} points in time",
    "I": "a collection of {} images of one size",
}


@dataclass(frozen=True, slots=True)
class PlaneChoice:
    """Which plane of a stack is the slide.

    Parameters
    ----------
    axis : str
        ``Z`` (focus), ``T`` (time) or ``I`` (images of an OME file).
    plane, planes : int
        Its number, from 0, and how many there are.
    """

    axis: str
    plane: int
    planes: int

    @property
    def sentence(self) -> str:
        """What to tell whoever opened the file."""
        stack, place = _STACKS[self.axis].format(self.planes), "middle" if self.axis == "Z" else "first"
        sentence = (
            f"This file is {stack}; only number {self.plane + 1}, the {place} one, is used. "
            "Save the wanted one as a picture of its own to use that."
        )
        return f"{sentence} To use all planes: napari-nucleiseg segment-stack." if self.axis == "Z" else sentence


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
    planes : tuple of PlaneChoice
        What was chosen where there was a choice.
    """

    levels: tuple[tuple[Page, ...], ...]
    associated: dict[str, Page] = field(default_factory=dict)
    series: int = 0
    planes: tuple[PlaneChoice, ...] = ()


def lay_out(tiff: tifffile.TiffFile, channel_names: Callable[[int], Sequence[str]]) -> TiffLayout:
    """Find the levels of a TIFF.

    Parameters
    ----------
    tiff : TiffFile
        Open.
    channel_names : callable
        Returns the names of the channels of a series, as far as the file states them.

    Raises
    ------
    UnsupportedImageError
        If it holds no image, several without saying what they are, or channels that are not the colours of a
        bright-field picture.
    """
    if not len(tiff.pages):
        raise UnsupportedImageError("it is a TIFF without an image.")
    if tiff.is_svs:
        return _from_pages(tiff)
    index, series = max(enumerate(tiff.series), key=lambda item: _area(item[1]), default=(0, None))
    if series is None:
        raise UnsupportedImageError("it is a TIFF without an image.")
    alike = [other for other in tiff.series if (other.shape, other.dtype) == (series.shape, series.dtype)]
    if len(alike) > 1 and not tiff.is_ome:
        raise _unnamed(len(alike))
    simple = not tiff.is_ome and len(series.levels) == 1 and len(tiff.pages) > 1
    if simple and series.keyframe.is_tiled and set(series.axes) <= set("YXS"):
        return _from_pages(tiff)
    chosen = (PlaneChoice("I", alike.index(series), len(alike)),) if len(alike) > 1 else ()
    return _from_series(tiff, index, channel_names(index), chosen)


def _area(series: tifffile.TiffPageSeries) -> int:
    sizes = dict(zip(series.axes, series.shape, strict=True))
    is_named = series.name.strip().lower() in _ASSOCIATED
    return 0 if is_named else sizes.get("Y", 0) * sizes.get("X", 0)


def _from_pages(tiff: tifffile.TiffFile) -> TiffLayout:
    """Take tiled pages of one aspect as levels (the second page of an SVS is a thumbnail in strips)."""
    finest = tiff.pages.first if tiff.is_svs else _largest_tiled(tiff)
    levels: list[Page] = []
    associated: dict[str, Page] = {}
    for page in tiff.pages:
        if not isinstance(page, tifffile.TiffPage) or 0 in page.shape:
            continue
        if page is finest or (page.is_tiled and _is_level_of(finest, page)):
            levels.append(page)
        else:
            name = _associated_name(page)
            associated.setdefault(name, page)
    levels.sort(key=lambda page: -keyframe_of(page).imagelength)
    return TiffLayout(tuple((page,) for page in levels), associated)


def _largest_tiled(tiff: tifffile.TiffFile) -> tifffile.TiffPage:
    """Return the finest level of a TIFF that is no SVS: a thumbnail, a macro or coarser levels may come before it."""
    pages = [page for page in tiff.pages if isinstance(page, tifffile.TiffPage) and page.is_tiled]
    slides = [page for page in pages if not _is_label(page)]
    return max(slides, key=lambda page: page.imagelength * page.imagewidth, default=tiff.pages.first)


def _is_level_of(finest: tifffile.TiffPage, page: tifffile.TiffPage) -> bool:
    same = (page.samplesperpixel, page.dtype) == (finest.samplesperpixel, finest.dtype)
    tall, wide = finest.imagelength / page.imagelength, finest.imagewidth / page.imagewidth
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


def _from_series(
    tiff: tifffile.TiffFile, index: int, channel_names: Sequence[str], chosen: tuple[PlaneChoice, ...]
) -> TiffLayout:
    series = tiff.series[index]
    planes = (*chosen, *_chosen_planes(series))
    levels = tuple(_pages_of_plane(level, channel_names) for level in series.levels)
    associated = {
        other.name.strip().lower(): other.pages[0]
        for other in tiff.series
        if other is not series and other.name.strip().lower() in _ASSOCIATED and other.pages[0] is not None
    }
    return TiffLayout(levels, associated, index, planes)


def _chosen_planes(series: tifffile.TiffPageSeries) -> tuple[PlaneChoice, ...]:
    """Return what is chosen along the axes of a stack; refuse what may as well be channels."""
    chosen = []
    for axis, size in zip(series.axes, series.shape, strict=True):
        if size > 1 and axis in "ZT":
            chosen.append(PlaneChoice(axis, _plane_of(axis, size), size))
        elif size > 1 and axis not in "YXSC":
            raise _unnamed(size)
    return tuple(chosen)


def _unnamed(count: int) -> UnsupportedImageError:
    return UnsupportedImageError(
        f"it holds {count} images of one size and does not say what they are: channels of fluorescence, as a rule. "
        "Export the bright-field image, or the one plane to work on, as an RGB picture of its own. "
        "Planes of a stack: napari-nucleiseg segment-stack."
    )


def _plane_of(axis: str, size: int) -> int:
    return size // 2 if axis == "Z" else 0


def _pages_of_plane(level: tifffile.TiffPageSeries, channel_names: Sequence[str]) -> tuple[Page, ...]:
    """Return the pages of one focal plane: one, or one a colour."""
    sizes = dict(zip(level.axes, level.shape, strict=True))
    if "Y" not in sizes or "X" not in sizes:
        raise UnsupportedImageError("it holds no two-dimensional image.")
    outer = [(axis, size) for axis, size in zip(level.axes, level.shape, strict=True) if axis not in "YXS"]
    _check_channels(sizes.get("C", 1), channel_names)
    chosen: list[int] = [0]
    for axis, size in outer:
        picks = range(size) if axis == "C" else [_plane_of(axis, size)]
        chosen = [base * size + pick for base in chosen for pick in picks]
    if max(chosen) >= len(level.pages):
        # A stack in one block of bytes (ImageJ hyperstack) has one page for all of it.
        raise UnsupportedImageError(
            "it is a stack in one block; use all of it with napari-nucleiseg segment-stack, or save the plane you want "
            "as a picture of its own."
        )
    pages = [level.pages[number] for number in chosen]
    if any(page is None for page in pages):
        raise UnsupportedImageError("part of it is in another file that is missing here.")
    return tuple(page for page in pages if page is not None)


def _check_channels(channels: int, names: Sequence[str]) -> None:
    """Refuse all but one channel, or three named for the colours; and one that is named for a dye."""
    lowered = [name.strip().lower() for name in names]
    are_colours = (
        channels == 3
        and len(lowered) == 3
        and all(name in known for name, known in zip(lowered, _COLOUR_NAMES, strict=True))
    )
    if are_colours or (channels == 1 and not names_a_dye(names)):
        return
    listed = f" ({', '.join(names)})" if any(names) else ""
    count = "one fluorescence channel" if channels == 1 else f"{channels} fluorescence or other channels"
    raise UnsupportedImageError(
        f"it has {count}{listed}; these models need bright-field colour. "
        "Export the bright-field image as RGB, or save it as a grey picture if it is one, and open that."
    )

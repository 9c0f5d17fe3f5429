"""Whole-slide TIFFs: Aperio SVS, OME-TIFF, generic tiled pyramids, and plain TIFF pictures."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable
from functools import partial

import numpy as np
import tifffile

from napari_nucleiseg.core.errors import SlideError, UnsupportedImageError
from napari_nucleiseg.core.geometry import YX
from napari_nucleiseg.core.slides.bytesource import ByteSource, Opener, is_local_file, open_binary
from napari_nucleiseg.core.slides.capacity import require_memory
from napari_nucleiseg.core.slides.pixelsize import given_mpp
from napari_nucleiseg.core.slides.pyramid import DamagedTile, Slide, UInt8Image
from napari_nucleiseg.core.slides.tifffacts import TiffFacts, read_facts
from napari_nucleiseg.core.slides.tiffindex import MAGICS, directories_before_end
from napari_nucleiseg.core.slides.tifflayout import TiffLayout, lay_out
from napari_nucleiseg.core.slides.tiffmessages import quiet_tifffile
from napari_nucleiseg.core.slides.tiffpage import DECODE_ERRORS, PageTiles, forget_tables, keyframe_of
from napari_nucleiseg.core.slides.tilecache import TileCache
from napari_nucleiseg.core.slides.tiled import LARGEST_STRIP_BYTES, TiledLevel, UnreadableTileError
from napari_nucleiseg.core.slides.virtual import exact_downsample

logger = logging.getLogger(__name__)

SUFFIXES = (".svs", ".tif", ".tiff", ".btf", ".tf2", ".tf8", ".qptiff")
_CUT = "This file is cut off: levels, its label or its macro image may be missing. Copy it again."
_ICC_TAG = 34675
_TILES_TO_JUDGE_RANGE = 64
_TILES_TO_TRY = 3


def matches(path: str) -> bool:
    """Whether `path` is a TIFF that is read here, not one whose maker needs OpenSlide."""
    if not is_local_file(path):
        return path.lower().endswith(SUFFIXES)
    return _is_tiff(path) and not needs_openslide(path)


def needs_openslide(path: str) -> bool:
    """Whether a local file is a TIFF in a layout that OpenSlide understands better."""
    if not _is_tiff(path):
        return False
    try:
        with quiet_tifffile(), tifffile.TiffFile(path) as tiff:
            found = bool(tiff.is_ndpi or tiff.is_scn or tiff.is_philips or tiff.is_bif)
            forget_tables(tiff.pages.first)
            return found
    except (OSError, *DECODE_ERRORS):
        # Damaged: `read` says how.
        return False


def _is_tiff(path: str) -> bool:
    try:
        with open_binary(path, None) as file:
            return file.read(4) in MAGICS
    except (SlideError, OSError):
        return False


def read(path: str, mpp_um: YX | None = None, opener: Opener | None = None) -> Slide:
    """Open a TIFF.

    Parameters
    ----------
    path : str
        File, or address that `opener` opens.
    mpp_um : YX, optional
        Micrometres per pixel; overrides what the file says.
    opener : callable, optional
        Opens an address as a seekable binary file.

    Raises
    ------
    SlideError
        If it is damaged or gone.
    UnsupportedImageError
        If its pixels are none that models can use.
    """
    source = ByteSource(path, opener)
    try:
        return _read(source, opener, None if mpp_um is None else given_mpp(mpp_um))
    except UnsupportedImageError as error:
        source.close()
        raise UnsupportedImageError(f"{path} cannot be used: {error}") from error
    except SlideError:
        source.close()
        raise
    except (OSError, *DECODE_ERRORS) as error:
        source.close()
        logger.debug("%s cannot be read: %s", path, error)
        raise SlideError(
            f"{path} is no readable TIFF: the list of its images is damaged or cut off; copy it again, or export it."
        ) from error


def _read(source: ByteSource, opener: Opener | None, mpp_um: YX | None) -> Slide:
    whole = directories_before_end(source)
    if whole == 0:
        raise SlideError(f"{source.path} is no whole TIFF: it is cut off before the list of its images. Copy it again.")
    name = os.path.basename(source.path)  # noqa: PTH119
    with quiet_tifffile(), open_binary(source.path, opener) as file, tifffile.TiffFile(file, name=name) as tiff:
        layout = lay_out(tiff, lambda series: read_facts(tiff, series).channel_names)
        facts = read_facts(tiff, layout.series, keyframe_of(layout.levels[0][0]))
        pages = [PageTiles(source, level) for level in layout.levels]
        associated = _associated(source, layout)
        profile = keyframe_of(layout.levels[0][0]).tags.valueof(_ICC_TAG)
    _require_one_tile(source, pages[-1])
    _set_range(pages)
    slide = _assemble(source, pages, facts)
    slide.mpp_um = mpp_um or slide.mpp_um
    slide.icc_profile = bytes(profile) if profile else None
    planes = {f"nucleiseg.plane.{one.axis}": f"{one.plane} of {one.planes}" for one in layout.planes}
    slide.properties = {**slide.properties, **planes}
    slide.notes = tuple(one.sentence for one in layout.planes) + ((_CUT,) if whole else ())
    slide.associated = associated
    return slide


def _associated(source: ByteSource, layout: TiffLayout) -> dict[str, Callable[[], UInt8Image]]:
    found: dict[str, Callable[[], UInt8Image]] = {}
    for name, page in layout.associated.items():
        try:
            found[name] = partial(_read_associated, name, PageTiles(source, (page,)))
        except (SlideError, *DECODE_ERRORS) as error:
            logger.warning("%s: its %s image is left out: %s", source.path, name, error)
    return found


def _require_one_tile(source: ByteSource, page: PageTiles) -> None:
    """Refuse a file none of whose tiles can be decoded, so that another reader may try it."""
    if _is_one_piece(page):
        return  # decoding it takes long, and is done once only
    rows, cols = page.grid
    reason = ""
    for index in np.linspace(0, rows * cols - 1, min(rows * cols, _TILES_TO_TRY)).astype(int):
        try:
            page.read_stored(*divmod(int(index), cols))
        except UnreadableTileError as error:
            reason = str(error)
        else:
            return
    raise SlideError(f"{source.path} is damaged, or in an unknown variant of TIFF: its first tile {reason}.")


def _assemble(source: ByteSource, pages: list[PageTiles], facts: TiffFacts) -> Slide:
    damage: list[DamagedTile] = []
    downsamples = tuple(exact_downsample(pages[0].shape, page.shape) for page in pages)
    levels = tuple(
        TiledLevel(
            page.shape,
            page.tile_shape,
            page.read_tile,
            downsample=downsample,
            damage=damage,
            cache=_cache_for(source, page),
            expose_chunks=not page.is_strips,
            read_passing=page.read_passing_tile,
        )
        for page, downsample in zip(pages, downsamples, strict=True)
    )
    properties = dict(facts.properties)
    if facts.pixel_size.reason:
        properties["nucleiseg.pixel-size"] = facts.pixel_size.reason

    def close() -> None:
        source.close()
        for level in levels:
            level.forget()

    return Slide(
        path=source.path,
        levels=levels,
        downsamples=downsamples,
        mpp_um=facts.pixel_size.mpp_um,
        objective_power=facts.objective_power,
        vendor=facts.vendor,
        reader="tifffile",
        properties=properties,
        damage=damage,
        on_close=close,
    )


def _cache_for(source: ByteSource, page: PageTiles) -> TileCache | None:
    """Return a cache for the whole page where it was compressed in one piece: it is decoded once, or for every view."""
    if not _is_one_piece(page):
        return None
    require_memory(source.path, page.shape)
    return TileCache(math.prod(page.grid) * math.prod(page.tile_shape) * 3)


def _is_one_piece(page: PageTiles) -> bool:
    return page.is_strips and math.prod(page.tile_shape) * 3 > LARGEST_STRIP_BYTES


def _read_associated(name: str, page: PageTiles) -> UInt8Image:
    try:
        return page.read_all()
    except UnreadableTileError as error:
        raise SlideError(f"the {name} image of this slide is damaged: {error}.") from error


def _set_range(pages: list[PageTiles]) -> None:
    """Find what value stands for white in images of more than 8 bits, from the coarsest level."""
    coarsest = pages[-1]
    if coarsest.form.dtype == np.uint8 or coarsest.form.colours == "palette":
        return  # how many of their bits are in use is said in the file
    brightest, largest = _brightest(coarsest)
    for page in pages:
        page.form = page.form.with_range(brightest, largest)


def _brightest(page: PageTiles) -> tuple[float, float]:
    """Return the largest sample of colour, and of all, of a page, or of some of its tiles where it has many."""
    rows, cols = page.grid
    tiles = np.linspace(0, rows * cols - 1, min(rows * cols, _TILES_TO_JUDGE_RANGE)).astype(int)
    brightest = largest = 0.0
    for index in tiles:
        try:
            tile = page.read_stored(*divmod(int(index), cols))
        except UnreadableTileError:
            continue
        if tile is not None:
            brightest = max(brightest, float(tile[..., : page.form.colour_samples].max()))
            largest = max(largest, float(tile.max()))
    return brightest, largest

"""The tiles or strips of one TIFF page, read and decoded one at a time."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray

from napari_nucleiseg.core.errors import SlideError, UnsupportedImageError
from napari_nucleiseg.core.slides.bytesource import ByteSource
from napari_nucleiseg.core.slides.pyramid import UInt8Image
from napari_nucleiseg.core.slides.samples import Colours, SampleFormat, to_rgb
from napari_nucleiseg.core.slides.scratch import scratch
from napari_nucleiseg.core.slides.tiled import UnreadableTileError
from napari_nucleiseg.core.slides.tilememory import tile_memory

Page = tifffile.TiffPage | tifffile.TiffFrame

# What codecs raise on bytes that are not theirs; imagecodecs' own errors are RuntimeErrors.
DECODE_ERRORS = (RuntimeError, ValueError, TypeError, IndexError, NotImplementedError, ArithmeticError)

ROWS_AT_A_TIME = 64
SIDE_OF_ROW_TILES = 512
_APERIO_JPEG2000_YCBCR = 33003
_JPEG = (7, 33007, 34892)
_LOSSLESS = (1, 5, 8, 32773, 32946, 34925, 34926, 50000, 50013)  # codecs of bytes, which leave colours as they are
_JPEG_SCAN, _JPEG_END = b"\xff\xda", b"\xff\xd9"
_JPEG_STRAY = re.compile(rb"\xff[\x01-\xbf]")
_TABLE_TAGS = (273, 279, 324, 325)
_ALPHA = (1, 2)  # of ExtraSamples: premultiplied and not; 0 is anything else
_MIN_IS_WHITE, _MIN_IS_BLACK, _RGB, _PALETTE, _SEPARATED, _YCBCR, _CIELAB = 0, 1, 2, 3, 5, 6, 8


def keyframe_of(page: Page) -> tifffile.TiffPage:
    """Return the page that holds the tags of `page` (itself, unless it is one of many alike)."""
    keyframe = page.keyframe
    if keyframe is None:
        raise SlideError("it is damaged: a page has no description of its pixels.")
    return keyframe


def forget_tables(page: Page) -> None:
    """Free the lists of where a page's tiles lie, once they are not needed any more.

    tifffile keeps them as Python numbers, a hundred bytes a tile, in objects that refer to each other: of a large
    slide they would lie about for as long as the garbage collector does not come by.
    """
    page.dataoffsets = page.databytecounts = ()
    if isinstance(page, tifffile.TiffPage):
        for code in _TABLE_TAGS:
            if code in page.tags:
                del page.tags[code]


class PageTiles:
    """Decode the tiles of one page; everything that touches the file's tags happens here, once.

    tifffile reads some tags lazily and moves the file pointer in doing so; none is left for later. The pages lose
    their own lists of tiles.

    Parameters
    ----------
    source : ByteSource
        The file.
    pages : sequence of TiffPage
        One page, or one a colour where colours are stored apart.

    Raises
    ------
    UnsupportedImageError
        If the pixels are none that can be shown as RGB.
    SlideError
        If the page cannot be decoded at all.
    """

    def __init__(self, source: ByteSource, pages: Sequence[Page]) -> None:
        keyframe = keyframe_of(pages[0])
        self._source = source
        self._offsets = [np.asarray(page.dataoffsets, np.int64) for page in pages]
        self._counts = [np.asarray(page.databytecounts, np.int64) for page in pages]
        self._tables = keyframe.jpegtables
        self._decode: Callable[..., Any] = keyframe.decode
        self._is_jpeg = int(keyframe.compression) in _JPEG
        self._planes = keyframe.samplesperpixel if keyframe.planarconfig == 2 else 1
        self.shape = (int(keyframe.imagelength), int(keyframe.imagewidth))
        self.is_tiled = bool(keyframe.is_tiled)
        self.form = _sample_format(keyframe, len(pages))
        self._spaces = _jpeg_spaces(keyframe) if self._is_jpeg and len(pages) == 1 and self.is_tiled else None
        self._lay_out(keyframe)
        for page in pages:
            forget_tables(page)

    def _lay_out(self, keyframe: tifffile.TiffPage) -> None:
        height, width = self.shape
        self._group = 1
        self._row_bytes = 0
        if self.is_tiled:
            self.tile_shape = (int(keyframe.tilelength), int(keyframe.tilewidth))
        elif self._can_read_rows(keyframe):
            self._row_bytes = width * self.form.samples * self.form.dtype.itemsize
            self.tile_shape = (SIDE_OF_ROW_TILES, SIDE_OF_ROW_TILES)
        else:
            rows = max(1, min(int(keyframe.rowsperstrip), height))
            self._group = max(1, min(ROWS_AT_A_TIME, height) // rows)
            self.tile_shape = (rows * self._group, width)
        self._segment_rows = self.tile_shape[0] // self._group
        self._columns = -(-width // self.tile_shape[1])
        self._segments = -(-height // self._segment_rows) * (self._columns if self.is_tiled else 1)
        self._byteorder = keyframe.parent.byteorder
        expected = self._segments * self._planes
        if not self._row_bytes and any(len(offsets) < expected for offsets in self._offsets):
            raise SlideError(f"{self._source.path} is damaged: its index names too few tiles; copy it again.")

    def _can_read_rows(self, keyframe: tifffile.TiffPage) -> bool:
        """Whether the page is one uncompressed block, any part of which can be read by itself."""
        return (
            keyframe.is_contiguous
            and keyframe.compression == 1
            and self._planes == 1
            and len(self._offsets) == 1
            and self.form.dtype.kind in "uf"
            and keyframe.bitspersample in (8, 16, 32)
            and keyframe.fillorder == 1
            and keyframe.predictor == 1
        )

    @property
    def grid(self) -> tuple[int, int]:
        """Number of tiles ``(rows, columns)``."""
        return -(-self.shape[0] // self.tile_shape[0]), -(-self.shape[1] // self.tile_shape[1])

    @property
    def is_strips(self) -> bool:
        """Whether what is read at a time is as wide as the image."""
        return not self.is_tiled and not self._row_bytes

    def read_tile(self, row: int, col: int) -> UInt8Image | None:
        """Return a tile as ``(y, x, 3)`` uint8 RGB; None where the file holds no data for it.

        Raises
        ------
        UnreadableTileError
            If its bytes are missing or cannot be decoded.
        SlideError
            If the file is gone.
        """
        return self._read_tile(row, col, tile_memory.empty)

    def read_passing_tile(self, row: int, col: int) -> UInt8Image | None:
        """Return what `read_tile` does, in memory that this thread uses again for the next tile."""
        return self._read_tile(row, col, scratch)

    def _read_tile(self, row: int, col: int, memory: Callable[[tuple[int, int, int]], UInt8Image]) -> UInt8Image | None:
        decoded = self._decoded_into(row, col, memory)
        if decoded is not None:
            return decoded
        stored = self.read_stored(row, col)
        if stored is None or self.form.is_rgb:
            return stored
        return to_rgb(stored, self.form)

    def _decoded_into(
        self, row: int, col: int, memory: Callable[[tuple[int, int, int]], UInt8Image]
    ) -> UInt8Image | None:
        """Return a JPEG of colours in memory as asked for; None for others and where it cannot be decoded like that."""
        index = row * self._columns + col
        if self._spaces is None or not self.form.is_rgb or not self._counts[0][index]:
            return None
        data = self._read_bytes(int(self._offsets[0][index]), int(self._counts[0][index]))
        stored, wanted = self._spaces
        out = memory((*self.tile_shape, 3))
        try:
            imagecodecs.jpeg8_decode(data, tables=self._tables, colorspace=stored, outcolorspace=wanted, out=out)
        except DECODE_ERRORS:  # damaged, or of another size than stated; what becomes of it is decided in one place
            return None
        return out

    def read_stored(self, row: int, col: int) -> NDArray[Any] | None:
        """Return a tile as it is stored, ``(y, x, samples)``; see `read_tile`."""
        if self._row_bytes:
            return self._read_rows(row, col)
        parts = []
        for step in range(self._group):
            index = (row * self._group + step) * (self._columns if self.is_tiled else 1) + col
            if index >= self._segments:
                break
            part = self._read_segment(index)
            if part is None:
                return None
            parts.append(part)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _read_segment(self, index: int) -> NDArray[Any] | None:
        planes = []
        for offsets, counts in zip(self._offsets, self._counts, strict=True):
            for plane in range(self._planes):
                at = index + plane * self._segments
                if counts[at] == 0:
                    return None
                planes.append(self._decode_segment(int(offsets[at]), int(counts[at]), at))
        return planes[0] if len(planes) == 1 else np.concatenate(planes, axis=-1)

    def _decode_segment(self, offset: int, size: int, index: int) -> NDArray[Any]:
        data = self._read_bytes(offset, size)
        try:
            decoded = self._decode(data, index, jpegtables=self._tables)[0]
        except DECODE_ERRORS as error:
            raise UnreadableTileError(f"cannot be decoded ({error})") from error
        plane: NDArray[Any] = np.asarray(decoded)[0]
        return plane

    def _read_bytes(self, offset: int, size: int) -> bytes:
        data = self._source.read(offset, size)
        if len(data) < size:
            raise UnreadableTileError("the file ends before it (truncated)")
        if self._is_jpeg and not _is_whole_jpeg(data):
            raise UnreadableTileError("its JPEG data are cut off or overwritten")
        return data

    def _read_rows(self, row: int, col: int) -> NDArray[Any]:
        side = SIDE_OF_ROW_TILES
        y, x = row * side, col * side
        height, width = min(side, self.shape[0] - y), min(side, self.shape[1] - x)
        pixel = self.form.samples * self.form.dtype.itemsize
        start = int(self._offsets[0][0]) + y * self._row_bytes + x * pixel
        data = b"".join(self._source.read(start + line * self._row_bytes, width * pixel) for line in range(height))
        if len(data) < height * width * pixel:
            raise UnreadableTileError("the file ends before it (truncated)")
        stored = np.frombuffer(data, self.form.dtype.newbyteorder(self._byteorder))
        return stored.reshape(height, width, self.form.samples).astype(self.form.dtype, copy=False)

    def read_all(self) -> UInt8Image:
        """Return the whole page, ``(y, x, 3)`` uint8 RGB; meant for small ones (label, thumbnail)."""
        out = np.full((*self.shape, 3), 255, np.uint8)
        height, width = self.tile_shape
        for y in range(0, self.shape[0], height):
            for x in range(0, self.shape[1], width):
                tile = self.read_tile(y // height, x // width)
                if tile is not None:
                    target = out[y : y + height, x : x + width]
                    target[:] = tile[: target.shape[0], : target.shape[1]]
        return out


def _is_whole_jpeg(data: bytes) -> bool:
    """Whether JPEG data reach their end mark and hold no mark that cannot be there.

    libjpeg does not fail on such data: it paints the rest of the tile in one colour.
    """
    end = data.rfind(_JPEG_END)
    start = data.find(_JPEG_SCAN)
    return end > start >= 0 and _JPEG_STRAY.search(data, start, end) is None


def _jpeg_spaces(page: tifffile.TiffPage) -> tuple[int | None, int] | None:
    """Return the colours that tiles are stored in and become, as tifffile tells its decoder; None where it is neither.

    Colours that are stored as RGB have no JFIF mark: libjpeg would take them for YCbCr.
    """
    photometric = int(page.photometric)
    if page.planarconfig != 1 or page.extrasamples or page.bitspersample != 8 or photometric not in (_RGB, _YCBCR):
        return None
    stored = _RGB if photometric == _RGB and not page.is_jfif else None
    return stored, _RGB


def _sample_format(page: tifffile.TiffPage, pages: int) -> SampleFormat:
    if page.dtype is None or 0 in page.shape:
        raise UnsupportedImageError("it holds an image without pixels.")
    samples = int(page.samplesperpixel) * pages
    alpha_tag = page.extrasamples[-1] if page.extrasamples else 0
    colours = _colours(page, pages)
    extra = samples - (3 if colours in ("rgb", "ycbcr") else 1)
    if extra > 1 or extra < 0 or (extra and "grey" in colours and alpha_tag not in _ALPHA):
        raise UnsupportedImageError(
            f"it has {samples} channels a pixel that are no colours, as in fluorescence; these models need "
            "bright-field colour. Export the bright-field image as RGB, or one grey plane of it, and open that."
        )
    alpha = ("none", "premultiplied", "straight")[int(alpha_tag) if extra and alpha_tag in _ALPHA else 0]
    palette = None
    if colours == "palette" and page.colormap is not None:
        palette = (np.asarray(page.colormap) >> 8).astype(np.uint8)
    # Fewer bits than 8 are unpacked into bytes, whose largest values stay unused.
    bits = page.bitspersample  # of each sample, where they differ; those are widened
    white = 2.0**bits - 1 if isinstance(bits, int) and bits < 8 else 255.0
    return SampleFormat(samples, np.dtype(page.dtype), colours, alpha, palette, white, white)  # type: ignore[arg-type]


def _colours(page: tifffile.TiffPage, pages: int) -> Colours:
    """Return what the samples of a page mean; `pages` of them stand for one colour each."""
    photometric, compression, samples = int(page.photometric), int(page.compression), int(page.samplesperpixel)
    if photometric in (_SEPARATED, _CIELAB):
        raise UnsupportedImageError("it is in CMYK or Lab colours; save it as RGB and open that.")
    if photometric == _PALETTE:
        return "palette"
    if compression == _APERIO_JPEG2000_YCBCR and samples >= 3:
        return "ycbcr"
    if photometric == _YCBCR and compression in _LOSSLESS:
        if page.is_subsampled and (page.subsampling or sum(page.databytecounts) < page.nbytes):
            raise UnsupportedImageError(
                "it is in YCbCr colours of which fewer are stored than brightness (chroma subsampling), without JPEG; "
                "save it as RGB and open that."
            )
        return "ycbcr"
    is_grey = photometric in (_MIN_IS_WHITE, _MIN_IS_BLACK)
    if photometric == _RGB or pages == 3 or (samples >= 3 and not is_grey):
        return "rgb"
    return "inverted grey" if photometric == _MIN_IS_WHITE else "grey"

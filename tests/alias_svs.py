"""Write a huge Aperio-like slide of known nuclei in a file of a few megabytes.

A block of synthetic tissue is compressed once; all tiles of the slide point to its tiles (or to the one
of glass), so a slide of 100,000 x 100,000 px takes seconds to write and is decoded, tile by tile, like
any other. Nuclei never cross the border of a block, so their number on the slide is exact.

    python tests/alias_svs.py OUT.svs [--height 100000] [--width 100000]
"""

from __future__ import annotations

import argparse
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import cv2
import imagecodecs
import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.slides.synthetic import SyntheticSlide, synthetic_slide

TILE = 256
STEP = 4
QUALITY = 80
GLASS = (243, 242, 244)
# The type numbers of TIFF for the letters of `struct`; "s" is text.
_KINDS = {"H": 3, "I": 4, "Q": 16, "s": 2}


@dataclass(frozen=True, eq=False)
class AliasSlide:
    """What is known of the slide written.

    Parameters
    ----------
    path : Path
        The file.
    shape : tuple of int
        Level-0 ``(height, width)`` in pixels.
    block : SyntheticSlide
        The tissue that is repeated, whose truth is that of every repeat.
    tissue : ndarray of bool, shape (rows, columns)
        Which blocks are tissue; the others, and what is left at the lower and right edges, are glass.
    """

    path: Path
    shape: tuple[int, int]
    block: SyntheticSlide
    tissue: NDArray[np.bool_]

    @property
    def count(self) -> int:
        """Number of nuclei on the slide."""
        return int(self.tissue.sum()) * self.block.truth_ids(self.block.region).size

    def centroids(self, region: Region) -> NDArray[np.float64]:
        """Return the centroids ``(n, 2)`` in `region`, level-0 pixels, the centre of the first pixel being (0, 0)."""
        found = [np.add(self.block.truth_centroids(part), (top, left)) for part, top, left, _ in self._parts(region)]
        return np.concatenate(found) if found else np.zeros((0, 2))

    def labels(self, region: Region) -> NDArray[np.int64]:
        """Return the label image of `region`, ids unique over the slide."""
        out = np.zeros((region.height, region.width), np.int64)
        most = int(self.block.truth_ids(self.block.region).max(initial=0)) + 1
        for part, top, left, number in self._parts(region):
            drawn = self.block.truth_labels(part).astype(np.int64)
            drawn[drawn > 0] += number * most
            y, x = part.y + top - region.y, part.x + left - region.x
            out[y : y + part.height, x : x + part.width] = drawn
        return out

    def _parts(self, region: Region) -> Iterator[tuple[Region, int, int, int]]:
        """Yield, for every tissue block under `region`: the part in the block's own pixels, its corner, its number."""
        side = self.block.shape[0]
        rows, columns = self.tissue.shape
        for row in range(max(0, region.y // side), min(rows, -(-region.y1 // side))):
            for column in range(max(0, region.x // side), min(columns, -(-region.x1 // side))):
                if self.tissue[row, column]:
                    top, left = row * side, column * side
                    part = Region(top, left, side, side).intersect(region).translate(-top, -left)
                    yield part, top, left, row * columns + column


def alias_svs(
    path: str | Path,
    height: int = 100_000,
    width: int = 100_000,
    *,
    mpp_um: float = 0.25,
    block: int = 4096,
    seed: int = 0,
    density_per_mm2: float = 4000,
    full: bool = False,
    pieces: int | None = None,
) -> AliasSlide:
    """Write a pyramidal BigTIFF as Aperio does, with 4x steps, thumbnail, label and macro.

    Parameters
    ----------
    path : path-like
        File to write.
    height, width : int
        Level-0 pixels.
    mpp_um : float
        Micrometres per pixel.
    block : int
        Side of the repeated tissue: 4,096 gives levels of 1, 4 and 16, 1,024 only the first two.
    seed, density_per_mm2
        Of the tissue.
    full : bool
        All blocks are tissue; default only those within an ellipse in the middle.
    pieces : int, optional
        Only so many blocks are tissue, here and there, as biopsies lie on a slide.
    """
    if block % (TILE * STEP) or min(height, width) < block:
        raise ValueError(f"a block of {block} px must be a multiple of {TILE * STEP} and fit {height} x {width}")
    tissue_block = synthetic_slide(block, block, mpp_um, seed, density_per_mm2=density_per_mm2, glass=False)
    tissue = _tissue_blocks(height // block, width // block, full=full)
    if pieces is not None:
        tissue = np.zeros_like(tissue)
        tissue.flat[np.random.default_rng(seed).choice(tissue.size, pieces, replace=False)] = True
    result = AliasSlide(Path(path), (height, width), tissue_block, tissue)
    picture = tissue_block.levels[0][...]
    about = f"AppMag = {10 / mpp_um:g}|MPP = {mpp_um:.4f}"
    with Path(path).open("wb") as file:
        writer = _BigTiff(file)
        _write_level(writer, picture, result, 1, about)
        _write_stripped(writer, _overview(result, 768), f"thumbnail -> |{about}", 0)
        factor = STEP
        while block % (TILE * factor) == 0 and max(height, width) // factor >= 1024:
            picture = cv2.resize(picture, None, fx=1 / STEP, fy=1 / STEP, interpolation=cv2.INTER_AREA)
            _write_level(writer, picture, result, factor, about)
            factor *= STEP
        label = np.full((200, 180, 3), 255, np.uint8)
        cv2.putText(label, "SYNTHETIC", (6, 100), cv2.FONT_HERSHEY_SIMPLEX, 0.9, (0, 0, 0), 2)
        _write_stripped(writer, label, "label 180x200", 1)
        _write_stripped(writer, _overview(result, 512), "macro 512x512", 9)
    return result


def _tissue_blocks(rows: int, columns: int, *, full: bool) -> NDArray[np.bool_]:
    down, across = np.ogrid[:rows, :columns]
    apart = ((2 * down + 1) / rows - 1) ** 2 + ((2 * across + 1) / columns - 1) ** 2
    return np.asarray(apart <= (np.inf if full or min(rows, columns) < 3 else 0.75))


def _overview(slide: AliasSlide, side: int) -> NDArray[np.uint8]:
    """Return a small picture of the slide, its longer side `side` pixels."""
    scale = side / max(slide.shape)
    height, width = (max(16, round(size * scale)) for size in slide.shape)
    out = np.full((height, width, 3), GLASS, np.uint8)
    colour = slide.block.levels[-1][...].reshape(-1, 3).mean(0).astype(np.uint8)
    step = slide.block.shape[0] * scale
    for row, column in np.argwhere(slide.tissue):
        y, x = round(row * step), round(column * step)
        out[y : round((row + 1) * step), x : round((column + 1) * step)] = colour
    return out


def _write_level(writer: _BigTiff, picture: NDArray[np.uint8], slide: AliasSlide, factor: int, about: str) -> None:
    """Write one level whose tiles point to those of `picture`, the block at that level, or to glass."""
    side = picture.shape[0] // TILE
    places = np.empty((side, side, 2), np.uint64)
    for row in range(side):
        for column in range(side):
            tile = picture[row * TILE : (row + 1) * TILE, column * TILE : (column + 1) * TILE]
            places[row, column] = writer.put(_jpeg(tile))
    glass = writer.put(_jpeg(np.full((TILE, TILE, 3), GLASS, np.uint8)))
    height, width = (size // factor for size in slide.shape)
    table = np.empty((-(-height // TILE), -(-width // TILE), 2), np.uint64)
    table[...] = glass
    blocks = slide.tissue.repeat(side, 0).repeat(side, 1)
    repeated = np.tile(places, (*slide.tissue.shape, 1))
    table[: blocks.shape[0], : blocks.shape[1]][blocks] = repeated[blocks]
    size = f"{slide.shape[1]}x{slide.shape[0]}"
    smaller = f"-> {width}x{height} " if factor > 1 else ""
    text = f"{size} [0,0 {size}] ({TILE}x{TILE}) {smaller}JPEG/RGB Q={QUALITY}|{about}"
    writer.directory(
        {
            **_picture_tags(height, width, text, 0),
            322: ("I", TILE),
            323: ("I", TILE),
            324: ("Q", table[..., 0].ravel()),
            325: ("I", table[..., 1].ravel()),
        }
    )


def _write_stripped(writer: _BigTiff, picture: NDArray[np.uint8], text: str, kind: int) -> None:
    """Write a small picture in one strip; by that, Aperio's readers know it from a level."""
    offset, length = writer.put(_jpeg(picture))
    height, width = picture.shape[:2]
    tags = _picture_tags(height, width, text, kind)
    writer.directory({**tags, 273: ("Q", offset), 278: ("I", height), 279: ("I", length)})


def _picture_tags(height: int, width: int, text: str, kind: int) -> dict[int, tuple[str, object]]:
    return {
        254: ("I", kind),
        256: ("I", width),
        257: ("I", height),
        258: ("H", (8, 8, 8)),
        259: ("H", 7),
        262: ("H", 6),
        270: ("s", f"Aperio Image Library v12.0.0 \r\n{text}\0".encode()),
        277: ("H", 3),
        284: ("H", 1),
        530: ("H", (2, 2)),
    }


def _jpeg(picture: NDArray[np.uint8]) -> bytes:
    return bytes(imagecodecs.jpeg8_encode(np.ascontiguousarray(picture), level=QUALITY, subsampling="420"))


class _BigTiff:
    """Appends data and chained directories to a little-endian BigTIFF."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._link = 8
        file.write(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 0))

    def put(self, data: bytes) -> tuple[int, int]:
        """Append bytes; return where they are and how many."""
        self._file.seek(0, 2)
        self._file.write(b"\0" * (-self._file.tell() % 8))
        offset = self._file.tell()
        self._file.write(data)
        return offset, len(data)

    def directory(self, tags: dict[int, tuple[str, object]]) -> None:
        """Append a directory of tags (number -> type letter of `struct` and value or values) and link it."""
        entries = [self._entry(tag, kind, value) for tag, (kind, value) in sorted(tags.items())]
        offset, _ = self.put(struct.pack("<Q", len(entries)) + b"".join(entries) + struct.pack("<Q", 0))
        self._file.seek(self._link)
        self._file.write(struct.pack("<Q", offset))
        self._link = offset + 8 + 20 * len(entries)

    def _entry(self, tag: int, kind: str, value: object) -> bytes:
        if isinstance(value, bytes):
            data, count = value, len(value)
        else:
            values = np.atleast_1d(np.asarray(value)).astype({"H": "<u2", "I": "<u4", "Q": "<u8"}[kind])
            data, count = values.tobytes(), values.size
        held = data.ljust(8, b"\0") if len(data) <= 8 else struct.pack("<Q", self.put(data)[0])
        return struct.pack("<HHQ", tag, _KINDS[kind], count) + held


def main() -> None:
    """Write a slide and say what is in it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", type=Path)
    parser.add_argument("--height", type=int, default=100_000)
    parser.add_argument("--width", type=int, default=100_000)
    parser.add_argument("--mpp", type=float, default=0.25)
    arguments = parser.parse_args()
    slide = alias_svs(arguments.path, arguments.height, arguments.width, mpp_um=arguments.mpp)
    print(f"{slide.path}: {slide.path.stat().st_size / 1e6:.1f} MB, {slide.count:,} nuclei")  # noqa: T201 - a command


if __name__ == "__main__":
    main()

"""Write an Aperio-like pyramid of any size in a few megabytes: its tiles point at a few JPEGs, again and again."""

import struct
from pathlib import Path

import imagecodecs
import numpy as np

from napari_nucleiseg.core.slides.synthetic import synthetic_slide

TILE = 256
BLOCK = 8  # tiles a side of the picture that repeats


def _block(mpp_um, seed):
    side = TILE * BLOCK
    return synthetic_slide(side, side, mpp_um, seed=seed, glass=False).levels[0][...]


def _encode(picture):
    count = picture.shape[0] // TILE
    squares = picture.reshape(count, TILE, count, TILE, 3).swapaxes(1, 2)
    return [
        [
            imagecodecs.jpeg8_encode(np.ascontiguousarray(squares[y, x]), level=80, subsampling="420")
            for x in range(count)
        ]
        for y in range(count)
    ]


class _Writer:
    """A BigTIFF in the making: a chain of directories behind their data."""

    def __init__(self, file):
        self.file, self.link = file, 8
        file.write(struct.pack("<2sHHHQ", b"II", 43, 8, 0, 0))

    def put(self, data):
        at = self.file.seek(0, 2)
        self.file.write(data)
        return at

    def directory(self, entries):
        """`entries`: (tag, type, array or bytes) in ascending order of tags."""
        codes = {2: "u1", 3: "<u2", 4: "<u4", 16: "<u8"}
        packed = []
        for tag, kind, values in entries:
            raw = values if isinstance(values, bytes) else np.atleast_1d(values).astype(codes[kind]).tobytes()
            count = len(raw) // np.dtype(codes[kind]).itemsize
            inline = raw.ljust(8, b"\0") if len(raw) <= 8 else struct.pack("<Q", self.put(raw))
            packed.append(struct.pack("<HHQ", tag, kind, count) + inline)
        at = self.put(struct.pack("<Q", len(packed)) + b"".join(packed) + struct.pack("<Q", 0))
        self.file.seek(self.link)
        self.file.write(struct.pack("<Q", at))
        self.link = at + 8 + 20 * len(packed)


def write_alias_slide(path, side, mpp_um=0.5, seed=0):
    """Write a square slide of `side` pixels with levels of 4x steps; level 0 is real JPEG, 0.3 bytes a pixel."""
    picture = _block(mpp_um, seed)
    scan = f"{side}x{side} ({TILE}x{TILE}) JPEG/RGB Q=80|AppMag = {10 / mpp_um:g}|MPP = {mpp_um}"
    about = f"Aperio Image Library v11.2.1 \r\n{scan}"
    with Path(path).open("wb") as file:
        writer = _Writer(file)
        size = side
        while True:
            tiles = _encode(picture)
            places = np.array([[writer.put(tile) for tile in row] for row in tiles])
            lengths = np.array([[len(tile) for tile in row] for row in tiles])
            index = np.arange(-(-size // TILE)) % len(tiles)
            _level(writer, size, places[np.ix_(index, index)], lengths[np.ix_(index, index)], about)
            if size == side:
                _thumbnail(writer, picture[: 2 * TILE, : 2 * TILE], about)
            if size <= 1024:
                return path
            size = -(-size // 4)
            picture = _quarter(picture)


def _quarter(picture):
    side = picture.shape[0]
    small = picture.reshape(side // 4, 4, side // 4, 4, 3).mean((1, 3)).astype(np.uint8)
    repeat = max(1, TILE // small.shape[0])
    return np.tile(small, (repeat, repeat, 1))


def _level(writer, size, places, lengths, about):
    writer.directory(
        [
            (254, 4, 0), (256, 4, size), (257, 4, size), (258, 3, [8, 8, 8]), (259, 3, 7), (262, 3, 6),
            (270, 2, about.encode() + b"\0"), (277, 3, 3), (284, 3, 1), (322, 3, TILE), (323, 3, TILE),
            (324, 16, places.ravel()), (325, 4, lengths.ravel()), (530, 3, [2, 2]),
        ]
    )  # fmt: skip


def _thumbnail(writer, picture, about):
    data = imagecodecs.jpeg8_encode(np.ascontiguousarray(picture), level=80, subsampling="420")
    height, width = picture.shape[:2]
    writer.directory(
        [
            (254, 4, 0), (256, 4, width), (257, 4, height), (258, 3, [8, 8, 8]), (259, 3, 7), (262, 3, 6),
            (270, 2, about.encode() + b"\0"), (273, 16, writer.put(data)), (277, 3, 3), (278, 4, height),
            (279, 4, len(data)), (284, 3, 1), (530, 3, [2, 2]),
        ]
    )  # fmt: skip

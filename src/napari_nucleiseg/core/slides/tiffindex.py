"""The chain of a TIFF's directories, followed without its library to see whether the file ends before it does."""

from __future__ import annotations

import struct

from napari_nucleiseg.core.slides.bytesource import ByteSource

MAGICS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# Bytes of: the header, the number of entries, one entry, the offset of the next directory.
_CLASSIC, _BIG = (8, 2, 12, 4), (16, 8, 20, 8)
_CODES = {2: "H", 4: "I", 8: "Q"}
_MOST_DIRECTORIES = 1000


def directories_before_end(source: ByteSource) -> int | None:
    """Return how many directories are whole before the file ends in the midst of them; None if it does not.

    Parameters
    ----------
    source : ByteSource
        What is no TIFF by its first bytes has no directories to miss; of very many the first are looked at.
    """
    head = source.read(0, 4)
    if head not in MAGICS:
        return None
    order = ">" if head.startswith(b"M") else "<"
    header, count_size, entry_size, offset_size = _BIG if b"+" in head else _CLASSIC
    size, place = source.size, header - offset_size
    for number in range(_MOST_DIRECTORIES):
        offset = _number(source, place, offset_size, order)
        if offset == 0:
            return None
        entries = None if offset is None else _number(source, offset, count_size, order)
        if offset is None or entries is None or offset + count_size + entries * entry_size > size:
            return number
        place = offset + count_size + entries * entry_size
    return None


def _number(source: ByteSource, offset: int, size: int, order: str) -> int | None:
    data = source.read(offset, size)
    return int(struct.unpack(order + _CODES[size], data)[0]) if len(data) == size else None

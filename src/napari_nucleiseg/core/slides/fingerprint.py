"""A short content hash that identifies a slide wherever it lies."""

from __future__ import annotations

import hashlib
import os
from contextlib import closing
from pathlib import Path

from napari_nucleiseg.core.slides.bytesource import ByteSource, Opener

_ENDS = 64 << 10
_BLOCK = 4 << 10
_BLOCKS = 32
_LEAST_BLOCKS = 4
_LENGTH = 32
_MIDDLE_LENGTH = 16
_MOST_FILES = 4096
_MOST_LARGE_FILES = 32
_GOLDEN = 0.618033988749895


def fingerprint(path: str, opener: Opener | None = None) -> str:
    """Return 32 or 48 hexadecimal digits from the size and parts of a file, or the files of a folder.

    Reading a whole slide for a hash would take minutes. The last 32 digits stand for the size and both ends, or names,
    sizes and small files of a folder: they hold metadata and index, which differ between any two scans. Pictures that
    are not compressed have none and often a white margin, so 16 digits go before them: of small blocks from all over a
    file of more than 128 KiB, or the larger files of a folder. Results of former versions name the last 32 alone; see
    `is_same`.

    Parameters
    ----------
    path : str
        File, folder, or address that `opener` opens.

    Raises
    ------
    SlideError
        If it cannot be read.
    """
    ends, middle = hashlib.sha256(), hashlib.sha256()
    if opener is None and Path(path).is_dir():
        has_middle = _add_folder(ends, middle, Path(path))
    else:
        with closing(ByteSource(path, opener)) as source:
            size = source.size
            ends.update(str(size).encode())
            ends.update(source.read(0, _ENDS))
            ends.update(source.read(max(0, size - _ENDS), _ENDS))
            has_middle = size > 2 * _ENDS
            if has_middle:
                _add_blocks(middle, source, _ENDS, size - _ENDS, _BLOCKS)
    return middle.hexdigest()[:_MIDDLE_LENGTH] * has_middle + ends.hexdigest()[:_LENGTH]


def former(fingerprint: str) -> str:
    """Return what former versions gave for the same slide."""
    return fingerprint[-_LENGTH:] if len(fingerprint) == _MIDDLE_LENGTH + _LENGTH else fingerprint


def is_same(one: str, other: str) -> bool:
    """Whether two fingerprints are known and those of one slide, also where a former version gave one of them."""
    return bool(one and other) and (one == other or former(one) == other or one == former(other))


def _add_folder(ends: hashlib._Hash, middle: hashlib._Hash, folder: Path) -> bool:
    """Add the files of a folder; return whether there are large ones, of which only parts are read."""
    large: list[Path] = []
    for file in _files(folder):
        size = file.stat().st_size
        ends.update(f"{file.relative_to(folder).as_posix()} {size}\n".encode())
        if size <= _ENDS:
            ends.update(file.read_bytes())
        else:
            large.append(file)
    chosen = [large[place] for place in _spread(len(large), _MOST_LARGE_FILES)]
    for file in chosen:
        with closing(ByteSource(str(file))) as source:
            _add_blocks(middle, source, 0, source.size, max(_BLOCKS // len(chosen), _LEAST_BLOCKS))
    return bool(chosen)


def _add_blocks(digest: hashlib._Hash, source: ByteSource, start: int, stop: int, count: int) -> None:
    for place in _spread(max(stop - start - _BLOCK, 1), count):
        digest.update(source.read(start + place, _BLOCK))


def _spread(length: int, count: int) -> list[int]:
    """Return up to `count` numbers below `length`, spread evenly but not in step with the rows of a picture."""
    count = min(count, length)
    return [int((place + place * _GOLDEN % 1) * length / count) for place in range(count)]


def _files(folder: Path) -> list[Path]:
    """Return the first files of a folder in a fixed order, depth first."""
    found: list[Path] = []
    for parent, folders, names in os.walk(folder):
        folders.sort()
        found.extend(Path(parent) / name for name in sorted(names))
        if len(found) >= _MOST_FILES:
            break
    return found[:_MOST_FILES]

"""A short content hash that identifies a slide wherever it lies."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Iterable
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
# What systems leave in folders that somebody looked into, and what programs put beside the levels of an OME-Zarr image.
_STRAYS = frozenset({".DS_Store", "Thumbs.db", "desktop.ini"})
_STRAY_PREFIX = "._"
_BESIDE_PICTURE = frozenset({"labels", "tables", "shapes", "points"})
# What former versions, which took them for parts of the slide, or another file for its first, gave for slides that were
# opened since.
_GIVEN_BEFORE: dict[str, frozenset[str]] = {}


def fingerprint(path: str, opener: Opener | None = None) -> str:
    """Return 32 or 48 hexadecimal digits from the size and parts of a file, or the files of a folder.

    Reading a whole slide for a hash would take minutes. The last 32 digits stand for the size and both ends, or names,
    sizes and small files of a folder: they hold metadata and index, which differ between any two scans. Pictures that
    are not compressed have none and often a white margin, so 16 digits go before them: of small blocks from all over a
    file of more than 128 KiB, or the larger files of a folder. What systems leave in a folder does not count, nor do
    labels and tables in an OME-Zarr image. Results of former versions name the last 32 alone; see `is_same`.

    Parameters
    ----------
    path : str
        File, folder, or address that `opener` opens.

    Raises
    ------
    SlideError
        If it cannot be read.
    """
    if opener is None and Path(path).is_dir():
        files, is_all = _files(Path(path))
        found = _of_folder(Path(path), files)
        if not is_all:
            note_given_before(found, [_of_folder(Path(path), _files(Path(path), everything=True)[0])])
        return found
    ends, middle = hashlib.sha256(), hashlib.sha256()
    with closing(ByteSource(path, opener)) as source:
        size = source.size
        ends.update(str(size).encode())
        ends.update(source.read(0, _ENDS))
        ends.update(source.read(max(0, size - _ENDS), _ENDS))
        has_middle = size > 2 * _ENDS
        if has_middle:
            _add_blocks(middle, source, _ENDS, size - _ENDS, _BLOCKS)
    return _joined(ends, middle, has_middle=has_middle)


def former(fingerprint: str) -> str:
    """Return what former versions gave for the same slide."""
    return fingerprint[-_LENGTH:] if len(fingerprint) == _MIDDLE_LENGTH + _LENGTH else fingerprint


def note_given_before(fingerprint: str, others: Iterable[str]) -> None:
    """Note what former versions gave for a slide that is open now, so that `is_same` knows it."""
    _GIVEN_BEFORE[fingerprint] = frozenset(others)


def is_same(one: str, other: str) -> bool:
    """Whether two fingerprints are known and those of one slide, also where a former version gave one of them."""
    ones, others = ({name, *_GIVEN_BEFORE.get(name, ())} for name in (one, other))
    pairs = itertools.product(ones, others)
    return bool(one and other) and any(a == b or former(a) == b or a == former(b) for a, b in pairs)


def _of_folder(folder: Path, files: Iterable[Path]) -> str:
    """Return the fingerprint of files of a folder; of large ones only parts are read."""
    ends, middle = hashlib.sha256(), hashlib.sha256()
    large: list[Path] = []
    for file in files:
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
    return _joined(ends, middle, has_middle=bool(chosen))


def _joined(ends: hashlib._Hash, middle: hashlib._Hash, *, has_middle: bool) -> str:
    return middle.hexdigest()[:_MIDDLE_LENGTH] * has_middle + ends.hexdigest()[:_LENGTH]


def _add_blocks(digest: hashlib._Hash, source: ByteSource, start: int, stop: int, count: int) -> None:
    for place in _spread(max(stop - start - _BLOCK, 1), count):
        digest.update(source.read(start + place, _BLOCK))


def _spread(length: int, count: int) -> list[int]:
    """Return up to `count` numbers below `length`, spread evenly but not in step with the rows of a picture."""
    count = min(count, length)
    return [int((place + place * _GOLDEN % 1) * length / count) for place in range(count)]


def _files(folder: Path, *, everything: bool = False) -> tuple[list[Path], bool]:
    """Return the first files of a folder in a fixed order, depth first, and whether none was passed over.

    Parameters
    ----------
    folder : Path
        To look through.
    everything : bool
        Whether to pass over nothing.
    """
    found: list[Path] = []
    is_all = True
    for parent, folders, names in os.walk(folder):
        counted, entered = names, folders
        if not everything:
            counted = [name for name in names if name not in _STRAYS and not name.startswith(_STRAY_PREFIX)]
            entered = [name for name in folders if not _is_beside_picture(Path(parent) / name)]
        is_all &= len(counted) == len(names) and len(entered) == len(folders)
        found.extend(Path(parent) / name for name in sorted(counted))
        folders[:] = sorted(entered)
        if len(found) >= _MOST_FILES:
            break
    return found[:_MOST_FILES], is_all


def _is_beside_picture(folder: Path) -> bool:
    """Whether a folder is in a Zarr group by the name of what is no picture, and is no array that has this name."""
    return folder.name in _BESIDE_PICTURE and _kind_of(folder.parent) == "group" and _kind_of(folder) != "array"


def _kind_of(folder: Path) -> str:
    """Return what a folder is to Zarr: group or array; empty if it does not say."""
    for kind in ("group", "array"):
        if (folder / f".z{kind}").is_file():
            return kind
    try:
        return str(json.loads((folder / "zarr.json").read_text(encoding="utf-8")).get("node_type"))
    except (OSError, ValueError, AttributeError):
        return ""

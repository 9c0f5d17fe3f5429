"""A short content hash that identifies a slide wherever it lies."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from napari_nucleiseg.core.slides.bytesource import ByteSource, Opener

_ENDS = 64 << 10
_LENGTH = 32
_MOST_FILES = 4096


def fingerprint(path: str, opener: Opener | None = None) -> str:
    """Return 32 hexadecimal digits from the size and both ends of a file, or the files of a folder.

    Reading a whole slide for a hash would take minutes; the ends hold its metadata and index,
    which differ between any two scans.

    Parameters
    ----------
    path : str
        File, folder, or address that `opener` opens.

    Raises
    ------
    SlideError
        If it cannot be read.
    """
    digest = hashlib.sha256()
    folder = Path(path)
    if opener is None and folder.is_dir():
        for file in _files(folder):
            digest.update(f"{file.relative_to(folder).as_posix()} {file.stat().st_size}\n".encode())
            if file.stat().st_size <= _ENDS:
                digest.update(file.read_bytes())
    else:
        _add_ends(digest, path, opener)
    return digest.hexdigest()[:_LENGTH]


def _add_ends(digest: hashlib._Hash, path: str, opener: Opener | None) -> None:
    source = ByteSource(path, opener)
    size = source.size
    digest.update(str(size).encode())
    digest.update(source.read(0, _ENDS))
    digest.update(source.read(max(0, size - _ENDS), _ENDS))
    source.close()


def _files(folder: Path) -> list[Path]:
    """Return the first files of a folder in a fixed order, depth first."""
    found: list[Path] = []
    for parent, folders, names in os.walk(folder):
        folders.sort()
        found.extend(Path(parent) / name for name in sorted(names))
        if len(found) >= _MOST_FILES:
            break
    return found[:_MOST_FILES]

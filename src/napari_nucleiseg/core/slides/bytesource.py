"""Bytes of a file at an offset, from many threads at a time."""

from __future__ import annotations

import os
import re
import threading
import weakref
from collections.abc import Callable
from typing import IO, Any

from napari_nucleiseg.core.errors import SlideError

Opener = Callable[[str], Any]
"""Opens a path (or an address) as a seekable binary file; ``fsspec.open`` is one."""

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")  # more letters than a drive has on Windows


def open_binary(path: str, opener: Opener | None) -> IO[bytes]:
    """Open `path` for reading.

    Raises
    ------
    SlideError
        If it is missing or may not be read.
    """
    try:
        if opener is None:
            return open(path, "rb", buffering=0)  # noqa: PTH123 - handed to the caller
        opened = opener(path)
        return opened if hasattr(opened, "read") else opened.open()  # type: ignore[no-any-return]
    except FileNotFoundError:
        raise SlideError(f"{path} does not exist; check the name, and that its drive is connected.") from None
    except PermissionError:
        raise SlideError(f"{path} may not be read; ask for the permission or copy it elsewhere.") from None
    except OSError as error:
        raise SlideError(f"{path} cannot be opened: {error.strerror or error}.") from error


def is_address(path: str) -> bool:
    """Whether `path` is an address, such as ``https://example.org/slide.svs``, and names nothing on a disk."""
    return _SCHEME.match(path) is not None


def is_local_file(path: str) -> bool:
    """Whether `path` names a file of this computer; never raises."""
    try:
        return os.path.isfile(path)  # noqa: PTH113 - addresses are no paths
    except ValueError:  # a null byte
        return False


class ByteSource:
    """Random access to one file: ``pread`` for local files, a locked seek and read otherwise.

    Parameters
    ----------
    path : str
        File or address.
    opener : callable, optional
        Opens addresses that are no local files.
    """

    def __init__(self, path: str, opener: Opener | None = None) -> None:
        self._path = path
        file = open_binary(path, opener)
        self._file: IO[bytes] | None = file
        # A slide that is dropped without `close` gives its file back too.
        self._release = weakref.finalize(self, file.close)
        self._lock = threading.Lock()
        self._descriptor = self._file.fileno() if opener is None and hasattr(os, "pread") else None

    @property
    def path(self) -> str:
        """Where the bytes come from."""
        return self._path

    @property
    def size(self) -> int:
        """Bytes of the file."""
        with self._lock:
            if self._file is None:
                raise SlideError(f"{self._path} was closed; open it again.")
            return self._file.seek(0, os.SEEK_END)

    def read(self, offset: int, size: int) -> bytes:
        """Return `size` bytes at `offset`; fewer where the file ends before.

        Raises
        ------
        SlideError
            If the file cannot be read any more.
        """
        try:
            data = self._read_once(offset, size)
            while 0 < len(data) < size:
                more = self._read_once(offset + len(data), size - len(data))
                if not more:
                    break
                data += more
        except (OSError, ValueError) as error:
            raise SlideError(
                f"{self._path} can no longer be read ({error}); check that its drive is connected and open it again."
            ) from error
        return data

    def close(self) -> None:
        """Release the file."""
        self._file, self._descriptor = None, None
        self._release()

    def _read_once(self, offset: int, size: int) -> bytes:
        descriptor = self._descriptor
        if descriptor is not None:
            return os.pread(descriptor, size, offset)
        with self._lock:
            if self._file is None:
                raise ValueError("it was closed")
            self._file.seek(offset)
            return self._file.read(size)

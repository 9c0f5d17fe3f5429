"""Chunk files: their bytes, written as a whole or not at all, and made to outlive a power cut."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

ZSTD_LEVEL = 1
FEW_FILES = 8
PAUSES_S = (0.005, 0.02, 0.1)
# On Windows a file is text unless this says otherwise.
BINARY = getattr(os, "O_BINARY", 0)


def encode_chunk(chunk: NDArray[Any]) -> bytes:
    """Return the bytes of a zarr v3 chunk (codecs ``bytes`` little endian, ``zstd``)."""
    little = np.ascontiguousarray(chunk, dtype=chunk.dtype.newbyteorder("<"))
    return bytes(imagecodecs.zstd_encode(little, ZSTD_LEVEL))  # type: ignore[arg-type]  # any buffer will do


def decode_chunk(data: bytes, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return the chunk, C order, writable.

    Raises
    ------
    ValueError
        If the bytes are not a whole chunk of that shape.
    """
    chunk = np.empty(shape, dtype.newbyteorder("<"))
    try:
        raw = imagecodecs.zstd_decode(data, out=chunk.nbytes)
    except (imagecodecs.ZstdError, RuntimeError) as error:
        raise ValueError(f"not a zstd chunk: {error}") from error
    chunk[...] = np.frombuffer(raw, chunk.dtype).reshape(shape)
    return chunk.astype(dtype, copy=False)


def read_file(path: str) -> bytes | None:
    """Return the bytes of a file; None if there is none."""
    try:
        handle = os.open(path, os.O_RDONLY | BINARY)
    except FileNotFoundError:
        return None
    try:
        size = os.fstat(handle).st_size
        data = os.read(handle, size)
        while len(data) < size and (more := os.read(handle, size - len(data))):
            data += more
    finally:
        os.close(handle)
    return data


def write_file(path: str, data: bytes, scratch: str) -> None:
    """Write a file that is either there as a whole or not at all; `scratch` is a folder on the same disk."""
    # Threads of two processes may bear the same number.
    name = f"{os.getpid()}-{threading.get_ident()}.part"
    temporary = os.path.join(scratch, name)  # noqa: PTH118  # a path object costs more
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | BINARY, 0o644)
        try:
            done = os.write(handle, data)
            while done < len(data):
                done += os.write(handle, data[done:])
        finally:
            os.close(handle)
        try:
            _replace(temporary, path)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120
            _replace(temporary, path)
    except OSError:
        remove_file(temporary)
        raise


def _replace(source: str, target: str) -> None:
    for pause_s in PAUSES_S:
        try:
            os.replace(source, target)  # noqa: PTH105
        except PermissionError:
            # On Windows a file cannot be replaced while somebody reads it; that is soon over.
            time.sleep(pause_s)
        else:
            return
    os.replace(source, target)  # noqa: PTH105


def remove_file(path: str) -> None:
    """Remove a file if it is there."""
    with suppress(FileNotFoundError):
        os.unlink(path)  # noqa: PTH108


def sync_files(paths: Iterable[str]) -> None:
    """Make sure that files (or their removal) would outlive a power cut."""
    every = list(paths)
    if len(every) > FEW_FILES and hasattr(os, "sync"):
        # Every single fsync waits for the disk; one for all is cheaper although it includes others' files.
        os.sync()
        return
    for path in every:
        _sync(path, os.O_RDWR | BINARY)
    if os.name == "posix":
        for folder in {os.path.dirname(path) for path in every}:  # noqa: PTH120
            _sync(folder, os.O_RDONLY)


def _sync(path: str, flags: int) -> None:
    with suppress(FileNotFoundError):
        handle = os.open(path, flags)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

"""Changed pixels as journal and notes hold them: nothing for background, runs of new nuclei, else compressed ids."""

from __future__ import annotations

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.store.files import ZSTD_LEVEL, decode_chunk, encode_chunk

Ids = NDArray[np.uint32]

# Compressed ids begin with another byte, that of every zstd frame.
_RUNS = b"R"
_RUN_BYTES = 12
# Runs are kept where they take so many times fewer bytes than the pixels, before either is compressed.
_FEWER = 4


def encode_pixels(image: Ids) -> bytes:
    """Return ids ``(y, x)`` as bytes, as runs where there are few; none if all are background."""
    flat = image.reshape(-1)
    begins = np.append(0, np.flatnonzero(flat[1:] != flat[:-1]) + 1)
    if len(begins) * _RUN_BYTES * _FEWER > image.nbytes:
        return encode_chunk(image) if image.any() else b""
    ids = flat.take(begins)
    shown = np.flatnonzero(ids)
    if not len(shown):
        return b""
    lengths = np.diff(begins, append=flat.size)
    return encode_runs(begins.take(shown), lengths.take(shown), ids.take(shown))


def encode_runs(begins: NDArray[np.int64], lengths: NDArray[np.int64], ids: Ids) -> bytes:
    """Return an image that is background but for some runs; much quicker than to search it for them.

    Parameters
    ----------
    begins, lengths : ndarray of int64, shape (n,)
        First pixel of each run as an index into the flat image, below 2**31, and how many there are.
    ids : ndarray of uint32, shape (n,)
        What they show.
    """
    # What comes after the run before is a small number, or the same as often before.
    steps = np.diff(begins, prepend=0).astype("<i4")
    columns = steps.tobytes() + lengths.astype("<i4").tobytes() + ids.astype("<u4").tobytes()
    return _RUNS + bytes(imagecodecs.zstd_encode(columns, ZSTD_LEVEL))


def decode_pixels(data: bytes, shape: tuple[int, int]) -> Ids:
    """Return ids ``(y, x)``, writable.

    Raises
    ------
    ValueError
        If the bytes are no image of that shape.
    """
    if data[:1] not in {b"", _RUNS}:
        return decode_chunk(data, shape, np.dtype(np.uint32))
    image = np.zeros(shape, np.uint32)
    if data:
        _show_runs(image.reshape(-1), data[len(_RUNS) :])
    return image


def _show_runs(flat: Ids, data: bytes) -> None:
    try:
        columns = bytes(imagecodecs.zstd_decode(data))
    except (imagecodecs.ZstdError, RuntimeError) as error:
        raise ValueError(f"no runs: {error}") from error
    n = len(columns) // _RUN_BYTES
    begins = np.cumsum(np.frombuffer(columns, "<i4", n), dtype=np.int64)
    lengths = np.frombuffer(columns, "<i4", n, 4 * n).astype(np.int64)
    if n * _RUN_BYTES != len(columns) or (n and (begins.min() < 0 or (begins + lengths).max() > len(flat))):
        raise ValueError("runs leave the image")
    ends = np.cumsum(lengths)
    places = np.arange(int(ends[-1]) if n else 0) + np.repeat(begins - (ends - lengths), lengths)
    flat[places] = np.repeat(np.frombuffer(columns, "<u4", n, 8 * n), lengths)

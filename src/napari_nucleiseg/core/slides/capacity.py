"""Whether an image that must be decoded in one piece fits into this computer's memory."""

from __future__ import annotations

import os

from napari_nucleiseg.core.errors import SlideError

_LARGEST_SHARE = 0.5
_ASSUMED_BYTES = 8 << 30


def require_memory(path: str, shape: tuple[int, int]) -> None:
    """Refuse what does not fit before it is decoded.

    Parameters
    ----------
    path : str
        For the message.
    shape : tuple of int
        ``(height, width)`` in pixels; 3 bytes each.

    Raises
    ------
    SlideError
        If it would take more than half of the memory.
    """
    height, width = shape
    need, have = height * width * 3, memory_bytes()
    if need > have * _LARGEST_SHARE:
        raise SlideError(
            f"{path} is {height} x {width} px, {need / 2**30:.1f} GiB once decoded, too much for the "
            f"{have / 2**30:.0f} GiB of this computer; save it as a tiled pyramid (TIFF, OME-Zarr) and open that."
        )


def memory_bytes() -> int:
    """Return the bytes of memory of this computer; a guess where it does not say (Windows)."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return _ASSUMED_BYTES

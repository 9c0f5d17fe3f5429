"""Plain pictures (PNG, JPEG, BMP, JPEG 2000, WebP): decoded once, the pyramid is made on the fly."""

from __future__ import annotations

import re
import struct
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.errors import SlideError, UnsupportedImageError
from napari_nucleiseg.core.geometry import YX
from napari_nucleiseg.core.slides.bytesource import Opener, is_local_file, open_binary
from napari_nucleiseg.core.slides.capacity import require_memory
from napari_nucleiseg.core.slides.openslide import SUFFIXES as NEEDS_OPENSLIDE
from napari_nucleiseg.core.slides.pyramid import Slide, UInt8Image
from napari_nucleiseg.core.slides.samples import SampleFormat, to_rgb

SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".jp2", ".j2k", ".webp")

_DECODERS = {
    b"\x89PNG\r\n\x1a\n": ("PNG", "png_decode"),
    b"\xff\xd8\xff": ("JPEG", "jpeg_decode"),
    b"BM": ("BMP", "bmp_decode"),
    b"\0\0\0\x0cjP  ": ("JPEG 2000", "jpeg2k_decode"),
    b"\xff\x4f\xff\x51": ("JPEG 2000", "jpeg2k_decode"),
}
_JPEG_FRAME = re.compile(rb"\xff[\xc0-\xc3\xc5-\xc7\xc9-\xcb\xcd-\xcf]\0[\x0b-\x20]\x08(.{4})", re.DOTALL)
_JPEG2000_SIZE = b"\xff\x4f\xff\x51"
_DECODE_ERRORS = (RuntimeError, ValueError, TypeError, MemoryError)


def matches(path: str) -> bool:
    """Whether `path` is a picture by its first bytes, or, where it is no local file, by its name."""
    if path.lower().endswith(NEEDS_OPENSLIDE):
        return False  # the file of an MRXS slide is a JPEG of its thumbnail
    if not is_local_file(path):
        return path.lower().endswith(SUFFIXES)
    try:
        with open_binary(path, None) as file:
            return _kind(file.read(16)) is not None
    except (SlideError, OSError):
        return False


def read(path: str, mpp_um: YX | None = None, opener: Opener | None = None) -> Slide:
    """Decode a picture.

    Parameters
    ----------
    path : str
        File, or address that `opener` opens.
    mpp_um : YX, optional
        Micrometres per pixel; pictures do not state it in a way to be believed.
    opener : callable, optional
        Opens an address as a seekable binary file.

    Raises
    ------
    SlideError
        If it is damaged or gone, or does not fit in memory.
    UnsupportedImageError
        If it is none that can be shown as RGB.
    """
    try:
        with open_binary(path, opener) as file:
            data = file.read()
    except OSError as error:
        raise SlideError(f"{path} cannot be read ({error}); check that its drive is connected.") from error
    kind = _kind(data[:16])
    if kind is None:
        raise SlideError(f"{path} is no picture of a kind that can be read; save it as PNG, JPEG or TIFF.")
    name, decoder = kind
    require_memory(path, _stated_shape(data))
    if name == "JPEG" and data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda"):
        # libjpeg would paint the missing rest in one colour and say nothing.
        raise SlideError(f"{path} is a damaged JPEG (it ends too early); copy it again.")
    try:
        image = np.asarray(getattr(imagecodecs, decoder)(data))
    except _DECODE_ERRORS as error:
        raise SlideError(f"{path} is a damaged {name} ({error}); copy it again.") from error
    return Slide(
        path=path,
        levels=(_as_rgb(path, name, image),),
        downsamples=(YX(1.0, 1.0),),
        mpp_um=mpp_um,
        vendor=name,
        reader="picture",
    )


def _kind(head: bytes) -> tuple[str, str] | None:
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP", "webp_decode"
    return next((kind for magic, kind in _DECODERS.items() if head.startswith(magic)), None)


def _as_rgb(path: str, name: str, image: NDArray[Any]) -> UInt8Image:
    if image.dtype == np.bool_:
        image = image.astype(np.uint8) * 255
    image = image[..., None] if image.ndim == 2 else image
    if image.ndim != 3 or image.shape[2] > 4 or image.size == 0:
        raise UnsupportedImageError(f"{path} cannot be used: it is no colour or grey picture.")
    samples = image.shape[2]
    if samples == 4 and name == "JPEG":
        raise UnsupportedImageError(f"{path} cannot be used: it is in CMYK colours; save it as RGB and open that.")
    form = SampleFormat(
        samples,
        np.dtype(image.dtype),
        "rgb" if samples >= 3 else "grey",
        "straight" if samples in (2, 4) else "none",
    )
    form = form.with_range(float(image[..., : form.colour_samples].max()), float(image.max()))
    rgb = image if form.is_rgb else to_rgb(image, form)
    rgb.flags.writeable = False
    return rgb


def _stated_shape(data: bytes) -> tuple[int, int]:
    """Return the ``(height, width)`` that a picture's header states; (0, 0) where it is not found."""
    if data.startswith(b"\x89PNG"):
        width, height = struct.unpack_from(">II", data, 16) if len(data) >= 24 else (0, 0)
    elif data.startswith(b"BM"):
        width, height = struct.unpack_from("<ii", data, 18) if len(data) >= 26 else (0, 0)
    elif data.startswith(b"\xff\xd8"):
        # A frame header: mark, length, precision, height, width.
        frame = _JPEG_FRAME.search(data)
        height, width = struct.unpack(">HH", frame[1]) if frame else (0, 0)
    else:
        start = data[: 64 << 10].find(_JPEG2000_SIZE)
        width, height = struct.unpack_from(">II", data, start + 8) if 0 <= start < len(data) - 16 else (0, 0)
    return abs(height), abs(width)

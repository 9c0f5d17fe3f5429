"""What a worker is told about a slide and a model: small, picklable, the same for every task of a slide."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import imagecodecs
import numpy as np

from napari_nucleiseg.core.decoders.base import DecodeOptions
from napari_nucleiseg.core.geometry import YX
from napari_nucleiseg.core.slides.tissue import TissueMask


@dataclass(frozen=True, slots=True)
class ModelOrder:
    """Which model to load.

    Parameters
    ----------
    name : str
        Of the weights, or a weight file.
    version : str
        What it must turn out to be.
    accept_licence : bool
        Whether a restrictive licence was accepted.
    thorough : bool
        Whether it looks in eight positions.
    ignore_brown : bool
        Whether it does not see DAB.
    tau : float or None
        Level of attention to set; None leaves it as it is.
    """

    name: str
    version: str
    accept_licence: bool = False
    thorough: bool = False
    ignore_brown: bool = False
    tau: float | None = None


@dataclass(frozen=True, slots=True)
class SlideOrder:
    """What all tasks of a slide share.

    Parameters
    ----------
    path : str
        Of the slide.
    mpp_um : float or None
        Given micrometres per pixel.
    stem : str
        Name of its results.
    folder : str
        Project folder, as workers see it.
    out : str
        Folder for what is written beside.
    model : ModelOrder
        Which model.
    options : DecodeOptions
        Threshold and smallest area.
    key : str
        Of the parcels: all that decides what nuclei come out; empty as long as the slide is not prepared.
    device : str
        Where a worker has none of its own.
    batch_size : int or None
        Tiles forwarded together.
    tissue_mask, slide_level : bool
        Whether glass is left out, and whether the slide's own level of attention is wanted.
    """

    path: str
    mpp_um: float | None
    stem: str
    folder: str
    out: str
    model: ModelOrder
    options: DecodeOptions
    key: str = ""
    device: str = "auto"
    batch_size: int | None = None
    tissue_mask: bool = True
    slide_level: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """What a worker found out about a slide before its nuclei.

    Parameters
    ----------
    fingerprint : str
        Of its content.
    shape : tuple of int
        ``(height, width)``, level-0 pixels.
    mpp_um : YX
        Micrometres per pixel.
    tissue : bytes
        Packed mask, see `unpack_tissue`; empty: all of the slide.
    tissue_shape : tuple of int
        Of the mask.
    tissue_step : YX
        Level-0 pixels per pixel of the mask.
    tau : float or None
        The slide's level of attention, if it was wanted.
    facts : dict
        For the summary: vendor, objective, sizes.
    notes : tuple of str
        What a person should know.
    """

    fingerprint: str
    shape: tuple[int, int]
    mpp_um: YX
    tissue: bytes = b""
    tissue_shape: tuple[int, int] = (0, 0)
    tissue_step: YX = YX(1.0, 1.0)
    tau: float | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """What became of the tiles of a task; the nuclei are in the parcel.

    Parameters
    ----------
    parcel : str
        File; empty if no tile could be done.
    tiles, nuclei : int
        Done and found.
    skipped : dict of int to str
        Tiles that could not be done, and why.
    notes : tuple of str
        What was wrong with parts of tiles, or with the device.
    seconds : float
        Wall clock.
    worker_bytes : int
        Memory of the worker's process after the task.
    """

    parcel: str
    tiles: int
    nuclei: int
    skipped: dict[int, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    worker_bytes: int = 0


def pack_tissue(mask: TissueMask) -> tuple[bytes, tuple[int, int], YX]:
    """Return a tissue mask as some kilobytes, its shape and its step."""
    packed = bytes(imagecodecs.zstd_encode(np.packbits(mask.mask).tobytes()))
    return packed, (int(mask.mask.shape[0]), int(mask.mask.shape[1])), mask.downsample


def unpack_tissue(prepared: Prepared) -> TissueMask | None:
    """Return the tissue mask of a prepared slide; None if all of it is to be computed."""
    if not prepared.tissue:
        return None
    height, width = prepared.tissue_shape
    bits = np.frombuffer(bytes(imagecodecs.zstd_decode(prepared.tissue)), np.uint8)
    return TissueMask(
        np.unpackbits(bits, count=height * width).reshape(height, width).astype(bool), prepared.tissue_step
    )

"""Label TIFF of a z-stack: int32 ids, a compressed plane each, with the voxel size as OME metadata."""

from __future__ import annotations

import os

import numpy as np
import tifffile
from numpy.typing import NDArray

from napari_nucleiseg.core.errors import ExportError
from napari_nucleiseg.core.exchange.whole_file import whole_path
from napari_nucleiseg.core.geometry import ZYX

_BIG_BYTES = 2**32 - 2**25


def write_stack_labels(path: str | os.PathLike[str], labels: NDArray[np.int32], voxel_um: ZYX | None) -> None:
    """Write the nuclei of a stack as an OME-TIFF.

    Parameters
    ----------
    path : path
        File to write; replaced only when it is complete.
    labels : ndarray of int32, shape (z, y, x)
        0 is background.
    voxel_um : ZYX or None
        Micrometres per voxel; None where it is not known.

    Raises
    ------
    ExportError
        If these are no labels of a stack, or the file cannot be written.
    """
    if labels.ndim != 3 or labels.dtype.kind not in "iu":
        raise ExportError(f"labels of a stack are whole numbers (z, y, x), not {labels.dtype} of shape {labels.shape}")
    metadata: dict[str, object] = {"axes": "ZYX"}
    if voxel_um is not None:
        for axis, side in zip("ZYX", voxel_um, strict=True):
            metadata |= {f"PhysicalSize{axis}": side, f"PhysicalSize{axis}Unit": "µm"}
    with (
        whole_path(path) as partial,
        tifffile.TiffWriter(partial, bigtiff=labels.nbytes > _BIG_BYTES, ome=True) as tiff,
    ):
        tiff.write(
            (np.ascontiguousarray(plane, np.int32) for plane in labels),
            shape=labels.shape,
            dtype=np.int32,
            photometric="minisblack",
            compression="zlib",
            metadata=metadata,
        )

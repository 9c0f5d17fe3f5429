"""OME-Zarr 0.5 or 0.4: the label image with its pyramid as a store of its own."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import ZstdCodec

from napari_nucleiseg.core.errors import ExportError
from napari_nucleiseg.core.exchange.marks import holds_labels, is_our_store
from napari_nucleiseg.core.exchange.source import MARK, LabelArray, LabelSource, Progress, block_regions, no_progress
from napari_nucleiseg.core.exchange.whole_file import whole_folder
from napari_nucleiseg.core.geometry import Region

CHUNK_PX = 512
VERSIONS = ("0.5", "0.4")
_STRIDE_PX = 2048


def write_ome_zarr(
    source: LabelSource,
    path: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    is_earlier: bool = False,
    version: str = "0.5",
    on_progress: Progress = no_progress,
) -> None:
    """Copy all levels into a new OME-Zarr store with the metadata of a label image.

    Parameters
    ----------
    source : LabelSource
        Nuclei; read block by block. Empty blocks take no space.
    path : path
        Folder to make.
    overwrite : bool
        Whether to replace an earlier export that is there already; anything else is never replaced.
    is_earlier : bool
        Whether labels that are there are known for an earlier export, also if they do not say so of themselves.
    version : {"0.5", "0.4"}
        Of OME-Zarr; 0.4 (Zarr 2) is what older programs read.
    on_progress : callable
        Called with blocks done and in all.

    Raises
    ------
    ExportError
        If the folder exists and may not be replaced, or cannot be written.
    """
    if version not in VERSIONS:
        raise ExportError(f"OME-Zarr {version} is not written; choose one of {', '.join(VERSIONS)}")

    def may_replace(target: Path) -> bool:
        return overwrite and (is_our_store(target) or (is_earlier and holds_labels(target)))

    with whole_folder(path, may_replace) as partial:
        _write(source, partial, version, on_progress)


def _write(source: LabelSource, folder: Path, version: str, on_progress: Progress) -> None:
    ome = _ome(source, version)
    root = (
        zarr.create_group(str(folder), zarr_format=3, attributes={"ome": {"version": version, **ome}, **MARK})
        if version == "0.5"
        else zarr.create_group(str(folder), zarr_format=2, attributes={**ome, **MARK})
    )
    blocks = [
        (number, region)
        for number, level in enumerate(source.levels)
        for region in block_regions(Region(0, 0, *level.shape[:2]), _STRIDE_PX)
    ]
    arrays = [_create(root, number, level) for number, level in enumerate(source.levels)]
    for done, (number, region) in enumerate(blocks, start=1):
        part = np.asarray(source.levels[number][region.slices], np.uint32)
        if part.any():
            arrays[number][region.slices] = part
        on_progress(done, len(blocks))


def _create(root: zarr.Group, number: int, level: LabelArray) -> zarr.Array[Any]:
    height, width = level.shape[:2]
    newer = root.metadata.zarr_format == 3
    compressors: Any = ZstdCodec(level=3) if newer else {"id": "zstd", "level": 3}
    return root.create_array(
        str(number),
        shape=(height, width),
        chunks=(min(CHUNK_PX, height), min(CHUNK_PX, width)),
        dtype="uint32",
        fill_value=0,
        compressors=compressors,
        dimension_names=("y", "x") if newer else None,
        # Readers of 0.4 look for chunks in folders.
        chunk_key_encoding=None if newer else {"name": "v2", "separator": "/"},
        config={"write_empty_chunks": False},
    )


def _ome(source: LabelSource, version: str) -> dict[str, object]:
    """Return the metadata of a label image; levels share their top-left corner."""
    height, width = source.levels[0].shape[:2]
    datasets = []
    for number, level in enumerate(source.levels):
        fy, fx = 2**number, 2**number
        if number and level.shape[:2] not in {(-(-height // fy), -(-width // fx)), (height // fy, width // fx)}:
            raise ExportError("the levels of the label image are not halves of each other; export a TIFF instead")
        scale = [source.mpp_um.y * fy, source.mpp_um.x * fx]
        # The centre of a coarse pixel lies further in than that of a fine one.
        shift = [source.mpp_um.y * (fy - 1) / 2, source.mpp_um.x * (fx - 1) / 2]
        transforms = [{"type": "scale", "scale": scale}, {"type": "translation", "translation": shift}]
        datasets.append({"path": str(number), "coordinateTransformations": transforms})
    axes = [{"name": name, "type": "space", "unit": "micrometer"} for name in ("y", "x")]
    stated = {"version": version} if version == "0.4" else {}
    return {
        "multiscales": [{**stated, "name": source.name, "axes": axes, "datasets": datasets}],
        "image-label": {"version": version},
    }

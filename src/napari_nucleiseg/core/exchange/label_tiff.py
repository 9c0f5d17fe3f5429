"""Label TIFF: uint32 ids in compressed tiles, streamed; with a pyramid as OME-TIFF."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import imagecodecs
import numpy as np
import tifffile
from numpy.typing import NDArray

from napari_nucleiseg.core.exchange.source import SOFTWARE, LabelArray, LabelSource, Progress, no_progress
from napari_nucleiseg.core.exchange.whole_file import whole_path

TILE_PX = 512
# A row of tiles is read in strips of this width, so that memory does not grow with the slide.
_STRIP_PX = 16 * TILE_PX
_BIG_BYTES = 2**32 - 2**25
_OME_SUFFIXES = (".ome.tif", ".ome.tiff")


def write_label_tiff(
    source: LabelSource,
    path: str | os.PathLike[str],
    *,
    pyramid: bool | None = None,
    on_progress: Progress = no_progress,
) -> None:
    """Write all ids as a tiled uint32 TIFF; BigTIFF where 4 GiB might not do.

    Parameters
    ----------
    source : LabelSource
        Nuclei; read strip by strip.
    path : path
        File to write; replaced only when the export is complete.
    pyramid : bool, optional
        Whether to add the coarser levels (as SubIFDs of an OME-TIFF, which QuPath and Bio-Formats read); default
        if the name ends in ``.ome.tif``.
    on_progress : callable
        Called with tile rows done and in all.

    Raises
    ------
    ExportError
        If the file cannot be written.
    """
    ome = Path(path).name.lower().endswith(_OME_SUFFIXES)
    levels = source.levels if (ome if pyramid is None else pyramid) else source.levels[:1]
    pixels = sum(int(np.prod(level.shape[:2])) for level in levels)
    rows = sum(-(-level.shape[0] // TILE_PX) for level in levels)
    counter = _RowCounter(rows, on_progress)
    mpp = source.mpp_um
    with whole_path(path) as partial, tifffile.TiffWriter(partial, bigtiff=4 * pixels > _BIG_BYTES, ome=ome) as tiff:
        for number, level in enumerate(levels):
            factor = 2**number
            tiff.write(
                _encoded_tiles(level, counter),
                shape=level.shape[:2],
                dtype=np.uint32,
                tile=(TILE_PX, TILE_PX),
                photometric="minisblack",
                compression="zlib",
                predictor=False,
                resolution=(1e4 / (mpp.x * factor), 1e4 / (mpp.y * factor)),
                resolutionunit="CENTIMETER",
                subifds=len(levels) - 1 if number == 0 else None,
                subfiletype=1 if number else 0,
                metadata=_metadata(source) if number == 0 else None,
                software=SOFTWARE,
            )
    on_progress(rows, rows)


class _RowCounter:
    """Turns rows of tiles of all levels into progress: a row that begins says that those before it are done."""

    def __init__(self, total: int, on_progress: Progress) -> None:
        self._begun, self._total, self._on_progress = 0, total, on_progress

    def begin(self) -> None:
        self._on_progress(self._begun, self._total)
        self._begun += 1


def _metadata(source: LabelSource) -> dict[str, object]:
    return {
        "axes": "YX",
        "Name": source.name,
        "PhysicalSizeX": source.mpp_um.x,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": source.mpp_um.y,
        "PhysicalSizeYUnit": "µm",
    }


def _encoded_tiles(level: LabelArray, counter: _RowCounter) -> Iterator[bytes]:
    """Yield the compressed tiles of a level in file order; the empty tile, of which most are, is made once."""
    height, width = level.shape[:2]
    empty = _compressed(np.zeros((TILE_PX, TILE_PX), np.uint32))
    for y in range(0, height, TILE_PX):
        counter.begin()
        for x in range(0, width, _STRIP_PX):
            strip = np.asarray(level[y : min(y + TILE_PX, height), x : min(x + _STRIP_PX, width)], np.uint32)
            for left in range(0, strip.shape[1], TILE_PX):
                part = strip[:, left : left + TILE_PX]
                if not part.any():
                    yield empty
                    continue
                tile = np.zeros((TILE_PX, TILE_PX), np.uint32)
                tile[: part.shape[0], : part.shape[1]] = part
                yield _compressed(tile)


def _compressed(tile: NDArray[np.uint32]) -> bytes:
    return bytes(imagecodecs.zlib_encode(tile.tobytes(), 4))

"""Label images of other programs, read block by block: OME-Zarr labels 0.4 and 0.5, plain Zarr, and TIFF."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import zarr
from numpy.typing import NDArray
from zarr.errors import BaseZarrError

from napari_nucleiseg.core.errors import ImportFileError
from napari_nucleiseg.core.exchange.source import MARK, SOFTWARE
from napari_nucleiseg.core.geometry import Region

_SEGMENTS_KEPT = 64
_UNREADABLE = (OSError, ValueError, TypeError, KeyError, IndexError, RuntimeError, BaseZarrError)


@dataclass(frozen=True, slots=True, eq=False)
class LabelImage:
    """A label image on disk.

    Parameters
    ----------
    path : str
        Where it lies.
    shape : tuple of int
        ``(height, width)``.
    dtype : dtype
        Integers.
    read : callable
        Returns the ids ``(y, x)`` of a `Region` inside.
    close : callable
        Closes the file.
    is_ours : bool
        Whether an export of ours wrote it, so that its ids are those of a project.
    """

    path: str
    shape: tuple[int, int]
    dtype: np.dtype[Any]
    read: Callable[[Region], NDArray[Any]]
    close: Callable[[], None]
    is_ours: bool = False


def open_labels(path: str | os.PathLike[str], shape: tuple[int, int]) -> LabelImage:
    """Open a label image of a slide.

    Parameters
    ----------
    path : path
        A TIFF, or the folder of an OME-Zarr label image, of an OME-Zarr image with labels, or of a Zarr array.
    shape : tuple of int
        Level-0 ``(height, width)`` of the slide.

    Raises
    ------
    ImportFileError
        If it cannot be read, has another size, or holds something else than whole numbers.
    """
    where = Path(path)
    if not where.exists():
        raise ImportFileError(f"{path} does not exist. Check the name.")
    try:
        image = _open_zarr(where) if where.is_dir() else _open_tiff(where)
    except (*_UNREADABLE, tifffile.TiffFileError) as error:
        raise ImportFileError(f"{path} cannot be read as a label image: {error}") from error
    try:
        _check(image, shape)
    except ImportFileError:
        image.close()
        raise
    return image


def read_block(image: LabelImage, region: Region) -> NDArray[Any]:
    """Read the ids of a region, shape (region.height, region.width).

    Raises
    ------
    ImportFileError
        If the file is damaged there.
    """
    try:
        return image.read(region)
    except _UNREADABLE as error:
        raise ImportFileError(f"{image.path} is damaged near row {region.y}, column {region.x}: {error}") from error


def _check(image: LabelImage, shape: tuple[int, int]) -> None:
    if image.dtype == np.bool_ or not np.issubdtype(image.dtype, np.integer):
        raise ImportFileError(
            f"{image.path} holds pixels of type {image.dtype}; a label image has whole numbers, one for each nucleus. "
            "Label its connected parts first."
        )
    if image.shape != shape:
        raise ImportFileError(
            f"{image.path} has {image.shape[1]:,} x {image.shape[0]:,} pixels but the slide {shape[1]:,} x "
            f"{shape[0]:,}. A label image must have the size of the slide at full resolution."
        )


def _open_zarr(path: Path) -> LabelImage:
    node = zarr.open(str(path), mode="r")
    array = node if isinstance(node, zarr.Array) else _array_of(node)
    if any(length != 1 for length in array.shape[:-2]) or array.ndim < 2:
        raise ImportFileError(f"{path} has the shape {array.shape}; a label image is one plane of height and width.")
    planes: tuple[slice, ...] = (slice(0, 1),) * (array.ndim - 2)

    def read(region: Region) -> NDArray[Any]:
        return np.asarray(array[(*planes, *region.slices)]).reshape(region.height, region.width)

    height, width = (int(length) for length in array.shape[-2:])
    is_ours = MARK.items() <= dict(node.attrs).items()
    return LabelImage(str(path), (height, width), np.dtype(array.dtype), read, lambda: None, is_ours)


def _array_of(group: zarr.Group) -> zarr.Array[Any]:
    """Return the finest level of a group; of an image, of its first labels."""
    attributes: dict[str, Any] = dict(group.attrs)
    stated = attributes.get("ome", attributes)
    names = stated.get("labels") or (_label_names(group) if "image-label" not in stated else None)
    if names:
        parent = group.get("labels", group)
        found = parent[names[0]] if isinstance(parent, zarr.Group) else parent
        if found is not None:
            return _array_of(found) if isinstance(found, zarr.Group) else found
    if "multiscales" not in stated:
        raise ValueError("there is no multiscale image in it")
    level = group[stated["multiscales"][0]["datasets"][0]["path"]]
    if not isinstance(level, zarr.Array):
        raise TypeError("its finest level is no array")
    return level


def _label_names(group: zarr.Group) -> list[str]:
    """Return the names of the labels below an image."""
    if "labels" not in group:
        return []
    attributes: dict[str, Any] = dict(group["labels"].attrs)
    names: list[str] = attributes.get("ome", attributes).get("labels", [])
    return names


def _open_tiff(path: Path) -> LabelImage:
    file = tifffile.TiffFile(path)
    try:
        page = _plane(path, file.series[0].levels[0])
        read = _mapped(path, page) if page.is_memmappable else _segmented(file, page)
        shape = int(page.imagelength), int(page.imagewidth)
        dtype, is_ours = np.dtype(page.dtype or np.float64), page.software == SOFTWARE
        return LabelImage(str(path), shape, dtype, read, file.close, is_ours)
    except BaseException:
        file.close()
        raise


def _plane(path: Path, series: tifffile.TiffPageSeries) -> tifffile.TiffPage:
    """Return the one page of a series."""
    page = series.keyframe
    if len(series.pages) > 1 or page.samplesperpixel != 1 or page.imagedepth != 1:
        raise ImportFileError(f"{path} has the shape {series.shape}; a label image is one plane of one channel.")
    return page


def _mapped(path: Path, page: tifffile.TiffPage) -> Callable[[Region], NDArray[Any]]:
    dtype = np.dtype(page.dtype or np.uint8).newbyteorder(page.parent.byteorder)
    pixels = np.memmap(path, dtype, "r", page.dataoffsets[0], (page.imagelength, page.imagewidth))
    return lambda region: np.array(pixels[region.slices])


def _segmented(file: tifffile.TiffFile, page: tifffile.TiffPage) -> Callable[[Region], NDArray[Any]]:
    height = page.tilelength if page.is_tiled else page.rowsperstrip
    width = page.tilewidth if page.is_tiled else page.imagewidth
    columns = -(-page.imagewidth // width)

    @functools.lru_cache(_SEGMENTS_KEPT)
    def segment(index: int) -> NDArray[Any] | None:
        size = page.databytecounts[index]
        if not size:
            return None
        file.filehandle.seek(page.dataoffsets[index])
        decoded = page.decode(file.filehandle.read(size), index)[0]
        return None if decoded is None else np.asarray(decoded)[0, :, :, 0]

    def read(region: Region) -> NDArray[Any]:
        out = np.zeros((region.height, region.width), page.dtype)
        for row in range(region.y // height, -(-region.y1 // height)):
            for column in range(region.x // width, -(-region.x1 // width)):
                part = segment(row * columns + column)
                if part is None:
                    continue
                place = Region(row * height, column * width, *part.shape)
                common = place.intersect(region)
                inside = common.translate(-place.y, -place.x).slices
                out[common.translate(-region.y, -region.x).slices] = part[inside]
        return out

    return read

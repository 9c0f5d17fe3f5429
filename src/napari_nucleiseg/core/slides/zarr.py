"""OME-Zarr 0.4 and 0.5 slides: colour images stored channel first, seen channel last."""

from __future__ import annotations

import logging
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import zarr
from zarr.errors import BaseZarrError

from napari_nucleiseg.core.errors import SlideError, UnsupportedImageError
from napari_nucleiseg.core.geometry import YX
from napari_nucleiseg.core.slides.bytesource import Opener, is_address
from napari_nucleiseg.core.slides.channels import names_a_dye
from napari_nucleiseg.core.slides.pixelsize import stated_mpp, to_number, um_per
from napari_nucleiseg.core.slides.pyramid import DamagedTile, Slide, UInt8Image
from napari_nucleiseg.core.slides.tiled import TiledLevel, UnreadableTileError
from napari_nucleiseg.core.slides.virtual import exact_downsample

logger = logging.getLogger(__name__)

SUFFIXES = (".zarr",)
_MARKERS = ("zarr.json", ".zgroup", ".zattrs", ".zarray")
# What zarr and its codecs raise for a chunk that cannot be decoded.
_CHUNK_ERRORS = (OSError, RuntimeError, ValueError, TypeError, EOFError, zlib.error, BaseZarrError)
_METADATA_ERRORS = (OSError, ValueError, TypeError, KeyError, BaseZarrError)
_LARGEST_TILE = 4096


@dataclass(frozen=True, slots=True)
class _Axes:
    """Where the axes of an image are, and what its spatial unit is worth."""

    channel: int
    y: int
    x: int
    unit_um: tuple[float | None, float | None]
    names: tuple[str, ...]


def matches(path: str) -> bool:
    """Whether `path` is a folder (or an address ending in .zarr) that holds Zarr metadata; never raises."""
    if is_address(path):
        return path.rstrip("/").lower().endswith(SUFFIXES)
    try:
        return any((Path(path) / marker).is_file() for marker in _MARKERS)
    except OSError:
        return False


def read(path: str, mpp_um: YX | None = None, opener: Opener | None = None) -> Slide:
    """Open an OME-Zarr image of 8-bit RGB.

    Parameters
    ----------
    path : str
        Folder of the image, or of a collection whose first image is taken.
    mpp_um : YX, optional
        Micrometres per level-0 pixel; default what the metadata say.
    opener : callable, optional
        Not supported: it opens one file, and these are many.

    Raises
    ------
    SlideError
        If it is not local, or the metadata are missing or contradict the arrays.
    UnsupportedImageError
        If it is not 8-bit RGB in one plane: fluorescence, stacks, labels, plates.
    """
    if opener is not None or is_address(path):
        raise SlideError(
            f"{path} is OME-Zarr in a remote store, which is not supported yet; "
            "copy the whole folder to a disk and open that."
        )
    group, attributes = _image_group(path)
    multiscale = _multiscale(path, attributes)
    axes = _axes(path, multiscale)
    arrays, scales = _levels(path, group, multiscale)
    _check_pixels(path, arrays[0], axes, attributes)
    sizes = [(int(array.shape[axes.y]), int(array.shape[axes.x])) for array in arrays]
    downsamples = tuple(
        _downsample(sizes[0], size, scales[0], scale, axes) for size, scale in zip(sizes, scales, strict=True)
    )
    damage: list[DamagedTile] = []
    levels = tuple(_level(path, array, axes, factor, damage) for array, factor in zip(arrays, downsamples, strict=True))
    stated, properties = _pixel_size(axes, scales[0])
    version = str(attributes.get("version") or multiscale.get("version") or "?")

    def close() -> None:
        for level in levels:
            level.forget()

    return Slide(
        path=path,
        levels=levels,
        downsamples=downsamples,
        mpp_um=mpp_um or stated,
        vendor=f"OME-Zarr {version}",
        reader="zarr",
        properties={"ome-zarr.version": version, "ome-zarr.name": str(multiscale.get("name", "")), **properties},
        damage=damage,
        on_close=close,
    )


def _image_group(path: str) -> tuple[zarr.Group, Mapping[str, Any]]:
    """Open the group that holds the image, and its OME metadata (0.5 puts them under one key, 0.4 does not)."""
    try:
        group = zarr.open_group(path, mode="r")
        attributes = _ome(group)
        if "multiscales" not in attributes and _is_collection(group, attributes):
            first = group["0"]
            if isinstance(first, zarr.Group):
                group, attributes = first, _ome(first)
    except _METADATA_ERRORS as error:
        raise SlideError(
            f"{path} cannot be read as OME-Zarr ({_brief(error)}); copy the whole folder again, "
            "and open the folder of the image itself."
        ) from error
    return group, attributes


def _ome(group: zarr.Group) -> Mapping[str, Any]:
    attributes = dict(group.attrs)
    nested = attributes.get("ome")
    return nested if isinstance(nested, dict) else attributes


def _is_collection(group: zarr.Group, attributes: Mapping[str, Any]) -> bool:
    stated = any("bioformats2raw.layout" in where for where in (attributes, dict(group.attrs)))
    return (stated or "series" in attributes) and "0" in group


def _multiscale(path: str, attributes: Mapping[str, Any]) -> Mapping[str, Any]:
    if "plate" in attributes or "well" in attributes:
        raise UnsupportedImageError(f"{path} is a plate of many images; open one of the image folders inside it.")
    if "image-label" in attributes:
        raise UnsupportedImageError(f"{path} holds labels, not a picture of tissue; open the image they belong to.")
    found = attributes.get("multiscales")
    if not isinstance(found, list) or not found or not isinstance(found[0], dict):
        raise SlideError(
            f"{path} is Zarr but has no OME-Zarr image in it (no multiscales); open the image's own folder."
        )
    multiscale: Mapping[str, Any] = found[0]
    return multiscale


def _axes(path: str, multiscale: Mapping[str, Any]) -> _Axes:
    stated = multiscale.get("axes", ["t", "c", "z", "y", "x"])
    facts = [{"name": axis} if isinstance(axis, str) else axis for axis in stated] if isinstance(stated, list) else []
    if not all(isinstance(fact, dict) for fact in facts):
        raise SlideError(f"{path} has damaged OME-Zarr metadata (its axes); convert it again.")
    names = tuple(str(fact.get("name", "")).lower() for fact in facts)
    if "y" not in names or "x" not in names or len(set(names)) != len(names):
        raise SlideError(f"{path} has OME-Zarr axes {list(names)}; an image needs y and x. Convert it again.")
    if "c" not in names:
        raise UnsupportedImageError(
            f"{path} has no channels; models need 8-bit RGB pictures of stained tissue. Convert it to RGB."
        )
    units = tuple(um_per(str(facts[names.index(name)].get("unit", ""))) for name in ("y", "x"))
    return _Axes(names.index("c"), names.index("y"), names.index("x"), (units[0], units[1]), names)


def _levels(
    path: str, group: zarr.Group, multiscale: Mapping[str, Any]
) -> tuple[list[zarr.Array[Any]], list[tuple[float, ...]]]:
    """Return the arrays, finest first, and the scale of each along all its axes."""
    datasets = multiscale.get("datasets")
    if not isinstance(datasets, list) or not datasets:
        raise SlideError(f"{path} lists no resolution levels; convert it again.")
    found = []
    for dataset in datasets:
        name = str(dataset.get("path", "")) if isinstance(dataset, dict) else ""
        try:
            array = group[name]
        except _METADATA_ERRORS as error:
            raise SlideError(f"{path} lacks its level {name!r}; copy the whole folder again.") from error
        if not isinstance(array, zarr.Array) or 0 in array.shape:
            raise SlideError(f"{path} has no pixels in its level {name!r}; convert it again.")
        scale = _scale(dataset, array.ndim) * _scale(multiscale, array.ndim)
        found.append((array, tuple(float(value) for value in scale)))
    if len({array.ndim for array, _ in found}) > 1:
        raise SlideError(f"{path} has levels with different axes; convert it again.")
    found.sort(key=lambda level: -level[0].size)
    return [array for array, _ in found], [scale for _, scale in found]


def _scale(holder: Mapping[str, Any], ndim: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Product of the scale transformations in `holder`; ones where there is none that can be used."""
    result = np.ones(ndim)
    transformations = holder.get("coordinateTransformations")
    for step in transformations if isinstance(transformations, list) else ():
        values = step.get("scale") if isinstance(step, dict) else None
        numbers = [to_number(value) for value in values] if isinstance(values, list) else []
        if len(numbers) == ndim and all(number is not None and number > 0 for number in numbers):
            result *= np.array(numbers, dtype=np.float64)
    return result


def _check_pixels(path: str, array: zarr.Array[Any], axes: _Axes, attributes: Mapping[str, Any]) -> None:
    if array.ndim != len(axes.names):
        raise SlideError(f"{path} has {array.ndim} axes but describes {list(axes.names)}; convert it again.")
    for index, name in enumerate(axes.names):
        if name not in {"c", "y", "x"} and array.shape[index] != 1:
            raise UnsupportedImageError(
                f"{path} is a stack of {array.shape[index]} images along {name}; save the one to work on by itself"
                f"{', or use all of them with napari-nucleiseg segment-stack' * (name == 'z')}."
            )
    channels, names = int(array.shape[axes.channel]), _channel_names(attributes)
    listed = f" ({', '.join(names)})" if names else ""
    if channels != 3 or names_a_dye(names):
        raise UnsupportedImageError(
            f"{path} has {channels} channel{'s' * (channels != 1)}{listed}, as in fluorescence; models need 8-bit RGB "
            "of stained tissue. Save the channels you want to see as an RGB picture."
        )
    if array.dtype != np.uint8:
        raise UnsupportedImageError(
            f"{path} has {array.dtype} channels{listed}; models need 8-bit RGB. "
            "Save it as 8-bit RGB, with white glass at about 240."
        )


def _channel_names(attributes: Mapping[str, Any]) -> list[str]:
    omero = attributes.get("omero")
    channels = omero.get("channels") if isinstance(omero, dict) else None
    if not isinstance(channels, list):
        return []
    return [str(channel["label"]) for channel in channels if isinstance(channel, dict) and channel.get("label")]


def _downsample(
    full: tuple[int, int], size: tuple[int, int], finest: tuple[float, ...], scale: tuple[float, ...], axes: _Axes
) -> YX:
    """Level-0 pixels per pixel: as the scales say where the sizes bear that out, else from the sizes."""
    stated = YX(scale[axes.y] / finest[axes.y], scale[axes.x] / finest[axes.x])
    # A size is cut or rounded up by less than a pixel.
    if all(abs(whole / factor - part) < 1.01 for whole, part, factor in zip(full, size, stated, strict=True)):
        return stated
    return exact_downsample(full, size)


def _pixel_size(axes: _Axes, scale: tuple[float, ...]) -> tuple[YX | None, dict[str, str]]:
    unit_y, unit_x = axes.unit_um
    if unit_y is None or unit_x is None:
        return None, {"nucleiseg.pixel-size": "OME-Zarr axes without a unit of length"}
    size = stated_mpp(scale[axes.y] * unit_y, scale[axes.x] * unit_x, "OME-Zarr scale")
    return size.mpp_um, {"nucleiseg.pixel-size": size.reason}


def _level(path: str, array: zarr.Array[Any], axes: _Axes, downsample: YX, damage: list[DamagedTile]) -> TiledLevel:
    height, width = int(array.shape[axes.y]), int(array.shape[axes.x])
    tile = min(array.chunks[axes.y], height, _LARGEST_TILE), min(array.chunks[axes.x], width, _LARGEST_TILE)
    fill = array.fill_value

    def read_tile(row: int, column: int) -> UInt8Image:
        y, x = row * tile[0], column * tile[1]
        where: list[slice | int] = [0] * array.ndim
        where[axes.channel] = slice(None)
        where[axes.y], where[axes.x] = slice(y, min(y + tile[0], height)), slice(x, min(x + tile[1], width))
        try:
            block = np.asarray(array[tuple(where)])
        except _CHUNK_ERRORS as error:
            raise UnreadableTileError(f"cannot be decoded ({_brief(error)})") from error
        # Zarr takes a missing file for an empty chunk, so a drive that went away looks like nothing but fill.
        if block.flat[0] == fill and (block == fill).all() and not os.path.isdir(path):  # noqa: PTH112
            raise SlideError(f"{path} can no longer be read; check that its drive is connected and open it again.")
        return _channel_last(block, axes)

    return TiledLevel((height, width), tile, read_tile, downsample=downsample, damage=damage)


def _channel_last(block: UInt8Image, axes: _Axes) -> UInt8Image:
    """Turn a block whose other axes are gone into ``(y, x, 3)``."""
    order = np.argsort(np.argsort([axes.y, axes.x, axes.channel]))
    if tuple(order) == (1, 2, 0):
        return np.asarray(cv2.merge([np.ascontiguousarray(plane) for plane in block]), dtype=np.uint8)
    return np.ascontiguousarray(block.transpose(*(int(axis) for axis in order)))


def _brief(error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 120 else f"{text[:117]}..."

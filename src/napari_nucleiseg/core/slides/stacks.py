"""Z-stacks: TIFF, OME-TIFF and OME-Zarr of grey planes, one volume a channel, read where they are looked at."""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import tifffile
from numpy.typing import NDArray

from napari_nucleiseg.core.errors import SlideError, UnsupportedImageError
from napari_nucleiseg.core.geometry import ZYX
from napari_nucleiseg.core.slides.bytesource import is_address
from napari_nucleiseg.core.slides.pixelsize import to_number, um_per
from napari_nucleiseg.core.slides.pyramid import Slide
from napari_nucleiseg.core.slides.registry import open_slide
from napari_nucleiseg.core.slides.tifffacts import children, ome_image
from napari_nucleiseg.core.slides.tiffmessages import quiet_tifffile
from napari_nucleiseg.core.slides.tiffpage import DECODE_ERRORS
from napari_nucleiseg.core.slides.voxels import LARGEST_UM, SMALLEST_UM

if TYPE_CHECKING:
    import zarr

logger = logging.getLogger(__name__)

_SUFFIXES = (".tif", ".tiff", ".btf", ".tf2", ".tf8", ".lsm")
_MARKERS = ("zarr.json", ".zgroup", ".zattrs")
# Fewer planes of which a file does not say what they are may as well be channels.
FEWEST_UNNAMED = 5
_SPATIAL = "ZYX"


@dataclass(frozen=True, slots=True, eq=False)
class Stack:
    """A z-stack in a file.

    Parameters
    ----------
    path : str
        The file.
    volumes : tuple of tuple of Volume
        Levels of each channel, finest first, ``(z, y, x)``, or ``(z, y, x, 3)`` of a stack in colour.
    voxel_um : ZYX or None
        Micrometres per voxel; None where the file does not say all three.
    channels : tuple of str
        Names of the channels; empty ones where they are not stated.
    notes : tuple of str
        What whoever opened it should know.
    """

    path: str
    volumes: tuple[tuple[Volume, ...], ...]
    voxel_um: ZYX | None
    channels: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def channel(self, number: int) -> Volume:
        """Return a channel at full resolution.

        Raises
        ------
        UnsupportedImageError
            If there is none of this number.
        """
        if not 0 <= number < len(self.volumes):
            named = ", ".join(f"{place} {name}".strip() for place, name in enumerate(self.channels))
            raise UnsupportedImageError(f"{self.path} has no channel {number}; its channels are {named}.")
        return self.volumes[number][0]


class Volume:
    """One channel of a stack as an array ``(z, y, x)``, or ``(z, y, x, 3)`` of colours; nothing is kept.

    Parameters
    ----------
    array : array-like
        All axes of the file.
    axes : str
        A letter for each; ``S`` is colour.
    fixed : mapping of str to int
        Which channel and point in time is meant.
    source : object
        What must live as long as this.
    """

    def __init__(self, array: zarr.Array[Any], axes: str, fixed: dict[str, int], source: object = None) -> None:
        self._array, self._axes, self._fixed, self._source = array, axes, fixed, source
        kept = [place for place, axis in enumerate(axes) if axis not in fixed]
        self.shape: tuple[int, ...] = tuple(int(array.shape[place]) for place in kept)
        self.dtype: np.dtype[Any] = np.dtype(array.dtype)

    def __deepcopy__(self, _memo: Any) -> Self:
        return self  # who copies a layer means the same file

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of values."""
        return int(np.prod(self.shape))

    @property
    def nbytes(self) -> int:
        """Bytes once all of it is read."""
        return self.size * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> NDArray[Any]:
        """Read a part: whole numbers, slices and an ellipsis."""
        parts = list(key) if isinstance(key, tuple) else [key]
        if any(part is Ellipsis for part in parts):
            place = next(place for place, part in enumerate(parts) if part is Ellipsis)
            parts[place : place + 1] = [slice(None)] * (self.ndim - len(parts) + 1)
        rest = iter([*parts, *[slice(None)] * (self.ndim - len(parts))])
        chosen = [self._fixed[axis] if axis in self._fixed else _part(next(rest)) for axis in self._axes]
        return np.asarray(self._array[tuple(chosen)])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[...], dtype=dtype)


def _part(part: Any) -> int | slice:
    return part if isinstance(part, slice) else int(part)


def is_stack(path: str | os.PathLike[str]) -> bool:
    """Whether a file is opened as a stack: several grey planes. Cheap, never raises.

    Focal planes of a slide in colour are not: of those, the middle one is the slide.
    """
    name = os.fspath(path)
    try:
        if is_address(name):
            return False
        if Path(name).is_dir():
            return _is_zarr_stack(name)
        if not name.lower().endswith(_SUFFIXES):
            return False
        with quiet_tifffile(), tifffile.TiffFile(name) as tiff:
            axes = "" if _is_scan(tiff) else _axes_of(_largest(tiff))
            return "Z" in axes and "S" not in axes
    except (OSError, SlideError, KeyError, *DECODE_ERRORS) as error:
        logger.debug("%s is no stack: %s", name, error)
        return False


def _is_scan(tiff: tifffile.TiffFile) -> bool:
    return bool(tiff.is_svs or tiff.is_ndpi or tiff.is_scn or tiff.is_philips or tiff.is_bif)


def _largest(tiff: tifffile.TiffFile) -> tifffile.TiffPageSeries:
    if not tiff.series:
        raise UnsupportedImageError("it is a TIFF without an image.")
    return max(tiff.series, key=lambda series: series.size)


def _axes_of(series: tifffile.TiffPageSeries) -> str:
    """Return the axes of a series; many planes of which nothing is said are taken for a stack."""
    axes = str(series.axes)
    for letter in "QI":
        unnamed = axes.count(letter) == 1 and "Z" not in axes
        if unnamed and series.shape[axes.index(letter)] >= FEWEST_UNNAMED:
            axes = axes.replace(letter, "Z")
    return axes if "Z" not in axes or series.shape[axes.index("Z")] > 1 else ""


def open_stack(path: str | os.PathLike[str]) -> Stack:
    """Open a z-stack; planes are read when they are asked for.

    Parameters
    ----------
    path : path-like
        TIFF, OME-TIFF, or the folder of an OME-Zarr image.

    Raises
    ------
    SlideError
        If it is missing or damaged.
    UnsupportedImageError
        If it has no planes along z.
    """
    name = os.fspath(path)
    if not Path(name).exists():
        raise SlideError(f"{name} does not exist; check the name, and that its drive is connected.")
    if Path(name).is_dir():
        return _open_zarr(name)
    try:
        with quiet_tifffile():
            tiff = tifffile.TiffFile(name)
    except (OSError, *DECODE_ERRORS) as error:
        raise SlideError(f"{name} is no readable TIFF ({error}); stacks are TIFF, OME-TIFF or OME-Zarr.") from error
    try:
        with quiet_tifffile():
            return _from_tiff(name, tiff)
    except UnsupportedImageError as error:
        tiff.close()
        raise UnsupportedImageError(f"{name} cannot be used as a stack: {error}") from error
    except (OSError, *DECODE_ERRORS) as error:
        tiff.close()
        raise SlideError(f"{name} is no readable TIFF: it is damaged or cut off ({error}). Copy it again.") from error


def open_image(path: str | os.PathLike[str], mpp_um: float | None = None) -> Slide | Stack:
    """Open a slide or picture, or, where a file holds several grey planes, the stack that they are.

    Parameters
    ----------
    path : path-like
        File or folder.
    mpp_um : float, optional
        Micrometres per pixel of a slide; overrides what the file says.

    Raises
    ------
    SlideError
        If it is neither, or damaged.
    """
    return open_stack(path) if is_stack(path) else open_slide(path, mpp_um=mpp_um)


class _Source:
    """Keeps a file open as long as anything of it is looked at."""

    def __init__(self, tiff: tifffile.TiffFile) -> None:
        tiff.filehandle.set_lock(True)
        weakref.finalize(self, tiff.close)


def _from_tiff(name: str, tiff: tifffile.TiffFile) -> Stack:
    import zarr

    series = _largest(tiff)
    axes = _axes_of(series)
    notes = _check_axes(axes, series.shape)
    source = _Source(tiff)
    arrays = [zarr.open_array(level.aszarr(), mode="r") for level in series.levels]
    voxel_um, names = _tiff_facts(tiff, series)
    volumes = _volumes(arrays, axes, source)
    return Stack(name, volumes, voxel_um, _named(names, len(volumes)), (*notes, *_voxel_note(voxel_um)))


def _check_axes(axes: str, shape: Sequence[int]) -> tuple[str, ...]:
    """Return what to say of the axes, or refuse them."""
    sizes = dict(zip(axes, shape, strict=False))
    if "Z" not in sizes or not {"Y", "X"} <= sizes.keys():
        raise UnsupportedImageError(
            "it has no planes along z. Open it as a picture; or save its planes with the axes named, as OME-TIFF."
        )
    if strange := [axis for axis in axes if axis not in "TCZYXS" and sizes[axis] > 1]:
        raise UnsupportedImageError(f"it has axes that are not known ({', '.join(strange)}); save one stack of it.")
    if tuple(axis for axis in axes if axis in _SPATIAL) != tuple(_SPATIAL):
        raise UnsupportedImageError(f"its axes come as {axes}; save it with z before y before x.")
    times = sizes.get("T", 1)
    return (f"This file has {times} points in time; the first is shown.",) if times > 1 else ()


def _volumes(arrays: Sequence[zarr.Array[Any]], axes: str, source: object) -> tuple[tuple[Volume, ...], ...]:
    channels = int(arrays[0].shape[axes.index("C")]) if "C" in axes else 1
    others = {axis: 0 for axis in axes if axis not in "ZYXS"}
    return tuple(
        tuple(Volume(array, axes, {**others, "C": channel}, source) for array in arrays) for channel in range(channels)
    )


def _named(names: Sequence[str], count: int) -> tuple[str, ...]:
    return tuple(names) if len(names) == count else ("",) * count


def _voxel_note(voxel_um: ZYX | None) -> tuple[str, ...]:
    return () if voxel_um else ("This file does not say how large its voxels are.",)


def _tiff_facts(tiff: tifffile.TiffFile, series: tifffile.TiffPageSeries) -> tuple[ZYX | None, tuple[str, ...]]:
    """Return voxel size and channel names that a TIFF states."""
    if tiff.is_ome:
        return _ome_facts(tiff.ome_metadata or "", series, tiff.series.index(series))
    if tiff.is_imagej:
        facts = tiff.imagej_metadata or {}
        unit = um_per(str(facts.get("unit", "")).replace("\\u00B5", "u"))
        spacing = to_number(facts.get("spacing"))
        per_x, per_y = (float(value) for value in series.keyframe.resolution)
        if unit and spacing and min(per_x, per_y) > 0:
            return _believed(abs(spacing) * unit, unit / per_y, unit / per_x), ()
    return None, ()


def _ome_facts(xml: str, series: tifffile.TiffPageSeries, number: int) -> tuple[ZYX | None, tuple[str, ...]]:
    try:
        document = tifffile.xml2dict(xml).get("OME", {})
    except (ValueError, SyntaxError):
        return None, ()
    pixels = ome_image(document, series, number).get("Pixels", {})
    sides = []
    for axis in _SPATIAL:
        value = to_number(pixels.get(f"PhysicalSize{axis}"))
        unit = um_per(str(pixels.get(f"PhysicalSize{axis}Unit", "um")))
        sides.append(value * unit if value and unit else 0.0)
    return _believed(*sides), tuple(str(one.get("Name", "")) for one in children(pixels, "Channel"))


def _believed(z: float, y: float, x: float) -> ZYX | None:
    return ZYX(z, y, x) if all(SMALLEST_UM <= side <= LARGEST_UM for side in (z, y, x)) else None


# ---------------------------------------------------------------------- OME-Zarr


def _zarr_image(name: str) -> tuple[zarr.Group, dict[str, Any], str]:
    """Return the group of an OME-Zarr image, its multiscale and the letters of its axes."""
    import zarr
    from zarr.errors import BaseZarrError

    try:
        group = zarr.open_group(name, mode="r")
        attributes: dict[str, Any] = dict(group.attrs)
        attributes = attributes.get("ome", attributes)
        if "multiscales" not in attributes and isinstance(group.get("0"), zarr.Group):
            return _zarr_image(str(Path(name) / "0"))
        multiscale = dict(attributes["multiscales"][0])
        names = [axis if isinstance(axis, str) else axis["name"] for axis in multiscale.get("axes", "tczyx")]
    except (OSError, ValueError, TypeError, KeyError, IndexError, AttributeError, BaseZarrError) as error:
        raise SlideError(f"{name} cannot be read as OME-Zarr; open the folder of the image itself.") from error
    return group, {**multiscale, "omero": attributes.get("omero")}, "".join(names).upper()


def _is_zarr_stack(name: str) -> bool:
    if not any((Path(name) / marker).is_file() for marker in _MARKERS):
        return False
    group, multiscale, axes = _zarr_image(name)
    array = group[str(multiscale["datasets"][0]["path"])]
    return "Z" in axes and int(array.shape[axes.index("Z")]) > 1  # type: ignore[union-attr] # an array, or it raises


def _open_zarr(name: str) -> Stack:
    group, multiscale, axes = _zarr_image(name)
    try:
        arrays: list[Any] = [group[str(dataset["path"])] for dataset in multiscale["datasets"]]
        sides = np.ones(len(axes))
        for holder in (multiscale, multiscale["datasets"][0]):
            for step in holder.get("coordinateTransformations", ()):
                sides = sides * np.asarray(step.get("scale", 1.0), np.float64)
        shape = tuple(int(side) for side in arrays[0].shape)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SlideError(f"{name} has damaged OME-Zarr metadata; convert it again.") from error
    try:
        notes = _check_axes(axes, shape)
    except UnsupportedImageError as error:
        raise UnsupportedImageError(f"{name} cannot be used as a stack: {error}") from error
    stated = multiscale.get("axes", ())
    units = [um_per(str(axis.get("unit", ""))) if isinstance(axis, dict) else None for axis in stated]
    known = dict(zip(axes, units, strict=False))
    voxel_um = _believed(*(float(sides[axes.index(axis)]) * (known.get(axis) or 0.0) for axis in _SPATIAL))
    volumes = _volumes(arrays, axes, group)
    channels = (multiscale["omero"] or {}).get("channels", ())
    names = [str(one.get("label", "")) for one in channels if isinstance(one, dict)]
    return Stack(name, volumes, voxel_um, _named(names, len(volumes)), (*notes, *_voxel_note(voxel_um)))

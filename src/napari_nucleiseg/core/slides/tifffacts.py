"""Pixel size, objective, vendor and properties that a TIFF states about its slide."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import tifffile

from napari_nucleiseg.core.slides.pixelsize import (
    LARGEST_TAG_MPP_UM,
    StatedPixelSize,
    stated_mpp,
    to_number,
    um_per,
)

_UM_PER_RESOLUTION_UNIT = {2: 25400.0, 3: 10000.0}


@dataclass(frozen=True, slots=True)
class TiffFacts:
    """What a TIFF says about its slide."""

    vendor: str
    pixel_size: StatedPixelSize = field(default_factory=StatedPixelSize)
    objective_power: float | None = None
    properties: dict[str, str] = field(default_factory=dict)
    channel_names: tuple[str, ...] = ()


def read_facts(tiff: tifffile.TiffFile, series: int = 0, page: tifffile.TiffPage | None = None) -> TiffFacts:
    """Read what a TIFF states about image `series`, and about its full resolution, which is `page` (or its first)."""
    if tiff.is_svs:
        return _aperio(tiff)
    page = tiff.series[series].keyframe if page is None else page
    return _ome(tiff, series, page) if tiff.is_ome else _generic(tiff, page)


def _aperio(tiff: tifffile.TiffFile) -> TiffFacts:
    description = tiff.pages.first.description
    properties = {"tiff.ImageDescription": description}
    for part in description.split("|")[1:]:
        name, mark, value = part.partition("=")
        if mark:
            properties[f"aperio.{name.strip()}"] = value.strip()
    mpp = to_number(properties.get("aperio.MPP"))
    size = stated_mpp(mpp, mpp, "the Aperio MPP field") if mpp else StatedPixelSize()
    power = to_number(properties.get("aperio.AppMag"))
    return TiffFacts("aperio", size, power or None, properties)


def _ome(tiff: tifffile.TiffFile, series: int, page: tifffile.TiffPage) -> TiffFacts:
    properties = {"ome.xml": tiff.ome_metadata or ""}
    try:
        document = tifffile.xml2dict(tiff.ome_metadata or "").get("OME", {})
    except (ValueError, SyntaxError):
        document = {}
    image = ome_image(document, tiff.series[series], series)
    pixels = image.get("Pixels", {})
    names = tuple(str(channel.get("Name") or channel.get("Fluor") or "") for channel in children(pixels, "Channel"))
    names = names if any(names) else ()
    size = _ome_pixel_size(pixels)
    if size.mpp_um is None and not size.reason:
        size = _from_resolution_tag(page)
    return TiffFacts("ome", size, _ome_objective(document, image), properties, names)


def ome_image(document: dict[str, Any], series: tifffile.TiffPageSeries, number: int) -> dict[str, Any]:
    """Return what an OME document says of a series: the image of its size, and of its name where several have it.

    Images in files that are missing are no series, so that the `number` of a series need not be that of its image;
    it decides only between those that fit. Empty if none can be told.
    """
    images = children(document, "Image")
    size = (series.keyframe.imagelength, series.keyframe.imagewidth)
    fitting = [image for image in images if _size_of(image) == size]
    fitting = [image for image in fitting if str(image.get("Name", "")) == series.name] or fitting
    if len(fitting) == 1:
        return fitting[0]
    return next((image for image in images[number : number + 1] if image in fitting), {})


def _size_of(image: dict[str, Any]) -> tuple[float | None, ...]:
    pixels = image.get("Pixels", {})
    return tuple(to_number(pixels.get(f"Size{axis}")) for axis in "YX")


def _ome_pixel_size(pixels: dict[str, Any]) -> StatedPixelSize:
    sizes: list[float] = []
    for axis in ("Y", "X"):
        value = to_number(pixels.get(f"PhysicalSize{axis}"))
        factor = um_per(str(pixels.get(f"PhysicalSize{axis}Unit", "um")))
        if value and factor:
            sizes.append(value * factor)
    if len(sizes) != 2:
        return StatedPixelSize()
    return stated_mpp(sizes[0], sizes[1], "the OME PhysicalSize")


def _ome_objective(document: dict[str, Any], image: dict[str, Any]) -> float | None:
    wanted = image.get("ObjectiveSettings", {}).get("ID")
    for instrument in children(document, "Instrument"):
        for objective in children(instrument, "Objective"):
            power = to_number(objective.get("NominalMagnification"))
            if power and wanted in (None, objective.get("ID")):
                return power
    return None


def children(parent: dict[str, Any], name: str) -> list[dict[str, Any]]:
    """Return the elements of a name in one of an XML document (`tifffile.xml2dict`): none, one or several."""
    value = parent.get(name, [])
    return [item for item in (value if isinstance(value, list) else [value]) if isinstance(item, dict)]


def _generic(tiff: tifffile.TiffFile, page: tifffile.TiffPage) -> TiffFacts:
    first = tiff.pages.first
    properties = {"tiff.ImageDescription": first.description} if first.description else {}
    for code in (271, 272, 305):
        tag = first.tags.get(code)
        if tag is not None:
            properties[f"tiff.{tag.name}"] = str(tag.value)
    if tiff.is_imagej:
        unit = str((tiff.imagej_metadata or {}).get("unit", ""))
        factor = um_per(unit.replace("\\u00B5", "u"))
        if factor:
            return TiffFacts("imagej", _pixels_per_unit(page, factor, "ImageJ's resolution"), None, properties)
    return TiffFacts("generic-tiff", _from_resolution_tag(page), None, properties)


def _from_resolution_tag(page: tifffile.TiffPage) -> StatedPixelSize:
    factor = _UM_PER_RESOLUTION_UNIT.get(int(page.resolutionunit))
    tag = page.tags.get(282)
    if factor is None or tag is None:
        return StatedPixelSize()
    return _pixels_per_unit(page, factor, "the resolution tag")


def _pixels_per_unit(page: tifffile.TiffPage, um: float, origin: str) -> StatedPixelSize:
    per_x, per_y = (float(value) for value in page.resolution)
    if min(per_x, per_y) <= 0:
        return StatedPixelSize()
    return stated_mpp(um / per_y, um / per_x, origin, LARGEST_TAG_MPP_UM)

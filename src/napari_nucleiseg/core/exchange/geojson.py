"""QuPath GeoJSON: nuclei as detections, annotated regions as annotations; written as a stream."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.errors import ExportError
from napari_nucleiseg.core.exchange.coordinates import ring_texts
from napari_nucleiseg.core.exchange.outlines import Outlines, simplified, trace
from napari_nucleiseg.core.exchange.source import (
    PIXEL_CENTRE,
    LabelSource,
    NamedClass,
    NucleiBlock,
    Progress,
    iterate_blocks,
    no_progress,
)
from napari_nucleiseg.core.exchange.whole_file import whole_file
from napari_nucleiseg.core.geometry import YX
from napari_nucleiseg.core.store.about import NO_CORNER
from napari_nucleiseg.core.store.nuclei import NucleiTable
from napari_nucleiseg.core.store.regions import AnnotatedRegion

OBJECT_TYPES = ("detection", "annotation")
# Names of measurements; `Label` is the nucleus' id.
LABEL, AREA, SCORE, APPROVED = "Label", "Area µm^2", "Score", "Approved"
# The member of a collection that says of which level-0 pixel ``[x, y]`` the corner is its origin.
STATED, ORIGIN = "napari-nucleiseg", "origin"
# What identities are made of behind the slide where coordinates count from the corner of the part that holds pixels.
PART = "/part"
_NAMESPACE = uuid.UUID("4f0c7c0e-3d52-5f0b-9c53-6a4a2f0d9e11")
ID_DIGITS = 8


@dataclass(frozen=True, slots=True)
class _Style:
    """What all features of a file share."""

    object_type: str
    classes: Mapping[int, str]
    tolerance_px: float
    identities: str
    source: LabelSource


def identities_of(slide: str) -> str:
    """Return what the UUIDs of a slide's nuclei begin with; the nucleus' id is the rest, as eight hexadecimal digits.

    Parameters
    ----------
    slide : str
        The slide's fingerprint or name.
    """
    return str(uuid.uuid5(_NAMESPACE, slide))[:-ID_DIGITS]


def identity_of(slide: str, corner: YX) -> str:
    """Return what identities are made of for a slide of which only a part holds pixels, else the slide.

    Objects of former exports, which counted from the corner of the whole slide, are so told from those that count from
    the corner of that part, also when QuPath has exported them in its turn.

    Parameters
    ----------
    slide : str
        The slide's fingerprint or name.
    corner : YX
        Of that part, level-0 pixels.
    """
    return slide if corner == NO_CORNER else f"{slide}{PART}"


def region_identity(slide: str, number: int) -> str:
    """Return the UUID of an annotated region.

    Parameters
    ----------
    slide : str
        See `identity_of`.
    number : int
        Of the region in its project.
    """
    return str(uuid.uuid5(_NAMESPACE, f"{slide}/region/{number}"))


def write_geojson(
    source: LabelSource,
    path: str | os.PathLike[str],
    *,
    object_type: str = "detection",
    tolerance_px: float = 0.0,
    on_progress: Progress = no_progress,
) -> int:
    """Write all nuclei and annotated regions as a FeatureCollection that QuPath opens by drag and drop.

    Coordinates are level-0 pixels ``(x, y)``, as QuPath wants them: where only a part of the slide holds pixels they
    count from that part's corner, which the file states. Each feature's ``id`` is a UUID made of the slide's
    fingerprint and the nucleus' id, so that exporting again gives the same objects and an import knows them again; the
    nucleus' own id is also the measurement ``Label``.

    Parameters
    ----------
    source : LabelSource
        Nuclei; read block by block.
    path : path
        File to write; replaced only when the export is complete.
    object_type : {"detection", "annotation"}
        What QuPath makes of nuclei; detections are lighter, annotations can be edited.
    tolerance_px : float
        How far outlines may be simplified, level-0 pixels; 0 keeps them exact, along pixel edges.
    on_progress : callable
        Called with blocks done and in all.

    Returns
    -------
    int
        Number of nuclei written.

    Raises
    ------
    ExportError
        If the object type is unknown or the file cannot be written.
    """
    return write_sources((source,), path, object_type=object_type, tolerance_px=tolerance_px, on_progress=on_progress)


def write_sources(
    sources: Sequence[LabelSource],
    path: str | os.PathLike[str],
    *,
    object_type: str = "detection",
    tolerance_px: float = 0.0,
    on_progress: Progress = no_progress,
) -> int:
    """Write the nuclei of several sources into one file; see `write_geojson`.

    Parameters
    ----------
    sources : sequence of LabelSource
        Nuclei of one slide; sources with ids in common need fingerprints of their own.
    path, object_type, tolerance_px
        See `write_geojson`.
    on_progress : callable
        Called with blocks done and in all, source after source.

    Returns
    -------
    int
        Number of nuclei written.

    Raises
    ------
    ExportError
        If the object type is unknown or the file cannot be written.
    """
    if object_type not in OBJECT_TYPES:
        raise ExportError(f"QuPath knows no object type {object_type}; choose one of {', '.join(OBJECT_TYPES)}")
    count = 0
    with whole_file(path) as file:
        file.write('{"type":"FeatureCollection",' + _stated(sources) + '"features":[')
        separator = "\n"
        for source in sources:
            slide = identity_of(source.fingerprint or source.name, source.corner)
            classes = {number: _classification(found) for number, found in source.classes.items()}
            style = _Style(object_type, classes, tolerance_px, identities_of(slide), source)
            for region in source.regions:
                file.write(separator + _region_feature(region, slide, source.corner))
                separator = ",\n"
            for block in iterate_blocks(source, on_progress):
                features = list(_features(block, style))
                if features:
                    file.write(separator + ",\n".join(features))
                    separator = ",\n"
                count += len(features)
        file.write("\n]}\n")
    return count


def _features(block: NucleiBlock, style: _Style) -> Iterator[str]:
    """Yield each nucleus of a block as JSON; one that others cover wholly has none."""
    first = np.array((block.region.y, block.region.x))
    y, x = (first - style.source.corner).astype(int).tolist()
    outlines = trace(block.labels, block.table.ids, block.boxes - np.tile(first, 2), (y, x))
    texts = _texts(outlines, style.tolerance_px)
    identities, properties = _descriptions(block, style)
    for row, polygons in outlines.polygons():
        if len(polygons) == 1:
            geometry = f'"Polygon","coordinates":[{_joined(texts, polygons[0])}]'
        else:
            parts = ",".join([f"[{_joined(texts, polygon)}]" for polygon in polygons])
            geometry = f'"MultiPolygon","coordinates":[{parts}]'
        yield (
            f'{{"type":"Feature","id":"{identities[row]}","geometry":{{"type":{geometry}}},'
            f'"properties":{{{properties[row]}}}}}'
        )


def _joined(texts: list[str], polygon: list[int]) -> str:
    return texts[polygon[0]] if len(polygon) == 1 else ",".join([texts[ring] for ring in polygon])


def _descriptions(block: NucleiBlock, style: _Style) -> tuple[list[str], list[str]]:
    """Return the UUIDs and the properties of the rows of a block's table."""
    table = block.table
    numbers = table.classes.tolist()
    named = {
        number: style.classes.get(number) or _classification(NamedClass(f"Class {number}")) for number in {*numbers}
    }
    named[0] = ""
    heads = {
        number: f'"objectType":"{style.object_type}"' + (f",{words}" if words else "")
        for number, words in named.items()
    }
    identities, properties = [], []
    for nucleus, number, area, score, approved, more in zip(
        table.ids.tolist(),
        numbers,
        _measured(AREA, table.areas_um2, 3),
        _measured(SCORE, table.scores, 4),
        table.approved.tolist(),
        _measures(table, style.source),
        strict=True,
    ):
        identities.append(f"{style.identities}{nucleus:08x}")
        verdict = f',"{APPROVED}":1' if approved else ""
        properties.append(f'{heads[number]},"measurements":{{"{LABEL}":{nucleus}{area}{score}{verdict}{more}}}')
    return identities, properties


def _measures(table: NucleiTable, source: LabelSource) -> list[str]:
    """Return what was measured of each nucleus, as members of a JSON object."""
    values = source.measured(table)
    # "Perimeter, µm" is "Perimeter µm", as QuPath writes its own.
    columns = [_measured(column.title.replace(",", ""), values[column.name], 4) for column in source.measured_columns]
    return ["".join(texts) for texts in zip(*columns, strict=True)] or [""] * len(table)


def _measured(name: str, values: NDArray[np.float32], digits: int) -> list[str]:
    """Return each value as a member of a JSON object; what was not measured is left out: JSON has no NaN."""
    rounded = np.round(values.astype(np.float64), digits)
    texts = [f',"{name}":{value}' for value in rounded.tolist()]
    for row in np.flatnonzero(~np.isfinite(values)).tolist():
        texts[row] = ""
    return texts


def _classification(found: NamedClass) -> str:
    return f'"classification":{_json({"name": found.name, **({"color": found.rgb} if found.rgb else {})})}'


def _texts(outlines: Outlines, tolerance_px: float) -> list[str]:
    """Return each ring as JSON; those of nuclei outside of the part that holds pixels may be negative."""
    if tolerance_px <= 0 and outlines.points.min(initial=0) >= 0:
        return ring_texts(outlines)
    texts = []
    for index in range(len(outlines.owners)):
        exact = outlines.ring(index)
        ring = (simplified(exact, tolerance_px) if tolerance_px > 0 else exact).tolist()
        texts.append(_json([*ring, ring[0]]))
    return texts


def _stated(sources: Sequence[LabelSource]) -> str:
    """Return the member of a collection that says from where its coordinates count; none if from the slide's corner."""
    corner = next((source.corner for source in sources if source.corner != NO_CORNER), None)
    return "" if corner is None else f'"{STATED}":{_json({ORIGIN: [corner.x, corner.y]})},'


def _region_feature(region: AnnotatedRegion, slide: str, corner: YX) -> str:
    # In a project the centre of a pixel is a whole number.
    shift_y, shift_x = PIXEL_CENTRE - corner.y, PIXEL_CENTRE - corner.x
    ring = [[x + shift_x, y + shift_y] for y, x in (*region.vertices, *region.vertices[:1])]
    facts = {"role": region.role, "complete": str(region.complete).lower(), "done": str(region.done).lower()}
    return _json(
        {
            "type": "Feature",
            "id": region_identity(slide, region.number),
            "geometry": {"type": "Polygon", "coordinates": [ring]},
            "properties": {"objectType": "annotation", "name": region.name, "metadata": facts},
        }
    )


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))

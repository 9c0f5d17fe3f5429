"""QuPath GeoJSON: one polygon per nucleus with class, area and score, written as a stream."""

from __future__ import annotations

import json
import math
import os
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from napari_nucleiseg.core.errors import ExportError
from napari_nucleiseg.core.exchange.outlines import Polygon, polygons_of
from napari_nucleiseg.core.exchange.source import LabelSource, NucleiBlock, Progress, iterate_blocks, no_progress
from napari_nucleiseg.core.exchange.whole_file import whole_file

OBJECT_TYPES = ("detection", "annotation")
_NAMESPACE = uuid.UUID("4f0c7c0e-3d52-5f0b-9c53-6a4a2f0d9e11")


@dataclass(frozen=True, slots=True)
class _Style:
    """What all features of a file share."""

    object_type: str
    class_names: Mapping[int, str]
    tolerance_px: float
    identities: uuid.UUID


def write_geojson(
    source: LabelSource,
    path: str | os.PathLike[str],
    *,
    object_type: str = "detection",
    class_names: Mapping[int, str] | None = None,
    tolerance_px: float = 0.35,
    on_progress: Progress = no_progress,
) -> int:
    """Write all nuclei as a FeatureCollection that QuPath opens by drag and drop.

    Coordinates are level-0 pixels ``(x, y)``, as QuPath wants them. Each feature's ``id`` is a UUID made of the
    slide's fingerprint and the nucleus' id, so that exporting again gives the same objects; the nucleus' own id
    is the measurement ``Label``.

    Parameters
    ----------
    source : LabelSource
        Nuclei; read block by block.
    path : path
        File to write; replaced only when the export is complete.
    object_type : {"detection", "annotation"}
        What QuPath makes of them; detections are lighter, annotations can be edited.
    class_names : mapping of int to str, optional
        Name of each class number; a nucleus of class 0 gets no classification.
    tolerance_px : float
        How far outlines may be simplified, level-0 pixels; 0 keeps them exact.
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
    if object_type not in OBJECT_TYPES:
        raise ExportError(f"QuPath knows no object type {object_type}; choose one of {', '.join(OBJECT_TYPES)}")
    identities = uuid.uuid5(_NAMESPACE, source.fingerprint or source.name)
    style = _Style(object_type, class_names or {}, tolerance_px, identities)
    count = 0
    with whole_file(path) as file:
        file.write('{"type":"FeatureCollection","features":[')
        for block in iterate_blocks(source, on_progress):
            for row in range(len(block.table)):
                feature = _feature(block, row, style)
                if feature is None:
                    continue
                file.write(",\n" if count else "\n")
                file.write(json.dumps(feature, ensure_ascii=False, separators=(",", ":")))
                count += 1
        file.write("\n]}\n")
    return count


def _feature(block: NucleiBlock, row: int, style: _Style) -> dict[str, Any] | None:
    """Return one nucleus as a feature, or None if others cover it wholly."""
    table = block.table
    nucleus = int(table.ids[row])
    y0, x0, y1, x1 = (int(value) for value in table.boxes[row])
    top, left = max(y0, block.region.y), max(x0, block.region.x)
    crop = block.labels[top - block.region.y : y1 - block.region.y, left - block.region.x : x1 - block.region.x]
    polygons = polygons_of(np.asarray(crop == nucleus), style.tolerance_px)
    if not polygons:
        return None
    properties: dict[str, Any] = {"objectType": style.object_type}
    number = int(table.classes[row])
    if number:
        properties["classification"] = {"name": style.class_names.get(number, f"Class {number}")}
    properties["measurements"] = {
        "Label": nucleus,
        **_measured("Area µm^2", float(table.areas_um2[row]), 3),
        **_measured("Score", float(table.scores[row]), 4),
    }
    return {
        "type": "Feature",
        "id": str(uuid.uuid5(style.identities, str(nucleus))),
        "geometry": _geometry(polygons, top, left),
        "properties": properties,
    }


def _measured(name: str, value: float, digits: int) -> dict[str, float]:
    """Leave out what was not measured: JSON has no NaN."""
    return {name: round(value, digits)} if math.isfinite(value) else {}


def _geometry(polygons: list[Polygon], top: int, left: int) -> dict[str, Any]:
    corner = np.array([left, top])
    parts = [[(ring + corner).tolist() for ring in polygon] for polygon in polygons]
    if len(parts) == 1:
        return {"type": "Polygon", "coordinates": parts[0]}
    return {"type": "MultiPolygon", "coordinates": parts}

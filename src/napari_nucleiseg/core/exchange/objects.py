"""What one GeoJSON feature is: a nucleus, an annotated region or neither, with its rings, class, score and id."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from napari_nucleiseg.core.exchange.digits import Digits
from napari_nucleiseg.core.exchange.geojson import APPROVED, ID_DIGITS, LABEL, SCORE
from napari_nucleiseg.core.exchange.rings import Outline, RingLists
from napari_nucleiseg.core.exchange.source import NamedClass

Annotations = Literal["regions", "nuclei"]

_NUCLEI = frozenset({"detection", "cell", "PathDetectionObject", "PathCellObject"})
_ANNOTATIONS = frozenset({"annotation", "PathAnnotationObject"})
_IDENTITY = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
# What QuPath's own detectors call a score.
PROBABILITY = "Detection probability"


class Found(NamedTuple):
    """A nucleus or region as a feature gives it.

    Parameters
    ----------
    outline : Outline
        Not looked at yet.
    feature, properties : mapping
        As in the file.
    is_region : bool
        Whether it is an annotated region.
    """

    outline: Outline
    feature: Mapping[str, Any]
    properties: Mapping[str, Any]
    is_region: bool

    @property
    def polygons(self) -> list[RingLists]:
        """Each a list of rings, the first the outer one; not looked at yet."""
        return [self.outline.read()] if isinstance(self.outline, Digits) else self.outline


def look_at(feature: Any, annotations: Annotations) -> Found | str:
    """Tell what a feature is, or why it is nothing (a key of `report.REASONS`)."""
    if not isinstance(feature, dict):
        return "not_an_object"
    properties = feature.get("properties")
    if not isinstance(properties, dict):
        properties = {}
    kind = properties.get("objectType") or properties.get("object_type") or feature.get("id")
    kind = kind if isinstance(kind, str) else ""
    is_region = kind in _ANNOTATIONS and annotations == "regions" and LABEL not in _measurements(properties)
    if kind and kind not in _NUCLEI | _ANNOTATIONS and _is_object_type(properties, kind):
        return "object_type"
    geometry = feature.get("nucleusGeometry") or properties.get("nucleusGeometry") or feature.get("geometry")
    outline = _outline(geometry)
    return outline if isinstance(outline, str) else Found(outline, feature, properties, is_region)


def _is_object_type(properties: Mapping[str, Any], kind: str) -> bool:
    return "objectType" in properties or "object_type" in properties or kind.startswith(("Path", "TMA"))


def _outline(geometry: Any) -> Outline | str:
    if not isinstance(geometry, dict):
        return "no_geometry"
    kind, coordinates = geometry.get("type"), geometry.get("coordinates")
    if not isinstance(kind, str) or kind not in {"Polygon", "MultiPolygon"}:
        return "points" if isinstance(kind, str) and kind.endswith(("Point", "LineString")) else "geometry"
    if isinstance(coordinates, Digits):
        if kind == "Polygon" and coordinates.points:
            return coordinates
        coordinates = coordinates.read()
    if not isinstance(coordinates, list):
        return "no_geometry"
    polygons = [coordinates] if kind == "Polygon" else coordinates
    if not all(isinstance(polygon, list) for polygon in polygons):
        return "coordinates"
    some = [[ring for ring in polygon if ring] for polygon in polygons]
    return [polygon for polygon in some if polygon] or "no_geometry"


def class_of(properties: Mapping[str, Any]) -> NamedClass | None:
    """Return the class that a feature states; None if it has none. Several names are joined, as QuPath shows them."""
    stated = properties.get("classification")
    if isinstance(stated, str):
        return NamedClass(readable(stated.strip())) if stated.strip() else None
    if not isinstance(stated, dict):
        return None
    names = stated.get("names")
    name = stated.get("name") or (": ".join(map(str, names)) if isinstance(names, list) else "")
    if not isinstance(name, str) or not name.strip():
        return None
    return NamedClass(readable(name.strip()), _colour(stated.get("color", stated.get("colorRGB"))))


def readable(text: str) -> str:
    """Return a text of JSON with question marks for the halves of signs that stand alone: no file can hold them."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _colour(stated: Any) -> str:
    """Return ``#rrggbb`` of three numbers, or of one packed number; empty if it is neither."""
    if isinstance(stated, int):
        return f"#{stated & 0xFFFFFF:06x}"
    if isinstance(stated, list) and len(stated) >= 3 and all(isinstance(part, int) for part in stated):
        return "#" + "".join(f"{min(max(part, 0), 255):02x}" for part in stated[:3])
    return ""


def attributes_of(found: Found) -> tuple[int, float, bool]:
    """Return a nucleus' id in the file (0: none that we gave), its score 0..1, and whether a person approved it."""
    measured = _measurements(found.properties)
    stated = measured[SCORE] if SCORE in measured else measured.get(PROBABILITY, 1.0)
    return _id_of(found.feature.get("id"), measured), _score(stated), measured.get(APPROVED) == 1


def _score(stated: Any) -> float:
    """Return a score as 0..1, also of a whole number that no float can hold; 1 if it is none."""
    if isinstance(stated, int):
        return float(min(max(stated, 0), 1))
    return min(max(stated, 0.0), 1.0) if isinstance(stated, float) and math.isfinite(stated) else 1.0


def _id_of(identity: Any, measured: Mapping[str, Any]) -> int:
    """Return the nucleus' id that an export of ours put into the UUID; a copied object has the label but not that."""
    if not isinstance(identity, str) or not _IDENTITY.fullmatch(identity):
        return 0
    number = int(identity[-ID_DIGITS:], 16)
    return number if measured.get(LABEL) == number else 0


def _measurements(properties: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return measurements by name; QuPath 0.2 writes a list of names and values."""
    stated = properties.get("measurements")
    if isinstance(stated, dict):
        return stated
    if isinstance(stated, list):
        return {
            str(one["name"]): one.get("value")
            for one in stated
            if isinstance(one, dict) and isinstance(one.get("name"), str)
        }
    return {}

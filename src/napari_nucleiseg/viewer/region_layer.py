"""The layer that shows annotated regions, and on which they are drawn and moved with napari's own tools."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.store.regions import HOLD_OUT, REFERENCE, TEACH, AnnotatedRegion, Vertices
from napari_nucleiseg.viewer.layers import OWNER, ROLE, placement, slide_name
from napari_nucleiseg.viewer.shapes import AREAS, EDGE_SCREEN_PX, outline

if TYPE_CHECKING:
    from napari_nucleiseg.viewer.opened import OpenedSlide

COLOURS = {TEACH: "#1fb6ff", HOLD_OUT: "#ff8c1a", REFERENCE: "#c77dff"}
TOOLS = {"rectangle": "add_rectangle", "polygon": "add_polygon"}
NUMBER, TITLE = "region", "title"
# Of a shape that is being written: it has no number yet, and is not new any more.
PENDING = -1
# napari keeps vertices in single precision.
MOVED_PX = 0.05


def region_layer(opened: OpenedSlide) -> Any:
    """Return an empty layer for the regions of a slide."""
    from napari.layers import Shapes

    layer = Shapes(
        name=f"{slide_name(opened.slide)} regions",
        ndim=2,
        metadata={OWNER: opened.slide.fingerprint, ROLE: "regions"},
        features={NUMBER: np.zeros(0, int), TITLE: np.zeros(0, object)},
        text={"string": f"{{{TITLE}}}", "anchor": "upper_left", "size": 10, "color": "white"},
        edge_color=COLOURS[TEACH],
        face_color="transparent",
        opacity=1.0,
        **placement(opened.slide.mpp_um),
    )
    layer.feature_defaults = {NUMBER: 0, TITLE: ""}
    return layer


def is_drawing(layer: Any) -> bool:
    """Whether a shape is being drawn or dragged; not public in napari: without it, it is never known to be."""
    return any(getattr(layer, name, False) for name in ("_is_creating", "_is_moving"))


def edge_width(layer: Any, zoom: float) -> int:
    """Return the edge, in pixels of the slide, that is broad enough to see at a zoom."""
    return max(1, round(EDGE_SCREEN_PX / (zoom * float(layer.scale[-1]))))


def put_regions(layer: Any, regions: Sequence[AnnotatedRegion], zoom: float) -> None:
    """Bring the layer to what these regions are.

    Parameters
    ----------
    layer : napari.layers.Shapes
        Made by `region_layer`.
    regions : sequence of AnnotatedRegion
        All of the slide.
    zoom : float
        Screen pixels per world unit.
    """
    width = edge_width(layer, zoom)
    colours = [COLOURS[region.role] for region in regions]
    if not _shows(layer, regions):
        layer.selected_data = set(range(layer.nshapes))
        layer.remove_selected()
        if regions:
            layer.add_polygons(
                [region.polygon for region in regions], edge_width=width, edge_color=colours, face_color="transparent"
            )
        layer.selected_data = set()
    titles = [region.name + ("" if not region.done else " ✓") for region in regions]
    numbers = [region.number for region in regions]
    layer.features = {NUMBER: np.array(numbers, int), TITLE: np.array(titles, object)}
    layer.feature_defaults = {NUMBER: 0, TITLE: ""}
    if regions:
        layer.edge_color = colours
        layer.edge_width = [width] * len(regions)
        layer.text.color = colours
    layer.refresh_text()


def _shows(layer: Any, regions: Sequence[AnnotatedRegion]) -> bool:
    """Whether the shapes are these regions, in this order."""
    return len(regions) == layer.nshapes and all(
        _same(np.asarray(data, float), region.polygon) for data, region in zip(layer.data, regions, strict=True)
    )


def drawn(
    layer: Any, slide_layer: Any, regions: Sequence[AnnotatedRegion]
) -> tuple[list[Vertices], dict[int, Vertices], Collection[int]] | None:
    """Return what the user did to the shapes: outlines of new ones, of changed ones by number, numbers of removed ones.

    `regions` are those that the shapes were, not those that there are by now: what is not in the layer yet was not
    removed from it. None if shapes and regions cannot be told apart; lines, which are no area, are left out.
    """
    if len(layer.features) != layer.nshapes:
        return None
    known = {region.number: region for region in regions}
    new: list[Vertices] = []
    changed: dict[int, Vertices] = {}
    seen: set[int] = set()
    for index, number in enumerate(layer.features[NUMBER].tolist()):
        if layer.shape_type[index] not in AREAS or number == PENDING:
            continue
        polygon = outline(layer, index, slide_layer)
        vertices = tuple((round(float(y), 2), round(float(x), 2)) for y, x in polygon)
        region = known.get(int(number or 0))
        if region is None or region.number in seen:  # a pasted copy has the number of its original
            new.append(vertices)
            continue
        seen.add(region.number)
        if not _same(polygon, region.polygon):
            changed[region.number] = vertices
    return new, changed, set(known) - seen


def mark_pending(layer: Any) -> None:
    """Note that all new shapes are being written."""
    numbers = [int(number or PENDING) for number in layer.features[NUMBER].tolist()]
    layer.features = {NUMBER: np.array(numbers, int), TITLE: layer.features[TITLE].to_numpy()}
    layer.feature_defaults = {NUMBER: 0, TITLE: ""}


def _same(one: NDArray[np.float64], other: NDArray[np.float64]) -> bool:
    return one.shape == other.shape and bool(np.allclose(one, other, rtol=0, atol=MOVED_PX))

"""Which part of a slide the user has drawn: rectangles, ellipses and polygons of Shapes layers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.viewer.layers import OWNER, ROLE, placement
from napari_nucleiseg.viewer.opened import OpenedSlide

AREAS = ("rectangle", "ellipse", "polygon")
_ELLIPSE_CORNERS = 64
# Edges are about as broad as this when they are drawn; napari measures them in whole pixels of the slide.
EDGE_SCREEN_PX = 4.0
COLOUR = "#ffd400"


def selected_polygon(viewer: Any, opened: OpenedSlide) -> tuple[NDArray[np.float64] | None, str]:
    """Return the outline of the selected shape in level-0 pixels, or None and what to do about it.

    The selected shape of the active Shapes layer is taken, else one selected in another, else the only
    shape there is. Where no Shapes layer is, one is added, ready to draw.

    Parameters
    ----------
    viewer : napari.Viewer
        Its Shapes layers are looked at.
    opened : OpenedSlide
        On which the shape lies.
    """
    from napari.layers import Shapes

    active = viewer.layers.selection.active
    layers = sorted((layer for layer in viewer.layers if isinstance(layer, Shapes)), key=lambda layer: layer != active)
    found = [(layer, index) for layer in layers for index in sorted(layer.selected_data) if _is_area(layer, index)]
    if not found:
        every = [(layer, index) for layer in layers for index in range(layer.nshapes) if _is_area(layer, index)]
        found = every if len(every) == 1 else []
        if not found and every:
            return None, "Select one shape: press 5 in the Shapes layer, then click on it."
    if found:
        layer, index = found[0]
        if str(layer.mode).startswith("add_"):
            layer.mode = "pan_zoom"  # the next drag is meant to look around
        return outline(layer, index, opened.layer), ""
    theirs = [layer for layer in layers if ROLE not in layer.metadata]  # annotated regions are not drawn by chance
    layer = theirs[0] if theirs else _add_layer(viewer, opened)
    viewer.layers.selection.active = layer
    layer.current_edge_width = max(1, round(EDGE_SCREEN_PX / (viewer.scene.camera.zoom * layer.scale[-1])))
    layer.mode = "add_rectangle"
    return None, "Draw a rectangle or polygon on the slide, then press “Shape” again."


def _is_area(layer: Any, index: int) -> bool:
    return layer.shape_type[index] in AREAS


def _add_layer(viewer: Any, opened: OpenedSlide) -> Any:
    return viewer.add_shapes(
        name="Regions",
        edge_color=COLOUR,
        face_color="transparent",
        opacity=1.0,
        metadata={OWNER: opened.slide.fingerprint},
        **placement(opened.slide.mpp_um),
    )


def outline(layer: Any, index: int, slide_layer: Any) -> NDArray[np.float64]:
    """Return the corners ``(y, x)`` of a shape in level-0 pixels of the slide.

    Parameters
    ----------
    layer : napari.layers.Shapes
        Its scale, translation, rotation are honoured.
    index : int
        Which shape.
    slide_layer : napari.layers.Image
        Of the slide.
    """
    corners = np.asarray(layer.data[index], dtype=np.float64)[:, -2:]
    if layer.shape_type[index] == "ellipse":
        corners = _ellipse(corners)
    world = [layer.data_to_world(corner) for corner in corners]
    return np.array([np.asarray(slide_layer.world_to_data(point))[-2:] for point in world], dtype=np.float64)


def bounds_of(polygon: NDArray[np.float64]) -> Region:
    """Return the smallest region that holds a polygon ``(y, x)`` of level-0 pixels."""
    low, high = np.floor(polygon.min(axis=0)).astype(int), np.ceil(polygon.max(axis=0)).astype(int)
    return Region.from_bounds(int(low[0]), int(low[1]), int(high[0]), int(high[1]))


def _ellipse(box: NDArray[np.float64]) -> NDArray[np.float64]:
    """Corners of the ellipse inside a box of four corners in order."""
    centre = box.mean(axis=0)
    one, other = (box[1] - box[0]) / 2, (box[3] - box[0]) / 2
    angle = np.linspace(0, 2 * np.pi, _ELLIPSE_CORNERS, endpoint=False)[:, None]
    return np.asarray(centre + np.cos(angle) * one + np.sin(angle) * other)

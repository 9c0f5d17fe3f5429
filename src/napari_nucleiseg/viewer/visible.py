"""Which part of a slide the canvas shows, from the public camera and canvas models."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.geometry import Region


def visible_world(viewer: Any) -> NDArray[np.float64]:
    """Return the world corners ``[[y0, x0], [y1, x1]]`` of the canvas (two dimensions shown).

    Layers' ``corner_pixels`` would not do: they are grown to chunk borders and lag behind the camera.
    """
    camera = viewer.scene.camera
    centre = np.asarray(camera.center[-2:], dtype=np.float64)
    half = np.asarray(viewer.canvas.size, dtype=np.float64) / (2 * camera.zoom)
    return np.stack([centre - half, centre + half])


def visible_region(viewer: Any, layer: Any) -> Region | None:
    """Return what the canvas shows of a layer.

    Parameters
    ----------
    viewer : napari.components.ViewerModel
        Its camera, canvas and dims are read.
    layer : napari.layers.Layer
        An image of two dimensions; its scale, translation, rotation and affine are honoured.

    Returns
    -------
    Region or None
        Level-0 pixels of the layer, clipped to it; empty where it is out of sight; None in a 3-D view.
    """
    if viewer.dims.ndisplay != 2:
        return None
    (y0, x0), (y1, x1) = visible_world(viewer)
    vertical, horizontal = viewer.dims.displayed[-2:]
    corners = []
    for y in (y0, y1):
        for x in (x0, x1):
            point = list(viewer.dims.point)
            point[vertical], point[horizontal] = y, x
            corners.append(np.asarray(layer.world_to_data(point))[-2:])
    # Pixel centres are whole numbers in napari, so pixel i spans i - 0.5 to i + 0.5.
    low = np.floor(np.min(corners, axis=0) + 0.5).astype(int)
    high = np.ceil(np.max(corners, axis=0) + 0.5).astype(int)
    height, width = layer_shape(layer)
    return Region.from_bounds(int(low[0]), int(low[1]), int(high[0]), int(high[1])).intersect(
        Region(0, 0, height, width)
    )


def camera_place(viewer: Any) -> tuple[float, ...]:
    """Return where the camera is: zoom and centre; the same where nobody has moved it."""
    camera = viewer.scene.camera
    return float(camera.zoom), *(float(value) for value in camera.center[-2:])


def layer_shape(layer: Any) -> tuple[int, int]:
    """Return the level-0 ``(height, width)`` of an image or labels layer."""
    shape = layer.data[0].shape if layer.multiscale else layer.data.shape
    return (int(shape[-3]), int(shape[-2])) if getattr(layer, "rgb", False) else (int(shape[-2]), int(shape[-1]))

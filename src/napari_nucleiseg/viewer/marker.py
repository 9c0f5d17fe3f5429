"""A ring on the slide around the nucleus that the table points at, and the way there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.viewer.layers import OWNER, ROLE, placement

if TYPE_CHECKING:
    from napari_nucleiseg.viewer.opened import OpenedSlide

COLOUR = "#ffd400"
# The ring is so much wider than the nucleus.
AROUND = 1.7
SMALLEST_PX = 12
# Screen pixels per micrometre at which a nucleus can be corrected.
NEAR = 4.0
NEAR_ENOUGH = 1.6


class Sign:
    """One layer above all others that points at something; who paints keeps on painting.

    Parameters
    ----------
    viewer : napari.Viewer
        To draw in.
    """

    def __init__(self, viewer: Any) -> None:
        self._viewer = viewer
        self._layer: Any = None

    def put(self, opened: OpenedSlide, layer: Any) -> None:
        """Show a layer on a slide in place of the one before."""
        self.hide()
        self._layer = layer
        layer.editable = False
        opened.insert_above(self._viewer, layer, self._viewer.layers[-1])

    def hide(self) -> None:
        """Take the layer away."""
        layer, self._layer = self._layer, None
        if layer is not None and layer in self._viewer.layers:
            self._viewer.layers.remove(layer)


class Marker(Sign):
    """One ring in one viewer.

    Parameters
    ----------
    viewer : napari.Viewer
        To draw in.
    name : str
        Of its layer: what it points at.
    """

    def __init__(self, viewer: Any, name: str = "nucleus in the table") -> None:
        super().__init__(viewer)
        self._name = name

    def show(self, opened: OpenedSlide, box: Region) -> None:
        """Draw the ring around a box (level-0 pixels) on a slide."""
        from napari.layers import Points

        size = max(SMALLEST_PX, AROUND * max(box.height, box.width))
        centre = box.centre
        ring = Points(
            [[centre[0] - 0.5, centre[1] - 0.5]],
            name=self._name,
            size=size,
            symbol="disc",
            face_color="transparent",
            border_color=COLOUR,
            border_width=0.035,
            metadata={OWNER: opened.slide.fingerprint, ROLE: "marker"},
            **placement(opened.slide.mpp_um),
        )
        self.put(opened, ring)


def fly_to(viewer: Any, opened: OpenedSlide, box: Region, *, whole: bool = False) -> None:
    """Move the camera to a box (level-0 pixels) of a slide; from afar, so near that nuclei can be corrected.

    What is larger than the view is shown whole.

    Parameters
    ----------
    viewer : napari.Viewer
        Whose camera moves.
    opened : OpenedSlide
        Of the slide.
    box : Region
        Where to go.
    whole : bool
        Show all of the box also if the view is nearer now, and as near as it is good to correct all of it.
    """
    camera, canvas = viewer.scene.camera, viewer.canvas.size
    scale = opened.layer.scale[-2:]
    fitting = min(canvas[0] / max(box.height * scale[0], 1e-9), canvas[1] / max(box.width * scale[1], 1e-9))
    if fitting < NEAR or (whole and camera.zoom > fitting * 0.85):
        camera.zoom = fitting * 0.85
    elif camera.zoom < (NEAR if whole else NEAR_ENOUGH):
        camera.zoom = NEAR
    world = opened.layer.data_to_world(box.centre)
    camera.center = (*camera.center[:-2], *world[-2:])

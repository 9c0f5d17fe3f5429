"""A dashed rectangle on the slide: a place that is proposed, and is no region yet."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.viewer.layers import OWNER, ROLE, placement
from napari_nucleiseg.viewer.marker import COLOUR, Sign
from napari_nucleiseg.viewer.shapes import EDGE_SCREEN_PX

if TYPE_CHECKING:
    from napari_nucleiseg.viewer.opened import OpenedSlide

DASHES = 12


class DashedBox(Sign):
    """One dashed rectangle in one viewer."""

    def show(self, opened: OpenedSlide, box: Region) -> None:
        """Draw the rectangle around a box (level-0 pixels) on a slide."""
        from napari.layers import Vectors

        rectangle = Vectors(
            dashes(box),
            name="proposed region",
            vector_style="line",
            edge_color=COLOUR,
            opacity=1.0,
            metadata={OWNER: opened.slide.fingerprint, ROLE: "proposal"},
            **placement(opened.slide.mpp_um),
        )
        self.put(opened, rectangle)
        self.fit()

    def fit(self) -> None:
        """Make the dashes as broad as the eye needs them at the present zoom."""
        if self._layer is not None:
            zoom = self._viewer.scene.camera.zoom * float(self._layer.scale[-1])
            self._layer.edge_width = EDGE_SCREEN_PX / zoom


def dashes(box: Region) -> NDArray[np.float64]:
    """Return start and direction of the dashes of a box, shape (4 * `DASHES`, 2, 2), level-0 pixels as napari counts.

    A side begins and ends with a dash, so that the corners are seen.
    """
    # Pixel centres are whole numbers in napari.
    corners = np.array([(box.y, box.x), (box.y, box.x1), (box.y1, box.x1), (box.y1, box.x)], np.float64) - 0.5
    starts = np.arange(DASHES)[:, None] * 2 / (2 * DASHES - 1)
    sides = np.roll(corners, -1, axis=0) - corners
    found = [
        np.stack([corner + starts * side, np.broadcast_to(side / (2 * DASHES - 1), (DASHES, 2))], axis=1)
        for corner, side in zip(corners, sides, strict=True)
    ]
    return np.concatenate(found)

"""The layer that people paint on: napari's labels over a part of the slide, with the slide's own history."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.slides.pyramid import Slide
from napari_nucleiseg.viewer.layers import OWNER, ROLE, placement, slide_name
from napari_nucleiseg.viewer.outlines import NO_CLASSES, Labels, colours_of

Ids = NDArray[np.uint32]
Call = Callable[[], None]
HAIR_PX = 0.01


class PaintLayer(Labels):
    """Labels whose undo and redo are the project's, and whose bucket does not run out into the background.

    Attributes
    ----------
    on_undo, on_redo : callable
        Called in place of napari's own history, which knows nothing of the rest of the slide.
    """

    on_undo: Call
    on_redo: Call

    def undo(self) -> None:
        """Undo the last edit of the slide."""
        self.on_undo()

    def redo(self) -> None:
        """Do the next edit of the slide again."""
        self.on_redo()

    def fill(self, coord: Sequence[float], new_label: int, refresh: bool = True) -> None:
        """Fill what is under the cursor; background only where a nucleus encloses it."""
        from napari_nucleiseg.core.edits import fill

        y, x = (round(float(value)) for value in coord[-2:])
        height, width = self.data.shape
        if not (0 <= y < height and 0 <= x < width):
            return
        if self.data[y, x]:
            super().fill(coord, new_label, refresh)
            return
        edited = fill(np.asarray(self.data), new_label, (y, x))
        if edited is not None:
            around, counts = np.unique(edited.before[edited.before != 0], return_counts=True)
            # A hole belongs to the nucleus around it.
            owner = int(around[counts.argmax()]) if len(around) else new_label
            rows, columns = np.nonzero(edited.before != edited.after)
            self.data_setitem((rows + edited.box.y, columns + edited.box.x), owner, refresh)

    def preview(self, points: Sequence[Sequence[float]], *, closed: bool = True) -> None:
        """Show a line or an outline, ``(y, x)`` pixels; none takes it away. What is not `closed` has two ends.

        It is napari's polygon, which is not public: where it is not found, nothing is seen, and all else works.
        """
        overlay = getattr(self, "_overlays", {}).get("polygon")
        if overlay is not None and (len(points) or overlay.points):
            # Where napari would close the line, it goes back along itself, a hair beside.
            back = [] if closed else [(y + HAIR_PX, x + HAIR_PX) for y, x in reversed(points[1:-1])]
            overlay.points = [list(point) for point in (*points, *back)]

    def _append_to_undo_history(self, item: Any) -> None:
        """Tell of a stroke, but keep no second history of it."""
        self.events.paint(value=item)


def paint_layer(ids: Ids, region: Region, slide: Slide) -> PaintLayer:
    """Return an editable layer over a part of a slide.

    Parameters
    ----------
    ids : ndarray of uint32, shape (y, x)
        Over `region`; the layer takes the array itself.
    region : Region
        Level-0 pixels.
    slide : Slide
        Gives name and pixel size.
    """
    place = placement(slide.mpp_um)
    layer = PaintLayer(
        ids,
        name=f"{slide_name(slide)} nuclei (correct)",
        metadata={OWNER: slide.fingerprint, ROLE: "edit"},
        colormap=colours_of(NO_CLASSES),
        opacity=1.0,
        **{**place, "translate": corner_of(region, place["scale"])},
    )
    layer.contour = 1
    layer.brush_size = 8
    return layer


def corner_of(region: Region, scale: Sequence[float]) -> tuple[float, float]:
    """Return the translation, world units, of a layer whose first pixel is the region's first."""
    return region.y * scale[-2], region.x * scale[-1]


def see_through_brush(viewer: Any) -> None:
    """Let tissue be seen in the middle of the brush: napari 0.9 draws a box of the canvas's colour there."""
    brush = viewer.canvas.overlays.get("_brush_circle")
    if brush is not None:
        brush.box = False

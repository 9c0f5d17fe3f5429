"""The part of the slide that can be painted on: it moves with the view, and what differs from before is an edit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.edits.change import bounds_of
from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.slides.pyramid import Slide
from napari_nucleiseg.viewer.paint_layer import PaintLayer, corner_of, paint_layer

MARGIN_PX = 256
STEP_PX = 256
LARGEST_PX = 4096
# Beyond so many level-0 pixels per screen pixel nobody can draw a nucleus.
COARSEST = 2.0

# Ids of nuclei are uint32; painted attention is uint8.
Ids = NDArray[Any]
MakeLayer = Callable[[Ids, Region, Slide], PaintLayer]


@dataclass(frozen=True, slots=True, eq=False)
class Stroke:
    """What a person changed: ids over `region` (level-0 pixels) before and after."""

    region: Region
    before: Ids
    after: Ids


def window_around(view: Region, whole: Region) -> Region | None:
    """Return the window for a view: with a margin, on a coarse grid, inside the slide; None if it would be too large.

    Parameters
    ----------
    view, whole : Region
        What is seen, and the slide; level-0 pixels.
    """
    if view.is_empty:
        return None
    y0, x0 = ((start - MARGIN_PX) // STEP_PX * STEP_PX for start in (view.y, view.x))
    y1, x1 = (-(-(stop + MARGIN_PX) // STEP_PX) * STEP_PX for stop in (view.y1, view.x1))
    window = Region.from_bounds(y0, x0, y1, x1).intersect(whole)
    return window if max(window.height, window.width) <= LARGEST_PX else None


class EditWindow:
    """Pixels of the label image as they are painted on, and as the project last had them.

    Parameters
    ----------
    make : callable
        Returns a layer to paint on; default one for nuclei.

    Attributes
    ----------
    layer : PaintLayer or None
        While there is a window.
    region : Region
        What it covers, level-0 pixels.
    """

    def __init__(self, make: MakeLayer = paint_layer) -> None:
        self._make = make
        self.layer: PaintLayer | None = None
        self.region = Region(0, 0, 0, 0)
        self._base: Ids = np.zeros((0, 0), np.uint32)

    @property
    def ids(self) -> Ids:
        """The pixels as painted, shape (y, x); the layer's own array."""
        return self._base if self.layer is None else np.asarray(self.layer.data)

    def open(self, region: Region, ids: Ids, slide: Slide) -> PaintLayer | None:
        """Show another part of the slide; return the layer if it is a new one."""
        self.region, self._base = region, ids
        if self.layer is None:
            self.layer = self._make(ids.copy(), region, slide)
            return self.layer
        self.layer.data = ids.copy()
        self.layer.translate = corner_of(region, self.layer.scale)
        return None

    def close(self) -> Any:
        """Forget the layer and return it."""
        layer, self.layer = self.layer, None
        self.region = Region(0, 0, 0, 0)
        self._base = np.zeros((0, 0), np.uint32)
        return layer

    def covers(self, view: Region) -> bool:
        """Whether all of a view can be painted on."""
        return self.layer is not None and self.region.contains(view)

    def take_stroke(self) -> Stroke | None:
        """Return what was changed since the last time; from now on it counts as known."""
        box = bounds_of(self.ids != self._base)
        if box is None:
            return None
        parts = box.slices
        place = box.translate(self.region.y, self.region.x)
        stroke = Stroke(place, self._base[parts].copy(), self.ids[parts].copy())
        self._base[parts] = stroke.after
        return stroke

    def renew(self, region: Region, ids: Ids) -> bool:
        """Take over what the project has now, but for what is being painted; return whether anything is seen of it.

        Parameters
        ----------
        region : Region
            Level-0 pixels.
        ids : ndarray of uint32, shape (y, x)
            Over `region`.
        """
        common = region.intersect(self.region)
        if common.is_empty or self.layer is None:
            return False
        mine = common.translate(-self.region.y, -self.region.x).slices
        new = ids[common.translate(-region.y, -region.x).slices]
        painted, base = self.ids[mine], self._base[mine]
        untouched = painted == base
        if np.array_equal(base, new) and untouched.all():
            return False
        np.copyto(painted, new, where=untouched)
        base[...] = new
        return True

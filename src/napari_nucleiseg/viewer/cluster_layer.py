"""The label map of clusters over the slide: live while it is fitted, with one cluster lit when it is pointed at."""

from __future__ import annotations

import colorsys
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.geometry import YX, Region
from napari_nucleiseg.viewer.layers import OWNER, ROLE, placement, slide_name

if TYPE_CHECKING:
    from napari_nucleiseg.viewer.opened import OpenedSlide

# Those of Okabe and Ito, which the colour-blind tell apart, without yellow: shapes are drawn in it. The first ones are
# far from haematoxylin and eosin, from outlines and from shapes.
COLOURS = ("#d55e00", "#56b4e9", "#009e73", "#f4f4f4", "#0072b2", "#e69f00", "#000000", "#cc79a7", "#8d5a2b")
GOLDEN = 0.618034
# How much of the tissue is covered: while it is fitted, by what is pointed at, by what is ticked, by the others.
RUNNING, LIT, TICKED, FAINT = 0.55, 0.8, 0.6, 0.1


def colour_of(place: int) -> str:
    """Return the colour of the cluster at a place of the list, ``#rrggbb``; no two are the same."""
    if place < len(COLOURS):
        return COLOURS[place]
    red, green, blue = colorsys.hsv_to_rgb((place * GOLDEN) % 1, 0.85 - 0.3 * (place % 2), 0.95 - 0.3 * (place % 3) / 2)
    return f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}"


class ClusterLayer:
    """One label map in one viewer.

    Parameters
    ----------
    viewer : napari.Viewer
        To draw in.
    """

    def __init__(self, viewer: Any) -> None:
        self._viewer = viewer
        self._layer: Any = None

    def show(self, opened: OpenedSlide, place_px: Region, step: YX, labels: NDArray[np.integer]) -> None:
        """Show labels on a slide, in place of those before; it appears again if the user has removed it.

        Parameters
        ----------
        opened : OpenedSlide
            The slide.
        place_px : Region
            What `labels` covers, model pixels.
        step : YX
            Level-0 pixels per model pixel.
        labels : ndarray of integers, shape (y, x)
            Cluster of each pixel; negative where it is not known.
        """
        # Napari colours every number that a type can hold, each time anything is coloured anew.
        shown = (labels + 1).astype(np.uint8 if labels.max(initial=0) < 255 else np.uint16)
        if self._layer is None or self._layer not in self._viewer.layers:
            self._layer = self._made(opened, place_px, step, shown)
            opened.insert_above(self._viewer, self._layer, opened.layer)
        else:
            self._layer.data = shown

    def _made(self, opened: OpenedSlide, place_px: Region, step: YX, shown: NDArray[Any]) -> Any:
        from napari.layers import Labels

        placed = placement(opened.slide.mpp_um, step)
        corner = (place_px.y, place_px.x)
        placed["translate"] = tuple(
            first + pixels * side
            for first, pixels, side in zip(placed["translate"], corner, placed["scale"], strict=True)
        )
        layer = Labels(
            shown,
            name=f"{slide_name(opened.slide)} clusters",
            opacity=1.0,
            metadata={OWNER: opened.slide.fingerprint, ROLE: "clusters"},
            **placed,
        )
        layer.editable = False
        return layer

    def colour(self, colours: Mapping[int, str], ticked: Collection[int] | None = None, lit: int | None = None) -> None:
        """Colour the clusters.

        Parameters
        ----------
        colours : mapping of int to str
            ``#rrggbb`` of each cluster; others are not seen.
        ticked : collection of int, optional
            Those that are chosen; None shows all alike.
        lit : int, optional
            The one that is pointed at; the others are not seen then.
        """
        if self._layer is None:
            return
        from napari.utils.colormaps import direct_colormap

        def opacity(cluster: int) -> float:
            if lit is not None:
                return LIT if cluster == lit else 0.0
            if ticked is None:
                return RUNNING
            return TICKED if cluster in ticked else FAINT

        shades: dict[int | None, Any] = {None: (0, 0, 0, 0), 0: (0, 0, 0, 0)}
        for cluster, colour in colours.items():
            rgb = (int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5))
            shades[cluster + 1] = (*rgb, opacity(cluster))
        self._layer.colormap = direct_colormap(shades)

    def lower(self, opened: OpenedSlide) -> None:
        """Bring it right above its slide, below the nuclei."""
        layers = self._viewer.layers
        if self._layer is not None and self._layer in layers:
            layers.move(layers.index(self._layer), layers.index(opened.layer) + 1)

    @property
    def visible(self) -> bool:
        """Whether it is seen."""
        return self._layer is not None and bool(self._layer.visible)

    @visible.setter
    def visible(self, on: bool) -> None:
        if self._layer is not None:
            self._layer.visible = on

    def hide(self) -> None:
        """Take it away."""
        layer, self._layer = self._layer, None
        if layer is not None and layer in self._viewer.layers:
            self._viewer.layers.remove(layer)

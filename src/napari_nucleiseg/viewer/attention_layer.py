"""The layers of painted attention: one to paint on over a part of the slide, one to look at from far away."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.slides.pyramid import Slide
from napari_nucleiseg.core.store.attention import DO_NOT_LOOK, LOOK_HERE
from napari_nucleiseg.state import DO_NOT, ERASE, LOOK
from napari_nucleiseg.viewer.layers import OWNER, ROLE, placement
from napari_nucleiseg.viewer.outlines import Labels
from napari_nucleiseg.viewer.paint_layer import PaintLayer, corner_of

NAME = "Attention corrections"
OVERVIEW = f"{NAME} (overview)"
# The bluish green and the black of Okabe and Ito: everybody tells them apart, and from tissue, outlines and regions;
# black is seen on the heatmap as well.
COLOURS = {LOOK: "#009e73", DO_NOT: "#000000"}
TITLES = {LOOK: "Look here", DO_NOT: "Do not look here", ERASE: "Erase"}
LABELS = {LOOK: LOOK_HERE, DO_NOT: DO_NOT_LOOK}
OPACITY = 0.6
BRUSH_PX = 16


def attention_paint_layer(paint: NDArray[Any], region: Region, slide: Slide) -> PaintLayer:
    """Return an editable layer over a part of a slide.

    Parameters
    ----------
    paint : ndarray of uint8, shape (y, x)
        `LOOK_HERE`, `DO_NOT_LOOK` or 0 over `region`; the layer takes the array itself.
    region : Region
        Level-0 pixels.
    slide : Slide
        Gives pixel size and owner.
    """
    place = placement(slide.mpp_um)
    layer = PaintLayer(
        paint, **_look(slide, NAME, "paint attention"), **{**place, "translate": corner_of(region, place["scale"])}
    )
    layer.brush_size = BRUSH_PX
    layer.selected_label = LOOK_HERE
    return layer


def attention_overview(levels: Sequence[Any], slide: Slide) -> Any:
    """Return the read-only layer over the whole slide; `levels` are ``(y, x)`` uint8, finest first."""
    several = len(levels) > 1
    layer = Labels(
        list(levels) if several else levels[0],
        multiscale=several,
        **_look(slide, OVERVIEW, "attention overview"),
        **placement(slide.mpp_um),
    )
    layer.editable = False
    return layer


def _look(slide: Slide, name: str, role: str) -> dict[str, Any]:
    from napari.utils.colormaps import DirectLabelColormap

    colours: dict[int | None, str] = {LABELS[kind]: colour for kind, colour in COLOURS.items()}
    colours |= {None: "transparent", 0: "transparent"}
    names = np.array(["not painted", TITLES[LOOK], TITLES[DO_NOT]], object)
    return {
        "name": name,
        "metadata": {OWNER: slide.fingerprint, ROLE: role},
        "colormap": DirectLabelColormap(color_dict=colours),
        # Said in the status bar of what is under the mouse.
        "features": {"index": np.arange(len(names)), "attention": names},
        "opacity": OPACITY,
    }

"""The layers of a comparison: what differs, filled, and the outlines of the former and the new model above it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from napari.utils.colormaps import CyclicLabelColormap, DirectLabelColormap

from napari_nucleiseg.core.slides.pyramid import Slide
from napari_nucleiseg.viewer.layers import OWNER, ROLE, outline_width, placement

if TYPE_CHECKING:
    from napari_nucleiseg.core.teaching.comparison import Comparison

FORMER, NOW, DIFFERENCES = "Former model", "New model", "Differences"
FORMER_COLOUR, NOW_COLOUR = "#ff8c1a", "#00d45a"
# What became of nuclei, by the names of `core.evaluation.kinds.Kind`, and how it is called.
KINDS = {
    "ADDED": ("added", "#2fd35f"),
    "MISSED": ("missed", "#ff3b30"),
    "SPLIT": ("split", "#2f8bff"),
    "MERGED": ("merged", "#ffd60a"),
    "CHANGED": ("other shape", "#b45cff"),
}
FILL = 0.5
_CLEAR = "transparent"


def comparison_layers(slide: Slide, comparison: Comparison) -> tuple[Any, Any, Any]:
    """Return the layers from the lowest on: differences, former model, new model.

    Parameters
    ----------
    slide : Slide
        With its pixel size.
    comparison : Comparison
        What two models see of a part of it.
    """
    from napari.layers import Labels as FilledLabels

    from napari_nucleiseg.core.evaluation.kinds import Kind
    from napari_nucleiseg.viewer.outlines import BY_CLASS, Labels

    where = _placed(slide, comparison)
    colours = {None: _CLEAR, 0: _CLEAR, int(Kind.SAME): _CLEAR}
    colours |= {int(Kind[name]): colour for name, (_, colour) in KINDS.items()}
    layers = [
        FilledLabels(
            comparison.differences.codes,
            name=DIFFERENCES,
            colormap=DirectLabelColormap(color_dict=colours),
            opacity=FILL,
            **where,
        )
    ]
    for name, labels, colour in (
        (FORMER, comparison.former, FORMER_COLOUR),
        (NOW, comparison.now, NOW_COLOUR),
    ):
        colormap = CyclicLabelColormap(colors=[_CLEAR, colour], background_value=0, name=BY_CLASS)
        layers.append(Labels(labels, name=name, colormap=colormap, opacity=1.0, **where))
    for layer in layers:
        layer.editable = False
    return layers[0], layers[1], layers[2]


def _placed(slide: Slide, comparison: Comparison) -> dict[str, Any]:
    """Return where the layers lie, in micrometres."""
    where = placement(slide.mpp_um, comparison.step)
    corner = comparison.region.y, comparison.region.x
    pixel = slide.require_mpp()
    moved = (own + size * start for own, size, start in zip(where["translate"], pixel, corner, strict=True))
    metadata = {OWNER: slide.fingerprint, ROLE: "comparison"}
    return {**where, "translate": tuple(moved), "metadata": metadata}


def fit_outlines(layers: Sequence[Any], zoom: float) -> None:
    """Make outlines as thick as the eye needs them.

    Parameters
    ----------
    layers : sequence of napari.layers.Labels
        Of `comparison_layers`.
    zoom : float
        Screen pixels per world unit.
    """
    for layer in layers[1:]:
        width = outline_width(zoom * float(layer.scale[-1]), 1 / zoom)
        if layer.contour != width:
            layer.contour = width

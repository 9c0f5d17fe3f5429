"""The layers of a comparison with a reference: its outlines, and the nuclei of each mistake, filled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.utils.colormaps import CyclicLabelColormap, DirectLabelColormap
from numpy.typing import NDArray

from napari_nucleiseg.core.slides.pyramid import Slide
from napari_nucleiseg.core.store.plane import LazyPlane
from napari_nucleiseg.viewer.comparison_layers import FILL, FORMER_COLOUR, KINDS
from napari_nucleiseg.viewer.layers import OWNER, ROLE, outline_width, placement

if TYPE_CHECKING:
    from napari_nucleiseg.core.evaluation.slide_report import SlideReport
    from napari_nucleiseg.core.exchange.reference import Reference
    from napari_nucleiseg.core.store.project import Project

REFERENCE = "Reference"
# From the lowest on; the name of the layer by the name of the kind.
MISTAKES = {"MERGED": "Merged", "SPLIT": "Split", "ADDED": "Added", "MISSED": "Missed"}
_CLEAR = "transparent"


def judging_layers(slide: Slide, project: Project, reference: Reference, report: SlideReport) -> tuple[Any, ...]:
    """Return the layers from the lowest on: one for each mistake, then the outlines of the reference.

    They hold no pixels: what is shown is read when it is, at any size of the slide.

    Parameters
    ----------
    slide : Slide
        With its pixel size.
    project : Project
        What was found.
    reference : Reference
        What is right; open as long as the layers are there.
    report : SlideReport
        What each nucleus is.
    """
    from napari_nucleiseg.core.evaluation.kinds import Kind
    from napari_nucleiseg.viewer.outlines import BY_CLASS, Labels

    layers = []
    for word, name in MISTAKES.items():
        # What is missed only the reference has; of all else the nuclei are shown that are to be mended.
        side, judged = (reference.project, report.truth) if word == "MISSED" else (project, report.pred)
        layers.append(_filled(slide, side, judged.of(Kind[word]), name, KINDS[word][1]))
    outlines = Labels(
        _pyramid(reference.project.labels.levels),
        name=REFERENCE,
        multiscale=len(reference.project.labels.levels) > 1,
        colormap=CyclicLabelColormap(colors=[_CLEAR, FORMER_COLOUR], background_value=0, name=BY_CLASS),
        opacity=1.0,
        **_placed(slide),
    )
    outlines.contour = 1
    for layer in (*layers, outlines):
        layer.editable = False
    return (*layers, outlines)


def fit_outline(layers: Sequence[Any], zoom: float) -> None:
    """Make the outlines of the reference as thick as the eye needs them.

    Parameters
    ----------
    layers : sequence of napari.layers.Labels
        Of `judging_layers`.
    zoom : float
        Screen pixels per world unit.
    """
    for layer in layers[len(MISTAKES) :]:
        factor = layer.downsample_factors[layer.data_level][-1]
        width = outline_width(zoom * float(layer.scale[-1] * factor), 1 / zoom)
        if layer.contour != width:
            layer.contour = width


def _filled(slide: Slide, project: Project, ids: NDArray[np.int64], name: str, colour: str) -> Any:
    from napari.layers import Labels

    planes = [_marked(level, ids.astype(np.uint32)) for level in project.labels.levels]
    return Labels(
        _pyramid(planes),
        name=name,
        multiscale=len(planes) > 1,
        colormap=DirectLabelColormap(color_dict={None: _CLEAR, 0: _CLEAR, 1: colour}),
        opacity=FILL,
        **_placed(slide),
    )


def _marked(level: LazyPlane, ids: NDArray[np.uint32]) -> LazyPlane:
    """Return a plane that is 1 where a level shows one of the ids (ascending) and 0 elsewhere."""

    def read(y0: int, x0: int, y1: int, x1: int) -> NDArray[np.uint8]:
        block = level[y0:y1, x0:x1]
        marks = np.zeros(block.shape, np.uint8)
        inside = block > 0
        if len(ids) and inside.any():
            values = block[inside]
            places = np.minimum(np.searchsorted(ids, values), len(ids) - 1)
            marks[inside] = ids[places] == values
        return marks

    return LazyPlane(level.shape, np.uint8, level.chunks, read)


def _pyramid(levels: Sequence[LazyPlane]) -> Any:
    # napari unwraps a list of one level and then takes its rows for levels.
    return list(levels) if len(levels) > 1 else levels[0]


def _placed(slide: Slide) -> dict[str, Any]:
    return {**placement(slide.mpp_um), "metadata": {OWNER: slide.fingerprint, ROLE: "judging"}}

"""What is seen of "By text" on the slide: outlines of nuclei in the colour of the words that they are most like."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from napari.utils.colormaps import CyclicLabelColormap
from numpy.typing import NDArray

from napari_nucleiseg.core.geometry import YX
from napari_nucleiseg.viewer.cluster_layer import colour_of
from napari_nucleiseg.viewer.layers import OWNER, ROLE, placement, slide_name
from napari_nucleiseg.viewer.outlines import BY_CLASS, Classes, Labels

if TYPE_CHECKING:
    from napari_nucleiseg.viewer.by_text_engine import TextLook
    from napari_nucleiseg.viewer.opened import OpenedSlide

OUTLINE_PX = 2
NAME = "by text"
# Those of clusters, but green comes last: a thin line in it would be taken for one of a nucleus that fits no words.
COLOURS = ("#d55e00", "#56b4e9", "#000000", "#cc79a7", "#0072b2", "#8d5a2b", "#e69f00", "#f4f4f4", "#009e73")


def words_colour(place: int) -> str:
    """Return the colour of the words at a place of the list, ``#rrggbb``; no two are the same."""
    return COLOURS[place] if place < len(COLOURS) else colour_of(place)


def _colormap(colours: tuple[str, ...]) -> CyclicLabelColormap:
    """Return the colours by number; of nuclei without one nothing is seen."""
    return CyclicLabelColormap(colors=["transparent", "transparent", *colours], background_value=0, name=BY_CLASS)


class TextLabels(Labels):
    """Outlines of scored nuclei; of those that fit no words nothing is seen."""

    def show_classes(self, classes: Classes) -> None:
        """Colour nuclei by what they are most like."""
        same_colours = classes.colours == self._classes.colours
        self._classes = classes
        if same_colours:
            self.refresh(thumbnail=False, extent=False, highlight=False)
        else:
            self.colormap = _colormap(classes.colours)


class ByTextLayer:
    """One layer in one viewer; all methods are for the main thread.

    Parameters
    ----------
    viewer : napari.Viewer
        To draw in.
    """

    def __init__(self, viewer: Any) -> None:
        self._viewer = viewer
        self._layer: Any = None
        self._shown: TextLook | None = None

    @property
    def layer(self) -> Any:
        """The layer; None if it is not shown."""
        return self._layer if self._layer is not None and self._layer in self._viewer.layers else None

    def show(self, opened: OpenedSlide, look: TextLook, numbers: NDArray[np.uint8], colours: tuple[str, ...]) -> None:
        """Show nuclei in place of those before.

        Parameters
        ----------
        opened : OpenedSlide
            The slide.
        look : TextLook
            The nuclei.
        numbers : ndarray of uint8, shape (n + 1,)
            Of each number of `look` its place in `colours` from 1 on; 0 is not shown.
        colours : tuple of str
            ``#rrggbb`` of each class.
        """
        if self.layer is None or self._shown is not look:
            self.hide()
            self._layer, self._shown = self._made(opened, look, colours), look
            opened.insert_above(self._viewer, self._layer, self._viewer.layers[-1])
        ids = np.flatnonzero(numbers).astype(np.uint32)
        self._layer.show_classes(Classes(ids, numbers[ids], colours))

    @staticmethod
    def _made(opened: OpenedSlide, look: TextLook, colours: tuple[str, ...]) -> TextLabels:
        unit = opened.slide.mpp_um or YX(1.0, 1.0)
        placed = {**placement(opened.slide.mpp_um), "translate": (look.region.y * unit.y, look.region.x * unit.x)}
        layer = TextLabels(
            look.labels,
            name=f"{slide_name(opened.slide)} {NAME}",
            colormap=_colormap(colours),
            opacity=1.0,
            metadata={OWNER: opened.slide.fingerprint, ROLE: NAME},
            **placed,
        )
        layer.contour = OUTLINE_PX
        layer.editable = False
        return layer

    def hide(self) -> None:
        """Take it away."""
        layer, self._layer, self._shown = self.layer, None, None
        if layer is not None:
            self._viewer.layers.remove(layer)

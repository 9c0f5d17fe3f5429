"""What is seen of "Find the like" on the slide: proposals by similarity, the marks, and the map of similarity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.utils.colormaps import Colormap, CyclicLabelColormap
from numpy.typing import NDArray

from napari_nucleiseg.core.geometry import YX, Region
from napari_nucleiseg.viewer.layers import OWNER, ROLE, placement, slide_name
from napari_nucleiseg.viewer.outlines import BY_CLASS, NO_IDS, NO_NUMBERS, Classes, Labels

if TYPE_CHECKING:
    from napari_nucleiseg.viewer.like_candidates import Candidates
    from napari_nucleiseg.viewer.like_engine import Frame
    from napari_nucleiseg.viewer.like_marks import SlideMark
    from napari_nucleiseg.viewer.opened import OpenedSlide

# From just like enough to as like as can be; far from haematoxylin, eosin, DAB and the green of nuclei.
SHADES = ("#0086a3", "#00a3bd", "#00bfd6", "#00d9ec", "#00f4ff")
CHOSEN = "#ffffff"
LIKE_COLOUR, UNLIKE_COLOUR = "#00f4ff", "#ff3b30"
COLOURS = (*SHADES, CHOSEN)
CHOSEN_NUMBER = len(SHADES) + 1
OUTLINE_PX = 2
MARK_SCREEN_PX, PATH_SCREEN_PX = 16.0, 3.0
# However near or far one is.
MARK_LIMITS_PX = (12.0, 20.0)
# A line has two ends.
LEAST_CORNERS = 2
# Similarity from 0 to 1: tissue stays seen where there is little.
GLOW = [[0.2, 0.0, 0.4, 0.0], [0.6, 0.0, 0.4, 0.15], [0.9, 0.1, 0.2, 0.5], [1.0, 0.9, 0.2, 0.8]]
STOPS = [0.0, 0.5, 0.75, 1.0]
NAMES = OUTLINES, HEATMAP, MARKS, REGIONS, PATH = (
    "the like", "similarity", "marks of the like", "marked regions of the like", "region being marked",
)  # fmt: skip
ROLES = "like"


def shades_of(scores: NDArray[np.float32], threshold: float) -> NDArray[np.uint8]:
    """Return the number of the shade of each score above a threshold: 1 for the least, `len(SHADES)` for the most."""
    share = (scores - threshold) / max(1e-6, 1 - threshold)
    return np.asarray(1 + np.clip(share * len(SHADES), 0, len(SHADES) - 1), np.uint8)


class ProposedLabels(Labels):
    """Outlines of what is proposed, each in the colour of its similarity; of other candidates nothing is seen."""

    _classes = Classes(NO_IDS, NO_NUMBERS, COLOURS)


class LikeLayers:
    """The layers of one viewer; all methods are for the main thread.

    Parameters
    ----------
    viewer : napari.Viewer
        To draw in.
    """

    def __init__(self, viewer: Any) -> None:
        self._viewer = viewer
        self._layers: dict[str, Any] = {}
        self._shown: Any = None

    def layer(self, name: str) -> Any:
        """Return one of the layers of `NAMES`; None if it is not shown."""
        layer = self._layers.get(name)
        return layer if layer is not None and layer in self._viewer.layers else None

    # ------------------------------------------------------------------ proposals

    def show(self, opened: OpenedSlide, candidates: Candidates, shades: NDArray[np.uint8]) -> None:
        """Show proposals in place of those before.

        Parameters
        ----------
        opened : OpenedSlide
            The slide.
        candidates : Candidates
            All that can be proposed.
        shades : ndarray of uint8, shape (n + 1,)
            Of each number its place in `COLOURS` from 1 on; 0 is not proposed.
        """
        layer = self.layer(OUTLINES)
        if layer is None:
            layer = self._add(opened, OUTLINES, self._made(opened, candidates))
        elif self._shown is not candidates:
            layer.data = candidates.labels
            layer.translate = _corner(opened, candidates.region)
        self._shown = candidates
        ids = np.flatnonzero(shades).astype(np.uint32)
        layer.show_classes(Classes(ids, shades[ids], COLOURS))

    def _made(self, opened: OpenedSlide, candidates: Candidates) -> ProposedLabels:
        placed = placement(opened.slide.mpp_um)
        layer = ProposedLabels(
            candidates.labels,
            name=f"{slide_name(opened.slide)} {OUTLINES}",
            # What is not proposed is not seen.
            colormap=CyclicLabelColormap(
                colors=["transparent", "transparent", *COLOURS], background_value=0, name=BY_CLASS
            ),
            opacity=1.0,
            metadata={OWNER: opened.slide.fingerprint, ROLE: ROLES},
            **{**placed, "translate": _corner(opened, candidates.region)},
        )
        layer.contour = OUTLINE_PX
        return layer

    # ------------------------------------------------------------------ similarity

    def show_heatmap(self, opened: OpenedSlide, frame: Frame, likeness: NDArray[np.float32]) -> None:
        """Show how similar each place is, 0..1, over a part of the slide, below the nuclei."""
        placed = placement(opened.slide.mpp_um, frame.step)
        placed["translate"] = tuple(
            first + start * side
            for first, start, side in zip(placed["translate"], frame.origin, frame.slide_um, strict=True)
        )
        layer = self.layer(HEATMAP)
        if layer is not None:
            layer.data = likeness
            layer.translate = placed["translate"]
            layer.scale = placed["scale"]
            return
        from napari.layers import Image

        made = Image(
            likeness,
            name=f"{slide_name(opened.slide)} {HEATMAP}",
            colormap=Colormap(GLOW, name="nucleiseg similarity", controls=STOPS),
            contrast_limits=(0.0, 1.0),
            blending="translucent",
            interpolation2d="linear",
            metadata={OWNER: opened.slide.fingerprint, ROLE: ROLES},
            **placed,
        )
        self._add(opened, HEATMAP, made, lower=opened.layer)

    # ------------------------------------------------------------------ marks

    def show_marks(self, opened: OpenedSlide, marks: Sequence[SlideMark]) -> None:
        """Show where marks are: a ring on a nucleus, the outline of a region."""
        points = [mark for mark in marks if mark.is_point]
        areas = [mark for mark in marks if not mark.is_point]
        unit = np.asarray(opened.slide.mpp_um or YX(1.0, 1.0))
        self._show_points(opened, points, unit)
        self._show_areas(opened, areas, unit)

    def _show_points(self, opened: OpenedSlide, marks: Sequence[SlideMark], unit: NDArray[np.float64]) -> None:
        if not marks:
            self.hide(MARKS)
            return
        # Whole numbers are centres of pixels.
        places = np.concatenate([mark.outline_um for mark in marks]) / unit - 0.5
        look = {
            "symbol": ["cross" if mark.is_like else "x" for mark in marks],
            "face_color": [_colour(mark) for mark in marks],
            "size": self._px(opened, MARK_SCREEN_PX),
        }
        layer = self.layer(MARKS)
        if layer is not None:
            # A new layer would hold the window many times as long.
            layer.data = places
            for name, value in look.items():
                setattr(layer, name, value)
            return
        from napari.layers import Points

        layer = Points(
            places,
            name=f"{slide_name(opened.slide)} {MARKS}",
            border_color="#10141a",
            border_width=0.08,
            canvas_size_limits=MARK_LIMITS_PX,
            metadata={OWNER: opened.slide.fingerprint, ROLE: ROLES},
            **look,
            **placement(opened.slide.mpp_um),
        )
        self._add(opened, MARKS, layer)

    def _show_areas(self, opened: OpenedSlide, marks: Sequence[SlideMark], unit: NDArray[np.float64]) -> None:
        self.hide(REGIONS)
        if not marks:
            return
        from napari.layers import Shapes

        layer = Shapes(
            [mark.outline_um / unit - 0.5 for mark in marks],
            shape_type="polygon",
            name=f"{slide_name(opened.slide)} {REGIONS}",
            edge_color=[_colour(mark) for mark in marks],
            face_color="transparent",
            edge_width=self._px(opened, PATH_SCREEN_PX),
            metadata={OWNER: opened.slide.fingerprint, ROLE: ROLES},
            **placement(opened.slide.mpp_um),
        )
        self._add(opened, REGIONS, layer)

    def show_path(self, opened: OpenedSlide, corners: NDArray[np.float64]) -> None:
        """Show the line ``(n, 2)`` that is being drawn, level-0 pixels measured from corners; a point hides it."""
        if len(corners) < LEAST_CORNERS:
            self.hide(PATH)
            return
        # Whole numbers are centres of pixels.
        lines = np.stack([corners[:-1] - 0.5, np.diff(corners, axis=0)], axis=1)
        layer = self.layer(PATH)
        if layer is not None:
            layer.data = lines
            return
        from napari.layers import Vectors

        made = Vectors(
            lines,
            name=f"{slide_name(opened.slide)} {PATH}",
            vector_style="line",
            edge_color=LIKE_COLOUR,
            edge_width=self._px(opened, PATH_SCREEN_PX),
            metadata={OWNER: opened.slide.fingerprint, ROLE: ROLES},
            **placement(opened.slide.mpp_um),
        )
        self._add(opened, PATH, made)

    def _px(self, opened: OpenedSlide, screen_px: float) -> float:
        """Return how many pixels of a slide so many screen pixels are."""
        return screen_px / float(self._viewer.scene.camera.zoom * opened.layer.scale[-1])

    # ------------------------------------------------------------------ coming and going

    def _add(self, opened: OpenedSlide, name: str, layer: Any, lower: Any = None) -> Any:
        layer.editable = False
        self._layers[name] = layer
        opened.insert_above(self._viewer, layer, self._viewer.layers[-1] if lower is None else lower)
        return layer

    def hide(self, *names: str) -> None:
        """Take layers away; all of them if none is named."""
        for name in names or NAMES:
            layer = self.layer(name)
            self._layers.pop(name, None)
            if layer is not None:
                self._viewer.layers.remove(layer)


def _corner(opened: OpenedSlide, region: Region) -> tuple[float, float]:
    unit = opened.slide.mpp_um or YX(1.0, 1.0)
    return region.y * unit.y, region.x * unit.x


def _colour(mark: SlideMark) -> str:
    return LIKE_COLOUR if mark.is_like else UNLIKE_COLOUR

"""What belongs to one open slide: its layers, its project, its tissue."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import cv2
import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.geometry import YX, Region
from napari_nucleiseg.core.slides.colour import icc_to_srgb
from napari_nucleiseg.core.slides.pyramid import Slide
from napari_nucleiseg.viewer.layers import (
    heatmap_layer,
    nuclei_layer,
    outline_opacity,
    outline_width,
    placement,
    slide_metadata,
)

if TYPE_CHECKING:
    from napari_nucleiseg.core.inference.plan import InferencePlan
    from napari_nucleiseg.core.slides.tissue import TissueMask
    from napari_nucleiseg.core.store.project import Project

# Heads that say whether a pixel belongs to a nucleus.
FOREGROUND = ("nuclei", "separated")


@dataclass(eq=False)
class OpenedSlide:
    """A slide in a viewer.

    Parameters
    ----------
    slide : Slide
        Replaced by one with a pixel size when the user gives it.
    layer : napari.layers.Image
        That shows it.
    folder : Path, optional
        Where the user wants the results; None is the usual place.
    project : Project, optional
        Once there are results.
    nuclei, heatmap, edit : napari layers, optional
        Once they are shown; `edit` is the part that can be painted on.
    tissue : TissueMask, optional
        Once it was computed.
    plan : InferencePlan, optional
        The last one, whose grid the results lie on.
    done_key : tuple of str
        Model version and options key of the last plan.
    model : str
        Name of the model of the last plan.
    head_titles : dict of str to str
        Outputs of the last model that can be shown, with their titles.
    """

    slide: Slide
    layer: Any
    folder: Path | None = None
    project: Project | None = None
    nuclei: Any = None
    heatmap: Any = None
    edit: Any = None
    tissue: TissueMask | None = None
    plan: InferencePlan | None = None
    done_key: tuple[str, str] = ("", "")
    model: str = ""
    head_titles: dict[str, str] = field(default_factory=dict)
    mpp_was_given: bool = False
    """Whether the user has said in this session how large the pixels are."""
    mpp_was_remembered: bool = False
    """Whether the pixel size is what a user said in an earlier session, and not what the file says."""
    told_brown_at: float | None = None
    """When it was first said that the slide looks like an immunostain, on the monotonic clock."""
    in_srgb: bool = False
    """Whether colours are shown by the slide's own profile."""
    _fitted: WeakKeyDictionary[Any, tuple[int, float]] = field(default_factory=WeakKeyDictionary, repr=False)
    _shown: Project | None = field(default=None, repr=False)
    _heat_place: tuple[Any, ...] = field(default=(), repr=False)

    @property
    def layers(self) -> tuple[Any, ...]:
        """All layers of ours that exist, the slide's first."""
        return tuple(layer for layer in (self.layer, self.heatmap, self.nuclei, self.edit) if layer is not None)

    def close(self) -> None:
        """Close the project; only once nothing works on it any more."""
        if self.project is not None:
            self.project.close()
            self.project = None

    def heatmap_levels(self, head: str) -> tuple[Any, str, YX] | None:
        """Return levels, title and level-0 pixels per pixel of the kept maps of one output; None if there are none.

        Of an output with several channels one is meant: ``name:channel``.
        """
        if self.project is None or self.plan is None:
            return None
        name, _, channel = head.partition(":")
        levels = self.project.maps.levels(self.done_key[0], name, int(channel or 0))
        return None if levels is None else (levels, self.head_titles.get(head, head), self.plan.grid.downsample)

    def foreground(self, region: Region) -> NDArray[np.float32] | None:
        """Return the probability of nucleus that the model gave, 0..1, at level 0; None where nothing was kept.

        Parameters
        ----------
        region : Region
            Level-0 pixels inside the slide.
        """
        project = self.project
        if project is None:
            return None
        runs = project.ledger.reader.execute("SELECT model_version FROM runs ORDER BY run DESC").fetchall()
        versions = [version for version in dict.fromkeys([self.done_key[0], *(row[0] for row in runs)]) if version]
        kept = ((version, head) for version in versions for head in project.maps.heads(version) if head in FOREGROUND)
        levels = next((found for found in (project.maps.levels(*key) for key in kept) if found is not None), None)
        if levels is None:
            return None
        step = YX(project.shape[0] / levels[0].shape[0], project.shape[1] / levels[0].shape[1])
        grid = region.scaled_outward(1 / step.y, 1 / step.x).expand(1).intersect(Region(0, 0, *levels[0].shape))
        coarse = np.asarray(levels[0][grid.slices], np.float32) / 255
        if coarse.size == 0 or not coarse.any():
            return None
        ys = (np.arange(region.y, region.y1) + 0.5) / step.y - 0.5 - grid.y
        xs = (np.arange(region.x, region.x1) + 0.5) / step.x - 0.5 - grid.x
        columns, rows = np.meshgrid(xs.astype(np.float32), ys.astype(np.float32))
        border = cv2.BORDER_REPLICATE
        return np.asarray(cv2.remap(coarse, columns, rows, cv2.INTER_LINEAR, borderMode=border), np.float32)

    def drop_results(self, viewer: Any) -> None:
        """Show no results any more; the project is the caller's to close once nothing works on it."""
        self.hide_heatmap(viewer)
        if self.nuclei is not None and self.nuclei in viewer.layers:
            viewer.layers.remove(self.nuclei)
        self.project = self.nuclei = None

    def show_srgb(self, *, on: bool) -> None:
        """Show colours in sRGB by the slide's own profile, or as they are stored. Models always see what is stored.

        Raises
        ------
        SlideError
            If the profile cannot be used.
        """
        self.layer.data = list((icc_to_srgb(self.slide) if on else self.slide).levels)
        self.in_srgb = on

    def set_pixel_size(self, mpp_um: YX) -> None:
        """Give the slide a pixel size and bring its layers to micrometres."""
        self.slide = replace(self.slide, mpp_um=mpp_um)
        self.plan, self.done_key = None, ("", "")
        self.layer.metadata.update(slide_metadata(self.slide))
        for layer in (self.layer, self.nuclei):
            if layer is not None:
                for name, value in placement(mpp_um).items():
                    setattr(layer, name, value)

    def show_nuclei(self, viewer: Any, *, visible: bool) -> bool:
        """Add the nuclei layer above the slide if there are results and it is not there; return whether it was."""
        if self.project is None:
            return False
        if self.nuclei is not None and self.nuclei in viewer.layers and self._shown is not self.project:
            viewer.layers.remove(self.nuclei)
        if self.nuclei is None or self.nuclei not in viewer.layers:
            self.nuclei = nuclei_layer(self.project.labels.levels, self.slide)
            self.nuclei.visible = visible
            self._shown = self.project
            self.insert_above(viewer, self.nuclei, self.layer)
            return True
        return False

    def fit_outlines(self, zoom: float) -> None:
        """Make the outlines as thick and opaque as the eye needs them, unless the user has set them otherwise.

        Parameters
        ----------
        zoom : float
            Screen pixels per world unit.
        """
        for layer, level in ((self.nuclei, None), (self.edit, 1.0)):
            if layer is not None:
                factor = layer.downsample_factors[layer.data_level][-1] if level is None else level
                self._fit(layer, zoom * layer.scale[-1] * factor, 1 / zoom)

    def _fit(self, layer: Any, screen_px: float, um_per_screen_px: float) -> None:
        contour, opacity = self._fitted.get(layer, (int(layer.contour), float(layer.opacity)))
        if layer.contour == contour:
            layer.contour = contour = outline_width(screen_px, um_per_screen_px)
        if layer.opacity == opacity:
            layer.opacity = opacity = outline_opacity(screen_px, um_per_screen_px)
        self._fitted[layer] = contour, opacity

    def redraw_nuclei(self) -> None:
        """Draw anew what has changed."""
        if self.nuclei is not None and self.nuclei.visible:
            # Neither the outline of the slide nor its thumbnail changes with a tile.
            self.nuclei.refresh(thumbnail=False, extent=False, highlight=False)

    def show_heatmap(self, viewer: Any, levels: Any, title: str, step: YX) -> None:
        """Show one output of the model below the nuclei, in the layer of the one before if there is one."""
        place = title, step, self.slide.mpp_um, tuple(level.shape for level in levels)
        if self.heatmap is not None and self.heatmap in viewer.layers and place == self._heat_place:
            self.heatmap.data = list(levels)  # another layer has other controls, which take the window long to make
            return
        self.hide_heatmap(viewer)
        self.heatmap, self._heat_place = heatmap_layer(levels, self.slide, title, step), place
        self.insert_above(viewer, self.heatmap, self.layer)

    def hide_heatmap(self, viewer: Any) -> None:
        """Take the heatmap away."""
        layer, self.heatmap = self.heatmap, None
        if layer is not None and layer in viewer.layers:
            viewer.layers.remove(layer)

    def insert_above(self, viewer: Any, layer: Any, lower: Any) -> None:
        """Add a layer right above another, or above the slide if that is gone, and keep the selection."""
        lower = lower if lower in viewer.layers else self.layer
        selected = set(viewer.layers.selection)
        active = viewer.layers.selection.active
        viewer.layers.insert(viewer.layers.index(lower) + 1, layer)
        viewer.layers.selection = selected
        viewer.layers.selection.active = active

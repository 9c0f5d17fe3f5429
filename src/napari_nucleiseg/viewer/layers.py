"""From slides and projects to napari layers, in micrometres."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

from napari_nucleiseg.core.geometry import YX
from napari_nucleiseg.core.slides.pyramid import Slide

LayerData = tuple[Any, dict[str, Any], str]
# What marks the layers of this package; the value is the fingerprint of their slide.
OWNER = "nucleiseg_of"
# What a layer of results shows: they are made anew where the panel is opened anew.
ROLE = "nucleiseg_role"
# Where the results lie that a slide is to be shown with, if not in their usual place.
RESULTS = "nucleiseg_results"
_AXES = ("y", "x")


def slide_name(slide: Slide) -> str:
    """Return a name for the layer list."""
    return PurePath(slide.path).stem.removesuffix(".ome") or "slide"


def placement(mpp_um: YX | None, step: YX = YX(1.0, 1.0)) -> dict[str, Any]:
    """Return scale, translation, units and axis labels of a layer that covers a slide.

    Parameters
    ----------
    mpp_um : YX or None
        Micrometres per level-0 pixel; None leaves the layer in pixels.
    step : YX
        Level-0 pixels per pixel of the layer; coarser pixels have their centre elsewhere.
    """
    pixel = mpp_um or YX(1.0, 1.0)
    unit = "um" if mpp_um else "pixel"
    return {
        "scale": (pixel.y * step.y, pixel.x * step.x),
        "translate": (pixel.y * (step.y - 1) / 2, pixel.x * (step.x - 1) / 2),
        "units": (unit, unit),
        "axis_labels": _AXES,
    }


def slide_metadata(slide: Slide) -> dict[str, Any]:
    """Return what the layer tells about its slide, the `Slide` itself included."""
    bounds = slide.bounds
    return {
        "slide": slide,
        "path": slide.path,
        "mpp_um": None if slide.mpp_um is None else tuple(slide.mpp_um),
        "needs_mpp": slide.mpp_um is None,
        "objective_power": slide.objective_power,
        "vendor": slide.vendor,
        "bounds": None if bounds is None else (bounds.y, bounds.x, bounds.height, bounds.width),
    }


def slide_layer(slide: Slide) -> LayerData:
    """Return the slide as napari's reader protocol wants it: lazy levels, never dask.

    Without a known pixel size the layer is in pixels and its metadata says ``needs_mpp``.
    """
    attributes = {
        "name": slide_name(slide),
        "multiscale": True,
        "rgb": True,
        "metadata": slide_metadata(slide),
        **placement(slide.mpp_um),
    }
    return list(slide.levels), attributes, "image"


def nuclei_layer(levels: Sequence[Any], slide: Slide) -> Any:
    """Return the read-only labels layer over the levels of a project's label image.

    Parameters
    ----------
    levels : sequence of zarr.Array
        ``(y, x)`` uint32, finest first, of the slide's level-0 shape.
    slide : Slide
        Gives name and pixel size.
    """
    from napari_nucleiseg.viewer.outlines import NO_CLASSES, Labels, colours_of

    # napari unwraps a list of one level and then takes its rows for levels.
    several = len(levels) > 1
    layer = Labels(
        list(levels) if several else levels[0],
        name=f"{slide_name(slide)} nuclei",
        multiscale=several,
        metadata={OWNER: slide.fingerprint, ROLE: "nuclei"},
        colormap=colours_of(NO_CLASSES),
        opacity=1.0,
        **placement(slide.mpp_um),
    )
    layer.contour = 1
    layer.editable = False
    return layer


def outline_width(screen_px: float, um_per_screen_px: float) -> int:
    """Return how many data pixels an outline needs to be seen.

    Parameters
    ----------
    screen_px : float
        Screen pixels of one data pixel.
    um_per_screen_px : float
        Micrometres of one screen pixel: from far away, thick outlines would cover the tissue.
    """
    return 2 if screen_px < 1.2 and um_per_screen_px < 0.7 else 1


def outline_opacity(screen_px: float, um_per_screen_px: float) -> float:
    """Return how opaque outlines should be, 0..1, so that the tissue below is seen.

    Parameters
    ----------
    screen_px : float
        Screen pixels of one data pixel: from near, an outline is as broad as the edge of the nucleus that it shows.
    um_per_screen_px : float
        Micrometres of one screen pixel: from far away, outlines run together.
    """
    if um_per_screen_px > 3:
        return 0.55
    return 0.7 if screen_px > 3.5 else 1.0


def heatmap_layer(levels: Sequence[Any], slide: Slide, title: str, step: YX) -> Any:
    """Return the layer that shows one output of the model over the slide; nothing is drawn where it says nothing.

    Parameters
    ----------
    levels : sequence of array
        ``(y, x)`` uint8, 0 to 255, finest first.
    slide : Slide
        Gives name and pixel size.
    title : str
        Of the output, for people.
    step : YX
        Level-0 pixels per pixel of the finest level.
    """
    from napari.layers import Image
    from napari.utils.colormaps import Colormap

    # From see-through to opaque, so that the tissue stays visible below.
    fire = Colormap([[0.2, 0.0, 0.4, 0.0], [0.9, 0.1, 0.2, 0.55], [1.0, 0.9, 0.2, 0.7]], name="nucleiseg fire")
    return Image(
        list(levels),
        name=f"{slide_name(slide)} {title}",
        multiscale=True,
        metadata={OWNER: slide.fingerprint, ROLE: "heatmap"},
        colormap=fire,
        contrast_limits=(0, 255),
        blending="translucent",
        interpolation2d="linear",
        **placement(slide.mpp_um, step),
    )


def slide_of(layer: Any) -> Slide | None:
    """Return the slide that a layer shows, or None if it is not one of ours."""
    slide = getattr(layer, "metadata", {}).get("slide")
    return slide if isinstance(slide, Slide) else None

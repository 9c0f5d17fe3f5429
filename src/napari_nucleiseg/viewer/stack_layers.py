"""From z-stacks to napari layers, and from image layers to stacks; in micrometres."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.geometry import ZYX
from napari_nucleiseg.core.slides.pixelsize import um_per
from napari_nucleiseg.core.slides.pyramid import Slide
from napari_nucleiseg.core.slides.stacks import Stack
from napari_nucleiseg.core.slides.voxels import grey_levels
from napari_nucleiseg.viewer.layers import LayerData, slide_layer

if TYPE_CHECKING:
    from napari_nucleiseg.core.slides.voxels import VolumeLike

# The first channel of most confocal stacks is the nuclei's.
COLOURMAPS = ("blue", "green", "red", "magenta", "cyan", "yellow")
HOW = "Nuclei of a stack are found with Layers > Segment > Nuclei in a stack."
_SHOWN_PLANES = 3
_AXES = ("z", "y", "x")


def layers_of(opened: Slide | Stack) -> list[LayerData]:
    """Return the layers that show what was opened: one of a slide, one a channel of a stack."""
    return stack_layers(opened) if isinstance(opened, Stack) else [slide_layer(opened)]


def add_layers(viewer: Any, layers: Sequence[LayerData]) -> str:
    """Add layers to a viewer; return what to say of them, which is nothing of a slide."""
    from napari.layers import Layer

    for data in layers:
        viewer.add_layer(Layer.create(*data))
    metadata = layers[0][1]["metadata"]
    return " ".join((*metadata["notes"], HOW)) if "voxel_um" in metadata else ""


def stack_layers(stack: Stack) -> list[LayerData]:
    """Return a stack as napari's reader protocol wants it; planes are read as they are looked at.

    Without a known voxel size the layers are in voxels and their metadata say ``needs_voxel``.
    """
    several = len(stack.volumes) > 1
    return [_layer(stack, number, several=several) for number in range(len(stack.volumes))]


def _layer(stack: Stack, number: int, *, several: bool) -> LayerData:
    levels = list(stack.volumes[number])
    voxel = stack.voxel_um
    name = PurePath(stack.path).stem.removesuffix(".ome") or "stack"
    is_colour = levels[0].ndim == 4
    attributes: dict[str, Any] = {
        "name": f"{name} {stack.channels[number] or number + 1}" if several else name,
        "rgb": is_colour,
        "scale": voxel or (1.0, 1.0, 1.0),
        "units": ("um" if voxel else "pixel",) * 3,
        "axis_labels": _AXES,
        "metadata": {
            "path": stack.path,
            "voxel_um": None if voxel is None else tuple(voxel),
            "needs_voxel": voxel is None,
            "notes": stack.notes,
        },
    }
    if not is_colour:
        attributes["contrast_limits"] = grey_levels(levels[-1], planes=_SHOWN_PLANES)
        attributes["colormap"] = COLOURMAPS[number % len(COLOURMAPS)] if several else "gray"
        attributes["blending"] = "additive" if number else "translucent_no_depth"
    multiscale = len(levels) > 1
    return levels if multiscale else levels[0], {**attributes, "multiscale": multiscale}, "image"


def shows_stack(layer: Any) -> bool:
    """Whether a layer is an image of three spatial dimensions."""
    return getattr(layer, "_type_string", "") == "image" and layer.ndim == 3 and min(volume_of(layer).shape[:3]) > 1


def volume_of(layer: Any) -> VolumeLike:
    """Return the volume that an image layer shows, at full resolution."""
    volume: VolumeLike = layer.data[0] if layer.multiscale else layer.data
    return volume


def voxel_of(layer: Any) -> ZYX | None:
    """Return the voxel size of a layer in micrometres; None where its units are no lengths."""
    factors = [um_per(str(unit)) for unit in layer.units]
    if len(factors) != 3 or any(factor is None for factor in factors):
        return None
    return ZYX(*(float(side) * float(factor or 0) for side, factor in zip(layer.scale, factors, strict=True)))


def labels_layer(layer: Any, labels: NDArray[np.int32]) -> Any:
    """Return a labels layer that lies over an image layer of a stack."""
    from napari.layers import Labels

    return Labels(
        labels,
        name=f"{layer.name} nuclei",
        scale=layer.scale,
        translate=layer.translate,
        rotate=layer.rotate,
        shear=layer.shear,
        units=layer.units,
        axis_labels=layer.axis_labels,
        metadata={"nuclei_of": layer.name},
        opacity=0.6,
    )

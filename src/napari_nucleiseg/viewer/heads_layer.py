"""The layer that shows one map of attention over the slide, fast to change, and copies of it that stay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_nucleiseg.viewer.layers import OWNER, ROLE, placement, slide_name

if TYPE_CHECKING:
    from napari_nucleiseg.core.attention.shown import ShownMap
    from napari_nucleiseg.viewer.opened import OpenedSlide

# Colours by name: from low to high, RGBA, and where each lies. What is unknown, and glass, is never coloured.
GLOW, BLUE_RED = "glow", "blue to red"
_STOPS = {
    # Half of all places have a percentile above a half: tissue stays seen there.
    GLOW: ([[0.2, 0.0, 0.4, 0.0], [0.6, 0.0, 0.4, 0.15], [0.9, 0.1, 0.2, 0.6], [1.0, 0.9, 0.2, 1.0]], [0, 0.5, 0.8, 1]),
    BLUE_RED: ([[0.23, 0.3, 0.75, 1.0], [0.87, 0.87, 0.87, 1.0], [0.71, 0.02, 0.15, 1.0]], [0, 0.5, 1]),
}
COLOURS = (GLOW, BLUE_RED, "turbo", "viridis", "magma", "gray")


def colours(name: str) -> Any:
    """Return the colormap of one of `COLOURS`, as `napari` takes it."""
    from napari.utils.colormaps import Colormap

    if name not in _STOPS:
        return name
    stops, controls = _STOPS[name]
    return Colormap(stops, name=f"nucleiseg {name}", controls=controls)


class HeadsLayer:
    """One map in one viewer.

    Parameters
    ----------
    viewer : napari.Viewer
        To draw in.
    """

    def __init__(self, viewer: Any) -> None:
        self._viewer = viewer
        self._layer: Any = None
        self._pinned: list[Any] = []

    @property
    def layer(self) -> Any:
        """The layer, or None as long as nothing is shown or once the user has removed it."""
        return self._layer if self._layer is not None and self._layer in self._viewer.layers else None

    @property
    def pinned(self) -> tuple[Any, ...]:
        """Layers that were pinned and are still there."""
        self._pinned = [layer for layer in self._pinned if layer in self._viewer.layers]
        return tuple(self._pinned)

    def show(self, opened: OpenedSlide, shown: ShownMap, title: str, *, opacity: float, colours_name: str) -> None:
        """Show a map in place of the one before; only what differs is touched, so that this takes milliseconds."""
        name = f"{slide_name(opened.slide)} {title}"
        layer = self.layer
        if layer is None or opened.slide.fingerprint != layer.metadata[OWNER]:
            self.hide()
            self._layer = made_layer(opened, shown, name, opacity, colours_name)
            opened.insert_above(self._viewer, self._layer, opened.layer)
            return
        if tuple(layer.contrast_limits) != shown.limits:
            layer.contrast_limits_range = layer.contrast_limits = shown.limits
        layer.data = shown.values
        # A new layer would take napari many times as long as to move the one there is.
        for what, value in _placed(opened, shown).items():
            if what in {"scale", "translate"} and tuple(getattr(layer, what)) != tuple(value):
                setattr(layer, what, value)
        if layer.name != name:
            layer.name = name

    def restyle(self, *, opacity: float, colours_name: str) -> None:
        """Show it with another opacity or in other colours."""
        if self.layer is not None:
            self._layer.opacity = opacity
            self._layer.colormap = colours(colours_name)

    def pin(self, opened: OpenedSlide, shown: ShownMap, title: str, *, opacity: float, colours_name: str) -> Any:
        """Add a copy that stays when another map is shown; hidden until it is wanted."""
        layer = made_layer(opened, shown, f"{slide_name(opened.slide)} {title} (pinned)", opacity, colours_name)
        layer.visible = False
        self._pinned.append(layer)
        opened.insert_above(self._viewer, layer, opened.layer)
        return layer

    def unpin(self, layer: Any) -> None:
        """Take a pinned copy away."""
        if layer in self._pinned:
            self._pinned.remove(layer)
        if layer in self._viewer.layers:
            self._viewer.layers.remove(layer)

    def hide(self) -> None:
        """Take the map away."""
        layer, self._layer = self.layer, None
        if layer is not None:
            self._viewer.layers.remove(layer)

    def close(self) -> None:
        """Take all of them away."""
        self.hide()
        for layer in self.pinned:
            self.unpin(layer)


def made_layer(opened: OpenedSlide, shown: ShownMap, name: str, opacity: float, colours_name: str) -> Any:
    """Return a layer that shows a map where it lies on the slide."""
    from napari.layers import Image

    return Image(
        shown.values,
        name=name,
        opacity=opacity,
        colormap=colours(colours_name),
        contrast_limits=shown.limits,
        blending="translucent",
        interpolation2d="nearest",
        metadata={OWNER: opened.slide.fingerprint, ROLE: "attention heads"},
        **_placed(opened, shown),
    )


def _placed(opened: OpenedSlide, shown: ShownMap) -> dict[str, Any]:
    grid = shown.grid
    placed = placement(opened.slide.mpp_um, grid.token_px)
    unit = opened.slide.mpp_um or (1.0, 1.0)
    placed["translate"] = tuple(
        first + corner * side for first, corner, side in zip(placed["translate"], grid.origin, unit, strict=True)
    )
    return placed

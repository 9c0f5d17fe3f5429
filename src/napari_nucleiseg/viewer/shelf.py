"""Which slides are open in a viewer, and which of them the user works on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from psygnal import Signal

from napari_nucleiseg.viewer.layers import OWNER, RESULTS, ROLE, slide_of
from napari_nucleiseg.viewer.opened import OpenedSlide


class Shelf:
    """Follows the layer list: slides come and go, and the active one is the one that is meant.

    Parameters
    ----------
    viewer : napari.Viewer
        Whose layers are followed.
    """

    switched = Signal(object)
    """Another slide (an `OpenedSlide`) is meant now, or None."""
    removed = Signal(object)
    """The user removed this slide's layer."""

    def __init__(self, viewer: Any) -> None:
        self._viewer = viewer
        self._opened: dict[Any, OpenedSlide] = {}
        self.now: OpenedSlide | None = None

    @property
    def opened(self) -> tuple[OpenedSlide, ...]:
        """All slides that were worked on in this viewer and are still open."""
        return tuple(self._opened.values())

    def start(self) -> None:
        """Begin to follow."""
        for emitter in self._emitters():
            emitter.connect(self._on_layers_changed)
        self._on_layers_changed()

    def close(self) -> tuple[OpenedSlide, ...]:
        """Cease to follow; return what was open."""
        for emitter in self._emitters():
            emitter.disconnect(self._on_layers_changed)
        opened = tuple(self._opened.values())
        self._opened.clear()
        self.now = None
        return opened

    def _emitters(self) -> tuple[Any, ...]:
        layers = self._viewer.layers
        return layers.events.inserted, layers.events.removed, layers.selection.events.active

    def _on_layers_changed(self, _event: Any = None) -> None:
        for layer in [layer for layer in self._opened if layer not in self._viewer.layers]:
            self._forget(layer)
        layer = find_slide_layer(self._viewer, self.now.layer if self.now else None)
        if layer is (self.now.layer if self.now else None):
            return
        if layer is None:
            self.now = None
        else:
            if layer not in self._opened:
                results = layer.metadata.get(RESULTS)
                self._opened[layer] = OpenedSlide(layer.metadata["slide"], layer, results and Path(results))
                self._clear_away(self._opened[layer])
            self.now = self._opened[layer]
        self.switched.emit(self.now)

    def _clear_away(self, opened: OpenedSlide) -> None:
        """Remove layers of this slide's results that an earlier panel has left: nothing keeps them up to date."""
        ours = {layer for other in self._opened.values() for layer in other.layers}
        for layer in list(self._viewer.layers):
            left = layer.metadata.get(OWNER) == opened.slide.fingerprint and ROLE in layer.metadata
            if left and layer not in ours:
                self._viewer.layers.remove(layer)

    def _forget(self, layer: Any) -> None:
        """Let a removed slide's other layers go with it."""
        opened = self._opened.pop(layer)
        for other in opened.layers:
            if other in self._viewer.layers:
                self._viewer.layers.remove(other)
        self.removed.emit(opened)


def find_slide_layer(viewer: Any, previous: Any = None) -> Any:
    """Return the slide layer that is meant: the active one, else the one before, else the topmost; None if none is.

    napari gives plugins its objects in wrappers, a new one at each access: equal to the layer, but not the same.
    What is returned is the layer itself.
    """
    slides = [layer for layer in viewer.layers if slide_of(layer) is not None]
    for meant in (viewer.layers.selection.active, previous):
        if meant is not None and meant in slides:
            return slides[slides.index(meant)]
    return slides[-1] if slides else None

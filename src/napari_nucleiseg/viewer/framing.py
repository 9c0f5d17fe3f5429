"""Keeps a slide that was just opened whole in view while the window makes room for its controls."""

from __future__ import annotations

import time
from typing import Any

# The layer's controls widen their dock, at a cold start late; whoever looks elsewhere by then is left alone.
SETTLES_S = 3.0


class Framing:
    """Fits the view again when the canvas is resized right after the first slide was opened.

    Parameters
    ----------
    viewer : napari.Viewer
        Whose camera is moved.
    """

    def __init__(self, viewer: Any) -> None:
        self._viewer = viewer
        self._fitted: tuple[float, ...] | None = None
        self._until = 0.0

    def begin(self) -> None:
        """Note that napari has just fitted the view to the slide."""
        self._fitted = self._camera()
        self._until = time.monotonic() + SETTLES_S

    def on_canvas_resized(self, _event: Any = None) -> None:
        """Fit anew, unless somebody has moved the camera or the window has settled."""
        if self._fitted is None:
            return
        if time.monotonic() > self._until or self._fitted != self._camera():
            self._fitted = None
            return
        self._viewer.reset_view()
        self._fitted = self._camera()

    def _camera(self) -> tuple[float, ...]:
        camera = self._viewer.scene.camera
        return (*camera.center, camera.zoom)

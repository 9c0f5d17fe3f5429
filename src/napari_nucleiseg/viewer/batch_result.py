"""Shows what an unattended run has found: a slide, with its project from the folder of results."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from psygnal import Signal

from napari_nucleiseg.core.batch.unattended.manifest import Entry
from napari_nucleiseg.core.slides.pyramid import Slide
from napari_nucleiseg.viewer.batch_engine import project_folder
from napari_nucleiseg.viewer.display import Display
from napari_nucleiseg.viewer.jobs import Cancelled
from napari_nucleiseg.viewer.layers import RESULTS, slide_layer, slide_of
from napari_nucleiseg.viewer.messages import Hint
from napari_nucleiseg.viewer.sentences import failure

LANE = "batch result"


class BatchResults:
    """Opens slides beside those that are open; all methods are for the main thread.

    Parameters
    ----------
    display : Display
        Knows the viewer, the slides and the jobs.
    """

    said = Signal(Hint)

    def __init__(self, display: Display) -> None:
        self._viewer, self._jobs, self._shelf = display.viewer, display.jobs, display.shelf

    def open(self, entry: Entry, folder: str) -> None:
        """Show a slide with its nuclei from a folder of results; where it is open with them it comes to the front."""
        project = str(project_folder(folder, entry.stem))
        layer = self._layer(entry.path, project)
        if layer is not None:
            layer.visible = True
            self._viewer.layers.selection.active = layer
            self._viewer.reset_view()
            return

        def work(_cancelled: Cancelled) -> Iterator[Slide]:
            from napari_nucleiseg.core.slides.registry import open_slide

            yield open_slide(entry.path)

        self.said.emit(Hint(f"Opening {entry.stem}…"))
        self._jobs.start(LANE, work, on_value=lambda slide: self._on_opened(slide, project), on_error=self._on_failed)

    def _layer(self, path: str, project: str) -> Any:
        """Return the layer that shows a slide with this project; None if there is none."""
        with_project = {
            opened.layer: str(Path(opened.project.folder).absolute())
            for opened in self._shelf.opened
            if opened.project is not None and opened.layer in self._viewer.layers
        }
        for layer in self._viewer.layers:
            slide = slide_of(layer)
            if slide is not None and slide.path == path:
                shown = with_project.get(layer) or layer.metadata.get(RESULTS)
                if shown == project:
                    return layer
        return None

    def _on_opened(self, slide: Slide, project: str) -> None:
        from napari.layers import Layer

        data, attributes, kind = slide_layer(slide)
        attributes["metadata"][RESULTS] = project
        self._viewer.add_layer(Layer.create(data, attributes, kind))
        self._viewer.reset_view()
        self.said.emit(Hint())

    def _on_failed(self, error: BaseException) -> None:
        self.said.emit(failure(error))

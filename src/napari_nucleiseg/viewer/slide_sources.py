"""The slides that can be learned from: those that are open in a viewer, and files besides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from psygnal import Signal

from napari_nucleiseg.core.slides.pyramid import Slide
from napari_nucleiseg.viewer.connections import Connections
from napari_nucleiseg.viewer.layers import slide_of


@dataclass(frozen=True, slots=True)
class Offered:
    """A slide or file that can be learned from.

    Parameters
    ----------
    key : str
        What tells it from others.
    title : str
        For people.
    note : str
        What is wrong or special; may be empty.
    is_ticked : bool
        Whether it is wanted.
    is_file : bool
        Whether it was added rather than open in the viewer.
    """

    key: str
    title: str
    note: str
    is_ticked: bool
    is_file: bool


class SlideSources:
    """What is offered, and which of it is ticked; a slide that is opened is ticked at first.

    Parameters
    ----------
    viewer : napari.Viewer
        Whose layers are followed.
    """

    changed = Signal()

    def __init__(self, viewer: Any) -> None:
        self._viewer = viewer
        self._unticked: set[str] = set()
        self._files: list[str] = []
        layers = viewer.layers.events
        self._connections = Connections(
            (layers.inserted, self._on_layers_changed), (layers.removed, self._on_layers_changed)
        )
        self._connections.open()

    def close(self) -> None:
        """Cease to follow."""
        self._connections.close()

    @property
    def offered(self) -> tuple[Offered, ...]:
        """The open slides and the files that were added."""
        found = [
            Offered(key, Path(slide.path).name or "slide", _note(slide), key not in self._unticked, is_file=False)
            for key, slide in self._slides().items()
        ]
        files = [Offered(path, Path(path).name, "added", path not in self._unticked, True) for path in self._files]
        return (*found, *files)

    def ticked(self) -> tuple[list[Slide], list[str]]:
        """Return the open slides and the files that are wanted."""
        slides = [slide for key, slide in self._slides().items() if key not in self._unticked]
        return slides, [path for path in self._files if path not in self._unticked]

    def tick(self, key: str, *, on: bool) -> None:
        """Learn from a slide or not."""
        if on:
            self._unticked.discard(key)
        else:
            self._unticked.add(key)

    def add(self, paths: Sequence[str]) -> None:
        """Offer slides, pictures or folders of them besides those that are open; they are not opened in the viewer."""
        self._files += [path for path in dict.fromkeys(paths) if path not in self._files]
        self.changed.emit()

    def _slides(self) -> dict[str, Slide]:
        """Return the slides that are open, as they are now."""
        found = [slide_of(layer) for layer in self._viewer.layers]
        return {slide.fingerprint or slide.path: slide for slide in found if slide is not None}

    def _on_layers_changed(self, _event: Any = None) -> None:
        self.changed.emit()


def _note(slide: Slide) -> str:
    return "pixel size not known" if slide.mpp_um is None else ""

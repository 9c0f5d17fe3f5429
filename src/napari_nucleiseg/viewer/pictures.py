"""What comes with a slide beside its pixels: its colour profile, its label, its overview."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from psygnal import Signal

from napari_nucleiseg.core.errors import SlideError
from napari_nucleiseg.viewer.jobs import Cancelled, Jobs
from napari_nucleiseg.viewer.shelf import Shelf


class SlidePictures:
    """Shows the colours of the slide in hand as meant by its scanner, and reads the pictures that come with it.

    Parameters
    ----------
    shelf : Shelf
        Says which slide.
    jobs : Jobs
        Reading runs there.
    on_error : callable
        Told what went wrong.
    """

    read = Signal(str, object)
    """Name (label, macro, thumbnail) and pixels, ``(y, x, 3)`` uint8, of a picture that was asked for."""

    def __init__(self, shelf: Shelf, jobs: Jobs, on_error: Callable[[BaseException], None]) -> None:
        self._shelf, self._jobs, self._on_error = shelf, jobs, on_error

    @property
    def in_srgb(self) -> bool:
        """Whether the slide in hand is shown by its own colour profile."""
        return self._shelf.now is not None and self._shelf.now.in_srgb

    def show_srgb(self, *, on: bool) -> None:
        """Show the slide by its own colour profile, or as it is stored."""
        try:
            if self._shelf.now is not None:
                self._shelf.now.show_srgb(on=on)
        except SlideError as error:
            self._on_error(error)

    def ask(self, name: str) -> None:
        """Read the label, macro or thumbnail; `read` follows."""
        if self._shelf.now is None:
            return
        slide = self._shelf.now.slide

        def work(_cancelled: Cancelled) -> Iterator[Any]:
            yield slide.associated[name]()

        def on_read(picture: Any) -> None:
            self.read.emit(name, picture)

        self._jobs.start("picture", work, on_value=on_read, on_error=self._on_error)

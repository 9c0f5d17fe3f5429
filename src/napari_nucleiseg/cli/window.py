"""A napari window with the Nuclei panel, for the commands that show one."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_nucleiseg.cli.console import Console
from napari_nucleiseg.core.errors import ExportError, NucleiSegError

if TYPE_CHECKING:
    import napari

    from napari_nucleiseg.core.slides.pyramid import Slide
    from napari_nucleiseg.core.slides.stacks import Stack

_SIZE = (1500, 950)
_TITLE_BAR_PX = 40
_SETTLED_S = 2.0
_LONGEST_S = 300.0


class Window:
    """A viewer and the panel docked in it.

    Parameters
    ----------
    viewer : napari.Viewer
        The window.
    panel : NucleiWidget
        Its panel.
    """

    def __init__(self, viewer: napari.Viewer, panel: Any) -> None:
        self.viewer = viewer
        self.panel = panel

    def add_slide(self, slide: Slide | Stack) -> None:
        """Show a slide or stack, lazily, in micrometres."""
        from napari_nucleiseg.viewer.stack_layers import add_layers, layers_of

        add_layers(self.viewer, layers_of(slide))

    def follow(self) -> None:
        """Find the nuclei wherever the view goes."""
        self.panel.session.follow = True

    def save_when_settled(self, path: Path) -> None:
        """Let the window work until nothing is under way, then save a picture of all of it.

        Raises
        ------
        ExportError
            If the picture cannot be written.
        """
        from qtpy.QtWidgets import QApplication

        started = quiet_since = time.monotonic()
        while time.monotonic() - quiet_since < _SETTLED_S and time.monotonic() - started < _LONGEST_S:
            QApplication.processEvents()
            time.sleep(0.01)
            if self.panel.controller.is_running:
                quiet_since = time.monotonic()
        picture = self.viewer.window.screenshot(flash=False, canvas_only=False)
        try:
            import imagecodecs

            path.write_bytes(imagecodecs.png_encode(picture[..., :3].copy()))
        except OSError as error:
            raise ExportError(f"{path} cannot be written: {error.strerror or error}") from error


def open_window() -> Window:
    """Open a napari window with the Nuclei panel.

    Raises
    ------
    NucleiSegError
        If there is no display: Qt would end the whole process.
    """
    _require_display()
    import napari

    from napari_nucleiseg.widgets.commands import open_panel

    viewer = napari.Viewer(title="napari-nucleiseg")
    viewer.window.resize(*_size_on_screen())
    return Window(viewer, open_panel(viewer))


def _size_on_screen() -> tuple[int, int]:
    """Return the wished size of the window, or less where the screen is smaller: that of a laptop has 1366 x 768."""
    from qtpy.QtWidgets import QApplication

    free = QApplication.primaryScreen().availableGeometry()
    return min(_SIZE[0], free.width()), min(_SIZE[1], free.height() - _TITLE_BAR_PX)


def _require_display() -> None:
    """Raise where Qt would find no X11 or Wayland display; who names a platform to Qt knows what they do."""
    if not sys.platform.startswith("linux") or os.environ.get("QT_QPA_PLATFORM"):
        return
    if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise NucleiSegError(
            "there is no display to show a window on. Set DISPLAY to one that is there; or save a picture of the "
            "window with 'xvfb-run -a napari-nucleiseg demo --screenshot window.png'; or find the nuclei without a "
            "window with 'napari-nucleiseg segment'."
        )


def show(window: Window, screenshot: str | None, console: Console) -> None:
    """Stay until the window is closed; or save a picture of it and close it."""
    if screenshot is None:
        import napari

        napari.run()
        return
    window.save_when_settled(Path(screenshot))
    console.say(f"Picture saved to {screenshot}")
    window.viewer.close()

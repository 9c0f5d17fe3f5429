"""``napari-nucleiseg open``: show slides in napari with the Nuclei panel beside them."""

from __future__ import annotations

import argparse

from napari_nucleiseg.cli.console import OK, Console
from napari_nucleiseg.cli.window import open_window, show


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("paths", nargs="+", metavar="PATH", help="slide, picture or stack")
    parser.add_argument("--mpp", type=float, metavar="UM", help="micrometres per pixel, if the file does not say")
    parser.add_argument("--screenshot", metavar="PNG", help="save a picture of the window and leave")


def run(options: argparse.Namespace, console: Console) -> int:
    """Open the slides and stay until the window is closed."""
    from napari_nucleiseg.core.slides.stacks import open_image

    # Before the window, so that a wrong file is told here and at once.
    slides = [open_image(path, mpp_um=options.mpp) for path in options.paths]
    for slide in slides:
        for note in slide.notes:
            console.say(f"{slide.path}: {note}")
    window = open_window()
    for slide in slides:
        window.add_slide(slide)
    show(window, options.screenshot, console)
    return OK

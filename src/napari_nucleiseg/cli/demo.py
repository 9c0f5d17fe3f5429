"""``napari-nucleiseg demo``: a sample slide with its nuclei, without any preparation."""

from __future__ import annotations

import argparse

from napari_nucleiseg.cli.console import OK, Console
from napari_nucleiseg.cli.window import open_window, show

_SAMPLES = ("tissue", "synthetic", "cmu-1-small-region")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "--sample", default=_SAMPLES[0], choices=_SAMPLES, help="which; the last is downloaded (default: tissue)"
    )
    parser.add_argument("--slide", metavar="PATH", help="show this slide instead of a sample")
    parser.add_argument("--mpp", type=float, metavar="UM", help="micrometres per pixel, if the slide does not say")
    parser.add_argument("--screenshot", metavar="PNG", help="save a picture of the window and leave")


def run(options: argparse.Namespace, console: Console) -> int:
    """Open the sample, follow the view, stay until the window is closed."""
    from napari_nucleiseg.core.slides.registry import open_slide

    slide = open_slide(options.slide, mpp_um=options.mpp) if options.slide else None
    window = open_window()
    if slide is not None:
        window.add_slide(slide)
    else:
        window.viewer.open_sample("napari-nucleiseg", options.sample)
        # The picture of tissue is an immunostain of cytoplasm.
        window.panel.session.ignore_brown = options.sample == _SAMPLES[0]
    window.follow()
    show(window, options.screenshot, console)
    return OK

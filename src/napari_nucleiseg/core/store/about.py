"""What a project says about its slide."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from napari_nucleiseg.core.geometry import YX
from napari_nucleiseg.core.slides.pyramid import Slide

NO_CORNER = YX(0, 0)


def name_of(slide: Slide) -> str:
    """Return the name of a slide's file; one that is no UTF-8, as old archives unpack it, with marks in its place."""
    return os.fsencode(Path(slide.path).name).decode("utf-8", "replace")


def meta_of(slide: Slide, mpp_um: YX) -> dict[str, str]:
    """Return what a project of a slide says about it."""
    height, width = slide.shape
    return {
        "slide": name_of(slide),
        "fingerprint": slide.fingerprint,
        "height": str(height),
        "width": str(width),
        "mpp_y_um": repr(float(mpp_um.y)),
        "mpp_x_um": repr(float(mpp_um.x)),
        **bounds_of(slide),
    }


def bounds_of(slide: Slide) -> dict[str, str]:
    """Return where the part of a slide begins that holds pixels; nothing if that is not known or all of it."""
    return {} if slide.bounds is None else {"bounds_y": str(slide.bounds.y), "bounds_x": str(slide.bounds.x)}


def corner_of(meta: Mapping[str, str]) -> YX:
    """Return the level-0 pixel ``(y, x)`` at which the part of the slide begins that holds pixels."""
    return YX(int(meta.get("bounds_y", NO_CORNER.y)), int(meta.get("bounds_x", NO_CORNER.x)))

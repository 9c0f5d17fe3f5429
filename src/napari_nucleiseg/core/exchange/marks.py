"""What files and stores say of themselves: by that exports of ours are known, and may be replaced."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from napari_nucleiseg.core.exchange.source import MARK, SOFTWARE
from napari_nucleiseg.core.slides.tiffmessages import quiet_tifffile
from napari_nucleiseg.core.slides.tiffpage import DECODE_ERRORS

_LABELS = np.dtype(np.uint32)


def is_our_store(store: Path) -> bool:
    """Whether a folder is a Zarr group of labels that an export of ours wrote."""
    return MARK.items() <= _attributes(store).items()


def holds_labels(store: Path) -> bool:
    """Whether a folder is a Zarr group that says of itself that it is a label image, whoever wrote it."""
    said = _attributes(store)
    found = said.get("ome", said)
    return isinstance(found, dict) and "image-label" in found


def is_our_tiff(path: Path) -> bool:
    """Whether a file is a label TIFF that an export of ours wrote."""
    return first_page(path) == (SOFTWARE, True)


def first_page(path: Path) -> tuple[str, bool] | None:
    """Return which program wrote a TIFF and whether it holds labels as ours do; None if it cannot be read."""
    try:
        with quiet_tifffile(), tifffile.TiffFile(path) as tiff:
            page = tiff.pages.first
            return page.software, page.samplesperpixel == 1 and page.dtype == _LABELS
    except (OSError, *DECODE_ERRORS):
        return None


def _attributes(store: Path) -> dict[str, Any]:
    """Return the attributes of a Zarr group, version 3 or 2; none if it is not one."""
    for name in ("zarr.json", ".zattrs"):
        try:
            said = json.loads((store / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        found = said.get("attributes") if name == "zarr.json" and isinstance(said, dict) else said
        return found if isinstance(found, dict) else {}
    return {}

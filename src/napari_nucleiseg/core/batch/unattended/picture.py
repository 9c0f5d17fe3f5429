"""A small picture of a slide for the summary: the tissue, and beside it where nuclei lie close."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.exchange.whole_file import whole_path
from napari_nucleiseg.core.slides.pyramid import Slide
from napari_nucleiseg.core.store.project import Project

SIDE_PX = 320
_BLUR = 3.0
_QUALITY = 82


def write_picture(path: str | os.PathLike[str], slide: Slide, project: Project) -> Path:
    """Write a JPEG with the slide on the left and the density of its nuclei on the right.

    Parameters
    ----------
    path : path
        The file; folders are made.
    slide, project
        Of one slide.

    Raises
    ------
    ExportError
        If it cannot be written.
    """
    path = Path(path)
    region = slide.content
    step = max(region.height, region.width) / SIDE_PX
    shape = max(1, round(region.height / step)), max(1, round(region.width / step))
    thumbnail = slide.read_region(region, shape)
    places = (project.centroids_in(region) - (region.y, region.x)) / step
    shown = np.concatenate([thumbnail, density_picture(thumbnail, places)], axis=1)
    ok, data = cv2.imencode(".jpg", cv2.cvtColor(shown, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    with whole_path(path) as partial:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(data.tobytes() if ok else b"")
    return path


def density_picture(thumbnail: NDArray[np.uint8], places: NDArray[np.float64]) -> NDArray[np.uint8]:
    """Return a thumbnail in grey with the density of points over it.

    Parameters
    ----------
    thumbnail : ndarray of uint8, shape (y, x, 3)
        RGB.
    places : ndarray of float64, shape (n, 2)
        ``(y, x)`` in its pixels.

    Returns
    -------
    ndarray of uint8, shape (y, x, 3)
        RGB; the densest place is brightest.
    """
    height, width = thumbnail.shape[:2]
    counts, _, _ = np.histogram2d(places[:, 0], places[:, 1], bins=(height, width), range=((0, height), (0, width)))
    smooth = cv2.GaussianBlur(counts.astype(np.float32), (0, 0), _BLUR)
    share = smooth / max(float(smooth.max()), 1e-9)
    colours = cv2.applyColorMap((share * 255).astype(np.uint8), cv2.COLORMAP_VIRIDIS)[:, :, ::-1].astype(np.float32)
    grey = np.repeat(thumbnail.mean(axis=2, keepdims=True), 3, axis=2) * 0.5 + 127
    opacity = np.sqrt(share)[:, :, None] * 0.9
    return np.asarray(grey * (1 - opacity) + colours * opacity, dtype=np.uint8)

"""Slides of any size without a file: white, or whatever a function paints."""

import numpy as np

from napari_nucleiseg.core.geometry import YX
from napari_nucleiseg.core.slides.pyramid import Slide


class PaintedLevel:
    """A level whose pixels come from ``paint(y0, x0, height, width)``; counts the reads."""

    ndim = 3
    dtype = np.dtype(np.uint8)

    def __init__(self, height, width, paint=None):
        self.shape = (height, width, 3)
        self.paint = paint or (lambda _y, _x, h, w: np.full((h, w, 3), 255, np.uint8))
        self.reads = 0

    def __getitem__(self, key):
        self.reads += 1
        (y0, y1, _), (x0, x1, _) = (part.indices(size) for part, size in zip(key, self.shape, strict=False))
        return self.paint(y0, x0, y1 - y0, x1 - x0)

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self[: self.shape[0], : self.shape[1]], dtype=dtype)


def blank_slide(height=1000, width=1200, mpp_um=0.5, downsamples=((1, 1),), paint=None, **facts):
    """A `Slide`; `mpp_um` a number, a pair or None."""
    mpp = None if mpp_um is None else YX(*np.broadcast_to(mpp_um, 2).tolist())
    levels = tuple(
        PaintedLevel(max(1, int(np.ceil(height / fy))), max(1, int(np.ceil(width / fx))), paint)
        for fy, fx in downsamples
    )
    return Slide(
        path="blank", levels=levels, downsamples=tuple(YX(*map(float, pair)) for pair in downsamples), mpp_um=mpp,
        **{"fingerprint": f"blank-{height}x{width}", **facts},
    )  # fmt: skip

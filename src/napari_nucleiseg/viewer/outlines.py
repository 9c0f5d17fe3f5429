"""A labels layer whose outlines cost little: they are found anew with every tile and every pan."""

from __future__ import annotations

from typing import Any

import numpy as np
from napari.layers import Labels as NapariLabels
from napari.utils.colormaps import CyclicLabelColormap
from numpy.typing import NDArray

# Each pixel and the one below it; each and the one right of it.
_NEIGHBOURS = (
    ((slice(1, None), slice(None)), (slice(None, -1), slice(None))),
    ((slice(None), slice(1, None)), (slice(None), slice(None, -1))),
)


def is_outline(labels: NDArray[Any], width: int = 1) -> NDArray[np.bool_]:
    """Return where the outermost pixels of labels are: those with another label above, below or beside.

    Parameters
    ----------
    labels : ndarray of integers, shape (y, x)
        0 is background.
    width : int
        Pixels of the outline, all inside the nucleus.

    Returns
    -------
    ndarray of bool, shape (y, x)
        For a width of 1, where napari's contour is.
    """
    inside = np.ones(labels.shape, dtype=np.bool_)
    for one, other in _NEIGHBOURS:
        same = labels[one] == labels[other]
        inside[one] &= same
        inside[other] &= same
    for _ in range(width - 1):
        before = inside.copy()
        for one, other in _NEIGHBOURS:
            inside[one] &= before[other]
            inside[other] &= before[one]
    outline: NDArray[np.bool_] = labels != 0
    outline &= ~inside
    return outline


class Labels(NapariLabels):  # type: ignore[misc]
    """napari's own, of the same name and kind, with a short cut for outlines of one or two pixels.

    The short cut is not public in napari; where a later one does not look for it, outlines are only slower.
    """

    def _calculate_contour(self, labels: NDArray[Any], data_slice: tuple[slice, ...]) -> NDArray[Any] | None:
        whole = all(part.indices(size) == (0, size, 1) for part, size in zip(data_slice, labels.shape, strict=False))
        if self.contour in {1, 2} and labels.ndim == 2 and whole:
            outline = is_outline(labels, int(self.contour))
            colormap = self.colormap
            if isinstance(colormap, CyclicLabelColormap) and len(colormap.colors) == 2 and not colormap.use_selection:
                # With one colour, all labels are that colour: no need to have it worked out for each.
                return outline.view(np.uint8)
            return np.where(outline, labels, labels.dtype.type(0))
        slow: NDArray[Any] | None = super()._calculate_contour(labels, data_slice)
        return slow

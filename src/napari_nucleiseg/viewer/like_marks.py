"""What a person has marked, in micrometres of the slide: nuclei by a point, regions by their outline."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.geometry import YX, Region

if TYPE_CHECKING:
    from napari_nucleiseg.core.fewshot.kept import KeptMark
    from napari_nucleiseg.core.fewshot.options import Mark

    Kept = dict[str, KeptMark]

Points = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class SlideMark:
    """One mark.

    Parameters
    ----------
    number : int
        Its own, from 1 on.
    is_like : bool
        Whether such are looked for; otherwise such are none.
    outline_um : ndarray of float, shape (n, 2)
        ``(y, x)`` micrometres of the slide, measured from the corner of its first pixel: one point means a nucleus,
        more are the corners of a region.
    seen_in : Region
        The part of the slide that it was made in, level-0 pixels.
    """

    number: int
    is_like: bool
    outline_um: Points
    seen_in: Region

    @property
    def is_point(self) -> bool:
        """Whether it means a nucleus."""
        return len(self.outline_um) == 1

    def turned(self) -> SlideMark:
        """Return the same mark for the other side."""
        return replace(self, is_like=not self.is_like)

    def box_px(self, mpp_um: YX) -> Region:
        """Return what holds it, level-0 pixels."""
        low = np.floor(self.outline_um.min(axis=0) / mpp_um).astype(int)
        high = np.floor(self.outline_um.max(axis=0) / mpp_um).astype(int) + 1
        return Region.from_bounds(int(low[0]), int(low[1]), int(high[0]), int(high[1]))


def mark_in(mark: SlideMark, origin_um: YX, mpp_um: float, shape: tuple[int, int]) -> Mark | None:
    """Return a mark as one of a view; None if it lies beside it, or reaches out of it.

    Parameters
    ----------
    mark : SlideMark
        Of the slide.
    origin_um : YX
        Upper left corner of the view, micrometres of the slide.
    mpp_um : float
        Micrometres per pixel of the view.
    shape : tuple of int
        Rows and columns of the view.
    """
    from napari_nucleiseg.core.fewshot.options import Mark

    # Whole numbers are centres of pixels.
    places = (mark.outline_um - np.asarray(origin_um)) / mpp_um - 0.5
    if (places < -0.5).any() or (places >= np.asarray(shape) - 0.5).any():
        return None
    if mark.is_point:
        return Mark((float(places[0, 0]), float(places[0, 1])), mark.is_like)
    mask = np.zeros(shape, np.uint8)
    cv2.fillPoly(mask, [np.rint(places[:, ::-1]).astype(np.int32)[:, None, :]], (1,))
    return Mark(mask > 0, mark.is_like)


def mask_of(mark: Mark, candidates: NDArray[np.int32], radius_px: float) -> NDArray[np.bool_]:
    """Return the pixels of a view that a mark means: the candidate under a point, or a disc; a region itself.

    Parameters
    ----------
    mark : Mark
        Of the view.
    candidates : ndarray of int32, shape (y, x)
        Of the view.
    radius_px : float
        Of the disc, where there is no candidate.
    """
    if not isinstance(mark.where, tuple):
        return mark.where
    y, x = (int(np.floor(place + 0.5)) for place in mark.where)
    number = int(candidates[y, x])
    if number:
        return np.asarray(candidates == number)
    disc = np.zeros(candidates.shape, np.uint8)
    cv2.circle(disc, (x, y), max(1, round(radius_px)), (1,), cv2.FILLED)
    return disc > 0

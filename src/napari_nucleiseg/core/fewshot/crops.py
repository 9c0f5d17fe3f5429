"""Square crops of nuclei for networks that look at one picture: with the surroundings, and the nucleus alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects


@dataclass(frozen=True, slots=True, eq=False)
class Crops:
    """Crops of the labels of a view, each cut when it is asked for.

    Parameters
    ----------
    image : ndarray of uint8, shape (y, x, 3)
        RGB of the view.
    labels : ndarray of int32, shape (y, x)
        Numbers from 1 on without gaps, 0 is none.
    boxes : sequence of (slice, slice)
        Rows and columns of each label.
    margin_px : int
        What is seen of the surroundings on each side.
    side_px : int
        Of the crops, ``(side_px, side_px, 3)``.
    fill : tuple of int
        RGB, 0..255, of what does not belong to a nucleus that is alone.
    """

    image: NDArray[np.uint8]
    labels: NDArray[np.int32]
    boxes: Sequence[tuple[slice, ...]]
    margin_px: int
    side_px: int
    fill: tuple[int, ...]

    @classmethod
    def of(
        cls,
        image: NDArray[np.uint8],
        labels: NDArray[np.int32],
        *,
        margin_px: int,
        side_px: int,
        mean: Sequence[float],
    ) -> Self:
        """Return the crops of a view; the fill is the network's mean colour, 0..1, which is zero for it."""
        fill = tuple(min(max(round(value * 255), 0), 255) for value in mean)
        return cls(image, labels, find_objects(labels), margin_px, side_px, fill)

    def surrounded(self, number: int) -> NDArray[np.uint8]:
        """Return a square around a label and its margin; beyond the rim the picture is mirrored."""
        ys, xs = self._places(number, self.margin_px)
        height, width = self.labels.shape
        return self._resized(self.image[np.ix_(_mirrored(ys, height), _mirrored(xs, width))])

    def alone(self, number: int) -> NDArray[np.uint8]:
        """Return a square that a label just fits into, with the fill where something else is."""
        box, (ys, xs) = self.boxes[number - 1], self._places(number, 0)
        crop = np.empty((len(ys), len(xs), 3), np.uint8)
        crop[:] = self.fill
        inside = crop[
            tuple(slice(part.start - at[0], part.stop - at[0]) for part, at in zip(box, (ys, xs), strict=True))
        ]
        mask = self.labels[box] == number
        inside[mask] = self.image[box][mask]
        return self._resized(crop)

    def _places(self, number: int, margin_px: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        box = self.boxes[number - 1]
        longest = max(part.stop - part.start for part in box) + 2 * margin_px
        ys, xs = ((part.start + part.stop - longest) // 2 + np.arange(longest) for part in box)
        return ys, xs

    def _resized(self, crop: NDArray[np.uint8]) -> NDArray[np.uint8]:
        how = cv2.INTER_AREA if len(crop) > self.side_px else cv2.INTER_CUBIC
        return np.asarray(cv2.resize(crop, (self.side_px, self.side_px), interpolation=how), np.uint8)


def _mirrored(places: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    turned = places % (2 * length)
    return np.where(turned < length, turned, 2 * length - 1 - turned)

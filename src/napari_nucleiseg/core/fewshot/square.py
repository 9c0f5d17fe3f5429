"""Views whose pixels are square: shapes and distances that are compared must be the same along both axes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.errors import DataError
from napari_nucleiseg.core.fewshot.field import check_picture
from napari_nucleiseg.core.geometry import YX

# Pixels with sides as equal as this are as good as square; to compute them anew would only blur.
_AS_GOOD_AS_SQUARE = 1.02


@dataclass(frozen=True, slots=True, eq=False)
class SquareView:
    """A view with square pixels, whose side is the shorter one of the pixels that it was made of.

    Parameters
    ----------
    image : ndarray of uint8, shape (y, x, 3)
        RGB.
    mpp_um : float
        Micrometres per pixel.
    shape : tuple of int
        Height and width of the picture that it was made of, in that one's pixels.
    """

    image: NDArray[np.uint8]
    mpp_um: float
    shape: tuple[int, int]

    @classmethod
    def of(cls, image: NDArray[np.uint8], mpp_um: float | YX) -> Self:
        """Return the view of a picture; the picture itself where its pixels are square.

        Raises
        ------
        DataError
            If it is no picture or its pixel size makes no sense.
        """
        sides = mpp_um if isinstance(mpp_um, YX) else YX(mpp_um, mpp_um)
        for side in sides:
            check_picture(image, side)
        height, width = image.shape[:2]
        if max(sides) <= _AS_GOOD_AS_SQUARE * min(sides):
            return cls(image, float(np.sqrt(sides.y * sides.x)), (height, width))
        side = min(sides)
        size = round(width * sides.x / side), round(height * sides.y / side)
        enlarged = cv2.resize(image, size, interpolation=cv2.INTER_CUBIC)
        return cls(np.asarray(enlarged, np.uint8), side, (height, width))

    @property
    def step(self) -> YX:
        """Pixels of the picture to a pixel of the view, ``(y, x)``; 1 at most."""
        return YX(self.shape[0] / self.image.shape[0], self.shape[1] / self.image.shape[1])

    def labels_of(self, labels: NDArray[np.integer[Any]]) -> NDArray[Any]:
        """Return labels of the picture over the view; none is lost.

        Raises
        ------
        DataError
            If they are not as large as the picture.
        """
        if labels.shape != self.shape:
            raise DataError(f"the labels are {labels.shape} px but the view {self.shape}; they must be equal")
        return _resampled(labels, (self.image.shape[0], self.image.shape[1]))

    def on_picture(self, labels: NDArray[np.integer[Any]]) -> NDArray[Any]:
        """Return labels of the view over the picture."""
        return _resampled(labels, self.shape)

    def place_of(self, y: float, x: float) -> tuple[float, float]:
        """Return where a place of the picture lies in the view; in pixels, whose centres are whole numbers."""
        return (y + 0.5) / self.step.y - 0.5, (x + 0.5) / self.step.x - 0.5


def _resampled(labels: NDArray[np.integer[Any]], shape: tuple[int, int]) -> NDArray[Any]:
    """Take the label at the middle of each pixel."""
    if labels.shape == shape:
        return labels
    ys, xs = (
        (2 * np.arange(size) + 1) * length // (2 * size) for size, length in zip(shape, labels.shape, strict=True)
    )
    return labels[np.ix_(ys, xs)]

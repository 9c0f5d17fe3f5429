"""Regions in level-0 pixels and the conversions between pixel grids and micrometres."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class YX(NamedTuple):
    """A pair in ``(y, x)`` order; the unit is in the name of the variable that holds it."""

    y: float
    x: float


class ZYX(NamedTuple):
    """Three numbers in ``(z, y, x)`` order, of a stack; the unit is in the name of the variable that holds them."""

    z: float
    y: float
    x: float


@dataclass(frozen=True, slots=True, order=True)
class Region:
    """An axis-aligned, half-open rectangle in level-0 pixels of a slide.

    Parameters
    ----------
    y, x : int
        Top-left corner; may be negative where a halo leaves the slide.
    height, width : int
        Extent in pixels; not negative.

    Raises
    ------
    ValueError
        If height or width is negative.
    """

    y: int
    x: int
    height: int
    width: int

    def __post_init__(self) -> None:
        if self.height < 0 or self.width < 0:
            raise ValueError(f"a region cannot have a negative extent: {self.height} x {self.width}")

    @classmethod
    def from_bounds(cls, y0: int, x0: int, y1: int, x1: int) -> Region:
        """Make the region ``[y0, y1) x [x0, x1)``; empty where the bounds cross."""
        return cls(y0, x0, max(0, y1 - y0), max(0, x1 - x0))

    @classmethod
    def enclosing(cls, boxes: NDArray[np.integer[Any]]) -> Region:
        """Return the smallest region that holds boxes ``(n, 4)``, each ``(y0, x0, y1, x1)`` half-open; n is not 0."""
        return cls.from_bounds(*boxes[:, :2].min(axis=0).tolist(), *boxes[:, 2:].max(axis=0).tolist())

    @property
    def y1(self) -> int:
        """First row below the region."""
        return self.y + self.height

    @property
    def x1(self) -> int:
        """First column right of the region."""
        return self.x + self.width

    @property
    def area(self) -> int:
        """Number of pixels."""
        return self.height * self.width

    @property
    def is_empty(self) -> bool:
        """Whether the region holds no pixel."""
        return self.height == 0 or self.width == 0

    @property
    def centre(self) -> YX:
        """Centre ``(y, x)`` in level-0 pixels."""
        return YX(self.y + self.height / 2, self.x + self.width / 2)

    @property
    def slices(self) -> tuple[slice, slice]:
        """Index into a level-0 array; the region must not reach above or left of it."""
        return slice(self.y, self.y1), slice(self.x, self.x1)

    def intersect(self, other: Region) -> Region:
        """Return the overlap with `other`; empty where there is none."""
        return Region.from_bounds(
            max(self.y, other.y), max(self.x, other.x), min(self.y1, other.y1), min(self.x1, other.x1)
        )

    def overlaps(self, other: Region) -> bool:
        """Whether at least one pixel is shared with `other`."""
        return not self.intersect(other).is_empty

    def contains(self, other: Region) -> bool:
        """Whether `other` lies wholly inside."""
        return self.y <= other.y and self.x <= other.x and self.y1 >= other.y1 and self.x1 >= other.x1

    def contains_point(self, y: float, x: float) -> bool:
        """Whether the point ``(y, x)`` lies inside (half-open)."""
        return self.y <= y < self.y1 and self.x <= x < self.x1

    def expand(self, margin: int) -> Region:
        """Grow (or shrink, if negative) by `margin` pixels on every side."""
        return Region.from_bounds(self.y - margin, self.x - margin, self.y1 + margin, self.x1 + margin)

    def translate(self, dy: int, dx: int) -> Region:
        """Shift by ``(dy, dx)`` pixels."""
        return Region(self.y + dy, self.x + dx, self.height, self.width)

    def scaled_outward(self, factor_y: float, factor_x: float) -> Region:
        """Multiply all coordinates and round outward to whole pixels of the new grid."""
        tiny = 1e-6
        return Region.from_bounds(
            math.floor(self.y * factor_y + tiny),
            math.floor(self.x * factor_x + tiny),
            math.ceil(self.y1 * factor_y - tiny),
            math.ceil(self.x1 * factor_x - tiny),
        )

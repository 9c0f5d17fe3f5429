"""Which pixels the nuclei of a phantom cover, and how deep inside the outline each pixel lies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.slides.noise import Double, Float, Positions
from napari_nucleiseg.core.slides.phantom import Nuclei

Index = NDArray[np.int64]

# Elements evaluated at a time: few enough to stay in a processor's cache.
_BATCH = 60_000


@dataclass(frozen=True, slots=True)
class Window:
    """A rectangle of pixels of one level: corner and shape in pixels of that level, pixel size in micrometres."""

    y: int
    x: int
    shape: tuple[int, int]
    pixel_um: float

    @property
    def bounds_um(self) -> tuple[float, float, float, float]:
        """``(y0, x0, y1, x1)`` in micrometres."""
        pixel = self.pixel_um
        return self.y * pixel, self.x * pixel, (self.y + self.shape[0]) * pixel, (self.x + self.shape[1]) * pixel

    def centres_um(self) -> tuple[Positions, Positions]:
        """Return the centres of all pixels as a column ``(height, 1)`` and a row ``(1, width)``."""
        ys = (np.arange(self.y, self.y + self.shape[0]) + 0.5) * self.pixel_um
        xs = (np.arange(self.x, self.x + self.shape[1]) + 0.5) * self.pixel_um
        return ys[:, None], xs[None, :]


class Covered(NamedTuple):
    """Pairs of a pixel and a nucleus near it, as flat columns of equal length."""

    pixel: Index
    """Flat index into the window."""
    nucleus: Index
    """Row of the nucleus in its table."""
    depth_um: Float
    """Distance to the outline in micrometres, positive inside (to first order)."""
    u: Float
    """Position along the long axis, 1 at its end."""
    v: Float
    """Position along the short axis, 1 at its end."""


def covered_pixels(nuclei: Nuclei, window: Window, beyond_um: float = 0.0) -> Covered:
    """Find the pixels whose centre lies inside a nucleus, or at most `beyond_um` outside its outline."""
    parts = list(_patches(nuclei, window, beyond_um))
    if not parts:
        none, nothing = np.zeros(0, np.int64), np.zeros(0, np.float32)
        return Covered(none, none, nothing, nothing, nothing)
    return Covered(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _patches(nuclei: Nuclei, window: Window, beyond_um: float) -> Iterator[Covered]:
    """Work through the nuclei in batches of like size."""
    extent = np.ceil((nuclei.radius_um + beyond_um) / window.pixel_um + 0.5).astype(np.int64)
    lower = 0
    while (extent > lower).any():
        # Each batch shares a patch size; a quarter more than the smallest in it bounds the waste.
        smallest = int(extent[extent > lower].min())
        upper = max(smallest, int(smallest * 1.25))
        group = np.flatnonzero((extent > lower) & (extent <= upper))
        reach = int(extent[group].max())
        count = max(1, _BATCH // (2 * reach + 1) ** 2)
        for start in range(0, group.size, count):
            yield _patch(nuclei, group[start : start + count], reach, window, beyond_um)
        lower = upper


def _patch(nuclei: Nuclei, which: Index, reach: int, window: Window, beyond_um: float) -> Covered:
    """Evaluate the outlines of some nuclei on square patches of ``2 * reach + 1`` pixels around them."""
    some = nuclei.take(which)
    pixel, edge = window.pixel_um, 2 * reach + 1
    at_y, at_x = some.y_um / pixel - 0.5, some.x_um / pixel - 0.5
    row, column = np.rint(at_y).astype(np.int64), np.rint(at_x).astype(np.int64)
    span = np.arange(-reach, reach + 1)
    dy, dx = (span - (at_y - row)[:, None]) * pixel, (span - (at_x - column)[:, None]) * pixel
    sin, cos = np.sin(some.angle)[:, None], np.cos(some.angle)[:, None]
    major, minor = some.major_um[:, None], some.minor_um[:, None]
    u = _outer(dy * sin / major, dx * cos / major)
    v = _outer(dy * cos / minor, -dx * sin / minor)
    squared = u * u + v * v
    # No point farther out than this, where the nucleus is a unit circle, can be within `beyond_um`.
    limit = (1 + some.wobble + beyond_um / some.minor_um) ** 2
    squared[~_inside(row[:, None] + span - window.y, window.shape[0])] = np.inf
    squared.transpose(0, 2, 1)[~_inside(column[:, None] + span - window.x, window.shape[1])] = np.inf
    near = np.flatnonzero(squared < limit.astype(np.float32)[:, None, None])
    own, rest = np.divmod(near, edge * edge)
    down, across = np.divmod(rest, edge)
    u, v = u.ravel()[near], v.ravel()[near]
    depth = _depth(some, own, u, v)
    if (some.reach_um < 1e6).any():
        beside = dy[own, down] * some.normal_y[own] + dx[own, across] * some.normal_x[own]
        np.minimum(depth, some.reach_um[own] - beside, out=depth, casting="same_kind")
    keep = depth > -beyond_um
    own, down, across = own[keep], down[keep], across[keep]
    flat = (row[own] + down - reach - window.y) * window.shape[1] + column[own] + across - reach - window.x
    return Covered(flat, which[own], depth[keep], u[keep], v[keep])


def _outer(down: Double, across: Double) -> Float:
    return np.asarray(down.astype(np.float32)[:, :, None] + across.astype(np.float32)[:, None, :])


def _inside(positions: Index, size: int) -> NDArray[np.bool_]:
    return (positions >= 0) & (positions < size)


def _depth(some: Nuclei, own: Index, u: Float, v: Float) -> Float:
    """Distance to the outline, to first order: how far the radius falls short, over how fast it grows."""

    def each(values: Double) -> Float:
        return values.astype(np.float32)[own]

    uu, vv = u * u, v * v
    radius = np.sqrt(uu + vv + np.float32(1e-9))
    # cos(3 t + phase) by the triple-angle formulas, so that no angle is computed per pixel.
    wave = each(some.wobble * np.cos(some.phase)) * u * (uu - 3 * vv)
    wave -= each(some.wobble * np.sin(some.phase)) * v * (3 * uu - vv)
    bound = 1 + wave / (radius * radius * radius)
    slope = np.sqrt(uu * each(some.major_um**-2) + vv * each(some.minor_um**-2) + np.float32(1e-9)) / radius
    return np.asarray((bound - radius) / slope, dtype=np.float32)

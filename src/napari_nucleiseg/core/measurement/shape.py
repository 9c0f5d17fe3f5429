"""Shapes of nuclei from their pixels: moments, the length of the border, and what is made of both."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.geometry import YX
from napari_nucleiseg.core.measurement.hull import solidities
from napari_nucleiseg.core.measurement.runs import Runs

# The eight neighbours of a pixel: those that share an edge, then those that share a corner.
_EDGES = ((-1, 0), (1, 0), (0, -1), (0, 1))
_CORNERS = ((-1, -1), (-1, 1), (1, -1), (1, 1))


@dataclass(frozen=True, slots=True, eq=False)
class PixelNeighbours:
    """Which pixels of nuclei adjoin one of the same nucleus; ``(p,)`` as `Runs.pixels`.

    Parameters
    ----------
    below : ndarray of int32
        Place, among all pixels, of the one below that belongs to the same nucleus; -1 where there is none.
    border : ndarray of intp, shape (b,)
        Places of the pixels of which one of the four that share an edge is not of the same nucleus.
    border_lengths : ndarray of float64, shape (b,)
        What each border pixel adds to its nucleus' perimeter, micrometres.
    """

    below: NDArray[np.int32]
    border: NDArray[np.intp]
    border_lengths: NDArray[np.float64]


def pixel_neighbours(runs: Runs, mpp_um: YX) -> PixelNeighbours:
    """Look at what adjoins each pixel of nuclei; nuclei that touch do not see each other."""
    # A rim spares all questions of what lies outside.
    width = runs.shape[1] + 2
    places = runs.positions(width, 1)
    owners, count = runs.pixel_owners, len(places)
    numbers = np.zeros((runs.shape[0] + 2) * width, np.int32)
    numbers[places] = np.arange(1, count + 1, dtype=np.int32)
    below = numbers.take(places + width) - 1
    # The nucleus after the last stands for the background, which index -1 takes.
    border = np.append(owners, np.int32(-1)).take(below) != owners
    below[np.flatnonzero(border)] = -1
    # What is below no pixel of its nucleus; the last place stands for those that have none below.
    above = np.ones(count + 1, np.bool_)
    above[below] = False
    border |= above[:-1]
    border[runs.first_pixels] = True
    border[runs.first_pixels + runs.lengths - 1] = True
    rim = np.flatnonzero(border)
    # From here on border pixels bear their nucleus, by a number that is no pixel's.
    places, marks = places.take(rim), owners.take(rim) + np.int32(count + 1)
    numbers[places] = marks
    around = np.zeros(len(places), np.uint8)
    for bit, (dy, dx) in enumerate((*_EDGES, *_CORNERS)):
        around |= (numbers.take(places + (dy * width + dx)) == marks).astype(np.uint8) << np.uint8(bit)
    return PixelNeighbours(below, rim, _border_lengths(mpp_um).take(around))


def _border_lengths(mpp_um: YX) -> NDArray[np.float64]:
    """Return what a border pixel adds to the perimeter, by the bits of its neighbours on the border, shape (256,).

    The rule of Benkrid and Crookes: a step along an edge, across a corner, or half of each. A step along an edge is as
    long as the pixel in that direction; with edges in both directions it is their mean.
    """
    corner = math.hypot(*mpp_um)
    lengths = np.zeros(256)
    for bits in range(256):
        steps = [mpp_um[0] if dy else mpp_um[1] for bit, (dy, _) in enumerate(_EDGES) if bits >> bit & 1]
        corners = (bits >> 4).bit_count()
        if len(steps) in {2, 3} and corners <= 2:
            lengths[bits] = sum(steps) / len(steps)
        elif (len(steps), corners) in {(0, 2), (1, 3)}:
            lengths[bits] = corner
        elif len(steps) == 1 and corners in {1, 2}:
            lengths[bits] = (steps[0] + corner) / 2
    return lengths


def measure_shapes(runs: Runs, near: PixelNeighbours, mpp_um: YX) -> Mapping[str, NDArray[np.float64]]:
    """Return the columns `SHAPE` of nuclei, ``(count,)`` each; NaN for one that has no pixels.

    Parameters
    ----------
    runs : Runs
        The nuclei.
    near : PixelNeighbours
        Their border.
    mpp_um : YX
        Micrometres per pixel.
    """
    areas = np.where(runs.areas > 0, runs.areas, np.nan)
    areas_um2 = areas * (mpp_um.y * mpp_um.x)
    perimeters = np.bincount(runs.pixel_owners[near.border], near.border_lengths, runs.count).astype(np.float64)
    perimeters[runs.areas == 0] = np.nan
    var_y, var_x, cov = _second_moments(runs, mpp_um)
    middle, half = (var_y + var_x) / 2, np.hypot((var_y - var_x) / 2, cov)
    major, minor = middle + half, np.maximum(middle - half, 0)
    flatness = np.divide(minor, major, out=np.where(major == 0, 1.0, np.nan), where=major > 0)
    angles = 0.5 * np.arctan2(2 * cov, var_y - var_x)
    round_as = np.divide(4 * math.pi * areas_um2, perimeters**2, out=np.full(runs.count, np.nan), where=perimeters > 0)
    return {
        "perimeter_um": perimeters,
        "major_axis_um": 4 * np.sqrt(major),
        "minor_axis_um": 4 * np.sqrt(minor),
        "eccentricity": np.sqrt(1 - flatness),
        "orientation_deg": np.degrees(angles),
        "equivalent_diameter_um": np.sqrt(4 * areas_um2 / math.pi),
        "circularity": round_as,
        "solidity": solidities(runs),
    }


def _second_moments(runs: Runs, mpp_um: YX) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the variances along y and x and the covariance of pixel centres, µm²; NaN without pixels."""
    count, lengths = runs.count, runs.lengths.astype(np.float64)
    firsts = np.zeros(count, np.int64)
    firsts[runs.owners[::-1]] = np.arange(len(runs.owners))[::-1]
    # Measured from the nucleus' first pixel: numbers stay small, and nothing is lost in their differences.
    owned = firsts[runs.owners]
    ys = (runs.ys - runs.ys[owned]).astype(np.float64)
    middles = runs.xs - runs.xs[owned] + (lengths - 1) / 2
    squares = lengths * middles**2 + lengths * (lengths**2 - 1) / 12
    areas = np.where(runs.areas > 0, runs.areas, np.nan)
    y, x, yy, xx, yx = (
        np.bincount(runs.owners, values, count) / areas
        for values in (ys * lengths, middles * lengths, ys**2 * lengths, squares, ys * middles * lengths)
    )
    return (yy - y * y) * mpp_um.y**2, (xx - x * x) * mpp_um.x**2, (yx - y * x) * (mpp_um.y * mpp_um.x)

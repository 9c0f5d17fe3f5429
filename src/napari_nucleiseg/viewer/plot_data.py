"""What is plotted of nuclei, without a plot: their values, bins, statistics, and what lies in a fence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.store.nuclei import PERSON_ID_START
from napari_nucleiseg.state import AREA, SCORE

if TYPE_CHECKING:
    from napari_nucleiseg.core.measurement.measure import MeasuredBlock

NEW, MORE, LESS = "new", "more", "less"
FEWEST_BINS, MOST_BINS = 5, 80
# Of values that are spread evenly, a plot has room at both ends.
ROOM = 0.03

Ids = NDArray[np.uint32]
Rows = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Place:
    """Whose nuclei are plotted.

    Parameters
    ----------
    region : Region or None
        Level-0 pixels; None is all of the slide.
    corners : tuple of tuple of float
        Only nuclei with their centroid inside these ``(y, x)``, level-0 pixels; empty is all of `region`.
    """

    region: Region | None
    corners: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """How far measuring is, in blocks; and what is known by then, where that is worth showing."""

    done: int
    total: int
    cloud: Cloud | None


@dataclass(frozen=True, slots=True, eq=False)
class Cloud:
    """Nuclei with what was measured of them; row i of every column is the same nucleus.

    Parameters
    ----------
    ids : ndarray of uint32, shape (n,)
        As in the label image, ascending.
    centroids : ndarray of float64, shape (n, 2)
        ``(y, x)`` level-0 pixels.
    boxes : ndarray of int64, shape (n, 4)
        ``(y0, x0, y1, x1)`` half-open, level-0 pixels.
    classes : ndarray of int32, shape (n,)
        Class numbers; 0 is "no class".
    values : mapping of str to ndarray of float32, shape (n,)
        By the name of what was measured, which ends in its unit; NaN where it could not be.
    """

    ids: Ids = field(default_factory=lambda: np.zeros(0, np.uint32))
    centroids: Floats = field(default_factory=lambda: np.zeros((0, 2)))
    boxes: NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 4), np.int64))
    classes: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    values: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    def of(self, name: str) -> NDArray[np.float32]:
        """Return the values ``(n,)`` of one quantity; NaN everywhere where nobody has measured it."""
        found = self.values.get(name)
        return np.full(len(self), np.nan, np.float32) if found is None else found

    def rows_of(self, ids: Ids) -> Rows:
        """Return the rows of nuclei (ascending ids), ascending; those that are not here are left out."""
        if not len(ids) or not len(self):
            return np.zeros(0, np.int64)
        places = np.minimum(np.searchsorted(self.ids, ids), len(self) - 1)
        return np.asarray(places[self.ids[places] == ids], np.int64)

    def box(self, row: int) -> Region:
        """Return where the nucleus of a row lies, level-0 pixels."""
        return Region.from_bounds(*(int(bound) for bound in self.boxes[row]))

    def part(self, kept: NDArray[np.bool_]) -> Cloud:
        """Return some of the nuclei, by a mask ``(n,)``."""
        values = {name: column[kept] for name, column in self.values.items()}
        return Cloud(self.ids[kept], self.centroids[kept], self.boxes[kept], self.classes[kept], values)

    def inside(self, place: Place) -> Cloud:
        """Return the nuclei that lie in a place; those in its region are known to."""
        if not place.corners:
            return self
        return self.part(inside_fence(self.centroids, np.array(place.corners, np.float64)))


def cloud_of(blocks: Sequence[MeasuredBlock]) -> Cloud:
    """Join what was measured block by block; area and score, which the project knows, are values like the others."""
    tables = [block.table for block in blocks if len(block.table)]
    if not tables:
        return Cloud()
    ids = np.concatenate([table.ids for table in tables])
    order = np.argsort(ids, kind="stable")
    names = dict.fromkeys(name for block in blocks for name in block.values)
    values = {
        name: np.concatenate([block.values[name] for block in blocks if len(block.table)]).astype(np.float32)[order]
        for name in names
    }
    values[AREA] = np.concatenate([table.areas_um2 for table in tables])[order]
    values[SCORE] = np.concatenate([table.scores for table in tables]).astype(np.float32)[order]
    # No model was ever asked how sure it is of what a person has drawn.
    values[SCORE][ids[order] >= PERSON_ID_START] = np.nan
    return Cloud(
        ids[order],
        np.concatenate([table.centroids for table in tables])[order],
        np.concatenate([table.boxes for table in tables])[order],
        np.concatenate([table.classes for table in tables])[order],
        values,
    )


# ---------------------------------------------------------------------- histogram


@dataclass(frozen=True, slots=True, eq=False)
class Histogram:
    """How many nuclei have which value.

    Parameters
    ----------
    edges : ndarray of float64, shape (bins + 1,)
        Ascending; a bin holds its left edge, the last one its right edge too.
    counts : ndarray of int64, shape (classes, bins)
        By class, in the order of `numbers`.
    numbers : tuple of int
        Class numbers that occur, ascending; 0 is "no class".
    """

    edges: Floats
    counts: NDArray[np.int64]
    numbers: tuple[int, ...]

    def bins_of(self, values: NDArray[np.float32]) -> Rows:
        """Return the bin of each value ``(n,)``; -1 for what lies beside all of them, or is NaN."""
        return bins_of(values, float(self.edges[0]), float(self.edges[-1]), len(self.edges) - 1)


def histogram_of(
    values: NDArray[np.float32], classes: NDArray[np.int32], limits: tuple[float, float] | None = None
) -> Histogram | None:
    """Count values in bins as wide as Freedman and Diaconis say; None where there is no value.

    Parameters
    ----------
    values : ndarray of float32, shape (n,)
        NaN is left out.
    classes : ndarray of int32, shape (n,)
        Class number of each.
    limits : tuple of float, optional
        Only values in this range, both ends included; default all.
    """
    known = np.isfinite(values)
    if limits is not None:
        known &= in_range(values, *limits)
    found, kinds = values[known], classes[known]
    if not len(found):
        return None
    low, high = limits or (float(found.min()), float(found.max()))
    if high <= low:
        low, high = low - 0.5, high + 0.5
    bins = _number_of_bins(found, high - low)
    # Numbers of classes are small.
    least, present = int(kinds.min()), np.flatnonzero(np.bincount(kinds - kinds.min()))
    table = np.bincount((kinds.astype(np.int64) - least) * bins + bins_of(found, low, high, bins))
    whole = np.zeros((int(present[-1]) + 1) * bins, np.int64)
    whole[: len(table)] = table
    numbers = tuple((present + least).tolist())
    return Histogram(np.linspace(low, high, bins + 1), whole.reshape(-1, bins)[present], numbers)


def bins_of(values: NDArray[np.float32], low: float, high: float, bins: int) -> Rows:
    """Return which of so many equal bins from `low` to `high` each value ``(n,)`` lies in; -1 for none.

    A value at an edge lies in the bin above it, but for the last edge.
    """
    found = (values.astype(np.float64) - low) * (bins / (high - low))
    outside = ~in_range(values, low, high)
    found[outside] = 0.0
    places = np.minimum(found.astype(np.int64), bins - 1)
    places[outside] = -1
    return places


def _number_of_bins(values: NDArray[np.float32], span: float) -> int:
    low, high = np.percentile(values, (25, 75))
    width = 2 * float(high - low) * len(values) ** (-1 / 3)
    return int(np.clip(np.ceil(span / width) if width > 0 else FEWEST_BINS, FEWEST_BINS, MOST_BINS))


@dataclass(frozen=True, slots=True)
class Summary:
    """Statistics of one quantity over some nuclei.

    Parameters
    ----------
    number, missing : int
        Nuclei that have a value, and those that have none.
    mean, spread : float
        Mean and standard deviation (of the population), in the unit of the values.
    low, median, high : float
        The 25th, 50th and 75th percentile.
    """

    number: int
    missing: int
    mean: float
    spread: float
    low: float
    median: float
    high: float


def summary_of(values: NDArray[np.float32]) -> Summary | None:
    """Return the statistics of values ``(n,)``; NaN counts as missing; None where there is no value."""
    known = values[np.isfinite(values)].astype(np.float64)
    if not len(known):
        return None
    low, median, high = np.percentile(known, (25, 50, 75))
    return Summary(
        len(known),
        len(values) - len(known),
        float(known.mean()),
        float(known.std()),
        float(low),
        float(median),
        float(high),
    )


# ---------------------------------------------------------------------- axes


def limits_of(values: NDArray[np.float32]) -> tuple[float, float] | None:
    """Return where an axis begins and ends so that all values ``(n,)`` are seen; None where there is none."""
    known = values[np.isfinite(values)]
    if not len(known):
        return None
    low, high = float(known.min()), float(known.max())
    room = ROOM * (high - low) or max(abs(high) * ROOM, 0.5)
    return low - room, high + room


def ticks(low: float, high: float, most: int) -> Floats:
    """Return at most so many round numbers from `low` to `high`, evenly spaced: steps are 1, 2 or 5 times ten to n."""
    span = high - low
    if not np.isfinite(span) or span <= 0:
        return np.array([low])
    rough = span / max(most, 1)
    power = 10.0 ** np.floor(np.log10(rough))
    step = next((power * factor for factor in (1, 2, 5) if power * factor >= rough), power * 10)
    found = np.arange(np.ceil(low / step), np.floor(high / step) + 1) * step
    return np.asarray(found[:most] if len(found) > most else found)


# ---------------------------------------------------------------------- selection


def inside_fence(points: Floats, corners: Floats) -> NDArray[np.bool_]:
    """Whether each point lies inside a closed line that was drawn, by the even-odd rule.

    The points are sorted once, so that an edge is compared with those at its height only: a hundred thousand points and
    a line of hundreds of corners take milliseconds.

    Parameters
    ----------
    points : ndarray of float64, shape (n, 2)
        NaN lies in no fence.
    corners : ndarray of float64, shape (m, 2)
        In the same two units as the points, the last joined to the first.
    """
    inside = np.zeros(len(points), np.bool_)
    if len(corners) < 3:
        return inside
    low, high = corners.min(axis=0), corners.max(axis=0)
    near = np.flatnonzero(((points >= low) & (points <= high)).all(axis=1))
    order = near[np.argsort(points[near, 0], kind="stable")]
    down, across = points[order, 0], points[order, 1]
    found = np.zeros(len(order), np.bool_)
    for (y0, x0), (y1, x1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        # An edge holds its lower end, not its upper one: a corner between two edges is crossed once.
        first, last = np.searchsorted(down, (min(y0, y1), max(y0, y1)), side="left")
        part = slice(int(first), int(last))
        if y0 != y1:
            found[part] ^= across[part] < x0 + (down[part] - y0) / (y1 - y0) * (x1 - x0)
    inside[order] = found
    return inside


def in_range(values: NDArray[np.float32], low: float, high: float) -> NDArray[np.bool_]:
    """Whether each value ``(n,)`` lies from `low` to `high`, both included; NaN does not."""
    found = values.astype(np.float64)  # or the bounds would be rounded
    return np.asarray((found >= low) & (found <= high))


def combined(selected: Ids, found: Ids, how: str) -> Ids:
    """Return what is selected after something was found.

    Parameters
    ----------
    selected, found : ndarray of uint32
        Ascending.
    how : {"new", "more", "less"}
        Whether what was found takes the place of what was selected, is added, or is taken away.
    """
    if how == MORE:
        return np.union1d(selected, found)
    if how == LESS:
        return np.setdiff1d(selected, found, assume_unique=True)
    return found

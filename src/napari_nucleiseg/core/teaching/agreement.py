"""How well a model agrees with a person, kept place by place, so that chance can be told from a gain."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.evaluation.agreement import best_partners
from napari_nucleiseg.core.evaluation.known import mostly_inside
from napari_nucleiseg.core.evaluation.overlaps import Overlaps, overlaps
from napari_nucleiseg.core.teaching.examples import Example

# Nuclei within one square of this side are taken or left together: neighbours are not independent.
PLACE_UM = 16.0
DRAWS = 1000
_SUMS = ("intersection", "union", "iou", "found", "spurious_or_missed")
INTERSECTION, UNION, IOU, FOUND, WRONG = range(len(_SUMS))


@dataclass(frozen=True, slots=True, eq=False)
class Agreement:
    """Sums from which the scores follow, one row a place of about `PLACE_UM`.

    Parameters
    ----------
    sums : ndarray of float64, shape (places, 5)
        Pixels of intersections and of unions (AJI); sum of IoUs of found nuclei, their number, and the number of
        spurious and missed ones (PQ, F1).
    nuclei : int
        True nuclei.
    regions : int
        Annotated regions measured on.
    """

    sums: NDArray[np.float64]
    nuclei: int
    regions: int

    @property
    def aji(self) -> float:
        """Aggregated Jaccard index over all places together, 0..1; 1 where there is nothing and nothing was found."""
        return float(_scores(self.sums.sum(0)[None])[0, 0])

    @property
    def pq(self) -> float:
        """Panoptic quality over all places together, 0..1."""
        return float(_scores(self.sums.sum(0)[None])[0, 1])

    @property
    def f1(self) -> float:
        """F1 of nuclei found with an IoU above 0.5, 0..1."""
        return float(_scores(self.sums.sum(0)[None])[0, 2])

    @property
    def choice(self) -> float:
        """What models are chosen by: the mean of AJI and PQ."""
        return (self.aji + self.pq) / 2

    def as_dict(self) -> dict[str, float]:
        """Return the scores for cards and logs."""
        return {
            "aji": round(self.aji, 4),
            "pq": round(self.pq, 4),
            "f1": round(self.f1, 4),
            "nuclei": self.nuclei,
            "regions": self.regions,
        }


@dataclass(frozen=True, slots=True)
class Gain:
    """What changed from one model to another on the same nuclei.

    Parameters
    ----------
    aji, pq, f1, choice : float
        Differences, positive is better.
    low, high : float
        Bounds of the 90 % interval of the difference of `choice` (paired bootstrap over places).
    not_worse : float
        Share of resamplings in which `choice` did not fall, 0..1.
    """

    aji: float
    pq: float
    f1: float
    choice: float
    low: float
    high: float
    not_worse: float


def _scores(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return AJI, PQ and F1 of rows of sums; shape (n, 3)."""
    nothing = (sums[:, UNION] == 0)[:, None]
    doubt = sums[:, FOUND] + sums[:, WRONG] / 2
    found = np.stack([sums[:, INTERSECTION], sums[:, IOU], sums[:, FOUND]], axis=1)
    whole = np.stack([sums[:, UNION], doubt, doubt], axis=1)
    return np.where(nothing, 1.0, found / np.maximum(whole, 1e-9))


def measure(example: Example, predicted: NDArray[np.int32]) -> Agreement:
    """Compare predicted nuclei with those of an example; what lies where nobody looked does not count.

    Parameters
    ----------
    example : Example
        The truth.
    predicted : ndarray of int32, shape (y, x)
        Instance map over the same picture, 0 is background.
    """
    known = example.known
    truth = np.maximum(example.labels, 0)
    table = overlaps(truth, mostly_inside(predicted, known))
    side = max(1, round(PLACE_UM / example.mpp_um))
    columns = -(-truth.shape[1] // side)
    places = -(-truth.shape[0] // side) * columns
    truth_place = _places(truth, table.truth_ids, side, columns)
    pred_place = _places(predicted, table.pred_ids, side, columns)
    sums = np.zeros((places, len(_SUMS)))
    _add_jaccard(sums, table, truth_place, pred_place)
    _add_matches(sums, table, truth_place, pred_place)
    return Agreement(sums, table.truth_count, 1)


def _places(labels: NDArray[np.int32], ids: NDArray[np.int64], side: int, columns: int) -> NDArray[np.int64]:
    """Return the place of the centroid of each nucleus."""
    if not len(ids):
        return np.zeros(0, np.int64)
    ys, xs = np.nonzero(labels)
    at = labels[ys, xs]
    count = np.maximum(np.bincount(at, minlength=int(ids.max()) + 1)[ids], 1)
    y, x = (np.bincount(at, weights=axis, minlength=int(ids.max()) + 1)[ids] / count for axis in (ys, xs))
    found: NDArray[np.int64] = (y // side).astype(np.int64) * columns + (x // side).astype(np.int64)
    return found


def _add_jaccard(
    sums: NDArray[np.float64], table: Overlaps, truth_place: NDArray[np.int64], pred_place: NDArray[np.int64]
) -> None:
    rows = best_partners(table)
    paired = table.truth_index[rows]
    np.add.at(sums[:, INTERSECTION], truth_place[paired], table.intersections[rows])
    np.add.at(sums[:, UNION], truth_place[paired], table.unions[rows])
    missed = np.setdiff1d(np.arange(table.truth_count), paired)
    np.add.at(sums[:, UNION], truth_place[missed], table.truth_areas[missed])
    spurious = np.setdiff1d(np.arange(table.pred_count), table.pred_index[rows])
    np.add.at(sums[:, UNION], pred_place[spurious], table.pred_areas[spurious])


def _add_matches(
    sums: NDArray[np.float64], table: Overlaps, truth_place: NDArray[np.int64], pred_place: NDArray[np.int64]
) -> None:
    good = np.flatnonzero(table.ious > 0.5)  # an IoU above one half makes pairs unique
    np.add.at(sums[:, IOU], truth_place[table.truth_index[good]], table.ious[good])
    np.add.at(sums[:, FOUND], truth_place[table.truth_index[good]], 1)
    missed = np.setdiff1d(np.arange(table.truth_count), table.truth_index[good])
    np.add.at(sums[:, WRONG], truth_place[missed], 1)
    spurious = np.setdiff1d(np.arange(table.pred_count), table.pred_index[good])
    np.add.at(sums[:, WRONG], pred_place[spurious], 1)


def together(parts: Iterable[Agreement], regions: int | None = None) -> Agreement:
    """Join measurements on different examples; `regions` where several examples are of one region."""
    found = list(parts)
    sums = np.concatenate([part.sums for part in found]) if found else np.zeros((1, len(_SUMS)))
    return Agreement(sums, sum(part.nuclei for part in found), len(found) if regions is None else regions)


def compare(before: Sequence[Agreement], after: Sequence[Agreement], seed: int = 0) -> Gain:
    """Compare two models on the same examples, in the same order, by a paired bootstrap.

    Both are resampled by the same places, so that what is hard for both does not count as chance.

    Parameters
    ----------
    before, after : sequence of Agreement
        Of each example, by the former and the new model.
    seed : int
        Of the resampling.
    """
    old, new = together(before).sums, together(after).sums
    used = np.asarray((old + new).any(axis=1), np.bool_).reshape(-1)
    used[0] = True
    old, new = old[used], new[used]
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(len(old), np.full(len(old), 1 / len(old)), size=DRAWS).astype(np.float64)
    drawn = _choice(_scores(counts @ new)) - _choice(_scores(counts @ old))
    one, other = _scores(old.sum(0)[None])[0], _scores(new.sum(0)[None])[0]
    low, high = np.quantile(drawn, (0.05, 0.95))
    aji, pq, f1 = (float(value) for value in other - one)
    return Gain(aji, pq, f1, (aji + pq) / 2, float(low), float(high), float(np.mean(drawn >= 0)))


def _choice(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(scores[:, :2].mean(axis=1))

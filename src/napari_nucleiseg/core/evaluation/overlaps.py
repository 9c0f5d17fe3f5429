"""The sparse table of which true and predicted nuclei overlap by how much: all scores start from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.errors import DataError

LabelImage = NDArray[np.integer[Any]]
_MAX_ID = 2**32
# Rows of blocks that wait to be brought together: 16 bytes each.
_MOST_ROWS = 1 << 21


@dataclass(frozen=True, slots=True, eq=False)
class Overlaps:
    """Areas of all nuclei and one row for each overlapping pair of a true and a predicted nucleus.

    Parameters
    ----------
    truth_ids, pred_ids : ndarray of int64, shape (n,) and (m,)
        Labels as they stand in the images, ascending; background is left out.
    truth_areas, pred_areas : ndarray of int64, shape (n,) and (m,)
        Pixels.
    truth_index, pred_index : ndarray of int64, shape (k,)
        Positions in the arrays above of each pair that shares at least one pixel, ascending.
    intersections : ndarray of int64, shape (k,)
        Pixels shared by each pair.
    """

    truth_ids: NDArray[np.int64]
    pred_ids: NDArray[np.int64]
    truth_areas: NDArray[np.int64]
    pred_areas: NDArray[np.int64]
    truth_index: NDArray[np.int64]
    pred_index: NDArray[np.int64]
    intersections: NDArray[np.int64]

    @property
    def truth_count(self) -> int:
        """Number of true nuclei."""
        return len(self.truth_ids)

    @property
    def pred_count(self) -> int:
        """Number of predicted nuclei."""
        return len(self.pred_ids)

    @property
    def both_empty(self) -> bool:
        """Whether neither image holds a nucleus: every score of agreement is then defined as 1."""
        return self.truth_count == 0 and self.pred_count == 0

    @property
    def unions(self) -> NDArray[np.int64]:
        """Pixels covered by either nucleus of each pair, shape (k,)."""
        return self.truth_areas[self.truth_index] + self.pred_areas[self.pred_index] - self.intersections

    @property
    def ious(self) -> NDArray[np.float64]:
        """Intersection over union of each pair, 0 < IoU <= 1, shape (k,)."""
        return self.intersections / self.unions

    def only(self, truth: NDArray[np.bool_], pred: NDArray[np.bool_]) -> tuple[Overlaps, NDArray[np.int64]]:
        """Return the table as it were if both images held no other nuclei than these, and the pairs that stay.

        Parameters
        ----------
        truth, pred : ndarray of bool, shape (n,) and (m,)
            Which true and which predicted nuclei stay.

        Returns
        -------
        Overlaps, ndarray of int64
            The smaller table, and of each of its pairs the row in this one.
        """
        rows = np.flatnonzero(truth[self.truth_index] & pred[self.pred_index])
        places = np.cumsum(truth) - 1, np.cumsum(pred) - 1
        smaller = Overlaps(
            truth_ids=self.truth_ids[truth],
            pred_ids=self.pred_ids[pred],
            truth_areas=self.truth_areas[truth],
            pred_areas=self.pred_areas[pred],
            truth_index=places[0][self.truth_index[rows]],
            pred_index=places[1][self.pred_index[rows]],
            intersections=self.intersections[rows],
        )
        return smaller, rows


def check_label_images(truth: LabelImage, pred: LabelImage) -> None:
    """Refuse what is not a pair of instance maps of one shape.

    Parameters
    ----------
    truth, pred : ndarray of integers, shape (y, x)
        Instance maps, 0 is background.

    Raises
    ------
    DataError
        If shapes differ, an image is not two-dimensional, or labels are not integers from 0 to 2**32 - 1.
    """
    for name, image in (("true", truth), ("predicted", pred)):
        if image.ndim != 2:
            raise DataError(f"the {name} labels must be one image (y, x), but they have the shape {image.shape}")
        if not np.issubdtype(image.dtype, np.integer):
            raise DataError(f"the {name} labels must be whole numbers, not {image.dtype}")
        if image.size and (int(image.min()) < 0 or int(image.max()) >= _MAX_ID):
            raise DataError(f"the {name} labels must lie between 0 and 2**32 - 1")
    if truth.shape != pred.shape:
        raise DataError(
            f"the predicted labels are {pred.shape[0]} x {pred.shape[1]} px but the true ones "
            f"{truth.shape[0]} x {truth.shape[1]} px; predict at the size of the truth"
        )


def overlaps(truth: LabelImage, pred: LabelImage) -> Overlaps:
    """Count the pixels of all nuclei and of all overlapping pairs.

    Works on horizontal runs of equal pixels, so it costs a few passes over the image whatever the ids are.

    Parameters
    ----------
    truth, pred : ndarray of integers, shape (y, x)
        Instance maps of one shape, 0 is background; ids need not be consecutive.

    Returns
    -------
    Overlaps
        The table.

    Raises
    ------
    DataError
        See `check_label_images`.
    """
    counter = OverlapCounter()
    counter.add(truth, pred)
    return counter.table()


class OverlapCounter:
    """Counts the overlaps of two images that never lie in memory as a whole: block by block, in any order.

    How the images are cut into blocks changes nothing, as long as no pixel comes twice.
    """

    def __init__(self) -> None:
        self._keys: list[NDArray[np.uint64]] = []
        self._pixels: list[NDArray[np.int64]] = []
        self._held = 0

    def add(self, truth: LabelImage, pred: LabelImage) -> None:
        """Count one block.

        Parameters
        ----------
        truth, pred : ndarray of integers, shape (y, x)
            The same part of both images, 0 is background.

        Raises
        ------
        DataError
            See `check_label_images`.
        """
        check_label_images(truth, pred)
        flat_truth, flat_pred = np.ravel(truth), np.ravel(pred)
        changes = (flat_truth[1:] != flat_truth[:-1]) | (flat_pred[1:] != flat_pred[:-1])
        starts = np.concatenate(([0], np.flatnonzero(changes) + 1)) if flat_truth.size else np.zeros(0, np.int64)
        lengths = np.diff(np.append(starts, flat_truth.size))
        keys = (flat_truth[starts].astype(np.uint64) << np.uint64(32)) | flat_pred[starts].astype(np.uint64)
        self._keep(*_gathered(keys, lengths))
        if self._held > _MOST_ROWS:
            self._gather()

    def table(self) -> Overlaps:
        """Return what was counted so far."""
        self._gather()
        pairs, pixels = self._keys[0], self._pixels[0]
        truth_of, pred_of = (pairs >> np.uint64(32)).astype(np.int64), (pairs & np.uint64(_MAX_ID - 1)).astype(np.int64)
        truth_ids, truth_at = np.unique(truth_of, return_inverse=True)
        pred_ids, pred_at = np.unique(pred_of, return_inverse=True)
        truth_areas = _summed(truth_at, pixels, len(truth_ids))
        pred_areas = _summed(pred_at, pixels, len(pred_ids))
        truth_skip, pred_skip = int(0 in truth_ids[:1]), int(0 in pred_ids[:1])
        both = (truth_of > 0) & (pred_of > 0)
        return Overlaps(
            truth_ids=truth_ids[truth_skip:],
            pred_ids=pred_ids[pred_skip:],
            truth_areas=truth_areas[truth_skip:],
            pred_areas=pred_areas[pred_skip:],
            truth_index=truth_at[both] - truth_skip,
            pred_index=pred_at[both] - pred_skip,
            intersections=pixels[both],
        )

    def _keep(self, keys: NDArray[np.uint64], pixels: NDArray[np.int64]) -> None:
        self._keys.append(keys)
        self._pixels.append(pixels)
        self._held += len(keys)

    def _gather(self) -> None:
        """Bring what several blocks say of a pair together."""
        keys = np.concatenate([np.zeros(0, np.uint64), *self._keys])
        pixels = np.concatenate([np.zeros(0, np.int64), *self._pixels])
        self._keys, self._pixels, self._held = [], [], 0
        self._keep(*_gathered(keys, pixels))
        # What is held for good does not count, or each block would set off another gathering.
        self._held = 0


def _gathered(keys: NDArray[np.uint64], pixels: NDArray[np.int64]) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Return each key once, ascending, and the sum of its pixels."""
    pairs, place = np.unique(keys, return_inverse=True)
    return pairs, _summed(place, pixels, len(pairs))


def _summed(index: NDArray[np.int64], values: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Sum `values` by `index`; exact, for the doubles of ``bincount`` hold any pixel count."""
    return np.bincount(index, weights=values, minlength=count).astype(np.int64)

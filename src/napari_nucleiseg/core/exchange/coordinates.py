"""Whole-number coordinates as JSON text, thousands of rings at once: to print numbers one by one costs the most."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.exchange.outlines import Outlines

MOST_DIGITS = 8
_FOUR = 10_000
# The texts 0000 to 9999, four bytes each.
_TEXTS = np.frombuffer("".join(f"{number:04}" for number in range(_FOUR)).encode(), np.uint32)
_POWERS = 10 ** np.arange(1, MOST_DIGITS)
# Row n: which of eight digits remain of a number with n.
_KEPT = np.arange(MOST_DIGITS) >= MOST_DIGITS - np.arange(MOST_DIGITS + 1)[:, None]


def ring_texts(outlines: Outlines) -> list[str]:
    """Return each ring as a JSON list of ``[x,y]``, closed: the last point is the first.

    Parameters
    ----------
    outlines : Outlines
        Coordinates from 0 to ``10**8 - 1``.

    Returns
    -------
    list of str
        One a ring.
    """
    text, ends = _points_text(outlines.points)
    starts = outlines.starts
    begins = ends[starts[:-1]].tolist()
    firsts = (ends[starts[:-1] + 1] - 1).tolist()
    stops = ends[starts[1:]].tolist()
    return [
        f"[{text[begin:stop]}{text[begin:first]}]" for begin, first, stop in zip(begins, firsts, stops, strict=True)
    ]


def _points_text(points: NDArray[np.int64]) -> tuple[str, NDArray[np.int64]]:
    """Return the text of all points, each with a comma behind it, and where each begins (and the last ends)."""
    lengths = np.searchsorted(_POWERS, points, side="right") + 1
    width = int(lengths.max(initial=1))
    rows = np.empty((len(points), 2 * width + 4), np.uint8)
    kept = np.ones(rows.shape, np.bool_)
    rows[:, 0], rows[:, width + 1], rows[:, -2], rows[:, -1] = (ord(sign) for sign in "[,],")
    for axis, column in ((0, 1), (1, width + 2)):
        digits = np.empty((len(points), 2), np.uint32)
        high, low = np.divmod(points[:, axis], _FOUR)
        digits[:, 0], digits[:, 1] = _TEXTS[high], _TEXTS[low]
        rows[:, column : column + width] = digits.view(np.uint8)[:, MOST_DIGITS - width :]
        kept[:, column : column + width] = _KEPT[lengths[:, axis], MOST_DIGITS - width :]
    ends = np.concatenate([[0], np.cumsum(lengths.sum(axis=1) + 4)])
    return rows[kept].tobytes().decode("ascii"), ends

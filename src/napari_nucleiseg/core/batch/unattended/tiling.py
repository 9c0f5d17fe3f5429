"""How the tiles of a slide are cut into tasks that take about as long as wished, neighbours together."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

# Tiles of a square this wide are done by one worker after the other, so that what they share is decoded once.
SQUARE = 4
PATIENCE = 3
_FIRST_S = 0.5
_WEIGHT = 0.3


class Pace:
    """How long one tile (or block) takes a worker, as far as is known; shared by all slides of a run.

    Parameters
    ----------
    wanted_s : float
        How long a task should take, seconds.
    first_s : float
        What one is taken to last as long as nothing is known.
    most : int
        Tiles in a task at most.
    """

    def __init__(self, wanted_s: float, first_s: float = _FIRST_S, most: int = 256) -> None:
        self._wanted_s, self._each_s, self._most = wanted_s, first_s, most

    @property
    def at_once(self) -> int:
        """How many make a task."""
        return int(np.clip(self._wanted_s / max(self._each_s, 1e-6), 1, self._most))

    def note(self, count: int, seconds: float) -> None:
        """Take note of how long some took."""
        if count > 0:
            self._each_s += _WEIGHT * (seconds / count - self._each_s)


def near_together(indices: NDArray[np.int64], columns: int) -> NDArray[np.int64]:
    """Return tiles square by square, and row by row in each square.

    Parameters
    ----------
    indices : ndarray of int64, shape (n,)
        Tiles of a grid, in any order.
    columns : int
        Of the grid.
    """
    rows, cols = np.divmod(indices, columns)
    return indices[np.lexsort((cols, rows, cols // SQUARE, rows // SQUARE))]


class Heap:
    """Tiles that are still to be done: cut off in order, and put back in halves when that was too much.

    Parameters
    ----------
    tiles : ndarray of int64, shape (n,)
        In the order they are wanted.
    """

    def __init__(self, tiles: NDArray[np.int64]) -> None:
        self._tiles, self._next = tiles, 0
        self._again: deque[tuple[int, ...]] = deque()
        self._deaths: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._tiles) - self._next + sum(map(len, self._again))

    def cut(self, most: int, workers: int) -> tuple[int, ...]:
        """Take the next tiles: `most` at most, and towards the end so few that all workers have some."""
        if self._again:
            return self._again.popleft()
        left = len(self._tiles) - self._next
        count = min(most, max(1, -(-left // (2 * workers))), left)
        part = self._tiles[self._next : self._next + count]
        self._next += count
        return tuple(int(tile) for tile in part)

    def again(self, tiles: Sequence[int]) -> None:
        """Put tiles back as they are: what was found in them got lost."""
        if tiles:
            self._again.append(tuple(tiles))

    def halve(self, tiles: Sequence[int]) -> int | None:
        """Put tiles back in two halves, after they were too much for a worker.

        Returns
        -------
        int or None
            A tile that was too much by itself `PATIENCE` times and is given up.
        """
        if len(tiles) > 1:
            middle = len(tiles) // 2
            self._again += [tuple(tiles[:middle]), tuple(tiles[middle:])]
            return None
        (tile,) = tiles
        self._deaths[tile] = self._deaths.get(tile, 0) + 1
        if self._deaths[tile] >= PATIENCE:
            return tile
        self._again.append((tile,))
        return None

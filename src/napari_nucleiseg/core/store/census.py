"""Questions about where nuclei lie: tables and counts of a region, answered from the index of 512 px cells."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.store.ledger import APPROVED, CELL_PX, Ledger, Row
from napari_nucleiseg.core.store.merge import State
from napari_nucleiseg.core.store.nuclei import NucleiTable

_COLUMNS = "id, y, x, y0, x0, y1, x1, area_um2, class, score, review, run, person"
# Of all but the last two, which name who made a nucleus.
_KINDS = (np.uint32, *[np.float64] * 2, *[np.int64] * 4, np.float32, np.int32, np.float32, np.int64)
_PART_ROWS = 1024


class Census:
    """Counts and tables of the nuclei that are shown, by the region that holds their centroids.

    Parameters
    ----------
    ledger : Ledger
        Holds the nuclei.
    shape : tuple of int
        Level-0 ``(height, width)`` of the slide.
    """

    def __init__(self, ledger: Ledger, shape: tuple[int, int]) -> None:
        self._ledger = ledger
        self._slide = Region(0, 0, *shape)
        self._grid = -(-shape[0] // CELL_PX), -(-shape[1] // CELL_PX)
        self._counts = np.zeros(self._grid, np.int64)
        self.recount_all()

    def cells(self, centroids: NDArray[np.float64]) -> NDArray[np.int64]:
        """Return the cell number of each centroid ``(n, 2)`` in level-0 pixels; outside points count at the edge."""
        last = np.array(self._grid) - 1
        places = np.clip(np.floor(centroids / CELL_PX).astype(np.int64), 0, last)
        cells: NDArray[np.int64] = places[:, 0] * self._grid[1] + places[:, 1]
        return cells

    def recount_all(self) -> None:
        """Count every cell anew from the database."""
        self._counts = self._counted()

    def stale_cells(self) -> int:
        """Return the number of cells whose count is not what the database says."""
        return int(np.count_nonzero(self._counts != self._counted()))

    def _counted(self) -> NDArray[np.int64]:
        counts = np.zeros(self._grid[0] * self._grid[1], np.int64)
        rows = self._ledger.reader.execute(
            "SELECT cell, count(*) FROM nuclei WHERE state = ? GROUP BY cell", (int(State.SHOWN),)
        )
        for cell, number in rows:
            if 0 <= cell < len(counts):  # elsewhere only in a damaged table; a check finds it
                counts[cell] = number
        return counts.reshape(self._grid)

    def recount(self, regions: Iterable[Region]) -> None:
        """Count the cells that these regions touch anew; for the writing thread."""
        for region in regions:
            rows, columns = self._cell_range(region)
            for row in range(*rows):
                first = row * self._grid[1]
                found = np.zeros(columns[1] - columns[0], np.int64)
                for cell, number in self._ledger.writer.execute(
                    "SELECT cell, count(*) FROM nuclei WHERE cell BETWEEN ? AND ? AND state = ? GROUP BY cell",
                    (first + columns[0], first + columns[1] - 1, int(State.SHOWN)),
                ):
                    found[cell - first - columns[0]] = number
                self._counts[row, slice(*columns)] = found

    def total(self) -> int:
        """Return the number of nuclei on the slide."""
        return int(self._counts.sum())

    def count_in(self, region: Region) -> int:
        """Return the number of nuclei with their centroid in `region` (level-0 pixels, half-open)."""
        region = region.intersect(self._slide)
        if region.is_empty:
            return 0
        rows, columns = self._cell_range(region)
        # Cells wholly inside are summed; only those that the border crosses are looked at nucleus by nucleus.
        inner = (
            _inner(region.y, region.y1, *rows, self._slide.height),
            _inner(region.x, region.x1, *columns, self._slide.width),
        )
        number = int(self._counts[slice(*inner[0]), slice(*inner[1])].sum())
        crossed = np.ones((rows[1] - rows[0], columns[1] - columns[0]), bool)
        crossed[inner[0][0] - rows[0] : inner[0][1] - rows[0], inner[1][0] - columns[0] : inner[1][1] - columns[0]] = (
            False
        )
        crossed &= self._counts[slice(*rows), slice(*columns)] > 0
        places = np.add(np.argwhere(crossed), (rows[0], columns[0]))
        return number + self._count_exactly(places[:, 0] * self._grid[1] + places[:, 1], region)

    def nuclei_in(self, region: Region) -> NucleiTable:
        """Return the nuclei with their centroid in `region` (level-0 pixels, half-open), ascending by id."""
        region = region.intersect(self._slide)
        if region.is_empty:
            return table_of([], {})
        database = self._ledger.reader
        runs = dict(database.execute("SELECT run, model_version FROM runs"))
        return table_of(_parts_in(database, self.spans(region), region, _COLUMNS, "state = 0"), runs)

    def centroids_in(self, region: Region) -> NDArray[np.float64]:
        """Return ``(y, x)`` of the nuclei in `region`, in no order; several times faster than the whole table."""
        region = region.intersect(self._slide)
        rows = [] if region.is_empty else rows_in(self._ledger.reader, self.spans(region), region, "y, x", "state = 0")
        return np.array(rows, np.float64).reshape(-1, 2)

    def rows_in(self, database: sqlite3.Connection, region: Region, columns: str, condition: str) -> list[Row]:
        """Return rows of nuclei of any state whose centroid lies in `region` and that meet an SQL condition."""
        region = region.intersect(self._slide)
        return [] if region.is_empty else rows_in(database, self.spans(region), region, columns, condition)

    def spans(self, region: Region) -> Iterator[tuple[int, int]]:
        """Yield first and last of the runs of cells, ends included, that hold all nuclei of a region."""
        region = region.intersect(self._slide)
        if region.is_empty:
            return
        rows, columns = self._cell_range(region)
        if columns == (0, self._grid[1]):
            yield rows[0] * self._grid[1], rows[1] * self._grid[1] - 1
            return
        for row in range(*rows):
            yield row * self._grid[1] + columns[0], row * self._grid[1] + columns[1] - 1

    def _count_exactly(self, cells: NDArray[np.int64], region: Region) -> int:
        number = 0
        for start in range(0, len(cells), 900):
            part = cells[start : start + 900].tolist()
            marks = ",".join("?" * len(part))
            number += self._ledger.reader.execute(
                f"SELECT count(*) FROM nuclei WHERE cell IN ({marks}) "  # noqa: S608
                "AND y >= ? AND y < ? AND x >= ? AND x < ? AND state = ?",
                (*part, region.y, region.y1, region.x, region.x1, int(State.SHOWN)),
            ).fetchone()[0]
        return number

    def _cell_range(self, region: Region) -> tuple[tuple[int, int], tuple[int, int]]:
        region = region.intersect(self._slide)
        return (region.y // CELL_PX, -(-region.y1 // CELL_PX)), (region.x // CELL_PX, -(-region.x1 // CELL_PX))


def rows_in(
    database: sqlite3.Connection, spans: Iterable[tuple[int, int]], region: Region, columns: str, condition: str
) -> list[Row]:
    """Return rows of the nuclei in spans of cells whose centroid lies in `region`."""
    return [row for part in _parts_in(database, spans, region, columns, condition) for row in part]


def _parts_in(
    database: sqlite3.Connection, spans: Iterable[tuple[int, int]], region: Region, columns: str, condition: str
) -> Iterator[list[Row]]:
    query = (
        f"SELECT {columns} FROM nuclei WHERE cell BETWEEN ? AND ? "  # noqa: S608
        f"AND y >= ? AND y < ? AND x >= ? AND x < ? AND {condition}"
    )
    bounds = region.y, region.y1, region.x, region.x1
    for first, last in spans:
        found = database.execute(query, (first, last, *bounds))
        while part := found.fetchmany(_PART_ROWS):
            yield part


def table_of(parts: Iterable[list[Row]], runs: dict[int, str]) -> NucleiTable:
    """Return the columns of nuclei rows (`_COLUMNS`) as a table, ascending by id."""
    columns: list[list[NDArray[Any]]] = [[np.zeros(0, kind)] for kind in _KINDS]
    origins: list[str] = []
    # Few rows live as Python objects at a time, or the garbage collector goes through all of them again and again.
    for part in parts:
        *numbers, run_numbers, persons = zip(*part, strict=True)
        for column, found, kind in zip(columns, numbers, _KINDS, strict=True):
            column.append(np.array(found, kind))
        origins += [runs[run] if person is None else person for run, person in zip(run_numbers, persons, strict=True)]
    order = np.argsort(np.concatenate(columns[0]))
    ids, y, x, y0, x0, y1, x1, areas, classes, scores, reviews = (np.concatenate(column)[order] for column in columns)
    return NucleiTable(
        ids=ids,
        centroids=np.stack([y, x], axis=1),
        boxes=np.stack([y0, x0, y1, x1], axis=1),
        areas_um2=areas,
        classes=classes,
        scores=scores,
        origins=np.array(origins, object)[order],
        approved=reviews == APPROVED,
    )


def _inner(start: int, stop: int, first: int, last: int, length: int) -> tuple[int, int]:
    """Return the range of cells that lie wholly between `start` and `stop`, pixels along one axis."""
    begin = -(-start // CELL_PX)
    end = last if stop >= length else stop // CELL_PX
    return (begin, max(begin, end)) if begin < last else (first, first)

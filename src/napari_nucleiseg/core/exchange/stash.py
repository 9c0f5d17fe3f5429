"""Nuclei on their way into a project, sorted by place; what does not fit into memory waits in a temporary file.

A file may list its nuclei in any order, but to write a part of the slide once and not a thousand times, all nuclei of
that part must come together.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.exchange.rasterise import Spans

CELL_PX = 2048
MEMORY_BYTES = 48 << 20
# What a small array costs besides its content.
_PIECE_BYTES = 300

# Of one nucleus: the id that the file gives (0: none), number of its class, score, whether a person approved it.
ATTRIBUTES = np.dtype([("id", "<i8"), ("class", "<i4"), ("score", "<f4"), ("approved", "?")])
_SPAN = np.dtype("<i4")

Piece = tuple[NDArray[Any], NDArray[np.int32]]


class Stash:
    """Nuclei by the square of the slide that holds their first pixel.

    Parameters
    ----------
    width : int
        Of the slide, level-0 pixels.
    memory_bytes : int
        How much is held in memory; default `MEMORY_BYTES`.
    """

    def __init__(self, width: int, memory_bytes: int | None = None) -> None:
        self._columns = -(-width // CELL_PX)
        self._memory = MEMORY_BYTES if memory_bytes is None else memory_bytes
        self._pieces: dict[int, list[Piece]] = {}
        self._held = 0
        self._file = tempfile.TemporaryFile()  # noqa: SIM115  # closed by `__exit__`
        # Cell: where its nuclei are in the file, and how many nuclei and spans.
        self._written: dict[int, list[tuple[int, int, int]]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def __len__(self) -> int:
        """Return the number of squares."""
        return len(self._pieces.keys() | self._written.keys())

    def put(self, spans: Spans, attributes: NDArray[Any]) -> None:
        """Add nuclei.

        Parameters
        ----------
        spans : Spans
            Their pixels; owners are rows of `attributes`, and each row has some.
        attributes : ndarray of `ATTRIBUTES`, shape (n,)
            What is known of each.
        """
        if not len(attributes):
            return
        firsts = np.flatnonzero(np.diff(spans.owners, prepend=-1))
        cells = spans.rows[firsts] // CELL_PX * self._columns + spans.starts[firsts] // CELL_PX
        lengths = np.diff(np.append(firsts, len(spans)))
        table = np.stack([spans.owners, spans.rows, spans.starts, spans.stops], axis=1)
        order = np.argsort(cells, kind="stable")
        bounds = np.append(np.flatnonzero(np.diff(cells[order], prepend=-1)), len(order)).tolist()
        # Spans in the order of the cells, and their owners counted from 0 in each cell.
        places = _ranges(firsts[order], lengths[order])
        sorted_spans = table[places]
        ranks = np.empty(len(order), np.int64)
        ranks[order] = np.arange(len(order))
        sorted_spans[:, 0] = ranks[sorted_spans[:, 0]]
        ends = np.concatenate([[0], np.cumsum(lengths[order])]).tolist()
        sorted_attributes = attributes[order]
        for first, stop in itertools.pairwise(bounds):
            piece = sorted_spans[ends[first] : ends[stop]].copy()
            piece[:, 0] -= first
            self._add(int(cells[order[first]]), (sorted_attributes[first:stop].copy(), piece))
        if self._held > self._memory:
            self._spill()

    def take(self) -> Iterator[tuple[Spans, NDArray[Any]]]:
        """Yield the nuclei square by square, row after row, and forget them."""
        for cell in sorted(self._pieces.keys() | self._written.keys()):
            pieces = [self._read(place) for place in self._written.pop(cell, [])]
            pieces.extend(self._pieces.pop(cell, []))
            attributes, table = _joined(pieces)
            yield Spans(*table.T), attributes

    def _add(self, cell: int, piece: Piece) -> None:
        self._pieces.setdefault(cell, []).append(piece)
        self._held += piece[0].nbytes + piece[1].nbytes + _PIECE_BYTES

    def _spill(self) -> None:
        self._file.seek(0, 2)
        for cell, pieces in self._pieces.items():
            attributes, table = _joined(pieces)
            self._written.setdefault(cell, []).append((self._file.tell(), len(attributes), len(table)))
            self._file.write(attributes.tobytes() + table.astype(_SPAN).tobytes())
        self._pieces.clear()
        self._held = 0

    def _read(self, place: tuple[int, int, int]) -> Piece:
        offset, nuclei, spans = place
        self._file.seek(offset)
        attributes = np.frombuffer(self._file.read(nuclei * ATTRIBUTES.itemsize), ATTRIBUTES)
        table = np.frombuffer(self._file.read(spans * 4 * _SPAN.itemsize), _SPAN).reshape(-1, 4)
        return attributes, table.astype(np.int32)


def _joined(pieces: list[Piece]) -> Piece:
    """Put pieces behind one another; the owners of each go on where the last piece ended."""
    if len(pieces) == 1:
        return pieces[0]
    before = np.cumsum([0, *(len(attributes) for attributes, _ in pieces[:-1])])
    table = np.concatenate([spans for _, spans in pieces])
    table[:, 0] += np.repeat(before, [len(spans) for _, spans in pieces]).astype(np.int32)
    return np.concatenate([attributes for attributes, _ in pieces]), table


def _ranges(starts: NDArray[Any], lengths: NDArray[Any]) -> NDArray[np.int64]:
    """Return ``start, start + 1, ...`` of each length, one after the other."""
    ends = np.cumsum(lengths)
    every: NDArray[np.int64] = np.arange(int(ends[-1])) + np.repeat(starts - (ends - lengths), lengths)
    return every

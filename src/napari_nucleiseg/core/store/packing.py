"""Rows of the nuclei table as columns of numbers: for thousands of rows JSON takes longer than all else."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Row = tuple[Any, ...]
Rows = Mapping[int, Row | None]

# No run, no person.
_NONE = -1
# Columns of the table besides id, run and person.
_NUMBERS = 12
_HEAD_BYTES = 4


def pack(sides: Sequence[Rows]) -> bytes:
    """Return rows of nuclei by id, some of them None, as bytes; one mapping for each side."""
    columns: list[NDArray[Any]] = []
    names: dict[str | None, int] = {None: _NONE}
    for side in sides:
        rows = [row for row in side.values() if row is not None]
        columns.append(np.fromiter(side, np.int64, len(side)))
        columns.append(np.fromiter((row is not None for row in side.values()), np.bool_, len(side)))
        if not rows:
            continue
        _, runs, persons, *numbers = zip(*rows, strict=True)
        columns.append(np.array([_NONE if run is None else run for run in runs]))
        for person in set(persons):
            names.setdefault(person, len(names) - 1)
        columns.append(np.array([names[person] for person in persons]))
        columns.extend(np.array(column) for column in numbers)
    columns = [_slim(column) for column in columns]
    kinds = [(column.dtype.str, len(column)) for column in columns]
    head = json.dumps({"names": list(names)[1:], "columns": kinds}).encode()
    return len(head).to_bytes(_HEAD_BYTES, "little") + head + b"".join(column.tobytes() for column in columns)


def unpack(data: bytes, sides: int) -> list[dict[int, Row | None]]:
    """Return what `pack` made bytes of.

    Raises
    ------
    ValueError, TypeError, KeyError
        If these are other bytes.
    """
    size = int.from_bytes(data[:_HEAD_BYTES], "little")
    head = json.loads(data[_HEAD_BYTES : _HEAD_BYTES + size])
    at = _HEAD_BYTES + size
    columns: list[list[Any]] = []
    for kind, length in head["columns"]:
        column = np.frombuffer(data, np.dtype(kind), length, at)
        columns.append(column.tolist())
        at += column.nbytes
    names = {_NONE: None, **dict(enumerate(head["names"]))}
    left = iter(columns)
    try:
        return [_side(left, names) for _ in range(sides)]
    except StopIteration as error:
        raise ValueError("columns are missing") from error


def _side(columns: Iterator[list[Any]], names: Mapping[int, str | None]) -> dict[int, Row | None]:
    """Take the columns of one side."""
    keys: list[int] = next(columns)
    there: list[bool] = next(columns)
    found: dict[int, Row | None] = dict.fromkeys(keys)
    kept = [key for key, is_there in zip(keys, there, strict=True) if is_there]
    if kept:
        runs = [None if run == _NONE else run for run in next(columns)]
        persons = [names[person] for person in next(columns)]
        numbers = [next(columns) for _ in range(_NUMBERS)]
        found.update(zip(kept, zip(kept, runs, persons, *numbers, strict=True), strict=True))
    return found


def _slim(column: NDArray[Any]) -> NDArray[Any]:
    """Return whole numbers with as few bytes as they need, little endian."""
    if column.dtype.kind == "i" and len(column):
        low, high = int(column.min()), int(column.max())
        column = column.astype(np.min_scalar_type(min(low, ~high, -1)))
    return column.astype(column.dtype.newbyteorder("<"), copy=False)

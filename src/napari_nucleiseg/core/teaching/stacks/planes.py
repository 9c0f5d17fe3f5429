"""Numbers of planes as people write them: ``12, 16, 20-24``."""

from __future__ import annotations

import re
from collections.abc import Iterable

from napari_nucleiseg.core.errors import TeachingError

_PART = re.compile(r"(\d+)(?:\s*[-–]\s*(\d+))?")


def planes_of(text: str, depth: int) -> tuple[int, ...]:
    """Read numbers of planes, from 0, ascending and each once.

    Parameters
    ----------
    text : str
        Numbers and ranges with commas between; empty is no plane.
    depth : int
        Planes of the stack.

    Raises
    ------
    TeachingError
        If it cannot be read, or names a plane that is not there.
    """
    found: set[int] = set()
    for part in filter(None, (one.strip() for one in text.split(","))):
        match = _PART.fullmatch(part)
        if match is None:
            raise TeachingError(f"“{part}” is no plane. Write numbers and ranges with commas, such as 12, 16, 20-24.")
        first, last = int(match[1]), int(match[2] or match[1])
        if last < first:
            raise TeachingError(f"“{part}” ends before it begins: write {last}-{first}.")
        if last >= depth:
            raise TeachingError(f"There is no plane {last}: the stack has the planes 0 to {depth - 1}.")
        found |= set(range(first, last + 1))
    return tuple(sorted(found))


def written(planes: Iterable[int]) -> str:
    """Return planes as people write them; `planes_of` reads that."""
    runs: list[list[int]] = []
    for plane in sorted(set(planes)):
        if runs and plane == runs[-1][-1] + 1:
            runs[-1].append(plane)
        else:
            runs.append([plane])
    return ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)

"""Where people painted how a model should look: two classes on the slide's own pixels, sparse, in the database.

Paint lies at level 0, where it is seen and drawn: nothing is resampled before a model learns from it, and the areas
that a brush leaves take some hundred bytes a chunk. Chunks without paint are not kept.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.edits.change import bounds_of
from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.store.editor import Changed
from napari_nucleiseg.core.store.files import decode_chunk, encode_chunk
from napari_nucleiseg.core.store.packing import Row
from napari_nucleiseg.core.store.plane import LazyPlane
from napari_nucleiseg.core.store.records import ATTENTION, rows_of

if TYPE_CHECKING:
    from napari_nucleiseg.core.store.project import Project

UNPAINTED, LOOK_HERE, DO_NOT_LOOK = 0, 1, 2
KIND, ERASED = "paint attention", "erase attention"
CHUNK_PX = 256
# From this step on an overview needs no pixels: each row holds so coarse a picture of itself.
COARSE_STEP = 32
COARSE_PX = CHUNK_PX // COARSE_STEP
COARSEST_PX = 512

Paint = NDArray[np.uint8]


def read_attention(project: Project, region: Region) -> Paint:
    """Return what was painted in a region, shape (y, x): `LOOK_HERE`, `DO_NOT_LOOK`, or 0 for nothing.

    Parameters
    ----------
    project : Project
        Open for reading or writing; for any thread.
    region : Region
        Level-0 pixels; what lies beside the slide is 0.
    """
    return _read(project, 1, region)


def paint_attention(project: Project, region: Region, after: Paint, *, before: Paint | None = None) -> Changed | None:
    """Bring paint to what a person made of it, as a step that can be undone; durable on return.

    Parameters
    ----------
    project : Project
        Open for writing.
    region : Region
        Level-0 pixels inside the slide.
    after : ndarray of uint8, shape (y, x)
        `LOOK_HERE`, `DO_NOT_LOOK`, or 0 for nothing.
    before : ndarray of uint8, shape (y, x), optional
        What the person saw there: only pixels that differ from it are changed. Default: what is there.

    Returns
    -------
    Changed or None
        None if nothing changed.

    Raises
    ------
    ValueError
        If `region` leaves the slide, or `after` has another shape or other values.
    StoreError
        If it cannot be written.
    """
    if not project.labels.whole.contains(region) or after.shape != (region.height, region.width):
        raise ValueError(f"{after.shape} pixels do not fit {region} of a slide of {project.shape}")
    if after.size and not 0 <= int(after.min()) <= int(after.max()) <= DO_NOT_LOOK:
        raise ValueError(f"paint has the values 0 to {DO_NOT_LOOK}, not {after.min()} to {after.max()}")
    with project.changing():
        current = read_attention(project, region)
        wanted = after if before is None else np.where(before != after, after, current)
        box = bounds_of(wanted != current)
        if box is None:
            return None
        place = box.translate(region.y, region.x)
        painted = wanted[box.slices].astype(np.uint8)
        kind = KIND if painted[painted != current[box.slices]].any() else ERASED
        return project.editor.put_all(ATTENTION, _rows(project, place, painted), kind=kind, region=place)


def painted_boxes(project: Project) -> list[Region]:
    """Return the chunks of the slide that hold paint, level-0 pixels."""
    database = project.ledger.reader
    if not _is_there(database):
        return []
    columns = _columns(project)
    return [_box(key, columns) for (key,) in database.execute("SELECT chunk FROM attention ORDER BY chunk")]


def attention_levels(project: Project) -> tuple[LazyPlane, ...]:
    """Return the paint of the whole slide as a pyramid of lazy uint8 planes, level 0 first.

    A pixel of a coarser level shows paint if any lies in it; read anew each time, so that it is never out of date.
    """
    planes = []
    factor = 1
    while True:
        shape = -(-project.shape[0] // factor), -(-project.shape[1] // factor)
        side = max(1, CHUNK_PX // factor)
        planes.append(LazyPlane(shape, np.uint8, (side, side), partial(_read_box, project, factor)))
        if max(shape) <= COARSEST_PX or factor == CHUNK_PX:
            return tuple(planes)
        factor *= 2


def broken_chunks(database: sqlite3.Connection) -> list[int]:
    """Return the chunks whose paint cannot be read."""
    if not _is_there(database):
        return []
    rows = database.execute("SELECT chunk, pixels, coarse FROM attention")
    return [key for key, pixels, coarse in rows if _decoded(pixels) is None or len(coarse) != COARSE_PX**2]


def _read_box(project: Project, factor: int, *bounds: int) -> Paint:
    return _read(project, factor, Region.from_bounds(*bounds))


def _read(project: Project, factor: int, seen: Region) -> Paint:
    """Return a rectangle of a level whose pixels are `factor` wide; `seen` is in pixels of that level."""
    out = np.zeros((seen.height, seen.width), np.uint8)
    side = CHUNK_PX // factor
    for key, pixels in _chunks_in(project, seen.scaled_outward(factor, factor), coarse=factor >= COARSE_STEP):
        small = _pooled(pixels, pixels.shape[0] // side)
        row, column = divmod(key, _columns(project))
        place = Region(row * side, column * side, side, side)
        common = place.intersect(seen)
        if not common.is_empty:
            out[common.translate(-seen.y, -seen.x).slices] = small[common.translate(-place.y, -place.x).slices]
    return out


def _chunks_in(project: Project, region: Region, *, coarse: bool) -> Iterator[tuple[int, Paint]]:
    """Iterate over the chunks that overlap a region of level-0 pixels: number, and pixels or their coarse picture."""
    database, columns = project.ledger.reader, _columns(project)
    inside = region.intersect(project.labels.whole)
    if inside.is_empty or not _is_there(database):
        return
    top, left = inside.y // CHUNK_PX, inside.x // CHUNK_PX
    bottom, right = (inside.y1 - 1) // CHUNK_PX, (inside.x1 - 1) // CHUNK_PX
    query = (
        f"SELECT chunk, {'coarse' if coarse else 'pixels'} FROM attention "  # noqa: S608
        "WHERE chunk BETWEEN ? AND ? AND chunk % ? BETWEEN ? AND ?"
    )
    for key, data in database.execute(query, (top * columns + left, bottom * columns + right, columns, left, right)):
        if coarse:
            pixels = np.frombuffer(data, np.uint8).reshape(COARSE_PX, COARSE_PX) if len(data) == COARSE_PX**2 else None
        else:
            pixels = _decoded(data)
        if pixels is not None:
            yield key, pixels


def _rows(project: Project, place: Region, painted: Paint) -> dict[int, Row | None]:
    """Return what becomes of the rows of all chunks that a place overlaps; None for those without paint."""
    columns = _columns(project)
    keys = [
        row * columns + column
        for row in range(place.y // CHUNK_PX, (place.y1 - 1) // CHUNK_PX + 1)
        for column in range(place.x // CHUNK_PX, (place.x1 - 1) // CHUNK_PX + 1)
    ]
    known = rows_of(project.ledger.reader, ATTENTION, keys)
    found: dict[int, Row | None] = {}
    for key in keys:
        former = _decoded(known[key][1]) if key in known else None
        pixels = np.zeros((CHUNK_PX, CHUNK_PX), np.uint8) if former is None else former.copy()
        box = _box(key, columns)
        common = box.intersect(place)
        pixels[common.translate(-box.y, -box.x).slices] = painted[common.translate(-place.y, -place.x).slices]
        found[key] = (key, encode_chunk(pixels), _pooled(pixels, COARSE_STEP).tobytes()) if pixels.any() else None
    return found


def _decoded(data: bytes) -> Paint | None:
    """Return the pixels of a chunk; None if they are damaged."""
    try:
        return decode_chunk(data, (CHUNK_PX, CHUNK_PX), np.dtype(np.uint8))
    except ValueError:
        return None


def _pooled(pixels: Paint, step: int) -> Paint:
    """Return the highest value of each `step` x `step` pixels: no stroke is too thin to be seen from far away."""
    if step == 1:
        return pixels
    side = pixels.shape[0] // step
    return np.asarray(pixels.reshape(side, step, side, step).max(axis=(1, 3)), np.uint8)


def _columns(project: Project) -> int:
    return -(-project.shape[1] // CHUNK_PX)


def _box(key: int, columns: int) -> Region:
    row, column = divmod(key, columns)
    return Region(row * CHUNK_PX, column * CHUNK_PX, CHUNK_PX, CHUNK_PX)


def _is_there(database: sqlite3.Connection) -> bool:
    """Whether the project can hold paint: one of format 3 that is open for reading cannot."""
    return database.execute("SELECT 1 FROM sqlite_master WHERE name = 'attention'").fetchone() is not None

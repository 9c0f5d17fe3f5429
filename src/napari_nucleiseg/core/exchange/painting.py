"""Nuclei from a file into the project: which pixels they get, which id, and what becomes of those that were there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.exchange.rasterise import Spans
from napari_nucleiseg.core.exchange.report import ImportReport
from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.store.editor import Changed
from napari_nucleiseg.core.store.labels import LabelStore
from napari_nucleiseg.core.store.merge import State
from napari_nucleiseg.core.store.newcomers import Newcomers, are_pixels_claimed
from napari_nucleiseg.core.store.packing import Row
from napari_nucleiseg.core.store.project import Project
from napari_nucleiseg.core.store.records import NUCLEI, rows_of
from napari_nucleiseg.core.store.retouch import Attributes, Runs
from napari_nucleiseg.core.store.tiles import bounding

Overlap = Literal["keep", "replace"]
OVERLAPS: tuple[Overlap, ...] = get_args(Overlap)
KIND = "import"
# Above are the ids that people's next nuclei may need: one label of 4294967295 in a file must not use all of them up.
MOST_ID = (1 << 32) - (1 << 24)

Pixels = NDArray[np.int64]
Ids = NDArray[np.uint32]


@dataclass(frozen=True, slots=True, eq=False)
class Patch:
    """Nuclei of one part of the slide.

    Parameters
    ----------
    region : Region
        Contains all of them, level-0 pixels inside the slide.
    pixels : ndarray of int64, shape (n,)
        Indices into the flat region; a pixel may occur more than once, the first wins.
    owners : ndarray of integers, shape (n,)
        Row of the nucleus that each pixel belongs to; every row has some.
    attributes : ndarray of `stash.ATTRIBUTES`, shape (m,)
        What is known of each nucleus.
    is_disjoint : bool
        Whether it is known that no pixel occurs twice.
    runs : tuple of ndarray, optional
        Row and first column inside the region, length and owner of each run of pixels, if they are known.
    """

    region: Region
    pixels: Pixels
    owners: NDArray[Any]
    attributes: NDArray[Any]
    is_disjoint: bool = False
    runs: Runs | None = None


def patch_of_spans(spans: Spans, attributes: NDArray[Any], labels: LabelStore) -> Patch:
    """Return nuclei that are given as spans, in a region that is quick to write to a label image."""
    bounds = int(spans.rows.min()), int(spans.starts.min()), int(spans.rows.max()) + 1, int(spans.stops.max())
    region = labels.aligned(Region.from_bounds(*bounds))
    ys, xs = spans.rows.astype(np.int64) - region.y, spans.starts.astype(np.int64) - region.x
    lengths = (spans.stops - spans.starts).astype(np.int64)
    begins = ys * region.width + xs
    ends = np.cumsum(lengths)
    pixels = np.arange(int(ends[-1])) + np.repeat(begins - (ends - lengths), lengths)
    order = np.argsort(begins, kind="stable")
    is_disjoint = bool((begins[order][1:] >= (begins + lengths)[order][:-1]).all())
    owners = spans.owners.astype(np.int64)
    return Patch(region, pixels, np.repeat(owners, lengths), attributes, is_disjoint, (ys, xs, lengths, owners))


@dataclass(frozen=True, slots=True, eq=False)
class Canvas:
    """Ids over a region as they are to be painted on, and pixels of it with their owners, as in `Patch`."""

    region: Region
    image: Ids
    pixels: Pixels
    owners: NDArray[Any]


class Painter:
    """Writes patches as one step of the history.

    Parameters
    ----------
    project : Project
        Open for writing.
    overlap : {"keep", "replace"}
        ``keep``: what is there stays, new nuclei get free pixels only, and those that would lose more than half of
        theirs are left out. ``replace``: new nuclei get all their pixels; those there that lose more than half of
        theirs go, and those that come back under their own id become what the file says.
    report : ImportReport
        Counts what happens.
    """

    def __init__(self, project: Project, overlap: Overlap, report: ImportReport) -> None:
        self._project, self._report = project, report
        self._replace = overlap == "replace"
        self._um2 = project.mpp_um.y * project.mpp_um.x

    def paint(self, patch: Patch) -> None:
        """Write the nuclei of one patch; durable when it returns.

        Raises
        ------
        StoreError
            If it cannot be written.
        """
        # Held from reading to writing: a model may be at work beside this.
        with self._project.changing():
            self._paint(patch)

    def _paint(self, patch: Patch) -> None:
        current = self._project.labels.read(patch.region)
        under = current.ravel()[patch.pixels]
        returning = self._returning(patch) if self._replace else {}
        is_bare = not returning and not under.any()
        runs = None
        if is_bare and patch.is_disjoint:
            runs = patch.runs
            taken = np.ones(len(patch.attributes), np.bool_)
            canvas = Canvas(patch.region, current, patch.pixels, patch.owners)
        elif self._replace:
            taken, canvas = self._replaced(patch, current, under, returning)
        else:
            taken, canvas = self._fitted(patch, current, under)
        ids = self._named(patch, taken, returning)
        editor, step = self._project.editor, self._report.step
        changed: Changed | None = None
        classes, scores, approved = (patch.attributes[name][taken] for name in ("class", "score", "approved"))
        if not is_bare or are_pixels_claimed(self._project.ledger.reader, canvas.region):
            canvas.image.ravel()[canvas.pixels] = ids[canvas.owners]
            given = zip(ids[taken].tolist(), classes.tolist(), scores.tolist(), approved.tolist(), strict=True)
            attributes = {key: Attributes(*values) for key, *values in given}
            changed = editor.paint(canvas.region, canvas.image, kind=KIND, attributes=attributes, step=step)
        elif taken.any():
            newcomers = Newcomers(canvas.region, canvas.pixels, canvas.owners, ids, classes, scores, approved, runs)
            changed = editor.add(newcomers, canvas.image, kind=KIND, step=step)
        self._report.nuclei += int(np.count_nonzero(taken))
        if changed is not None:
            self._report.step = changed.step

    def _replaced(
        self, patch: Patch, current: Ids, under: Ids, returning: Mapping[int, Row]
    ) -> tuple[NDArray[np.bool_], Canvas]:
        """Return which nuclei are taken and where they go, those that they take pixels from already gone."""
        won = _won(patch)
        foreign = (under > 0) & ~np.isin(under, np.array(list(returning), np.uint32))
        taken = np.bincount(patch.owners[won], minlength=len(patch.attributes)) > 0
        self._report.leave_out("covered", int(np.count_nonzero(~taken)))
        self._report.overlapped += len(np.unique(patch.owners[foreign | ~won]))
        image, region, pixels = self._cleared(patch, current, under[won], returning)
        return taken, Canvas(region, image, pixels[won], patch.owners[won])

    def _fitted(self, patch: Patch, current: Ids, under: Ids) -> tuple[NDArray[np.bool_], Canvas]:
        """Return which nuclei are taken and where they go, beside those that are there."""
        won = _won(patch) & (under == 0)
        got, total = (
            np.bincount(found, minlength=len(patch.attributes)) for found in (patch.owners[won], patch.owners)
        )
        taken = 2 * got >= total
        self._report.leave_out("there_already", int(np.count_nonzero(~taken)))
        self._report.overlapped += int(np.count_nonzero(got < total))
        won &= taken[patch.owners]
        return taken, Canvas(patch.region, current, patch.pixels[won], patch.owners[won])

    def _returning(self, patch: Patch) -> dict[int, Row]:
        """Return the rows of nuclei that the file gives another outline: same id, same place."""
        wanted = patch.attributes["id"]
        rows = {key: row for key, row in self._rows(wanted[wanted > 0]).items() if row[13] == State.SHOWN}
        if not rows:
            return {}
        boxes = _boxes(patch)
        found = {}
        for index in np.flatnonzero(np.isin(wanted, list(rows))).tolist():
            row = rows[int(wanted[index])]
            if Region.from_bounds(*boxes[index]).overlaps(Region.from_bounds(*row[6:10])):
                found[row[0]] = row
        return found

    def _cleared(
        self, patch: Patch, current: Ids, lost: Ids, returning: Mapping[int, Row]
    ) -> tuple[Ids, Region, Pixels]:
        """Take out the nuclei that give way; return the image, where it lies, and the patch's pixels in it."""
        ids, counts = np.unique(lost[lost > 0], return_counts=True)
        rows = self._rows(ids)
        # Ids without a row are left from a damaged project: they give way.
        going = [
            rows[key]
            for key, count in zip(ids.tolist(), counts.tolist(), strict=True)
            if key in rows and key not in returning and 2 * count * self._um2 > rows[key][10]
        ]
        self._report.replaced += len(going)
        going.extend(returning.values())
        boxes = [Region.from_bounds(*row[6:10]) for row in going]
        region = bounding([patch.region, *boxes])
        image = current.copy() if region == patch.region else self._project.labels.read(region)
        for row, box in zip(going, boxes, strict=True):
            part = image[box.translate(-region.y, -region.x).slices]
            part[part == row[0]] = 0
        ys, xs = np.divmod(patch.pixels, patch.region.width)
        pixels = (ys + patch.region.y - region.y) * region.width + xs + patch.region.x - region.x
        return image, region, pixels

    def _named(self, patch: Patch, taken: NDArray[np.bool_], returning: Mapping[int, Row]) -> Ids:
        """Return the id of each nucleus of a patch; 0: not taken."""
        wanted = patch.attributes["id"]
        valid = taken & (wanted > 0) & (wanted <= MOST_ID)
        used = [key for key in self._rows(wanted[valid]) if key not in returning]
        if used:
            valid &= ~np.isin(wanted, used)
        # Of several that want the same id the first gets it.
        places = np.flatnonzero(valid)
        _, firsts = np.unique(wanted[places], return_index=True)
        ids = np.zeros(len(wanted), np.uint32)
        ids[places[firsts]] = wanted[places[firsts]]
        self._report.ids_kept += len(firsts)
        kept = set(ids[places[firsts]].tolist())
        fresh = (key for key in iter(self._project.editor.new_id, None) if key not in kept)
        for index in np.flatnonzero(taken & (ids == 0)).tolist():
            ids[index] = next(fresh)
        return ids

    def _rows(self, ids: NDArray[Any]) -> dict[int, Row]:
        return rows_of(self._project.ledger.reader, NUCLEI, ids.tolist())


def _won(patch: Patch) -> NDArray[np.bool_]:
    """Return which pixels their nuclei win against others of the patch: the first comes first."""
    if patch.is_disjoint:
        return np.ones(len(patch.pixels), np.bool_)
    marks = np.empty(patch.region.area, np.int32)
    # Of several values for one pixel the last stays; only what was set is read.
    marks[patch.pixels[::-1]] = patch.owners[::-1]
    won: NDArray[np.bool_] = marks[patch.pixels] == patch.owners
    return won


def _boxes(patch: Patch) -> list[tuple[int, int, int, int]]:
    """Return the box ``(y0, x0, y1, x1)`` of each nucleus, level-0 pixels."""
    n = len(patch.attributes)
    bounds = []
    for start, places in zip(
        (patch.region.y, patch.region.x), np.divmod(patch.pixels, patch.region.width), strict=True
    ):
        low, high = np.full(n, np.iinfo(np.int64).max), np.zeros(n, np.int64)
        np.minimum.at(low, patch.owners, places)
        np.maximum.at(high, patch.owners, places + 1)
        bounds.append(((low + start).tolist(), (high + start).tolist()))
    (y0, y1), (x0, x1) = bounds
    return list(zip(y0, x0, y1, x1, strict=True))

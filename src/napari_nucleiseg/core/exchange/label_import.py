"""Label images into a project: a first pass finds the box of every label, a second paints them part by part."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.exchange.label_reader import LabelImage, open_labels, read_block
from napari_nucleiseg.core.exchange.painting import MOST_ID, Overlap, Painter, Patch
from napari_nucleiseg.core.exchange.report import ImportProgress, ImportReport, no_import_progress
from napari_nucleiseg.core.exchange.source import block_regions
from napari_nucleiseg.core.exchange.stash import ATTRIBUTES, CELL_PX
from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.store.project import Project
from napari_nucleiseg.core.store.retouch import runs_of

MOST_NUCLEUS_PX = 1 << 24

# Ids ``(n,)`` ascending and boxes ``(n, 4)``: y0, x0, y1, x1.
Boxes = tuple[NDArray[Any], NDArray[np.int64]]


def import_labels(
    project: Project,
    path: str | os.PathLike[str],
    *,
    overlap: Overlap = "keep",
    foreign_ids: bool = False,
    on_progress: ImportProgress = no_import_progress,
) -> ImportReport:
    """Take nuclei from a label image of the slide's size, one number a nucleus, 0 the background.

    Parameters
    ----------
    project : Project
        Open for writing.
    path : path
        A TIFF or the folder of an OME-Zarr; see `open_labels`.
    overlap : {"keep", "replace"}
        What becomes of nuclei where others are already; see `Painter`.
    foreign_ids : bool
        Whether to keep the ids of other programs as well as those of our exports. They count from 1, where the nuclei
        that models find have theirs: only for a project that no model writes into.
    on_progress : callable
        Called with what is under way, parts done and in all. May raise: what is written stays and can be undone.

    Returns
    -------
    ImportReport
        What was taken, and what was not and why.

    Raises
    ------
    ImportFileError
        If the file cannot be read or does not fit the slide.
    StoreError
        If the project cannot be written.
    """
    report = ImportReport(Path(path).name)
    image = open_labels(path, project.shape)
    try:
        ids, boxes = _boxes_of(image, on_progress)
        sizes = boxes[:, 2:] - boxes[:, :2]
        usual = np.prod(sizes, axis=1) <= MOST_NUCLEUS_PX
        report.leave_out("too_large", int(np.count_nonzero(~usual)))
        painter = Painter(project, overlap, report)
        groups = list(_groups(boxes, usual))
        for done, rows in enumerate(groups, start=1):
            painter.paint(_patch(image, ids[rows], boxes[rows], keeps_ids=foreign_ids or image.is_ours))
            on_progress("writing", done, len(groups))
    finally:
        image.close()
    return report


def _boxes_of(image: LabelImage, on_progress: ImportProgress) -> Boxes:
    """Find all labels and their boxes."""
    regions = block_regions(Region(0, 0, *image.shape), CELL_PX)
    found = []
    for done, region in enumerate(regions, start=1):
        block = read_block(image, region)
        if block.any():
            rows, columns, lengths, values = runs_of(block, block > 0)
            bounds = np.stack([rows + region.y, columns + region.x], axis=1)
            found.append(_merged(values, np.concatenate([bounds, bounds + np.stack([lengths * 0 + 1, lengths], 1)], 1)))
        on_progress("reading", done, len(regions))
    if not found:
        return np.zeros(0, np.int64), np.zeros((0, 4), np.int64)
    return _merged(*(np.concatenate(parts) for parts in zip(*found, strict=True)))


def _merged(values: NDArray[Any], bounds: NDArray[np.int64]) -> Boxes:
    """Return the ids that occur, ascending, with the box around all their bounds."""
    order = np.argsort(values, kind="stable")
    values, bounds = values[order], bounds[order]
    firsts = np.flatnonzero(np.append(True, values[1:] != values[:-1]))
    low, high = np.minimum.reduceat(bounds[:, :2], firsts), np.maximum.reduceat(bounds[:, 2:], firsts)
    return values[firsts], np.concatenate([low, high], axis=1)


def _groups(boxes: NDArray[np.int64], usual: NDArray[np.bool_]) -> Iterator[NDArray[np.int64]]:
    """Yield the rows of nuclei that begin in the same square, ascending by id."""
    cells = boxes[:, 0] // CELL_PX * (1 << 32) + boxes[:, 1] // CELL_PX
    rows = np.flatnonzero(usual)
    order = rows[np.argsort(cells[rows], kind="stable")]
    yield from (part for part in np.split(order, np.flatnonzero(np.diff(cells[order])) + 1) if len(part))


def _patch(image: LabelImage, ids: NDArray[Any], boxes: NDArray[np.int64], *, keeps_ids: bool) -> Patch:
    region = Region.enclosing(boxes)
    block = read_block(image, region).ravel()
    pixels = np.flatnonzero(block > 0)
    values = block[pixels]
    owners = np.minimum(np.searchsorted(ids, values), len(ids) - 1)
    mine = ids[owners] == values
    attributes = np.zeros(len(ids), ATTRIBUTES)
    attributes["id"] = np.where(ids <= MOST_ID, ids, 0) if keeps_ids else 0
    attributes["score"] = 1
    return Patch(region, pixels[mine], owners[mine], attributes, is_disjoint=True)

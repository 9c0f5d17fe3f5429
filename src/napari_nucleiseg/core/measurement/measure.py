"""Measure the nuclei of a project block by block; what is measured already is read."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.errors import DataError
from napari_nucleiseg.core.exchange.source import owned_by, rows_of
from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.inference.ahead import map_ahead
from napari_nucleiseg.core.measurement.block import measure_nuclei
from napari_nucleiseg.core.measurement.columns import STAIN
from napari_nucleiseg.core.measurement.grid import blocks_of
from napari_nucleiseg.core.measurement.kept import Values, keep_block, remove_abandoned
from napari_nucleiseg.core.measurement.loading import BlockLoader, LoadedBlock
from napari_nucleiseg.core.slides.fingerprint import is_same
from napari_nucleiseg.core.slides.pyramid import Slide
from napari_nucleiseg.core.store.nuclei import NucleiTable
from napari_nucleiseg.core.store.project import Project

# Blocks in memory besides the one that is measured: the next is read meanwhile.
_AHEAD = 2


def never() -> bool:
    """Return False: nobody cancels."""
    return False


@dataclass(frozen=True, slots=True, eq=False)
class MeasuredBlock:
    """The measured nuclei of one block.

    Parameters
    ----------
    table : NucleiTable
        Nuclei whose centroid lies in the block and in the region that was asked for.
    values : mapping of str to ndarray of float32, shape (n,)
        By the names of `COLUMNS`, rows as in `table`; NaN is not measured.
    region : Region
        The block, level-0 pixels.
    done, total : int
        Blocks so far, this one included, and in all.
    """

    table: NucleiTable
    values: Mapping[str, NDArray[np.float32]]
    region: Region
    done: int
    total: int


def measure(
    project: Project,
    slide: Slide,
    region: Region | None = None,
    *,
    blocks: Sequence[Region] | None = None,
    cancelled: Callable[[], bool] = never,
    keep: bool = True,
) -> Generator[MeasuredBlock, None, None]:
    """Measure the nuclei of a slide.

    The result does not depend on the order of blocks or on which are asked for: each nucleus is measured once, whole,
    and its neighbours are looked for beyond the block. Several processes may measure one project at once.

    Parameters
    ----------
    project : Project
        Holds the nuclei; may be open for reading only.
    slide : Slide
        Holds the pixels.
    region : Region, optional
        Only nuclei with their centroid in it come out, level-0 pixels; default all.
    blocks : sequence of Region, optional
        Some of those of `blocks_of`; default all that `region` needs.
    cancelled : callable
        Asked before each block.
    keep : bool
        Whether to keep what is measured in the folder ``measures`` of the project, and to read what is there.

    Yields
    ------
    MeasuredBlock
        In the order of the blocks.

    Raises
    ------
    DataError
        If the slide is not that of the project.
    SlideError
        If it cannot be read.
    StoreError
        If the disk is full or the project's folder cannot be written; what was measured before stays.
    """
    _must_fit(project, slide)
    wanted = blocks_of(project, region) if blocks is None else tuple(blocks)
    if keep:
        remove_abandoned(project.folder)

    loader = BlockLoader(project, slide, use_kept=keep)
    with closing(map_ahead(loader.load, wanted, workers=1, depth=_AHEAD, name="measure")) as loads:
        for done in range(1, len(wanted) + 1):
            if cancelled():
                return
            loaded = next(loads)
            table, values = loaded.nuclei.table, _measured(project, loaded, keep=keep)
            if region is not None:
                inside = np.isin(table.ids, owned_by(table, region).ids)
                table, values = rows_of(table, inside), {name: column[inside] for name, column in values.items()}
            yield MeasuredBlock(table, values, loaded.block, done, len(wanted))


def _must_fit(project: Project, slide: Slide) -> None:
    known = bool(project.fingerprint and slide.fingerprint)
    if slide.shape != project.shape or (known and not is_same(slide.fingerprint, project.fingerprint)):
        raise DataError(
            f"{slide.path} is not the slide of {project.folder}, which was made from {project.slide_name}. "
            "Open that slide to measure its nuclei."
        )


def _measured(project: Project, loaded: LoadedBlock, *, keep: bool) -> Values:
    """Return the measures of a block, kept if they were not yet."""
    if loaded.kept is not None:
        return loaded.kept
    table, around = loaded.nuclei.table, loaded.nuclei.around
    values = measure_nuclei(loaded.labels, loaded.image, table.ids, table.centroids, around, mpp_um=project.mpp_um)
    for column in STAIN:
        values[column.name][loaded.unreadable] = np.nan
    if keep and loaded.settled:
        keep_block(project.folder, loaded.block, loaded.nuclei.key, values)
    return values

"""What has been measured is kept in the project's folder, one file a block, until a nucleus in or around it changes."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.exchange.formats import FORMATS
from napari_nucleiseg.core.exchange.source import Column, LabelSource, source_of_project
from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.measurement.columns import COLUMNS, NAMES
from napari_nucleiseg.core.measurement.grid import block_at, blocks_of, nuclei_of_block, place_of, places_of
from napari_nucleiseg.core.store.failure import explained
from napari_nucleiseg.core.store.files import decode_chunk, encode_chunk, read_file, remove_file, write_file
from napari_nucleiseg.core.store.nuclei import NucleiTable
from napari_nucleiseg.core.store.project import Project

FOLDER = "measures"
Values = Mapping[str, NDArray[np.float32]]
_CHECK_BYTES = 16
_ABANDONED_S = 3600.0


class KeptMeasures:
    """The measures that `measure` kept of a project, for exporters; see `exchange.source.Measures`.

    Nothing is measured here: a nucleus whose block was not measured, or has changed since, has NaN.

    Parameters
    ----------
    project : Project
        Open, for reading or writing.
    """

    def __init__(self, project: Project) -> None:
        self._project = project

    @property
    def columns(self) -> tuple[Column, ...]:
        """`COLUMNS`."""
        return COLUMNS

    def of(self, table: NucleiTable) -> Values:
        """Return the measures of nuclei.

        Parameters
        ----------
        table : NucleiTable
            Some nuclei of the project, as it is now.

        Returns
        -------
        mapping of str to ndarray of float32, shape (n,)
            Rows as in `table`; NaN is not measured.
        """
        values = {name: np.full(len(table), np.nan, np.float32) for name in NAMES}
        places = places_of(table.centroids)
        for place in np.unique(places, axis=0).tolist():
            block = block_at((place[0], place[1]), self._project)
            here = nuclei_of_block(self._project, block)
            found = read_block(self._project.folder, block, here.key, len(here.table))
            if found is None:
                continue
            rows = np.flatnonzero((places == place).all(axis=1))
            wanted = np.searchsorted(here.table.ids, table.ids[rows])
            # One that is not in the project any more has no place there.
            known = wanted < len(here.table)
            known[known] = here.table.ids[wanted[known]] == table.ids[rows[known]]
            for name in NAMES:
                values[name][rows[known]] = found[name][wanted[known]]
        return values

    def complete(self, region: Region | None = None) -> bool:
        """Whether all nuclei (with their centroid in `region`) are measured, as they are now."""
        folder, blocks = self._project.folder, blocks_of(self._project, region)
        # Without its file a block need not be looked at.
        if not all(_path(folder, block).is_file() for block in blocks):
            return False
        for block in blocks:
            here = nuclei_of_block(self._project, block)
            if read_block(folder, block, here.key, len(here.table)) is None:
                return False
        return True


def source_with_measures(project: Project) -> LabelSource:
    """Make a source of a project whose tables have the measures that are kept; see `source_of_project`."""
    return replace(source_of_project(project), measures=KeptMeasures(project))


def source_for_export(project: Project, format_name: str) -> LabelSource:
    """Make a source of a project for one of `exchange.formats.FORMATS`.

    It has the measures if that format has room for them and all nuclei are measured, as they are now.
    """
    if FORMATS[format_name].measures and KeptMeasures(project).complete():
        return source_with_measures(project)
    return source_of_project(project)


def keep_block(folder: Path, block: Region, key: bytes, values: Values) -> None:
    """Write the measures of a block, whole or not at all.

    Parameters
    ----------
    folder : Path
        Of the project.
    block : Region
        Of the grid.
    key : bytes
        Of `BlockNuclei`.
    values : mapping of str to ndarray of float32, shape (n,)
        By the names of `COLUMNS`.

    Raises
    ------
    StoreError
        If the disk is full or the folder cannot be written.
    """
    path = _path(folder, block)
    content = key + encode_chunk(np.stack([values[name] for name in NAMES]).astype(np.float32))
    with explained(folder):
        path.parent.mkdir(exist_ok=True)
        write_file(os.fspath(path), _check(content) + content, os.fspath(path.parent))


def read_block(folder: Path, block: Region, key: bytes, count: int) -> Values | None:
    """Return the measures of the nuclei of a block, in the order of their ids.

    Parameters
    ----------
    folder : Path
        Of the project.
    block : Region
        Of the grid.
    key : bytes
        Of `BlockNuclei`, as it is now.
    count : int
        Number of nuclei.

    Returns
    -------
    mapping of str to ndarray of float32, shape (count,), or None
        None if they were not measured, have changed since, or the file is damaged.

    Raises
    ------
    StoreError
        If a file that is there cannot be read.
    """
    with explained(folder):
        data = read_file(os.fspath(_path(folder, block)))
    if data is None or data[_CHECK_BYTES : _CHECK_BYTES + len(key)] != key:
        return None
    content = data[_CHECK_BYTES:]
    if _check(content) != data[:_CHECK_BYTES]:
        return None
    values = decode_chunk(content[len(key) :], (len(NAMES), count), np.dtype(np.float32))
    return dict(zip(NAMES, values, strict=True))


def remove_abandoned(folder: Path) -> None:
    """Remove the unfinished files that processes left behind that were killed; those of others stay."""
    long_ago = time.time() - _ABANDONED_S
    for path in (folder / FOLDER).glob("*.part"):
        with suppress(OSError):
            if path.stat().st_mtime < long_ago:
                remove_file(os.fspath(path))


def _check(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=_CHECK_BYTES).digest()


def _path(folder: Path, block: Region) -> Path:
    row, column = place_of(block)
    return folder / FOLDER / f"{row}-{column}.bin"

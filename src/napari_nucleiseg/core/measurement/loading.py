"""Read a block so that table and pixels belong together, also while nuclei are changed here or by another process."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.measurement.grid import BlockNuclei, nuclei_of_block
from napari_nucleiseg.core.measurement.kept import Values, read_block
from napari_nucleiseg.core.slides.pyramid import Slide
from napari_nucleiseg.core.store.nuclei import NucleiTable
from napari_nucleiseg.core.store.project import Project

# Where another process writes all the time.
_TRIES = 3
_NO_LABELS = np.zeros((1, 1), np.uint32)
_NO_IMAGE = np.zeros((1, 1, 3), np.uint8)


@dataclass(frozen=True, slots=True, eq=False)
class LoadedBlock:
    """A block as it was read: its measures, or the pixels to be measured.

    Parameters
    ----------
    block : Region
        Of the grid.
    nuclei : BlockNuclei
        What lies in and around it.
    kept : mapping of str to ndarray of float32, shape (n,), or None
        The measures, if they are kept; there are no pixels then.
    labels : ndarray of integers, shape (y, x)
        Ids; holds the nuclei whole.
    image : ndarray of uint8, shape (y, x, 3)
        The same pixels of the slide.
    unreadable : ndarray of bool, shape (n,)
        Which nuclei lie in tiles that cannot be decoded, which are white.
    settled : bool
        Whether table and labels are of one moment; else the measures are not to be kept.
    """

    block: Region
    nuclei: BlockNuclei
    kept: Values | None
    labels: NDArray[np.integer[Any]] = field(default_factory=lambda: _NO_LABELS)
    image: NDArray[np.uint8] = field(default_factory=lambda: _NO_IMAGE)
    unreadable: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))
    settled: bool = True


@dataclass(frozen=True, slots=True, eq=False)
class _Found:
    """What a project says of a block at one moment."""

    nuclei: BlockNuclei
    kept: Values | None
    extent: Region
    labels: NDArray[np.integer[Any]]


class BlockLoader:
    """Reads the blocks of a project; for one thread.

    Parameters
    ----------
    project : Project
        Holds the nuclei.
    slide : Slide
        Holds the pixels.
    use_kept : bool
        Whether to look for kept measures first.
    """

    def __init__(self, project: Project, slide: Slide, *, use_kept: bool) -> None:
        self._project = project
        self._slide = slide
        self._use_kept = use_kept
        self._version: int | None = None

    def load(self, block: Region) -> LoadedBlock:
        """Read what is kept of a block or else its pixels.

        Raises
        ------
        SlideError
            If the slide cannot be read.
        StoreError
            If the project cannot be read.
        """
        found, settled = self._together(block)
        nuclei = found.nuclei
        if found.kept is not None or found.extent.is_empty:
            return LoadedBlock(block, nuclei, found.kept, unreadable=np.zeros(len(nuclei.table), np.bool_))
        image = self._slide.read_region(found.extent)
        return LoadedBlock(block, nuclei, None, found.labels, image, self._unreadable(nuclei.table), settled)

    def _together(self, block: Region) -> tuple[_Found, bool]:
        """Read table and labels of one moment; whether that could be had."""
        if self._project.writable:
            # A change is in the table before it is in the image; nobody changes anything meanwhile.
            with self._project.changing():
                return self._found(block), True
        for _ in range(_TRIES):
            version = self._written()
            if version != self._version:
                self._project.refresh()
                self._version = version
            found = self._found(block)
            if self._written() == version:
                return found, True
        return found, False

    def _written(self) -> int:
        """Return a number that changes whenever another process has written."""
        return int(self._project.ledger.reader.execute("PRAGMA data_version").fetchone()[0])

    def _found(self, block: Region) -> _Found:
        project, nuclei = self._project, nuclei_of_block(self._project, block)
        boxes = nuclei.table.boxes
        kept = read_block(project.folder, block, nuclei.key, len(boxes)) if self._use_kept else None
        extent = Region.enclosing(boxes).intersect(self._slide.region) if len(boxes) else Region(0, 0, 0, 0)
        if kept is not None or extent.is_empty:
            return _Found(nuclei, kept, extent, _NO_LABELS)
        return _Found(nuclei, None, extent, np.asarray(project.labels.levels[0][extent.slices]))

    def _unreadable(self, table: NucleiTable) -> NDArray[np.bool_]:
        """Return which nuclei lie in tiles that could not be decoded so far."""
        touched = np.zeros(len(table), np.bool_)
        low, high = table.boxes[:, :2], table.boxes[:, 2:]
        for tile in (damaged.region for damaged in self._slide.damage_at(self._slide.downsamples[0])):
            touched |= ((low < (tile.y1, tile.x1)) & (high > (tile.y, tile.x))).all(axis=1)
        return touched

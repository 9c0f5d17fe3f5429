"""What an exporter reads: label levels and the nuclei table, block by block, however large the slide."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.decoders.measure import instances_of
from napari_nucleiseg.core.geometry import YX, Region
from napari_nucleiseg.core.store.about import NO_CORNER
from napari_nucleiseg.core.store.classes import read_classes
from napari_nucleiseg.core.store.nuclei import NucleiTable
from napari_nucleiseg.core.store.project import Project
from napari_nucleiseg.core.store.regions import AnnotatedRegion, read_regions

BLOCK_PX = 2048
# In a nuclei table the centre of a pixel is a whole number. In files places are counted from the slide's top left
# corner, as outlines are: there the centre of the first pixel lies here.
PIXEL_CENTRE = 0.5
# By these the labels of a TIFF and of a Zarr group are known as ours, and their ids as those of a project.
SOFTWARE = "napari-nucleiseg"
MARK = {"software": SOFTWARE}
Progress = Callable[[int, int], None]
_COLOUR = re.compile(r"#([0-9a-fA-F]{2})([0-9a-fA-F]{2})([0-9a-fA-F]{2})")


def no_progress(_done: int, _total: int) -> None:
    """Ignore the progress of an export."""


class LabelArray(Protocol):
    """A lazy or plain ``(y, x)`` array of ids; zarr and numpy arrays are ones."""

    @property
    def shape(self) -> tuple[int, ...]:
        """``(height, width)``."""

    def __getitem__(self, key: Any, /) -> Any:
        """Read the pixels that two slices select."""


@dataclass(frozen=True, slots=True)
class NamedClass:
    """A class of nuclei: its name, and its colour as ``#rrggbb`` (empty: none)."""

    name: str
    colour: str = ""

    @property
    def rgb(self) -> list[int]:
        """Red, green and blue, 0..255; empty without a colour."""
        found = _COLOUR.fullmatch(self.colour)
        return [int(part, 16) for part in found.groups()] if found else []


@dataclass(frozen=True, slots=True)
class Column:
    """What is measured of each nucleus and stands in tables beside what the project knows.

    Parameters
    ----------
    name : str
        In tables; says its unit: ``perimeter_um``.
    title : str
        For people: ``Perimeter, µm``.
    about : str
        The formula, in one sentence.
    """

    name: str
    title: str
    about: str = ""


class Measures(Protocol):
    """Measured values of nuclei; exporters need not know who measures."""

    @property
    def columns(self) -> tuple[Column, ...]:
        """What is measured, in the order of the table."""

    def of(self, table: NucleiTable) -> Mapping[str, NDArray[np.float32]]:
        """Return the values ``(n,)`` of each column by its name, rows as in `table`; NaN is not measured."""


@dataclass(frozen=True, slots=True, eq=False)
class LabelSource:
    """A slide's nuclei as exporters see them.

    Parameters
    ----------
    levels : tuple of LabelArray
        Ids, finest first, each half the size of the one before.
    mpp_um : YX
        Micrometres per pixel of the finest level, ``(y, x)``.
    nuclei_in : callable
        Returns the nuclei of a `Region`; may return more than those whose centroid lies inside.
    name : str
        Of the slide; ends up in metadata.
    fingerprint : str
        Identifies the slide, so that the same nucleus gets the same identity in every export.
    classes : mapping of int to NamedClass
        What the numbers in the table mean.
    regions : tuple of AnnotatedRegion
        What people outlined.
    measures : Measures, optional
        What is measured of each nucleus; tables have its columns at their end.
    corner : YX
        The level-0 pixel at which the picture begins to those who show only the part of the slide that holds pixels.
    """

    levels: tuple[LabelArray, ...]
    mpp_um: YX
    nuclei_in: Callable[[Region], NucleiTable]
    name: str = "nuclei"
    fingerprint: str = ""
    classes: Mapping[int, NamedClass] = field(default_factory=dict)
    regions: tuple[AnnotatedRegion, ...] = ()
    measures: Measures | None = None
    corner: YX = NO_CORNER

    @property
    def region(self) -> Region:
        """All of the finest level."""
        height, width = self.levels[0].shape[:2]
        return Region(0, 0, int(height), int(width))

    @property
    def measured_columns(self) -> tuple[Column, ...]:
        """What `measured` returns; empty without measures."""
        return () if self.measures is None else self.measures.columns

    def measured(self, table: NucleiTable) -> dict[str, NDArray[np.float32]]:
        """Return the measures ``(n,)`` of the nuclei of a table by column, in their order; NaN is not measured."""
        if self.measures is None:
            return {}
        values = self.measures.of(table)
        return {column.name: values[column.name] for column in self.measures.columns}

    def only_in(self, region: Region) -> LabelSource:
        """Return a source whose table holds only the nuclei with their centroid in `region`; pixels stay all."""
        return replace(self, nuclei_in=lambda wanted: owned_by(self.nuclei_in(wanted.intersect(region)), region))


@dataclass(frozen=True, slots=True, eq=False)
class NucleiBlock:
    """The nuclei whose centroid lies in one block, with the pixels of all of them.

    Parameters
    ----------
    table : NucleiTable
        Nuclei of the block; every nucleus of the slide is in exactly one block.
    region : Region
        What `labels` covers: the bounding box of these nuclei, level-0 pixels.
    labels : ndarray of integers, shape (y, x)
        Ids, those of neighbouring nuclei included.
    """

    table: NucleiTable
    region: Region
    labels: NDArray[np.integer[Any]]

    @property
    def boxes(self) -> NDArray[np.int64]:
        """The table's boxes ``(n, 4)``, cut at the slide's rim."""
        low = np.maximum(self.table.boxes[:, :2], (self.region.y, self.region.x))
        high = np.minimum(self.table.boxes[:, 2:], (self.region.y1, self.region.x1))
        return np.concatenate([low, np.maximum(low, high)], axis=1)


def source_of_labels(
    labels: NDArray[np.integer[Any]],
    mpp_um: YX,
    *,
    scores: NDArray[np.float32] | None = None,
    name: str = "nuclei",
    origin: str = "",
) -> LabelSource:
    """Make a source of a label image in memory.

    Parameters
    ----------
    labels : ndarray of integers, shape (y, x)
        Ids, 0 is background.
    mpp_um : YX
        Micrometres per pixel ``(y, x)``.
    scores : ndarray of float32, shape (n,), optional
        Score of each id in ascending order, 0..1; default NaN, not measured.
    name, origin : str
        Of the picture, and who made the nuclei.
    """
    ids = np.unique(labels)
    ids = ids[ids > 0]
    dense = np.searchsorted(ids, labels).astype(np.int32) + 1
    dense[labels == 0] = 0
    measured = instances_of(dense, np.ones(labels.shape, np.float32), 0)
    count = len(ids)
    table = NucleiTable(
        ids=ids.astype(np.uint32),
        centroids=measured.centroids.astype(np.float64),
        boxes=measured.boxes,
        areas_um2=(measured.areas * (mpp_um.y * mpp_um.x)).astype(np.float32),
        classes=np.zeros(count, np.int32),
        scores=np.full(count, np.nan, np.float32) if scores is None else scores.astype(np.float32),
        origins=np.full(count, origin, object),
        approved=np.zeros(count, bool),
    )
    levels: list[NDArray[np.integer[Any]]] = [labels]
    while max(levels[-1].shape) > 512:
        levels.append(levels[-1][::2, ::2])
    return LabelSource(tuple(levels), mpp_um, lambda region: owned_by(table, region), name)


def source_of_project(project: Project) -> LabelSource:
    """Make a source of a slide's project; its label image must be flushed."""
    return LabelSource(
        tuple(project.labels.levels),
        project.mpp_um,
        project.nuclei_in,
        Path(project.slide_name).stem,
        project.fingerprint,
        classes_of(project),
        read_regions(project.ledger.reader),
        corner=project.corner,
    )


def classes_of(project: Project) -> dict[int, NamedClass]:
    """Return the classes of a project by number."""
    return {entry.number: NamedClass(entry.name, entry.colour) for entry in read_classes(project.ledger.reader)}


def owned_by(table: NucleiTable, region: Region) -> NucleiTable:
    """Return the nuclei of `table` whose centroid lies in `region`."""
    y, x = table.centroids[:, 0], table.centroids[:, 1]
    inside = (y >= region.y) & (y < region.y1) & (x >= region.x) & (x < region.x1)
    return rows_of(table, inside)


def rows_of(table: NucleiTable, rows: NDArray[Any]) -> NucleiTable:
    """Return some rows (by mask or index) of a table."""
    return NucleiTable(
        ids=table.ids[rows],
        centroids=table.centroids[rows],
        boxes=table.boxes[rows],
        areas_um2=table.areas_um2[rows],
        classes=table.classes[rows],
        scores=table.scores[rows],
        origins=table.origins[rows],
        approved=table.approved[rows],
    )


def block_regions(extent: Region, side: int = BLOCK_PX) -> tuple[Region, ...]:
    """Cut `extent` into blocks of at most `side` pixels, row by row."""
    return tuple(
        Region(y, x, side, side).intersect(extent)
        for y in range(extent.y, extent.y1, side)
        for x in range(extent.x, extent.x1, side)
    )


def iterate_tables(source: LabelSource, on_progress: Progress = no_progress) -> Iterator[NucleiTable]:
    """Yield all nuclei of a slide block by block, each once; blocks without any are skipped."""
    extent = source.region
    regions = block_regions(extent)
    columns = max(1, sum(region.y == extent.y for region in regions))
    for first in range(0, len(regions), columns):
        row = Region.from_bounds(regions[first].y, extent.x, regions[first].y1, extent.x1)
        # Asked for a whole row at a time: most blocks of a slide are empty.
        table = owned_by(source.nuclei_in(row), row)
        places = (table.centroids[:, 1] - extent.x).astype(np.int64) // regions[first].width
        for column in np.unique(places).tolist():
            yield rows_of(table, places == column)
        on_progress(min(first + columns, len(regions)), len(regions))


def iterate_blocks(source: LabelSource, on_progress: Progress = no_progress) -> Iterator[NucleiBlock]:
    """Yield all nuclei of a slide block by block with their pixels; memory is that of one block."""
    for table in iterate_tables(source, on_progress):
        y0, x0 = table.boxes[:, :2].min(axis=0).tolist()
        y1, x1 = table.boxes[:, 2:].max(axis=0).tolist()
        region = Region.from_bounds(y0, x0, y1, x1).intersect(source.region)
        yield NucleiBlock(table, region, np.asarray(source.levels[0][region.slices]))

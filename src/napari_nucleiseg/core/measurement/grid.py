"""The fixed grid of blocks in which nuclei are measured, and what lies in one of them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.exchange.source import BLOCK_PX, block_regions
from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.measurement.block import VERSION
from napari_nucleiseg.core.measurement.columns import NAMES
from napari_nucleiseg.core.measurement.neighbours import searched
from napari_nucleiseg.core.slides.fingerprint import former
from napari_nucleiseg.core.store.nuclei import NucleiTable
from napari_nucleiseg.core.store.project import Project

_KEY_BYTES = 16


@dataclass(frozen=True, slots=True, eq=False)
class BlockNuclei:
    """What lies in and around a block.

    Parameters
    ----------
    table : NucleiTable
        Nuclei whose centroid lies in the block.
    around : ndarray of float64, shape (m, 2)
        ``(y, x)`` level-0 pixels of all nuclei that may be their neighbours, their own included, in ascending order.
    key : bytes
        Names all that their measures depend on; 16 bytes.
    """

    table: NucleiTable
    around: NDArray[np.float64]
    key: bytes


def blocks_of(project: Project, region: Region | None = None) -> tuple[Region, ...]:
    """Return the blocks that hold nuclei.

    Parameters
    ----------
    project : Project
        Whose nuclei.
    region : Region, optional
        Only blocks with nuclei whose centroid lies in it, level-0 pixels; default all.

    Returns
    -------
    tuple of Region
        Squares of 2048 level-0 pixels on a grid fixed to the slide, cut at its rim, row by row.
    """
    slide = Region(0, 0, *project.shape)
    wanted = slide if region is None else region
    return tuple(block for block in block_regions(slide, BLOCK_PX) if project.count_in(block.intersect(wanted)))


def block_at(place: tuple[int, int], project: Project) -> Region:
    """Return the block in a row and column of the grid."""
    row, column = place
    return Region(row * BLOCK_PX, column * BLOCK_PX, BLOCK_PX, BLOCK_PX).intersect(Region(0, 0, *project.shape))


def places_of(centroids: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return row and column on the grid of the block that holds each centroid, shape (n, 2)."""
    return np.floor(centroids / BLOCK_PX).astype(np.int64)


def place_of(block: Region) -> tuple[int, int]:
    """Return row and column of a block on the grid.

    Raises
    ------
    ValueError
        If it does not begin on the grid.
    """
    if block.y % BLOCK_PX or block.x % BLOCK_PX or max(block.height, block.width) > BLOCK_PX:
        raise ValueError(f"{block} is no block of the grid of {BLOCK_PX} pixels; take those of blocks_of")
    return block.y // BLOCK_PX, block.x // BLOCK_PX


def nuclei_of_block(project: Project, block: Region) -> BlockNuclei:
    """Look up what lies in and around a block; any thread may."""
    table = project.nuclei_in(block)
    around = project.centroids_in(searched(block, project.mpp_um))
    around = around[np.lexsort((around[:, 1], around[:, 0]))]
    return BlockNuclei(table, around, _key(project, table, around))


def _key(project: Project, table: NucleiTable, around: NDArray[np.float64]) -> bytes:
    """Digest the nuclei, their places, extents and areas, the slide, its pixel size, and who measures what."""
    slide = former(project.fingerprint)  # what was measured by former versions stays
    head = f"{VERSION} {' '.join(NAMES)} {slide} {project.mpp_um.y!r} {project.mpp_um.x!r} {len(table)}"
    digest = hashlib.blake2b(head.encode(), digest_size=_KEY_BYTES)
    for column in (table.ids, table.centroids, table.boxes, table.areas_um2, around):
        digest.update(np.ascontiguousarray(column).data)
    return digest.digest()

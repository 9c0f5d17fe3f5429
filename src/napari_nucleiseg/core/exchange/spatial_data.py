"""A SpatialData store, which squidpy and napari-spatialdata open: label image, circles and the table of nuclei."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.errors import MissingDependencyError
from napari_nucleiseg.core.exchange.annotated_table import AREA, FACTS, annotated_table, slide_facts
from napari_nucleiseg.core.exchange.source import LabelArray, LabelSource, Progress, block_regions, no_progress
from napari_nucleiseg.core.exchange.whole_file import whole_folder

if TYPE_CHECKING:
    from anndata import AnnData

LABELS, CIRCLES, TABLE = "nuclei", "nuclei_circles", "table"
"""Names of the elements."""
ELEMENTS = frozenset({f"labels/{LABELS}", f"shapes/{CIRCLES}", f"tables/{TABLE}"})
TABLE_MEMBERS: Mapping[str, frozenset[str]] = {
    "obs": frozenset({"_index", "id", "class", "class_number", "origin", "approved", "score", "region"}),
    "obsm": frozenset({"spatial"}),
    **dict.fromkeys(("obsp", "varm", "varp", "layers"), frozenset[str]()),
}
"""What the table holds as it is written: clusters and embeddings that others compute are written beside it."""
MICROMETRES = "global"
"""The coordinate system of all elements; its unit is the micrometre."""
CHUNK_PX = 1024
MISSING = "SpatialData stores need spatialdata. Install it with: pip install 'napari-nucleiseg[spatial]'."


def write_spatialdata(source: LabelSource, path: str | os.PathLike[str], *, on_progress: Progress = no_progress) -> int:
    """Write the label image with its pyramid, nuclei as circles, and their table, which annotates the label image.

    Circles have the nuclei's centroids and areas; rows of the table and circles bear the ids of the label image.
    All meet in the coordinate system ``global``, in micrometres from the slide's top left corner.

    Parameters
    ----------
    source : LabelSource
        Nuclei. Pixels are read chunk by chunk; table and circles are whole in memory.
    path : path
        Folder to make. An earlier export is replaced when this one is complete; a store with anything else is not.
    on_progress : callable
        Called with blocks done and in all.

    Returns
    -------
    int
        Number of nuclei written.

    Raises
    ------
    MissingDependencyError
        If spatialdata is not installed.
    ExportError
        If there is something else under that name, or the store cannot be written.
    """
    try:
        import dask
        import spatialdata
    except ImportError as error:
        raise MissingDependencyError(MISSING) from error
    steps = _Steps(source, on_progress)
    with whole_folder(path, is_export) as partial:
        table = annotated_table(source, steps.on_table)
        elements = {LABELS: _labels(source, steps.on_chunk), TABLE: _annotating(table)}
        if table.n_obs:
            # SpatialData knows no empty shapes.
            elements[CIRCLES] = _circles(table, min(source.mpp_um))
        store = spatialdata.SpatialData.init_from_elements(elements, attrs={FACTS: slide_facts(source)})
        # One chunk at a time: whoever counts and cancels is called in the thread that asked.
        with dask.config.set(scheduler="synchronous"), _plain_chunks():
            store.write(partial)
    return int(table.n_obs)


def is_export(path: Path) -> bool:
    """Whether a folder is a store that `write_spatialdata` made and nothing was added to since."""
    import zarr
    from zarr.errors import BaseZarrError

    try:
        root = zarr.open_group(path, mode="r", use_consolidated=False)
        found = {f"{kind}/{name}" for kind, group in root.groups() for name, _ in group.members(max_depth=0)}
        table = root.get(f"tables/{TABLE}")
        parts = dict(table.groups()) if isinstance(table, zarr.Group) else {}
        held = {part: {name for name, _ in group.members(max_depth=0)} for part, group in parts.items()}
    except (OSError, ValueError, BaseZarrError):
        return False
    is_as_written = all(held.get(part, set()) <= names for part, names in TABLE_MEMBERS.items())
    return FACTS in root.attrs and found <= ELEMENTS and is_as_written


def _plain_chunks() -> AbstractContextManager[None]:
    """Say to anndata what it would otherwise warn of: that its arrays are cut into chunks, and these not bundled."""
    from anndata import settings

    undecided = getattr(settings, "auto_shard_zarr_v3", False) is None
    return settings.override(auto_shard_zarr_v3=False) if undecided else nullcontext()


class _Steps:
    """Progress of an export: bands of the table, then chunks of the label image."""

    def __init__(self, source: LabelSource, on_progress: Progress) -> None:
        self._on_progress = on_progress
        self._bands = len(block_regions(source.region))
        self._chunks = sum(
            -(-int(level.shape[0]) // CHUNK_PX) * -(-int(level.shape[1]) // CHUNK_PX) for level in source.levels
        )
        self._read = 0

    def on_table(self, done: int, _total: int) -> None:
        """Report that blocks of the table were read."""
        self._on_progress(done, self._bands + self._chunks)

    def on_chunk(self) -> None:
        """Report that a chunk of a level was read."""
        self._read += 1
        self._on_progress(self._bands + self._read, self._bands + self._chunks)


class _CountedLevel:
    """A level as dask asks for it; each chunk that is read is counted."""

    ndim = 2
    dtype = np.dtype(np.uint32)

    def __init__(self, level: LabelArray, on_read: Callable[[], None]) -> None:
        self._level, self._on_read = level, on_read
        self.shape = (int(level.shape[0]), int(level.shape[1]))

    def __getitem__(self, key: Any) -> NDArray[np.uint32]:
        pixels = np.asarray(self._level[key], np.uint32)
        self._on_read()
        return pixels


def _labels(source: LabelSource, on_read: Callable[[], None]) -> Any:
    """Return the labels element: all levels, nothing of them read yet."""
    import dask.array as da
    import xarray
    from spatialdata.transformations import Scale, set_transformation

    height, width = source.region.height, source.region.width
    scales = {}
    for number, level in enumerate(source.levels):
        counted = _CountedLevel(level, on_read)
        pixels = da.from_array(counted, chunks=CHUNK_PX, name=False, meta=np.empty((0, 0), np.uint32))
        # Where the centres of coarse pixels lie on the finest level; a pixel's centre is half a pixel from its corner.
        places = {
            axis: (np.arange(count) + 0.5) * (whole / count)
            for axis, count, whole in zip("yx", counted.shape, (height, width), strict=True)
        }
        array = xarray.DataArray(pixels, dims=("y", "x"), coords=places, name="image")
        scales[f"scale{number}"] = xarray.Dataset({"image": array})
    element = xarray.DataTree.from_dict(scales)
    to_um = Scale([source.mpp_um.y, source.mpp_um.x], axes=("y", "x"))
    set_transformation(element, {MICROMETRES: to_um}, set_all=True)
    return element


def _circles(table: AnnData, least_um: float) -> Any:
    """Return nuclei as circles of the same centroid and area, in micrometres; a nucleus without area is a dot."""
    from spatialdata.models import ShapesModel
    from spatialdata.transformations import Identity

    areas_um2 = np.asarray(table[:, AREA.name].X, np.float64).ravel()
    return ShapesModel.parse(
        np.asarray(table.obsm["spatial"]),
        geometry=0,
        radius=np.fmax(np.sqrt(areas_um2 / np.pi), least_um / 2),
        index=table.obs["id"].to_numpy(np.int64),
        transformations={MICROMETRES: Identity()},
    )


def _annotating(table: AnnData) -> AnnData:
    """Return the table with the mark that its rows are instances of the label image."""
    import pandas as pd
    from spatialdata.models import TableModel

    table.obs["region"] = pd.Categorical.from_codes(np.zeros(table.n_obs, np.int8), pd.Index([LABELS]))
    if not table.n_obs:
        # SpatialData takes a table without rows for one of no region.
        return TableModel.parse(table)
    return TableModel.parse(table, region=LABELS, region_key="region", instance_key="id")

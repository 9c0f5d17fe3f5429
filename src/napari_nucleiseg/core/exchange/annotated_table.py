"""The nuclei table as AnnData, which scanpy, squidpy and napari-spatialdata read: one observation a nucleus."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.errors import MissingDependencyError
from napari_nucleiseg.core.exchange.source import (
    PIXEL_CENTRE,
    Column,
    LabelSource,
    Progress,
    iterate_tables,
    no_progress,
)
from napari_nucleiseg.core.exchange.table import class_name
from napari_nucleiseg.core.exchange.whole_file import whole_path
from napari_nucleiseg.core.store.nuclei import NucleiTable

if TYPE_CHECKING:
    from anndata import AnnData
    from pandas import Categorical

AREA = Column("area_um2", "Area, µm²", "Pixels of the nucleus times the area of one.")
FACTS = "nucleiseg"
"""Where the slide's name, its fingerprint and the units stand in ``uns``."""
ABOUT = (
    "One observation a nucleus. obsm['spatial'] holds centroids as x, y in micrometres from the slide's top left "
    "corner; divided by mpp_um they are pixels of the full resolution. X is area and what was measured; see var. "
    "NaN in X or score: not measured."
)
MISSING = (
    "AnnData files need anndata. Install it with: pip install 'napari-nucleiseg[spatial]' (for this format alone, "
    "pip install anndata will do); or choose CSV."
)
NO_CLASS, NO_COLOUR = "no class", "#808080"


def write_anndata(source: LabelSource, path: str | os.PathLike[str], *, on_progress: Progress = no_progress) -> int:
    """Write the nuclei table as ``.h5ad``; see `annotated_table` for what it holds.

    Parameters
    ----------
    source : LabelSource
        Nuclei; read block by block. The table itself is whole in memory, which the format asks for.
    path : path
        File to write; replaced only when the export is complete.
    on_progress : callable
        Called with blocks done and in all.

    Returns
    -------
    int
        Number of nuclei written.

    Raises
    ------
    MissingDependencyError
        If anndata is not installed.
    ExportError
        If the file cannot be written.
    """
    table = annotated_table(source, on_progress)
    with whole_path(path) as partial:
        table.write_h5ad(partial)
    return int(table.n_obs)


def annotated_table(source: LabelSource, on_progress: Progress = no_progress) -> AnnData:
    """Return the nuclei table of a slide in memory.

    Parameters
    ----------
    source : LabelSource
        Nuclei; read block by block, in the order of the other tables.
    on_progress : callable
        Called with blocks done and in all.

    Returns
    -------
    AnnData
        ``X``: float32 ``(nuclei, columns)``, area and what was measured; their names, titles and formulas in ``var``.
        ``obs``: ``id`` (uint32, as in the label image), ``class`` (categorical), ``class_number`` (int32, 0 is none),
        ``origin`` (categorical), ``approved`` (bool), ``score`` (float32, 0..1).
        ``obsm["spatial"]``: float64 ``(nuclei, 2)``, centroids as x, y in micrometres.
        ``uns``: the slide's name, fingerprint and micrometres per pixel, colours of classes, and ``spatial``.

    Raises
    ------
    MissingDependencyError
        If anndata is not installed.
    """
    try:
        import anndata
        import pandas as pd
    except ImportError as error:
        raise MissingDependencyError(MISSING) from error
    columns = (AREA, *source.measured_columns)
    rows = _Rows(len(columns))
    for table in iterate_tables(source, on_progress):
        rows.add(source, table)
    ids, numbers = rows.column("id"), rows.column("class_number")
    values, places = rows.column("values"), rows.column("places")
    classes, colours = _classes(source, numbers)
    observations = {
        "id": ids,
        "class": classes,
        "class_number": numbers,
        "origin": pd.Categorical.from_codes(rows.column("origin"), pd.Index(list(rows.origins), dtype=str)),
        "approved": rows.column("approved"),
        "score": rows.column("score"),
    }
    words = {"title": [column.title for column in columns], "about": [column.about for column in columns]}
    return anndata.AnnData(
        X=values,
        obs=pd.DataFrame(observations, index=ids.astype("U10").astype(object)),
        var=pd.DataFrame(words, index=[column.name for column in columns]),
        obsm={"spatial": places},
        uns={
            FACTS: slide_facts(source) | {"about": ABOUT},
            "spatial": {source.name.replace("/", "_") or FACTS: _library(values[:, 0])},
            # Under this name scanpy, squidpy and napari-spatialdata look for the colours of "class".
            "class_colors": np.array(colours, object),
        },
    )


@dataclass(slots=True)
class _Rows:
    """Columns of the table that grow block by block; text, of which there is little, as numbers."""

    width: int
    origins: dict[str, int] = field(default_factory=dict)
    _parts: dict[str, list[NDArray[Any]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # Types and shapes also of a slide without any nucleus.
        empty = {
            "id": np.empty(0, np.uint32),
            "class_number": np.empty(0, np.int32),
            "origin": np.empty(0, np.int32),
            "approved": np.empty(0, np.bool_),
            "score": np.empty(0, np.float32),
            "values": np.empty((0, self.width), np.float32),
            "places": np.empty((0, 2), np.float64),
        }
        self._parts = {name: [values] for name, values in empty.items()}

    def add(self, source: LabelSource, table: NucleiTable) -> None:
        """Take the nuclei of a block."""
        origins = [self.origins.setdefault(str(origin), len(self.origins)) for origin in table.origins]
        block = {
            "id": table.ids,
            "class_number": table.classes,
            "origin": np.array(origins, np.int32),
            "approved": table.approved,
            "score": table.scores,
            "values": np.stack([table.areas_um2, *source.measured(table).values()], axis=1),
            "places": (table.centroids[:, ::-1] + PIXEL_CENTRE) * (source.mpp_um.x, source.mpp_um.y),
        }
        for name, values in block.items():
            self._parts[name].append(values.astype(self._parts[name][0].dtype, copy=False))

    def column(self, name: str) -> NDArray[Any]:
        """Return a column of all nuclei, once; its parts are let go."""
        return np.concatenate(self._parts.pop(name))


def _classes(source: LabelSource, numbers: NDArray[np.int32]) -> tuple[Categorical[str], list[str]]:
    """Return the class of each nucleus, and the colour of each category; also of classes that no nucleus has.

    No class is a category too: programs that colour or count by class stumble over missing values.
    """
    import pandas as pd

    found = np.unique(numbers).tolist()
    known = sorted({*source.classes, *found} - ({0} - set(found)))
    names: list[str] = []
    for number in known:
        name = class_name(source, number) or NO_CLASS
        names.append(f"{name} ({number})" if name in names else name)
    colours = [source.classes[number].colour if number in source.classes else "" for number in known]
    codes = np.searchsorted(np.array(known, np.int32), numbers)
    return pd.Categorical.from_codes(codes, pd.Index(names, dtype=str)), [colour or NO_COLOUR for colour in colours]


def slide_facts(source: LabelSource) -> dict[str, Any]:
    """Return which slide a table is of and in which unit its places are, as plain values."""
    return {
        "slide": source.name,
        "fingerprint": source.fingerprint,
        "mpp_um": {"y": float(source.mpp_um.y), "x": float(source.mpp_um.x)},
        "unit": "micrometer",
    }


def _library(areas_um2: NDArray[np.float32]) -> Mapping[str, Any]:
    """Return an entry of ``uns["spatial"]`` as squidpy reads it: a spot is as wide as a nucleus; there is no image."""
    areas = areas_um2[np.isfinite(areas_um2)]
    diameter_um = float(2 * np.sqrt(areas.mean(dtype=np.float64) / np.pi)) if len(areas) else 1.0
    return {"images": {}, "scalefactors": {"tissue_hires_scalef": 1.0, "spot_diameter_fullres": diameter_um}}

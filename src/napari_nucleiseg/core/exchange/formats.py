"""The one table of export formats; each is imported when something is written in it."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_nucleiseg.core.errors import ExportError
from napari_nucleiseg.core.exchange.whole_file import check_target

if TYPE_CHECKING:
    from napari_nucleiseg.core.exchange.source import LabelSource, Progress

_PACKAGE = "napari_nucleiseg.core.exchange"


@dataclass(frozen=True, slots=True)
class Format:
    """A way to write nuclei.

    Parameters
    ----------
    title : str
        For people.
    ending : str
        What the name of a file or folder in this format ends with.
    module, function : str
        Where it is written.
    settings : mapping
        Keyword arguments of that function.
    measures : bool
        Whether it has room for what is measured of each nucleus.
    """

    title: str
    ending: str
    module: str
    function: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    measures: bool = False


FORMATS: Mapping[str, Format] = {
    "zarr": Format("OME-Zarr label image", ".labels.zarr", "ome_zarr", "write_ome_zarr", {"overwrite": True}),
    "zarr-0.4": Format(
        "OME-Zarr label image, version 0.4",
        ".labels-0.4.zarr",
        "ome_zarr",
        "write_ome_zarr",
        {"overwrite": True, "version": "0.4"},
    ),
    "tif": Format("Label TIFF with a pyramid", ".ome.tif", "label_tiff", "write_label_tiff"),
    "geojson": Format("QuPath GeoJSON", ".geojson", "geojson", "write_geojson", measures=True),
    "csv": Format("Table of nuclei (CSV)", ".csv", "table", "write_csv", measures=True),
    "parquet": Format("Table of nuclei (Parquet)", ".parquet", "table", "write_parquet", measures=True),
    "anndata": Format("Table of nuclei (AnnData)", ".h5ad", "annotated_table", "write_anndata", measures=True),
    "spatialdata": Format("SpatialData store", ".spatial.zarr", "spatial_data", "write_spatialdata", measures=True),
    "coco": Format("COCO annotations", ".coco.json", "coco", "write_coco"),
}

# What else the name of a file may end with.
_ENDINGS = {".zarr": "zarr", ".tif": "tif", ".tiff": "tif", ".json": "coco"}


def format_of(path: str | os.PathLike[str]) -> str:
    """Return the key of `FORMATS` that a file's name asks for.

    Raises
    ------
    ExportError
        If it asks for none.
    """
    name = os.fspath(path).lower().rstrip("/\\")
    endings = {form.ending: key for key, form in FORMATS.items()} | _ENDINGS
    found = [ending for ending in endings if name.endswith(ending)]
    if not found:
        raise ExportError(
            f"{path} does not say in which format. End its name with .geojson, .zarr, .ome.tif, .csv, .parquet, "
            f".h5ad, .spatial.zarr or .coco.json, or choose one of {', '.join(FORMATS)}."
        )
    return endings[max(found, key=len)]


def require_replaceable(path: str | os.PathLike[str], format_name: str) -> None:
    """Refuse to replace images and stores that are no exports of ours; to be asked before work begins.

    Parameters
    ----------
    path : path
        File or folder to write.
    format_name : str
        Key of `FORMATS`.

    Raises
    ------
    ExportError
        If something else is there.
    """
    target = Path(path)
    module = FORMATS[format_name].module
    if not target.exists() or module not in {"ome_zarr", "label_tiff", "spatial_data"}:
        return
    from napari_nucleiseg.core.exchange.marks import is_our_store, is_our_tiff
    from napari_nucleiseg.core.exchange.spatial_data import is_export

    is_ours = {"ome_zarr": is_our_store, "label_tiff": is_our_tiff, "spatial_data": is_export}[module]
    if not is_ours(target):
        raise ExportError(
            f"{target} exists already and is no unchanged export of this kind, so it is not replaced. Choose another "
            "name to write to, or move it away first."
        )


def export(
    source: LabelSource,
    path: str | os.PathLike[str],
    format_name: str,
    on_progress: Progress | None = None,
    *,
    is_earlier: bool = False,
) -> None:
    """Write nuclei in one of `FORMATS`, replacing an earlier export.

    Parameters
    ----------
    source : LabelSource
        Nuclei; see `source_of_project` and `source_of_labels`.
    path : path
        File or folder to write.
    format_name : str
        Key of `FORMATS`.
    on_progress : callable, optional
        Called with parts done and in all.
    is_earlier : bool
        Whether what is there is known for an earlier result, also if it does not say so of itself.

    Raises
    ------
    ExportError
        If there is no such format, the file cannot be written, or is the slide, a project or a part of one, or an image
        or store that is no export.
    """
    if format_name not in FORMATS:
        raise ExportError(f"there is no format {format_name}; choose from {', '.join(FORMATS)}")
    check_target(path, source.fingerprint)
    if not is_earlier:
        require_replaceable(path, format_name)
    form = FORMATS[format_name]
    write = getattr(importlib.import_module(f"{_PACKAGE}.{form.module}"), form.function)
    told: dict[str, Any] = {} if on_progress is None else {"on_progress": on_progress}
    if form.module == "ome_zarr":
        told["is_earlier"] = is_earlier
    write(source, path, **form.settings, **told)

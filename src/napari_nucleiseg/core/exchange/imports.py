"""The door for nuclei of other programs: the kind of file decides how it is read."""

from __future__ import annotations

import os
from pathlib import Path

from napari_nucleiseg.core.errors import ImportFileError
from napari_nucleiseg.core.exchange.objects import Annotations
from napari_nucleiseg.core.exchange.painting import Overlap
from napari_nucleiseg.core.exchange.report import ImportProgress, ImportReport, no_import_progress
from napari_nucleiseg.core.store.project import Project

_GEOJSON = (".geojson", ".json")
_TIFF = (".tif", ".tiff", ".btf", ".tf2", ".tf8")


def import_nuclei(
    project: Project,
    path: str | os.PathLike[str],
    *,
    overlap: Overlap = "keep",
    annotations: Annotations = "regions",
    foreign_ids: bool = False,
    on_progress: ImportProgress = no_import_progress,
) -> ImportReport:
    """Take nuclei and regions from a file of another program, or from an export of ours.

    Parameters
    ----------
    project : Project
        Open for writing.
    path : path
        QuPath GeoJSON (``.geojson``, ``.json``), a label TIFF of the slide's size, or the folder of an OME-Zarr.
    overlap, annotations, on_progress
        See `import_geojson`.
    foreign_ids : bool
        See `import_labels`.

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
    where = Path(path)
    if not where.exists():
        raise ImportFileError(f"{path} does not exist. Check the name.")
    name = where.name.lower()
    if where.is_dir() or name.endswith(_TIFF):
        from napari_nucleiseg.core.exchange.label_import import import_labels

        return import_labels(project, path, overlap=overlap, foreign_ids=foreign_ids, on_progress=on_progress)
    if name.endswith(_GEOJSON):
        from napari_nucleiseg.core.exchange.geojson_import import import_geojson

        return import_geojson(project, path, overlap=overlap, annotations=annotations, on_progress=on_progress)
    raise ImportFileError(
        f"{where.name} is of no kind that can be imported. Choose GeoJSON (.geojson), a label TIFF (.tif) or an "
        "OME-Zarr folder."
    )

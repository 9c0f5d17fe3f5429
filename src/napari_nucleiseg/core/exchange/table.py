"""The nuclei table as CSV or Parquet, one row a nucleus."""

from __future__ import annotations

import csv
import math
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.errors import MissingDependencyError
from napari_nucleiseg.core.exchange.source import PIXEL_CENTRE, LabelSource, Progress, iterate_tables, no_progress
from napari_nucleiseg.core.exchange.whole_file import whole_file, whole_path
from napari_nucleiseg.core.store.nuclei import NucleiTable

COLUMNS = (
    "id",
    "y_px",
    "x_px",
    "y_um",
    "x_um",
    "y0_px",
    "x0_px",
    "y1_px",
    "x1_px",
    "area_um2",
    "class",
    "class_name",
    "score",
    "origin",
    "approved",
)


def write_csv(source: LabelSource, path: str | os.PathLike[str], *, on_progress: Progress = no_progress) -> int:
    """Write the nuclei table: centroid, bounding box (half-open), area, class, score, origin; then what was measured.

    Parameters
    ----------
    source : LabelSource
        Nuclei; read block by block.
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
    ExportError
        If the file cannot be written.
    """
    count = 0
    with whole_file(path) as file:
        writer = csv.writer(file)
        writer.writerow((*COLUMNS, *(column.name for column in source.measured_columns)))
        for table in iterate_tables(source, on_progress):
            measured = [_numbers(values) for values in source.measured(table).values()]
            for row in range(len(table)):
                y, x = (float(value) + PIXEL_CENTRE for value in table.centroids[row])
                writer.writerow(
                    (
                        int(table.ids[row]),
                        f"{y:.2f}",
                        f"{x:.2f}",
                        f"{y * source.mpp_um.y:.3f}",
                        f"{x * source.mpp_um.x:.3f}",
                        *(int(value) for value in table.boxes[row]),
                        _number(table.areas_um2[row], 3),
                        int(table.classes[row]),
                        class_name(source, int(table.classes[row])),
                        _number(table.scores[row], 4),
                        table.origins[row],
                        int(table.approved[row]),
                        *(column[row] for column in measured),
                    )
                )
            count += len(table)
    return count


def write_parquet(source: LabelSource, path: str | os.PathLike[str], *, on_progress: Progress = no_progress) -> int:
    """Write the same table as Parquet: columns with types, unrounded; what was not measured is null.

    Parameters
    ----------
    source, path, on_progress
        As for `write_csv`.

    Returns
    -------
    int
        Number of nuclei written.

    Raises
    ------
    MissingDependencyError
        If pyarrow is not installed.
    ExportError
        If the file cannot be written.
    """
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise MissingDependencyError(
            "Parquet files need pyarrow. Install it with: pip install 'napari-nucleiseg[parquet]'; or choose CSV."
        ) from error
    whole, real = dict.fromkeys(COLUMNS[5:9], pa.int64()), dict.fromkeys(COLUMNS[1:5], pa.float64())
    kinds = {
        **real,
        **whole,
        "id": pa.uint32(),
        "area_um2": pa.float32(),
        "class": pa.int32(),
        "class_name": pa.string(),
        "score": pa.float32(),
        "origin": pa.string(),
        "approved": pa.bool_(),
    }
    measured = [
        pa.field(column.name, pa.float32(), metadata={"title": column.title, "about": column.about})
        for column in source.measured_columns
    ]
    schema = pa.schema([*(pa.field(name, kinds[name]) for name in COLUMNS), *measured])
    count = 0
    with whole_path(path) as partial, parquet.ParquetWriter(str(partial), schema) as file:
        for table in iterate_tables(source, on_progress):
            columns = {**_columns(source, table), **source.measured(table)}
            arrays = [pa.array(columns[kind.name], kind.type, from_pandas=True) for kind in schema]
            file.write_table(pa.Table.from_arrays(arrays, schema=schema))
            count += len(table)
    return count


def _columns(source: LabelSource, table: NucleiTable) -> dict[str, Any]:
    """Return the values of `COLUMNS`."""
    y, x = table.centroids.T + PIXEL_CENTRE
    names = [class_name(source, number) for number in table.classes.tolist()]
    measures = (table.areas_um2, table.classes, names, table.scores, table.origins, table.approved)
    values = (table.ids, y, x, y * source.mpp_um.y, x * source.mpp_um.x, *table.boxes.T, *measures)
    return dict(zip(COLUMNS, values, strict=True))


def class_name(source: LabelSource, number: int) -> str:
    """Return the name of a class; empty for 0, which is none."""
    found = source.classes.get(number)
    return found.name if found else f"Class {number}" * bool(number)


def _numbers(values: NDArray[np.float32]) -> list[str]:
    """Return six digits of each value; an empty cell for what was not measured."""
    return [f"{value:.6g}" if math.isfinite(value) else "" for value in values.tolist()]


def _number(value: float, digits: int) -> str:
    """Leave the cell of what was not measured empty."""
    return f"{value:.{digits}f}" if math.isfinite(value) else ""

"""The nuclei table as CSV, one row a nucleus."""

from __future__ import annotations

import csv
import math
import os

from napari_nucleiseg.core.exchange.source import LabelSource, Progress, iterate_tables, no_progress
from napari_nucleiseg.core.exchange.whole_file import whole_file

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
    "score",
    "origin",
    "approved",
)


def write_csv(source: LabelSource, path: str | os.PathLike[str], *, on_progress: Progress = no_progress) -> int:
    """Write the nuclei table: centroid, bounding box (half-open), area, class, score, origin.

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
        writer.writerow(COLUMNS)
        for table in iterate_tables(source, on_progress):
            for row in range(len(table)):
                y, x = (float(value) for value in table.centroids[row])
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
                        _number(table.scores[row], 4),
                        table.origins[row],
                        int(table.approved[row]),
                    )
                )
            count += len(table)
    return count


def _number(value: float, digits: int) -> str:
    """Leave the cell of what was not measured empty."""
    return f"{value:.{digits}f}" if math.isfinite(value) else ""

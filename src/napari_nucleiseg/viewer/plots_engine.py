"""The headless part of plots: what can be plotted, and the work that is done off the main thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from napari_nucleiseg.core.exchange.source import Column
from napari_nucleiseg.state import AREA, SCORE

if TYPE_CHECKING:
    from napari_nucleiseg.core.attention.shown import ShownMap
    from napari_nucleiseg.core.geometry import Region
    from napari_nucleiseg.core.measurement.measure import MeasuredBlock
    from napari_nucleiseg.core.slides.pyramid import Slide
    from napari_nucleiseg.core.store.nuclei import NucleiTable
    from napari_nucleiseg.core.store.project import Project
    from napari_nucleiseg.viewer.plot_data import Floats, Ids

KNOWN = (
    Column(AREA, "Area, µm²", "Pixels of the nucleus times the area of one."),
    Column(SCORE, "Score", "How sure the model is, 0 to 1; what a person has drawn has none."),
)
# A picture of what is seen needs no more rows and columns than a screen has.
MOST_PX = 2048


class PlotsEngine:
    """Measures, paints and writes nuclei; may be called from any thread."""

    def columns(self) -> tuple[Column, ...]:
        """Return what can be plotted, in the order in which it is offered."""
        from napari_nucleiseg.core.measurement.columns import COLUMNS

        return *KNOWN, *COLUMNS

    def measure(
        self, project: Project, slide: Slide, region: Region | None, cancelled: Callable[[], bool]
    ) -> Iterator[MeasuredBlock]:
        """Measure the nuclei of a region (level-0 pixels; None is all of the slide), block by block."""
        from napari_nucleiseg.core.measurement.measure import measure

        yield from measure(project, slide, region, cancelled=cancelled)

    def picture(
        self, project: Project, region: Region, ids: Ids, values: Floats, limits: tuple[float, float]
    ) -> ShownMap:
        """Return a picture of a region (level-0 pixels) in which each nucleus has its value, NaN beside them.

        Parameters
        ----------
        project : Project
            Of the slide.
        region : Region
            What to paint.
        ids : ndarray of uint32, shape (n,)
            Nuclei, ascending.
        values : ndarray of float64, shape (n,)
            Of each.
        limits : tuple of float
            Values that get the first and the last colour.
        """
        from napari_nucleiseg.core.attention.nuclei import painted_nuclei
        from napari_nucleiseg.core.attention.shown import ShownMap

        painted, grid = painted_nuclei(project, region, ids, values.astype(np.float32), most_px=MOST_PX)
        return ShownMap(painted, grid, limits)

    def nucleus_at(self, project: Project, y: int, x: int) -> int:
        """Return the nucleus at a level-0 pixel; 0 where there is none, or beside the slide."""
        height, width = project.shape
        if not (0 <= y < height and 0 <= x < width):
            return 0
        return int(project.labels.levels[0][y : y + 1, x : x + 1].max())

    def write(self, project: Project, ids: Ids, path: str, on_progress: Callable[[int, int], None]) -> int:
        """Write some nuclei (ascending ids), with all that was measured of them, as a table; return how many.

        Raises
        ------
        ExportError
            If the file cannot be written.
        """
        from napari_nucleiseg.core.exchange.source import rows_of
        from napari_nucleiseg.core.exchange.table import write_csv
        from napari_nucleiseg.core.measurement.kept import source_with_measures

        if project.writable:
            project.flush()
        source = source_with_measures(project)

        def chosen_in(region: Region) -> NucleiTable:
            table = source.nuclei_in(region)
            return rows_of(table, np.isin(table.ids, ids))

        return write_csv(replace(source, nuclei_in=chosen_in), path, on_progress=on_progress)

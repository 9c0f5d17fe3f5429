"""``napari-nucleiseg measure``: shape, stain and neighbours of each nucleus, as a table."""

from __future__ import annotations

import argparse
import time
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from napari_nucleiseg.cli.console import OK, Console, ProgressBars
from napari_nucleiseg.cli.project import projects_with_slides
from napari_nucleiseg.cli.segment import region_of
from napari_nucleiseg.core.errors import DataError, ExportError
from napari_nucleiseg.core.exchange.formats import FORMATS, export, format_of, require_replaceable
from napari_nucleiseg.core.exchange.whole_file import check_target

if TYPE_CHECKING:
    from napari_nucleiseg.core.exchange.source import LabelSource
    from napari_nucleiseg.core.geometry import Region
    from napari_nucleiseg.core.slides.pyramid import Slide
    from napari_nucleiseg.core.store.project import Project


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.epilog = (
        "What is measured is kept in the project: the same command, and export, read it, and only what has changed "
        "since is measured again. docs/measurements.md lists the columns and their formulas. An earlier table of that "
        "name is replaced."
    )
    parser.add_argument(
        "project", metavar="SLIDE_OR_PROJECT", help="slide with its project beside it, or project folder"
    )
    parser.add_argument("--slide", metavar="SLIDE", help="the slide, if it does not lie beside its project")
    parser.add_argument("--region", type=region_of, metavar="Y,X,H,W", help="only this part, in full-resolution pixels")
    parser.add_argument(
        "--out",
        metavar="FILE",
        help="table: .parquet, .csv, .geojson, .h5ad or .spatial.zarr (default: beside the project, .parquet)",
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(options: argparse.Namespace, console: Console) -> int:
    """Measure, write the table and say what it holds."""
    name = _format(options.out)
    slides = [options.slide] if options.slide else []
    with closing(projects_with_slides([options.project], slides, console)) as found:
        for _, project, slide, bars in found:
            out = options.out or str(project.folder.with_suffix(FORMATS[name].ending))
            check_target(out, project.fingerprint, (options.project, slide.path, project.folder))
            require_replaceable(out, name)
            if options.region is not None:
                _require_region(slide, options.region)
            began = time.perf_counter()
            source, nuclei = measured_source(project, slide, bars, options.region)
            seconds = time.perf_counter() - began
            export(source, out, name, partial(bars.update, "writing"))
            bars.say(f"{nuclei:,} nuclei measured in {seconds:.1f} s and written to {out} ({FORMATS[name].title})")
            columns = [column.name for column in source.measured_columns]
            console.result(
                {"file": out, "format": name, "nuclei": nuclei, "seconds": round(seconds, 3), "columns": columns}
            )
    return OK


def _require_region(slide: Slide, region: Region) -> None:
    """Refuse a region that holds nothing of the slide, as ``segment`` does."""
    from napari_nucleiseg.core.batch.segmentation import require_overlap

    if region.is_empty:
        raise DataError("the region is empty; give y, x, height and width in level-0 pixels")
    require_overlap(slide, region)


def measured_source(
    project: Project, slide: Slide, bars: ProgressBars, region: Region | None = None
) -> tuple[LabelSource, int]:
    """Measure what is not measured yet; return the nuclei (of `region`) with their measures, and how many."""
    from napari_nucleiseg.core.measurement.kept import source_with_measures
    from napari_nucleiseg.core.measurement.measure import measure

    nuclei = 0
    with closing(measure(project, slide, region)) as blocks:
        for block in blocks:
            nuclei += len(block.table)
            bars.update("measuring", block.done, block.total, f"{nuclei:,} nuclei")
    source = source_with_measures(project)
    return (source if region is None else source.only_in(region)), nuclei


def _format(out: str | None) -> str:
    """Return the format that the name of the table asks for; without an ending it is Parquet."""
    if out is None or not Path(out).suffix:
        return "parquet"
    name = format_of(out)
    check_room(name)
    return name


def check_room(format_name: str) -> None:
    """Refuse a format that has no room for measures.

    Raises
    ------
    ExportError
        Names those that have.
    """
    if not FORMATS[format_name].measures:
        endings = ", ".join(form.ending for form in FORMATS.values() if form.measures)
        raise ExportError(f"{FORMATS[format_name].title} has no room for measures. End the name with one of {endings}.")

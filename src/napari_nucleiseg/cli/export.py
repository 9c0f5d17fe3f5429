"""``napari-nucleiseg export``: the nuclei of a slide's project for other programs."""

from __future__ import annotations

import argparse
from contextlib import closing
from typing import TYPE_CHECKING

from napari_nucleiseg.cli.console import OK, Console, ProgressBars
from napari_nucleiseg.cli.measure import check_room, measured_source
from napari_nucleiseg.cli.project import open_project, projects_with_slides
from napari_nucleiseg.core.exchange.formats import FORMATS, export, format_of, require_replaceable
from napari_nucleiseg.core.exchange.whole_file import check_target

if TYPE_CHECKING:
    from napari_nucleiseg.core.exchange.source import LabelSource


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.epilog = (
        "The name of the file says the format: .geojson (QuPath), .zarr (OME-Zarr 0.5), .ome.tif or .tif (label "
        "image), .csv, .parquet, .h5ad (AnnData), .spatial.zarr (SpatialData), .coco.json. An earlier export of that "
        "name is replaced."
    )
    parser.add_argument(
        "project", metavar="SLIDE_OR_PROJECT", help="slide with its project beside it, or project folder"
    )
    parser.add_argument("--out", required=True, metavar="FILE", help="file or folder to write")
    parser.add_argument("--format", choices=tuple(FORMATS), help="if the name of the file does not say it")
    parser.add_argument(
        "--measures",
        action="store_true",
        help="measure shape, stain and neighbours first, for .csv, .parquet, .geojson, .h5ad and .spatial.zarr; what "
        "is measured already is written without this, if all nuclei are",
    )
    parser.add_argument("--slide", metavar="SLIDE", help="of --measures: the slide, if not beside its project")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(options: argparse.Namespace, console: Console) -> int:
    """Write the file and say what it holds."""
    name = options.format or format_of(options.out)
    if options.measures:
        check_room(name)
        slides = [options.slide] if options.slide else []
        with closing(projects_with_slides([options.project], slides, console)) as found:
            for _, project, slide, bars in found:
                check_target(options.out, project.fingerprint, (options.project, slide.path, project.folder))
                require_replaceable(options.out, name)
                _write(options, console, measured_source(project, slide, bars)[0], project.census.total(), bars)
        return OK
    with open_project(options.project, writable=False) as project, console.progress() as bars:
        from napari_nucleiseg.core.measurement.kept import source_for_export

        check_target(options.out, project.fingerprint, (options.project, project.folder))
        _write(options, console, source_for_export(project, name), project.census.total(), bars)
    return OK


def _write(options: argparse.Namespace, console: Console, source: LabelSource, nuclei: int, bars: ProgressBars) -> None:
    name = options.format or format_of(options.out)
    export(source, options.out, name, lambda done, total: bars.update("writing", done, total))
    measures = [column.name for column in source.measured_columns]
    title = FORMATS[name].title + ", with their measures" * bool(measures)
    bars.say(f"{nuclei:,} nuclei written to {options.out} ({title})")
    console.result({"file": options.out, "format": name, "nuclei": nuclei, "measures": measures})

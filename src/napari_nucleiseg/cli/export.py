"""``napari-nucleiseg export``: the nuclei of a slide's project for other programs."""

from __future__ import annotations

import argparse

from napari_nucleiseg.cli.console import OK, Console
from napari_nucleiseg.cli.project import open_project
from napari_nucleiseg.core.exchange.formats import FORMATS, export, format_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.epilog = (
        "The name of the file says the format: .geojson (QuPath), .zarr (OME-Zarr 0.5), .ome.tif or .tif (label "
        "image), .csv, .parquet, .coco.json. An earlier export of that name is replaced."
    )
    parser.add_argument(
        "project", metavar="SLIDE_OR_PROJECT", help="slide with its project beside it, or project folder"
    )
    parser.add_argument("--out", required=True, metavar="FILE", help="file or folder to write")
    parser.add_argument("--format", choices=tuple(FORMATS), help="if the name of the file does not say it")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(options: argparse.Namespace, console: Console) -> int:
    """Write the file and say what it holds."""
    name = options.format or format_of(options.out)
    with open_project(options.project, writable=False) as project, console.progress() as bars:
        from napari_nucleiseg.core.exchange.source import source_of_project

        export(source_of_project(project), options.out, name, lambda done, total: bars.update("writing", done, total))
        nuclei = project.census.total()
    console.say(f"{nuclei:,} nuclei written to {options.out} ({FORMATS[name].title})")
    console.result({"file": options.out, "format": name, "nuclei": nuclei})
    return OK

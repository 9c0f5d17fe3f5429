"""``napari-nucleiseg import``: nuclei and annotated regions of other programs into a slide's project."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from napari_nucleiseg.cli.console import OK, Console
from napari_nucleiseg.cli.project import open_project
from napari_nucleiseg.core.errors import ImportFileError

if TYPE_CHECKING:
    from napari_nucleiseg.core.store.project import Project


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.epilog = (
        "FILE is QuPath GeoJSON, a label TIFF of the slide's size, or an OME-Zarr folder with labels. Coordinates are "
        "full-resolution pixels. The project lies beside the slide and is made if there is none; --project names "
        "another. All nuclei are one step of the history, which the window can undo."
    )
    # Which arguments belong together argparse cannot say.
    parser.set_defaults(refuse=parser.error)
    parser.add_argument("file", metavar="FILE", help="what to import")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--slide", metavar="SLIDE", help="slide that the nuclei belong to")
    where.add_argument("--project", metavar="DIR", help="project folder that is there already")
    parser.add_argument("--mpp", type=float, metavar="UM", help="of --slide: micrometres per pixel, if it does not say")
    parser.add_argument(
        "--overlap",
        choices=("keep", "replace"),
        default="keep",
        help="where nuclei are already: keep them, or replace them by the new ones (default: keep)",
    )
    parser.add_argument(
        "--annotations",
        choices=("regions", "nuclei"),
        default="regions",
        help="what QuPath's annotations are (default: regions)",
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def run(options: argparse.Namespace, console: Console) -> int:
    """Import and say what was taken, and what was not and why."""
    if options.project and options.mpp is not None:
        options.refuse("--mpp goes with --slide; a project that is there already knows its pixel size")
    if not Path(options.file).exists():
        raise ImportFileError(f"{options.file} does not exist. Check the name.")

    from napari_nucleiseg.core.exchange.imports import import_nuclei

    with _project(options) as project, console.progress() as bars:
        report = import_nuclei(
            project, options.file, overlap=options.overlap, annotations=options.annotations, on_progress=bars.update
        )
    for sentence in report.sentences:
        console.say(sentence)
    console.result(report.as_dict())
    return OK


@contextmanager
def _project(options: argparse.Namespace) -> Iterator[Project]:
    """Open the project to import into; one that is made for a file of which nothing can be taken does not stay."""
    if options.project:
        with open_project(options.project, writable=True) as project:
            yield project
        return
    from napari_nucleiseg.core.slides.registry import open_slide
    from napari_nucleiseg.core.store.finding import find_project, usual_folder
    from napari_nucleiseg.core.store.project import Project
    from napari_nucleiseg.core.store.regions import read_regions

    with closing(open_slide(options.slide, mpp_um=options.mpp)) as slide:
        folder = find_project(slide) or usual_folder(slide)
        is_new, is_left_empty = not folder.exists(), False
        try:
            with Project.open_or_create(folder, slide) as project:
                try:
                    yield project
                except ImportFileError:
                    is_left_empty = not (project.census.total() or read_regions(project.ledger.reader))
                    raise
        finally:
            if is_new and is_left_empty:
                shutil.rmtree(folder, ignore_errors=True)

"""``napari-nucleiseg check``: look whether the results of a slide are whole, and mend what is not."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_nucleiseg.cli.console import FAILED, OK, Console

if TYPE_CHECKING:
    from napari_nucleiseg.core.store.check import CheckReport
    from napari_nucleiseg.core.store.project import Project


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.epilog = (
        "Exit status 0: all is well, or it is now; 1: something is wrong. A nucleus that cannot be mended goes, and "
        "its tile is segmented anew with the next run. What people drew is measured anew and stays."
    )
    parser.add_argument("path", metavar="PATH", help="slide, or the folder with its results (NAME.nucleiseg)")
    parser.add_argument("--repair", action="store_true", help="mend what is wrong")
    parser.add_argument("--results", default="", metavar="DIR", help="folder for results, if not beside the slide")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace, console: Console) -> int:
    """Check, say what is wrong, mend it if that was asked for."""
    from napari_nucleiseg.core.store.check import check

    folder = _folder(options.path, options.results)
    with console.progress() as bars, _opened(folder, repair=options.repair) as project:
        report = check(project, repair=options.repair, on_progress=lambda done, n: bars.update("checking", done, n))
        after = report if report.is_sound or not options.repair else check(project)
    problems = _problems(report)
    console.table("", ("", "found"), [(f"{number:,}", sentence) for number, sentence in problems])
    console.text(_verdict(folder, report, after))
    console.result({"project": str(folder), "sound": after.is_sound, "problems": len(problems), **asdict(report)})
    return OK if after.is_sound else FAILED


def _folder(path: str, results: str) -> Path:
    """Return the project's folder that a person means."""
    from napari_nucleiseg.core.errors import StoreError
    from napari_nucleiseg.core.slides.registry import open_slide
    from napari_nucleiseg.core.store.finding import ENDING, find_project, usual_folder
    from napari_nucleiseg.core.store.project import DATABASE

    given = Path(path).absolute()
    if (given / DATABASE).is_file() or given.name.endswith(ENDING):
        return given
    slide = open_slide(path)
    found = find_project(slide, results)
    if found is None:
        raise StoreError(f"{path} has no results yet ({usual_folder(slide, results)} is not there).")
    return found


def _opened(folder: Path, *, repair: bool) -> Project:
    """Open for writing, so that what a crash left is brought in; where that cannot be, look only."""
    from napari_nucleiseg.core.errors import StoreError
    from napari_nucleiseg.core.store.project import Project, holder

    try:
        return Project.open(folder)
    except StoreError:
        if repair or holder(folder) is not None:
            raise
    return Project.open(folder, writable=False)


def _problems(report: CheckReport) -> list[tuple[int, str]]:
    tables = report.tables
    found: list[tuple[Any, str]] = [
        (len(report.damaged_files), "files of the label image cannot be read"),
        (len(report.unknown_ids), "nuclei are in the image but not in the table"),
        (len(report.unseen_ids), "nuclei are in the table but not in the image"),
        (len(report.wrong_chunks), "parts of the overview differ from the full resolution"),
        (len(tables.broken_edits), "steps of the history cannot be read"),
        (len(tables.odd_rows), "nuclei have a contradictory state"),
        (len(tables.wrong_claims), "hidden parts belong to no nucleus"),
        (len(tables.wrong_geometry), "nuclei have a size or place that is not that of their pixels"),
        (len(tables.broken_regions), "annotated regions cannot be read"),
        (len(tables.broken_attention), "pieces of painted attention cannot be read"),
        (tables.wrong_counts, "places are counted wrongly"),
        (int(tables.next_id > 0), "numbers for new nuclei would be used twice"),
        (len(tables.database), "faults in the database: " + "; ".join(tables.database)),
    ]
    return [(number, sentence) for number, sentence in found if number]


def _verdict(folder: Path, report: CheckReport, after: CheckReport) -> str:
    if report.is_sound:
        return f"{folder}: all is well, {report.nuclei:,} nuclei."
    if after.is_sound:
        return f"{folder}: mended, {after.nuclei:,} nuclei. Segment the slide again to fill what had to go."
    if report.tables.database:
        return f"{folder}: the database is damaged. Restore the folder from a copy."
    if report.repaired:
        return f"{folder}: not all could be mended. Restore the folder from a copy."
    return f"{folder}: something is wrong. Call the same with --repair to mend it."

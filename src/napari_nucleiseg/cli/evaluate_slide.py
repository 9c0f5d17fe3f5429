"""What ``napari-nucleiseg evaluate`` says of a slide's nuclei against a reference."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from napari_nucleiseg.cli.console import OK, Console
from napari_nucleiseg.cli.project import open_project
from napari_nucleiseg.core.errors import ExportError
from napari_nucleiseg.core.exchange.whole_file import check_target

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from napari_nucleiseg.core.evaluation.scores import ImageScores
    from napari_nucleiseg.core.evaluation.slide_report import Confusion, PartScores, SlideReport

REGIONS = ("all", "reference", "holdout", "none")
_SCORES = {
    "Dice": "dice", "AJI": "aji", "AJI+": "aji_plus", "PQ": "pq", "DQ": "dq", "SQ": "sq", "F1@0.5": "f1",
    "AHD px": "ahd", "true": "truth_count", "found": "pred_count",
}  # fmt: skip


class _Takes(Protocol):
    """What arguments are added to: a parser or a group of one."""

    def add_argument(self, *name_or_flags: str, **settings: Any) -> argparse.Action:
        """Add an argument."""


def add_slide_arguments(group: _Takes) -> None:
    """Declare the arguments of a slide."""
    group.add_argument(
        "project", metavar="SLIDE_OR_PROJECT", nargs="?", help="slide with its project beside it, or project folder"
    )
    group.add_argument(
        "--reference",
        metavar="FILE",
        help="what is right: QuPath GeoJSON, a label image of the slide's size (TIFF, OME-Zarr), or another project",
    )
    group.add_argument(
        "--regions",
        choices=REGIONS,
        help="annotated regions to score: all, or those for 'reference' or 'hold out'; none is the whole slide "
        "(default: the regions that the reference states, or else the whole slide)",
    )
    group.add_argument(
        "--annotations",
        choices=("regions", "nuclei"),
        help="what annotations of a GeoJSON reference are (default: regions if it holds other nuclei, else nuclei)",
    )
    group.add_argument("--no-ahd", action="store_true", help="leave out the distances of outlines, which take longest")
    group.add_argument("--errors", metavar="FILE", help="write the nuclei that are wrong as GeoJSON for QuPath")


def run_slide(options: argparse.Namespace, console: Console) -> int:
    """Score a slide's nuclei and print."""
    targets = [target for target in (options.errors, options.json) if target not in {None, "-"}]
    _check_targets(targets, options)
    from napari_nucleiseg.core.batch.slide_evaluation import evaluate_slide, regions_to_evaluate
    from napari_nucleiseg.core.exchange.mistakes import write_mistakes
    from napari_nucleiseg.core.exchange.reference import open_reference

    with open_project(options.project, writable=False) as project, console.progress() as bars:
        for target in targets:
            check_target(target, project.fingerprint, [project.folder])
        opened = open_reference(options.reference, project, annotations=options.annotations, on_progress=bars.update)
        with opened as reference:
            regions = regions_to_evaluate(project, reference, options.regions)
            report = evaluate_slide(
                project, reference, regions=regions, distances=not options.no_ahd, on_progress=bars.update
            )
            written = None
            if options.errors:
                written = write_mistakes(
                    project,
                    reference,
                    report,
                    options.errors,
                    on_progress=lambda done, total: bars.update("writing", done, total),
                )
    if options.json not in {None, "-"}:
        report.write_json(options.json)
        console.say(f"Scores written to {options.json}")
    if written is not None:
        console.say(f"{written:,} nuclei that are wrong written to {options.errors}")
    for note in report.notes:
        console.say(note)
    _show(report, console)
    console.result(report.as_dict())
    return OK


def _check_targets(targets: Sequence[str], options: argparse.Namespace) -> None:
    """Refuse to write over what is named to be read, or twice to one file."""
    for place, target in enumerate(targets):
        check_target(target, inputs=(options.reference, options.project))
        if any(Path(target).resolve() == Path(other).resolve() for other in targets[:place]):
            raise ExportError(f"--errors and --json would both write {target}. Choose two names.")


def _show(report: SlideReport, console: Console) -> None:
    parts = [*report.regions, report.total]
    names = ["whole slide"] if not report.regions else [part.name for part in parts]
    roles = [part.role for part in parts]
    console.table(
        f"{report.slide} against {report.reference}",
        ("region", "for", *_SCORES),
        [(name, role, *_cells(part.scores)) for name, role, part in zip(names, roles, parts, strict=True)],
    )
    console.table("Nuclei", ("region", *_verdicts(parts[:1])[0]), _mistakes(names, parts))
    if report.classes:
        console.table(
            "Classes of the reference"
            if report.are_classes_compared
            else "Classes of the reference (found: any class)",
            ("class", "found with IoU > 0.5", *(title for title in _SCORES if title != "AHD px")),
            [(found.name, _percent(found.found), *_cells(found.scores, without="AHD px")) for found in report.classes],
        )
    if report.confusion is not None and report.are_classes_compared:
        _show_confusion(report.confusion, console)


def _verdicts(parts: Sequence[PartScores]) -> list[tuple[str, ...]]:
    return [tuple(part.verdicts.as_dict()) for part in parts]


def _mistakes(names: Iterable[str], parts: Iterable[PartScores]) -> list[tuple[str, ...]]:
    return [
        (name, *(f"{count:,}" for count in part.verdicts.as_dict().values()))
        for name, part in zip(names, parts, strict=True)
    ]


def _cells(scores: ImageScores, without: str = "") -> list[str]:
    values = [getattr(scores, field) for title, field in _SCORES.items() if title != without]
    return [_text(value) for value in values]


def _text(value: float) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return "" if math.isnan(value) else f"{value:.3f}"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}%"


def _show_confusion(confusion: Confusion, console: Console) -> None:
    said = "" if confusion.agreement is None else f": {_percent(confusion.agreement)} the same"
    console.table(
        f"Classes{said}",
        ("reference \\ found", *confusion.predicted),
        [
            (name, *(f"{count:,}" for count in row))
            for name, row in zip(confusion.reference, confusion.counts, strict=True)
        ],
    )

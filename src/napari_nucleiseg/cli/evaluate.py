"""``napari-nucleiseg evaluate``: score predicted label images against true ones."""

from __future__ import annotations

import argparse

from napari_nucleiseg.cli.console import OK, Console

_SHOWN = ("dice", "aji", "aji_plus", "pq", "dq", "sq", "f1", "ahd", "ahd_as_coded")
_TITLES = ("Dice", "AJI", "AJI+", "PQ", "DQ", "SQ", "F1@0.5", "AHD px", "AHD as coded")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.epilog = (
        "Files pair up by name (TIFF, PNG, NPY; 0 is background). Where both images of a pair are empty all "
        "scores are 1; where one is, 0. AHD: mean outline distance in pixels, over found nuclei."
    )
    parser.add_argument("--pred", required=True, metavar="DIR", help="folder of predicted label images")
    parser.add_argument("--truth", required=True, metavar="DIR", help="folder of true label images")
    parser.add_argument(
        "--json", nargs="?", const="-", metavar="FILE", help="write the scores as JSON to FILE, or to stdout"
    )


def run(options: argparse.Namespace, console: Console) -> int:
    """Score and print."""
    from napari_nucleiseg.core.evaluation import EvaluationReport, evaluate_folders

    console = Console(as_json=options.json == "-")
    with console.progress() as bars:
        report: EvaluationReport = evaluate_folders(
            options.pred,
            options.truth,
            on_image=lambda done, total, stem: bars.update("scoring", done, total, stem),
        )
    if options.json not in {None, "-"}:
        report.write_json(options.json)
        console.say(f"Scores written to {options.json}")
    rows = [(stem, image) for stem, image in (*report.images, ("mean", report.mean))]
    console.table(
        "",
        ("image", *_TITLES, "true", "found"),
        [
            (
                stem,
                *(f"{getattr(scores, name):.3f}" for name in _SHOWN),
                str(scores.truth_count),
                str(scores.pred_count),
            )
            for stem, scores in rows
        ],
    )
    if report.unused:
        console.say(f"{len(report.unused)} predictions have no true labels and were not scored")
    console.result(report.as_dict())
    return OK

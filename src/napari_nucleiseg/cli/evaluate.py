"""``napari-nucleiseg evaluate``: score label images against true ones, or a slide's nuclei against a reference."""

from __future__ import annotations

import argparse

from napari_nucleiseg.cli.console import OK, USAGE, Console
from napari_nucleiseg.cli.evaluate_slide import add_slide_arguments, run_slide
from napari_nucleiseg.core.exchange.whole_file import check_target

SHOWN = ("dice", "aji", "aji_plus", "pq", "dq", "sq", "f1", "ahd")
TITLES = ("Dice", "AJI", "AJI+", "PQ", "DQ", "SQ", "F1@0.5", "AHD px")
AS_CODED, AS_CODED_TITLE = "ahd_as_coded", "AHD as coded"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.epilog = (
        "Either --pred and --truth, whose files pair up by name (TIFF, PNG, NPY; 0 is background), or a slide with its "
        "project and --reference. Where both sides are empty all scores are 1; where one is, 0. AHD: mean outline "
        "distance in pixels, over found nuclei."
    )
    # Which arguments belong together argparse cannot say.
    parser.set_defaults(refuse=parser.error)
    images = parser.add_argument_group("folders of label images")
    images.add_argument("--pred", metavar="DIR", help="folder of predicted label images")
    images.add_argument("--truth", metavar="DIR", help="folder of true label images")
    add_slide_arguments(parser.add_argument_group("a slide's nuclei"))
    parser.add_argument(
        "--json", nargs="?", const="-", metavar="FILE", help="write the scores as JSON to FILE, or to stdout"
    )


def run(options: argparse.Namespace, console: Console) -> int:
    """Score and print."""
    console = Console(as_json=options.json == "-")
    folders, slide = (options.pred, options.truth), (options.project, options.reference)
    if all(folders) and not any(slide):
        return _run_folders(options, console)
    if all(slide) and not any(folders):
        return run_slide(options, console)
    options.refuse("give either --pred DIR and --truth DIR, or a slide (or its project) and --reference FILE")
    return USAGE


def _run_folders(options: argparse.Namespace, console: Console) -> int:
    from napari_nucleiseg.core.evaluation import EvaluationReport, evaluate_folders
    from napari_nucleiseg.core.evaluation.folders import find_label_images

    folders = options.pred, options.truth
    if options.json not in {None, "-"}:
        images = [image for folder in folders for image in find_label_images(folder).values()]
        check_target(options.json, inputs=(*folders, *images))
    with console.progress() as bars:
        report: EvaluationReport = evaluate_folders(
            *folders,
            on_image=lambda done, total, stem: bars.update("scoring", done, total, stem),
        )
    if options.json not in {None, "-"}:
        report.write_json(options.json)
        console.say(f"Scores written to {options.json}")
    rows = [(stem, image) for stem, image in (*report.images, ("mean", report.mean))]
    console.table(
        "",
        ("image", *TITLES, AS_CODED_TITLE, "true", "found"),
        [
            (
                stem,
                *(f"{getattr(scores, name):.3f}" for name in (*SHOWN, AS_CODED)),
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

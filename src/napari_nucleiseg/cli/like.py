"""``napari-nucleiseg like``: mark a few nuclei by their places, get all that are like them as a label image."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from napari_nucleiseg.cli.console import OK, Console
from napari_nucleiseg.cli.flags import add_flags, read_flags
from napari_nucleiseg.cli.segment import region_of
from napari_nucleiseg.core.fewshot.options import LikeOptions


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.epilog = (
        "Nothing is trained: a network's features of the marked nuclei are compared with those of all candidates. "
        "Candidates are made without a model, too many on purpose; give what a segmentation found with --candidates to "
        "choose among that. Numbers in the label image go from the most to the least similar; --json has the scores."
    )
    parser.add_argument("path", metavar="IMAGE", help="slide or picture")
    parser.add_argument(
        "--mark", type=point_of, action="append", required=True, metavar="Y,X", help="a nucleus; may be repeated"
    )
    parser.add_argument(
        "--not",
        dest="against",
        type=point_of,
        action="append",
        default=[],
        metavar="Y,X",
        help="something that is not meant; may be repeated",
    )
    parser.add_argument("--out", required=True, metavar="FILE", help="label image to write: .tif")
    parser.add_argument("--region", type=region_of, metavar="Y,X,H,W", help="only this part, in full-resolution pixels")
    parser.add_argument("--mpp", type=float, metavar="UM", help="micrometres per pixel, if the file does not say")
    parser.add_argument(
        "--model",
        default="nuclei",
        metavar="NAME",
        help="model or encoder whose features are used, or colour for none (default: nuclei)",
    )
    parser.add_argument("--layer", default="auto", metavar="NAMES", help="its layers, joined by + (default: auto)")
    parser.add_argument("--candidates", default="", metavar="FILE", help="label image of the region to choose among")
    parser.add_argument("--projection", default="", metavar="FILE", help="projection that episodes have taught")
    parser.add_argument("--accept-licence", action="store_true", help="accept a restrictive licence for this run")
    parser.add_argument("--device", default="auto", help="auto, cuda, mps or cpu (default: auto)")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    add_flags(parser, LikeOptions)


def point_of(text: str) -> tuple[float, float]:
    """Read ``y,x`` of the command line."""
    try:
        y, x = (float(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{text} is no place; give y,x in full-resolution pixels, such as 812,1040"
        ) from error
    return y, x


def run(options: argparse.Namespace, console: Console) -> int:
    """Find, write, say what was found."""
    from napari_nucleiseg.core.batch.like import LikeJob, find_like

    job = LikeJob(
        path=options.path,
        out=options.out,
        marks=tuple(options.mark),
        against=tuple(options.against),
        region=options.region,
        mpp_um=options.mpp,
        model=options.model,
        layer=options.layer,
        candidates=options.candidates,
        projection=options.projection,
        accept_licence=options.accept_licence,
        device=options.device,
    )
    found = find_like(job, read_flags(options, LikeOptions()))
    console.say(
        f"{found.proposed:,} of {found.candidates:,} candidates are like what was marked "
        f"(above {found.threshold:.3f}); {found.out}"
    )
    console.result(asdict(found))
    return OK

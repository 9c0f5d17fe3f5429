"""``napari-nucleiseg by-text``: say in words what nuclei are like, get a table of scores or a map of classes."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from napari_nucleiseg.cli.console import OK, Console
from napari_nucleiseg.cli.flags import add_flags, read_flags
from napari_nucleiseg.cli.segment import region_of
from napari_nucleiseg.core.fewshot.known_clips import FETCHED
from napari_nucleiseg.core.fewshot.text_options import TextOptions


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.epilog = (
        "A CLIP compares crops of each nucleus with the words of each class; nothing is trained. Its weights are in a "
        f"folder of yours, or are downloaded once: {_known()}, or any address of a CLIP in transformers' layout. "
        "Tables have a column p_CLASS for each class; what is most like the background is of no class. Needs the extra "
        "zoo."
    )
    parser.add_argument("path", metavar="IMAGE", help="slide or picture")
    parser.add_argument("--labels", required=True, metavar="FILE", help="label image of its nuclei")
    parser.add_argument(
        "--prompt",
        type=prompt_of,
        action="append",
        required=True,
        metavar="CLASS=WORDS",
        help="a class and what describes it; may be repeated, for a class too",
    )
    parser.add_argument(
        "--clip",
        required=True,
        metavar="FOLDER|NAME|URL",
        help="CLIP in transformers' layout: a folder, its file of weights, the name of a known one, or an address",
    )
    parser.add_argument(
        "--sha256",
        default="",
        metavar="DIGITS",
        help="checksum that the weights must have; without it what is downloaded first is trusted, and checked later",
    )
    parser.add_argument(
        "--out",
        required=True,
        metavar="FILE",
        help=".csv, .parquet, .geojson and others, or .tif: a map of the classes",
    )
    parser.add_argument("--region", type=region_of, metavar="Y,X,H,W", help="only this part, in full-resolution pixels")
    parser.add_argument("--mpp", type=float, metavar="UM", help="micrometres per pixel, if the file does not say")
    parser.add_argument(
        "--known", default="", metavar="CSV", help="what another model says: columns id and one for each class, 0..1"
    )
    parser.add_argument(
        "--seen", action="append", default=[], metavar="CLASS", help="a class the other model knows; may be repeated"
    )
    parser.add_argument(
        "--accept-licence", action="store_true", help="accept a restrictive or unstated licence for this run"
    )
    parser.add_argument("--device", default="auto", help="auto, cuda, mps or cpu (default: auto)")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    add_flags(parser, TextOptions)


def _known() -> str:
    return ", ".join(f"{known.name} ({known.licence}, {known.megabytes} MB)" for known in FETCHED)


def prompt_of(text: str) -> tuple[str, str]:
    """Read ``class=words`` of the command line."""
    name, equals, words = (part.strip() for part in text.partition("="))
    if not (name and equals and words):
        raise argparse.ArgumentTypeError(
            f"{text} is no prompt; give class=words, such as 'lymphocyte=a small dark round nucleus'"
        )
    return name, words


def run(options: argparse.Namespace, console: Console) -> int:
    """Score, write, say what was found."""
    from napari_nucleiseg.core.batch.by_text import TextJob, score_region

    job = TextJob(
        path=options.path,
        labels=options.labels,
        out=options.out,
        prompts=tuple(options.prompt),
        clip=options.clip,
        sha256=options.sha256,
        region=options.region,
        mpp_um=options.mpp,
        known=options.known,
        seen=tuple(options.seen),
        accept_licence=options.accept_licence,
        device=options.device,
    )
    with console.progress() as bars:
        found = score_region(
            job,
            read_flags(options, TextOptions()),
            lambda done, total: bars.update("nuclei", done, total),
            lambda done, total: bars.update("downloading, MB", done // 10**6, total // 10**6),
        )
    said = ", ".join(f"{name} {count:,}" for name, count in found.classes.items())
    console.say(f"{found.nuclei:,} nuclei by words ({found.clip}): {said}; {found.out}")
    console.say(f"weights: licence {found.licence}, SHA-256 {found.sha256}")
    console.result(asdict(found))
    return OK

"""``napari-nucleiseg teach-stack``: teach a network for z-stacks with planes that a person corrected."""

from __future__ import annotations

import argparse
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from napari_nucleiseg.cli.console import OK, PARTLY, Console
from napari_nucleiseg.cli.flags import add_flags, read_flags
from napari_nucleiseg.cli.segment_stack import stated_voxel, voxel_of
from napari_nucleiseg.cli.teaching_progress import document_of, kept_outcome, open_by_default, tell_verdict
from napari_nucleiseg.core.errors import TeachingError
from napari_nucleiseg.core.teaching.config import FinetuneConfig
from napari_nucleiseg.core.training.fields import load_fields

if TYPE_CHECKING:
    from napari_nucleiseg.core.teaching.stacks.lesson import StackLesson


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments: its own, and one flag for each field of the configuration."""
    parser.epilog = (
        "Exit status 0: the new model is adopted (or taken anyway); 3: it was taught, but the guard refused it, and "
        "the former model stays. Without --model a first network is taught from nothing, with 300 steps. Interrupted, "
        "the same command goes on from where it was."
    )
    parser.add_argument("path", metavar="FILE", help="stack: TIFF, OME-TIFF, or the folder of an OME-Zarr image")
    parser.add_argument("--labels", required=True, metavar="TIFF", help="nuclei of the stack, one number each")
    parser.add_argument(
        "--planes", default="", metavar="12,16,20-24", help="planes on which every nucleus is right, from 0"
    )
    parser.add_argument("--model", default="", metavar="NAME", help="model or weight file of a network for stacks")
    parser.add_argument("--channel", type=int, default=0, metavar="N", help="channel that shows nuclei (default: 0)")
    parser.add_argument(
        "--voxel", type=voxel_of, metavar="Z,Y,X", help="micrometres per voxel, if the file does not say"
    )
    parser.add_argument(
        "--licence", default="", metavar="SPDX", help="of the stack, for a first model (default: your own)"
    )
    parser.add_argument("--accept-licence", action="store_true", help="accept a restrictive licence for this run")
    parser.add_argument("--name", default="", metavar="NAME", help="of the new model (default: numbered)")
    parser.add_argument("--title", default="", metavar="TEXT", help="one line about the new model")
    parser.add_argument("--take-anyway", action="store_true", help="use the new model even if the guard refuses it")
    parser.add_argument("--config", metavar="JSON", help="file with any of the fields below; flags override it")
    parser.add_argument("--json", action="store_true", help="print the outcome as JSON")
    add_flags(parser, FinetuneConfig)


def run(options: argparse.Namespace, console: Console) -> int:
    """Teach, show how it goes, keep what came of it and say whether it is used."""
    lesson = _lesson(options)

    from napari_nucleiseg.core.models.weights import load_model
    from napari_nucleiseg.core.teaching.names import check_name
    from napari_nucleiseg.core.teaching.stacks.teach import LEARNING, TEACHING, stack_notes_folder, teach_stack

    if options.name:
        check_name(options.name)
    base = TEACHING if options.model else LEARNING
    if options.config:
        base = load_fields(FinetuneConfig, options.config, "a fine-tune", base)
    config = read_flags(options, base)
    model = load_model(options.model, accept_licence=options.accept_licence, dimensions=3) if options.model else None
    folder = stack_notes_folder(model, lesson)
    outcome, version = kept_outcome(
        teach_stack(model, lesson, config, folder),
        console,
        name=options.name,
        title=options.title,
        anyway=options.take_anyway,
    )
    with suppress(OSError):
        folder.rmdir()
    taken = options.take_anyway and not outcome.adopted
    tell_verdict(outcome, version, taken, console)
    if model is not None and (outcome.adopted or taken):
        open_by_default(version, model, console)
    former = "" if model is None else model.card.version
    console.result({**document_of(outcome, version), "taken_anyway": taken, "former": former})
    return OK if outcome.adopted or taken else PARTLY


def _lesson(options: argparse.Namespace) -> StackLesson:
    """Read the stack and its labels."""
    import tifffile

    from napari_nucleiseg.core.geometry import ZYX
    from napari_nucleiseg.core.slides.stacks import open_stack
    from napari_nucleiseg.core.slides.tiffpage import DECODE_ERRORS
    from napari_nucleiseg.core.store.kept_stack import stack_key
    from napari_nucleiseg.core.teaching.stacks.lesson import StackLesson
    from napari_nucleiseg.core.teaching.stacks.planes import planes_of

    stack = open_stack(options.path)
    volume = stack.channel(options.channel)
    try:
        labels = tifffile.imread(options.labels)
    except (OSError, *DECODE_ERRORS) as error:
        raise TeachingError(f"{options.labels} cannot be read as labels: {error}") from error
    if labels.dtype.kind not in "iu":
        raise TeachingError(f"{options.labels} must hold whole numbers, one a nucleus, not {labels.dtype}.")
    voxel = ZYX(*stated_voxel(stack, options.voxel))
    planes = planes_of(options.planes, volume.shape[0])
    return StackLesson(
        Path(stack.path).stem.removesuffix(".ome"), volume, labels, planes, voxel, stack_key(volume), options.licence
    )

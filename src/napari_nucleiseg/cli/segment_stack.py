"""``napari-nucleiseg segment-stack``: find the nuclei of z-stacks in three dimensions."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from napari_nucleiseg.cli.console import OK, Console, status_of_interruption
from napari_nucleiseg.core.errors import ExportError, VoxelSizeError

if TYPE_CHECKING:
    from napari_nucleiseg.core.geometry import ZYX
    from napari_nucleiseg.core.slides.stacks import Stack


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.epilog = (
        "No weights for stacks come with the program: train some with 'napari-nucleiseg train --network unet-3d', see "
        "docs/stacks.md. The labels are int32, one number a nucleus, at the voxels of the stack."
    )
    parser.add_argument("path", metavar="FILE", help="stack: TIFF, OME-TIFF, or the folder of an OME-Zarr image")
    parser.add_argument("--model", required=True, metavar="NAME", help="model or weight file of a network for stacks")
    parser.add_argument("--out", required=True, metavar="TIFF", help="label TIFF to write")
    parser.add_argument("--channel", type=int, default=0, metavar="N", help="channel that shows nuclei (default: 0)")
    parser.add_argument(
        "--voxel", type=voxel_of, metavar="Z,Y,X", help="micrometres per voxel, if the file does not say"
    )
    parser.add_argument("--threshold", type=float, metavar="P", help="least probability of a nucleus' voxel, 0 to 1")
    parser.add_argument(
        "--min-area", type=float, metavar="UM2", help="section of the smallest nucleus, square micrometres"
    )
    parser.add_argument("--device", default="auto", help="auto, cuda, mps or cpu (default: auto)")
    parser.add_argument("--accept-licence", action="store_true", help="accept a restrictive licence for this run")
    parser.add_argument("--json", action="store_true", help="print the outcome as JSON")


def voxel_of(text: str) -> tuple[float, float, float]:
    """Read ``z,y,x`` of the command line."""
    try:
        z, y, x = (float(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{text} is no voxel size; give three numbers z,y,x in micrometres, such as 1,0.25,0.25"
        ) from error
    return z, y, x


def run(options: argparse.Namespace, console: Console) -> int:
    """Segment the stack, show how far it is, write the labels."""
    from napari_nucleiseg.core.slides.stacks import open_stack

    out = Path(options.out)
    if out.suffix.lower() not in (".tif", ".tiff"):
        raise ExportError(f"{out} must end in .tif: the labels are written as a TIFF.")
    stack = open_stack(options.path)
    volume = stack.channel(options.channel)
    voxel_um = stated_voxel(stack, options.voxel)
    for note in stack.notes if options.voxel is None else ():
        console.say(f"{stack.path}: {note}")

    from napari_nucleiseg.core.exchange.stack_labels import write_stack_labels
    from napari_nucleiseg.core.inference.stacks import StackOptions, segment_stack
    from napari_nucleiseg.core.models.weights import load_model

    model = load_model(options.model, accept_licence=options.accept_licence, dimensions=3)
    chosen = StackOptions(options.threshold, options.min_area, options.device)
    try:
        with console.progress() as bars:
            labels = segment_stack(
                volume,
                model,
                voxel_um,
                chosen,
                on_progress=lambda step: bars.update("blocks", step.done, step.total, f"{step.nuclei:,} nuclei"),
            )
    except KeyboardInterrupt:
        return status_of_interruption(console, "Interrupted. Nothing was written; the same command begins anew.")
    write_stack_labels(out, labels, voxel_um)
    nuclei = int(labels.max(initial=0))
    console.say(f"{nuclei:,} nuclei in {out}")
    console.result(
        {"path": stack.path, "out": str(out), "nuclei": nuclei, "voxel_um": list(voxel_um), "model": model.version}
    )
    return OK


def stated_voxel(stack: Stack, given: tuple[float, float, float] | None) -> ZYX:
    """Return the voxel size that was given, else that of the file.

    Raises
    ------
    VoxelSizeError
        If there is none, or it cannot be right.
    """
    from napari_nucleiseg.core.slides.voxels import checked_voxel

    if given is not None:
        return checked_voxel(given)
    if stack.voxel_um is None:
        raise VoxelSizeError(f"{stack.path} does not say how large its voxels are.")
    return stack.voxel_um

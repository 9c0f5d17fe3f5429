"""``napari-nucleiseg pretrain shapes``: a data set of slides that nobody labelled, to train a network on."""

from __future__ import annotations

import argparse
import shlex
from contextlib import closing
from pathlib import Path

from napari_nucleiseg.cli.console import OK, Console


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the recipe's arguments."""
    parser.epilog = (
        "Nuclei are found by their shape in haematoxylin; where stain is dense but of no such shape nothing is "
        "claimed. What a network learns from that is better than the labels are: go on with the command that is "
        "printed at the end. Look at OUT/labels first; what is corrected there is kept when the command is run again."
    )
    parser.add_argument("paths", nargs="+", metavar="SLIDE", help="slide, picture, or folder of them")
    parser.add_argument("--out", required=True, metavar="FOLDER", help="folder for images/ and labels/")
    parser.add_argument("--network", default="nuclei", metavar="NAME", help="that is to learn (default: %(default)s)")
    parser.add_argument("--windows", type=int, default=24, metavar="N", help="of each slide (default: %(default)s)")
    parser.add_argument("--mpp", type=float, metavar="UM", help="micrometres per pixel, if the file does not say")
    parser.add_argument("--licence", default="", metavar="SPDX", help="licence of the slides")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="chooses the windows")
    parser.add_argument("--json", action="store_true", help="print the outcome as JSON")


def run(options: argparse.Namespace, console: Console) -> int:
    """Label windows of each slide, write all that nobody has corrected, say how to go on."""
    from napari_nucleiseg.core.batch.inputs import find_inputs
    from napari_nucleiseg.core.errors import DataError
    from napari_nucleiseg.core.models.registry import network_spec
    from napari_nucleiseg.core.slides.registry import open_slide
    from napari_nucleiseg.core.training.scales.shape_set import labelled_windows

    if options.windows < 1:
        raise DataError(f"at least one window of each slide is needed, not {options.windows} (--windows)")
    spec, out = network_spec(options.network), Path(options.out)
    nuclei, count, left = 0, 0, 0
    for entry in find_inputs(options.paths):
        with closing(open_slide(entry.path, mpp_um=options.mpp)) as slide:
            for window in labelled_windows(slide, entry.stem, spec, most=options.windows, seed=options.seed):
                if window.is_corrected_in(out):
                    left += 1
                else:
                    window.write(out)
                nuclei, count = nuclei + window.nuclei, count + 1
        console.say(f"{entry.path}: {count} windows and {nuclei} nuclei so far")
    if left:
        console.say(
            f"Windows left as they are: {left}. {out / 'labels'} holds other labels of them, such as corrected ones; "
            "choose another folder (--out) to have all labels anew."
        )
    licence = f",licence={options.licence}" if options.licence else ""
    train = shlex.join(("--train", f"{out},mpp_um={spec.mpp_um:g}{licence}", "--network", options.network))
    console.say(f"Go on with: napari-nucleiseg train {train} --steps 700 --out runs/own")
    console.result({"folder": str(out), "windows": count, "nuclei": nuclei, "left": left})
    return OK

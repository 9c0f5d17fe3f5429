"""``napari-nucleiseg pretrain scale-attention-tau``: the level of attention that suits some slides."""

from __future__ import annotations

import argparse
from contextlib import closing
from pathlib import Path

from napari_nucleiseg.cli.console import OK, Console
from napari_nucleiseg.core.errors import WeightsError
from napari_nucleiseg.core.exchange.whole_file import check_target


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the recipe's arguments."""
    parser.epilog = (
        "All other weights stay as they are. The level is the same for all tiles, so it makes no seams. With several "
        "slides it is the mean of theirs."
    )
    parser.add_argument("paths", nargs="+", metavar="SLIDE", help="slide or picture")
    parser.add_argument("--model", required=True, metavar="NAME", help="model or weight file of scale-attention")
    parser.add_argument("--out", required=True, metavar="FILE", help="weight file to write")
    parser.add_argument(
        "--share", type=float, metavar="P", help="share of pixels to look at (default: the model's own)"
    )
    parser.add_argument("--otsu", action="store_true", help="let Otsu's threshold say how many, in place of --share")
    parser.add_argument("--mpp", type=float, metavar="UM", help="micrometres per pixel, if the file does not say")
    parser.add_argument("--accept-licence", action="store_true", help="accept a restrictive licence for this run")
    parser.add_argument("--json", action="store_true", help="print the outcome as JSON")


def run(options: argparse.Namespace, console: Console) -> int:
    """Estimate the level, write the model with it."""
    from napari_nucleiseg.core.models.scale_attention import with_tau
    from napari_nucleiseg.core.models.weights import load_model, save_model
    from napari_nucleiseg.core.slides.registry import open_slide
    from napari_nucleiseg.core.training.scales.adaptation import tau_of_slide

    out = Path(options.out)
    if out.suffix != ".safetensors":
        raise WeightsError(f"{out} is no name for a weight file; let it end in .safetensors")
    check_target(out, inputs=(options.model, *options.paths))
    model = load_model(options.model, accept_licence=options.accept_licence)
    found = []
    for path in options.paths:
        with closing(open_slide(path, mpp_um=options.mpp)) as slide:
            found.append(tau_of_slide(model, slide, share=options.share, otsu=options.otsu))
    fitted = with_tau(model, sum(found) / len(found))
    save_model(out, fitted.network, fitted.spec, fitted.card, half=False)
    console.say(f"The level of attention is {sum(found) / len(found):.4f}. The weights are {out}")
    taus = {str(path): round(tau, 6) for path, tau in zip(options.paths, found, strict=True)}
    console.result({"weights": str(out), "version": fitted.version, "tau": taus})
    return OK

"""``napari-nucleiseg heads``: write what the attention heads of encoders look at, and rank them against nuclei."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from napari_nucleiseg.cli.console import OK, Console
from napari_nucleiseg.cli.segment import region_of

if TYPE_CHECKING:
    from napari_nucleiseg.core.attention.ranking import HeadScore
    from napari_nucleiseg.core.batch.heads import HeadsWritten

# Lines of a ranking that are printed; --json has all of them.
MOST_LINES = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.epilog = (
        "Writes the wished map, or without a head those of all heads, as channels of an OME-TIFF of float32 with the "
        "cells' size in micrometres, or as arrays (.npz). NaN is glass. Heads and layers are counted from 0. At most "
        "16 x 16 patches are looked at in one piece. Patches that the slide's project knows already are not computed "
        "again."
    )
    parser.add_argument("path", metavar="SLIDE", help="slide or picture")
    parser.add_argument("--out", required=True, metavar="FILE", help="file for the maps: .tif or .npz")
    parser.add_argument("--encoder", required=True, metavar="NAME", help="encoder of patches, or its file")
    parser.add_argument("--region-encoder", default="", metavar="NAME", help="encoder of regions, or its file")
    parser.add_argument("--accept-licence", action="store_true", help="accept a restrictive licence for this run")
    parser.add_argument(
        "--region",
        type=region_of,
        metavar="Y,X,H,W",
        help="this part, in full-resolution pixels (default: 16 x 16 patches where there is most tissue)",
    )
    parser.add_argument("--mpp", type=float, metavar="UM", help="micrometres per pixel, if the file does not say")
    parser.add_argument(
        "--level",
        choices=("patch", "region", "both"),
        default="patch",
        help="what is looked at in each patch, which patches, or both put together (default: patch)",
    )
    parser.add_argument("--head", metavar="HEAD", help="number, mean, max or rollout (default: all)")
    parser.add_argument("--layer", type=int, default=-1, metavar="N", help="layer; -1 is the last (default: -1)")
    parser.add_argument("--region-head", metavar="HEAD", help="the same of the encoder of regions (default: all)")
    parser.add_argument("--region-layer", type=int, default=-1, metavar="N", help="its layer (default: -1)")
    parser.add_argument(
        "--weight", type=float, default=0.5, metavar="P", help="of the region in both together, 0 to 1 (default: 0.5)"
    )
    parser.add_argument(
        "--values",
        choices=("percentile", "share", "raw"),
        default="percentile",
        help="ranks within each patch or region, shares of its attention, or as it is (default: percentile)",
    )
    parser.add_argument(
        "--averaged", type=int, default=1, metavar="N", help="average so many grids, each shifted a little (default: 1)"
    )
    parser.add_argument("--no-tissue-mask", action="store_true", help="also show and rank where there is only glass")
    parser.add_argument(
        "--rank", default="", metavar="PROJECT", help="rank all heads against the nuclei of this project"
    )
    parser.add_argument("--device", default="auto", help="auto, cuda, mps or cpu (default: auto)")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")


def run(options: argparse.Namespace, console: Console) -> int:
    """Look, write, say what happens, return the exit status."""
    from napari_nucleiseg.core.attention.shown import MapWish
    from napari_nucleiseg.core.batch.heads import HeadsAdvanced, HeadsJob, HeadsNoted, write_heads

    given = {"patch": options.head, "region": options.region_head, "both": options.head or options.region_head}
    wish = MapWish(
        options.level,
        head=options.head or "mean",
        layer=options.layer,
        region_head=options.region_head or "mean",
        region_layer=options.region_layer,
        weight=options.weight,
        scale=options.values,
    )
    job = HeadsJob(
        path=options.path,
        out=options.out,
        encoder=options.encoder,
        region_encoder=options.region_encoder,
        wish=wish,
        every_head=given[options.level] is None,
        region=options.region,
        averaged=options.averaged,
        rank=options.rank,
        mpp_um=options.mpp,
        tissue_only=not options.no_tissue_mask,
        accept_licence=options.accept_licence,
        device=options.device,
    )
    document: dict[str, Any] = {}
    with console.progress() as bars:
        for event in write_heads(job):
            if isinstance(event, HeadsNoted):
                bars.say(event.sentence)
            elif isinstance(event, HeadsAdvanced):
                bars.update("patches", event.done, event.total)
            else:
                document = _document(event)
                bars.say(_told(event))
                _tell_ranking(event.ranking, "Heads of patches against nuclei", console)
                _tell_ranking(event.region_ranking, "Heads of the region against where nuclei are dense", console)
    console.result(document)
    return OK


def _told(written: HeadsWritten) -> str:
    count = f"{len(written.maps)} maps" if len(written.maps) > 1 else f"map {written.maps[0]}"
    size = f"{written.rows} x {written.columns} cells of {written.token_um.y:.4g} x {written.token_um.x:.4g} µm"
    return f"{count} of {size}, {written.forwarded} patches computed, {written.output}"


def _document(written: HeadsWritten) -> dict[str, Any]:
    return {
        **asdict(written),
        "token_um": list(written.token_um),
        "ranking": [{**asdict(score), "gain": score.gain} for score in written.ranking],
        "region_ranking": [{**asdict(score), "gain": score.gain} for score in written.region_ranking],
    }


def _tell_ranking(ranking: tuple[HeadScore, ...], title: str, console: Console) -> None:
    if not ranking:
        return
    columns = ["layer", "head", "AUROC", "average precision", "attention on nuclei", "times chance"]
    rows = [
        [
            str(score.layer),
            str(score.head),
            f"{score.auroc:.3f}",
            f"{score.average_precision:.3f}",
            f"{score.attention.nuclei:.1%}",
            f"{score.gain:.2f}",
        ]
        for score in ranking[:MOST_LINES]
    ]
    console.table(title, columns, rows)

"""``napari-nucleiseg cluster``: part a region into clusters without labels, and take the nuclei among them."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from napari_nucleiseg.cli.console import OK, Console, ProgressBars
from napari_nucleiseg.cli.flags import add_flags, read_flags
from napari_nucleiseg.cli.segment import region_of
from napari_nucleiseg.core.training.clustering.config import PRESETS, ClusterConfig, load_cluster_config, preset

if TYPE_CHECKING:
    from napari_nucleiseg.core.batch.clustering import ClusteringWritten
    from napari_nucleiseg.core.training.clustering.fit import ClusterStep


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments: one flag for each field of the configuration, and where to."""
    parser.epilog = (
        "Writes NAME-clusters.tif (the number of each pixel's cluster), NAME-nuclei.tif, NAME-clusters.json and "
        "the fitted weights, which segment --model applies to other regions and slides. Look at the clusters, and "
        "choose others with --chosen where the proposed ones are not the nuclei: the same seed gives the same clusters."
    )
    parser.add_argument("path", metavar="PATH", help="slide or picture")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the results")
    parser.add_argument("--region", type=region_of, metavar="Y,X,H,W", help="only this part, in full-resolution pixels")
    parser.add_argument("--mpp", type=float, metavar="UM", help="micrometres per pixel, if the file does not say")
    parser.add_argument(
        "--chosen",
        type=int,
        action="append",
        default=[],
        metavar="N",
        help="cluster that is nuclei; may be given several times (default: those proposed, as marked in the table)",
    )
    parser.add_argument("--name", default="", metavar="TEXT", help="name of the model (default: NAME-clusters)")
    parser.add_argument("--licence", default="", metavar="SPDX", help="licence of the picture, for the model's card")
    parser.add_argument("--min-area", type=float, metavar="UM2", default=8.0, help="smallest nucleus (default: 8)")
    parser.add_argument("--preset", choices=tuple(PRESETS), default="default", help="settings to begin with")
    parser.add_argument("--config", metavar="JSON", help="file with any of the settings; flags override it")
    parser.add_argument("--json", action="store_true", help="print the outcome as JSON")
    add_flags(parser, ClusterConfig)


def run(options: argparse.Namespace, console: Console) -> int:
    """Cluster, show losses, say what was found and where it is."""
    base = load_cluster_config(options.config) if options.config else preset(options.preset)
    config = read_flags(options, base)

    from napari_nucleiseg.core.batch.clustering import ClusteringWritten, ClusterJob, cluster_region

    job = ClusterJob(
        path=options.path,
        out=options.out,
        region=options.region,
        mpp_um=options.mpp,
        chosen=tuple(dict.fromkeys(options.chosen)),
        name=options.name,
        licence=options.licence,
        min_area_um2=options.min_area,
    )
    document: dict[str, Any] = {}
    with console.progress() as bars:
        for event in cluster_region(job, config):
            if isinstance(event, ClusteringWritten):
                document = asdict(event)
                _tell(event, bars)
            else:
                _tell_step(event, bars)
    console.table("", ["cluster", "share", "haematoxylin", "darkness", "nuclei"], _rows(document))
    console.result(document)
    return OK


def _tell_step(step: ClusterStep, bars: ProgressBars) -> None:
    if step.result is None:
        terms = "  ".join(f"{name} {value:.3f}" for name, value in step.losses.items())
        bars.update("clustering", step.iteration, step.total, f"{step.clusters} clusters")
        bars.say(f"step {step.iteration:>3}  {step.clusters} clusters  {terms}")
    else:
        bars.say(f"kept: {step.clusters} clusters of step {step.iteration}")


def _tell(written: ClusteringWritten, bars: ProgressBars) -> None:
    where = ", ".join(written.outputs.values())
    bars.say(f"{written.nuclei:,} nuclei in cluster {', '.join(map(str, written.chosen))}; {where}")
    if "weights" not in written.outputs:
        bars.say("No weights were written: free offsets cannot be applied to other pictures. Use --offsets predicted.")


def _rows(document: dict[str, Any]) -> list[list[str]]:
    chosen = set(document["chosen"])
    return [
        [
            str(item["cluster"]),
            f"{item['share']:.1%}",
            f"{item['haematoxylin']:.3f}",
            f"{item['darkness']:.3f}",
            "yes" * (item["cluster"] in chosen),
        ]
        for item in document["clusters"]
    ]

"""``napari-nucleiseg features``: describe slides by what encoders make of their patches and regions."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from napari_nucleiseg.cli.console import Console, ProgressBars, failure_text, status_of_many

if TYPE_CHECKING:
    from napari_nucleiseg.core.batch.feature_job import FeatureEvent


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.epilog = (
        "Each slide gets a file NAME.features.safetensors in DIR: a row of features for each region of 16 x 16 patches "
        "that shows tissue, or for each patch where no --region-encoder is given. What an earlier run did with the "
        "same encoders is not done again. Learn from them with `napari-nucleiseg cohort train`."
    )
    parser.add_argument("paths", nargs="+", metavar="SLIDE", help="slide, picture, or folder of them")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the features")
    parser.add_argument("--encoder", required=True, metavar="NAME", help="encoder of patches, or its file")
    parser.add_argument("--region-encoder", default="", metavar="NAME", help="encoder of regions, or its file")
    parser.add_argument("--accept-licence", action="store_true", help="accept a restrictive licence for this run")
    parser.add_argument("--mpp", type=float, metavar="UM", help="micrometres per pixel, if the file does not say")
    parser.add_argument(
        "--patch-tissue", type=float, default=0.5, metavar="P", help="least tissue of a patch, 0 to 1 (default: 0.5)"
    )
    parser.add_argument(
        "--region-tissue",
        type=float,
        default=0.25,
        metavar="P",
        help="least share of a region's patches with tissue, 0 to 1 (default: 0.25)",
    )
    parser.add_argument("--no-tissue-mask", action="store_true", help="also describe where there is only glass")
    parser.add_argument("--device", default="auto", help="auto, cuda, mps or cpu (default: auto)")
    parser.add_argument("--readers", type=int, default=2, metavar="N", help="threads that read ahead (default: 2)")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")


def run(options: argparse.Namespace, console: Console) -> int:
    """Describe everything, say what happens, return the exit status."""
    from napari_nucleiseg.core.batch.feature_job import FeatureJob
    from napari_nucleiseg.core.batch.features import extract_features

    job = FeatureJob(
        paths=tuple(options.paths),
        out=options.out,
        encoder=options.encoder,
        region_encoder=options.region_encoder,
        accept_licence=options.accept_licence,
        mpp_um=options.mpp,
        patch_tissue=options.patch_tissue,
        region_tissue=options.region_tissue,
        tissue_mask=not options.no_tissue_mask,
        device=options.device,
        readers=options.readers,
    )
    results: list[dict[str, Any]] = []
    with console.progress() as bars:
        for event in extract_features(job):
            _take(event, bars, results)
    failed = sum(not result["ok"] for result in results)
    console.result({"slides": results, "done": len(results) - failed, "failed": failed})
    return status_of_many(len(results) - failed, failed)


def _take(event: FeatureEvent, bars: ProgressBars, results: list[dict[str, Any]]) -> None:
    from napari_nucleiseg.core.batch import feature_job, job

    match event:
        case job.SlideStarted():
            bars.update("slides", event.number - 1, event.total, event.path)
        case job.SlideAdvanced():
            bars.update("patches", event.done, event.total, event.stage)
        case job.SlideNoted():
            bars.say(f"{event.path}: {event.sentence}")
        case feature_job.FeaturesFinished():
            results.append({"ok": True, **asdict(event)})
            bars.remove("patches")
            what = event.level if event.count == 1 else {"region": "regions", "patch": "patches"}[event.level]
            how = "done before" if event.from_before else f"{event.seconds:.0f} s"
            bars.say(f"{event.path}: {event.count:,} {what}, {how}, {event.output}")
        case job.SlideFailed():
            results.append({"ok": False, "path": event.path, "error": event.reason, "kind": event.kind})
            bars.remove("patches")
            bars.say(failure_text(event.path, event.reason, event.kind))

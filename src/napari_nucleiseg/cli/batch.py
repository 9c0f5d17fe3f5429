"""``napari-nucleiseg batch``: work through whole cohorts unattended."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_nucleiseg.cli.console import Console, ProgressBars, failure_text, status_of_many
from napari_nucleiseg.core.exchange.formats import FORMATS
from napari_nucleiseg.core.models.spec import LEVELS, SLIDE_LEVEL

if TYPE_CHECKING:
    from napari_nucleiseg.core.batch.unattended.job import BatchEvent, BatchJob

_EPILOG = (
    "PATH is a slide, a folder of slides, or a manifest: a CSV file with a column path, and maybe mpp, name and "
    "others, which the summary shows. In DIR each slide gets a project NAME.nucleiseg, which napari opens, and its "
    "tables; summary.html shows all. The same command again does only what is missing, or stale because model, "
    "settings, slide or corrections have changed. Workers of a cluster must see slides and DIR under the same paths."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.epilog = _EPILOG
    parser.add_argument("paths", nargs="+", metavar="PATH", help="slide, folder of slides, or manifest (.csv)")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the results")
    parser.add_argument(
        "--format",
        action="append",
        choices=tuple(FORMATS),
        dest="formats",
        help="may be given several times (default: parquet)",
    )
    parser.add_argument("--no-measure", action="store_true", help="leave out measurements of each nucleus")
    parser.add_argument("--model", default="nuclei", metavar="NAME", help="model or weight file (default: nuclei)")
    parser.add_argument("--accept-licence", action="store_true", help="accept a restrictive licence for this run")
    parser.add_argument("--mpp", type=float, metavar="UM", help="micrometres per pixel, if the files do not say")
    parser.add_argument("--threshold", type=float, metavar="P", help="least probability of a nucleus' pixel, 0 to 1")
    parser.add_argument("--min-area", type=float, metavar="UM2", help="smallest nucleus, square micrometres")
    parser.add_argument("--thorough", action="store_true", help="look at every tile in eight positions")
    parser.add_argument("--ignore-brown", action="store_true", help="look for nuclei in the counterstain only")
    parser.add_argument("--no-tissue-mask", action="store_true", help="also compute where there is only glass")
    parser.add_argument(
        "--attention-level",
        choices=LEVELS,
        default=SLIDE_LEVEL,
        help=f"of models of attention: each slide's own level, or the model's (default: {SLIDE_LEVEL})",
    )
    encoding = parser.add_argument_group("encoders")
    encoding.add_argument("--encoder", default="", metavar="NAME", help="describe each slide by features of patches")
    encoding.add_argument("--region-encoder", default="", metavar="NAME", help="and of regions made of them")
    encoding.add_argument("--attention-maps", action="store_true", help="also write what the heads look at")
    _add_places(parser.add_argument_group("where it is done"))
    parser.add_argument("--json", action="store_true", help="print the results as JSON")


def _add_places(places: Any) -> None:
    places.add_argument("--device", default="auto", help="auto, cuda, mps or cpu (default: auto)")
    places.add_argument("--devices", nargs="+", default=(), metavar="GPU", help="GPUs that workers take in turn")
    places.add_argument("--batch-size", type=int, metavar="N", help="tiles computed together")
    places.add_argument("--workers", type=int, default=0, metavar="N", help="processes (default: what suits)")
    places.add_argument("--threads", type=int, default=1, metavar="N", help="threads of each (default: 1)")
    places.add_argument(
        "--engine", choices=("local", "dask"), help="processes of this machine, or dask.distributed (default: local)"
    )
    places.add_argument("--scheduler", default="", metavar="ADDRESS", help="a running dask scheduler, tcp://host:8786")
    places.add_argument("--jobqueue", default="", metavar="SYSTEM", help="batch system to ask for workers, e.g. slurm")


def run(options: argparse.Namespace, console: Console) -> int:
    """Work through everything, say what happens, return the exit status."""
    from napari_nucleiseg.core.batch.unattended.run import run_batch

    outcome = _Outcome()
    with console.progress() as bars:
        for event in run_batch(job_of(options)):
            outcome.take(event, bars)
    console.say(outcome.told())
    console.result(outcome.document())
    return outcome.status()


def job_of(options: argparse.Namespace) -> BatchJob:
    """Return the job that a command line describes."""
    from napari_nucleiseg.core.batch.unattended.job import DASK, LOCAL, BatchJob

    far = bool(options.scheduler or options.jobqueue)
    return BatchJob(
        paths=tuple(options.paths),
        out=options.out,
        formats=tuple(dict.fromkeys(options.formats or ("parquet",))),
        measure=not options.no_measure,
        model=options.model,
        accept_licence=options.accept_licence,
        mpp_um=options.mpp,
        threshold=options.threshold,
        min_area_um2=options.min_area,
        tissue_mask=not options.no_tissue_mask,
        thorough=options.thorough,
        ignore_brown=options.ignore_brown,
        attention_level=options.attention_level,
        encoder=options.encoder,
        region_encoder=options.region_encoder,
        attention_maps=options.attention_maps,
        device=options.device,
        devices=tuple(options.devices),
        batch_size=options.batch_size,
        engine=options.engine or (DASK if far else LOCAL),
        workers=options.workers,
        threads=options.threads,
        scheduler=options.scheduler,
        jobqueue=options.jobqueue,
    )


class _Outcome:
    """Turns events into progress and, in the end, into a result."""

    def __init__(self) -> None:
        self._results: list[dict[str, Any]] = []
        self._finished: dict[str, Any] = {}

    def take(self, event: BatchEvent, bars: ProgressBars) -> None:
        from napari_nucleiseg.core.batch import job as told
        from napari_nucleiseg.core.batch.unattended import job

        match event:
            case job.BatchAdvanced():
                over = event.slides_done + event.slides_failed
                bars.update("slides", over, event.slides, event.engine)
            case told.SlideAdvanced():
                bars.update(Path(event.path).name, event.done, event.total, event.stage)
            case told.SlideNoted():
                bars.say(f"{event.path}: {event.sentence}")
            case told.SlideFailed():
                bars.remove(Path(event.path).name)
                bars.say(failure_text(event.path, event.reason, event.kind))
                self._results.append({"slide": event.path, "error": event.reason})
            case job.SlideDone():
                bars.remove(Path(event.path).name)
                before = " (done before)" if event.from_before else ""
                bars.say(f"{event.path}: {event.nuclei:,} nuclei{before}")
                self._results.append(
                    {
                        "slide": event.path,
                        "nuclei": event.nuclei,
                        "outputs": list(event.outputs),
                        "tiles left out": event.skipped_tiles,
                        "seconds": round(event.seconds, 1),
                        "done before": event.from_before,
                    }
                )
            case job.BatchFinished():
                self._finished = {
                    "page": event.page,
                    "done": event.done,
                    "failed": event.failed,
                    "left": event.left,
                    "nuclei": event.nuclei,
                    "seconds": round(event.seconds, 1),
                }
            case _:
                pass

    def told(self) -> str:
        """Return the last sentence."""
        end = self._finished
        failed = f", {end['failed']} failed" if end["failed"] else ""
        return f"{end['done']} slides done{failed}; {end['nuclei']:,} nuclei. Summary: {end['page']}"

    def document(self) -> dict[str, Any]:
        """Return everything for JSON."""
        return {**self._finished, "slides": self._results}

    def status(self) -> int:
        """Return the exit status."""
        return status_of_many(self._finished["done"], self._finished["failed"])

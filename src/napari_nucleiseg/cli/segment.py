"""``napari-nucleiseg segment``: find the nuclei of slides and pictures."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from napari_nucleiseg.cli.console import Console, ProgressBars, failure_text, status_of_many
from napari_nucleiseg.core.exchange.formats import FORMATS
from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.models.spec import LEVELS, SLIDE_LEVEL

if TYPE_CHECKING:
    from napari_nucleiseg.core.batch.job import Event


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.epilog = (
        "A whole slide gets a project folder NAME.nucleiseg in DIR, which an interrupted run goes on with; where DIR "
        "is the slide's own folder, napari shows it with the slide. A plain picture gets a label TIFF NAME.tif. "
        "--format adds to the one and replaces the other."
    )
    parser.add_argument("paths", nargs="+", metavar="PATH", help="slide, picture, or folder of them")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for the results")
    parser.add_argument(
        "--format",
        action="append",
        choices=tuple(FORMATS),
        default=[],
        dest="formats",
        help="may be given several times",
    )
    parser.add_argument("--model", default="nuclei", metavar="NAME", help="model or weight file (default: nuclei)")
    parser.add_argument("--accept-licence", action="store_true", help="accept a restrictive licence for this run")
    parser.add_argument("--region", type=region_of, metavar="Y,X,H,W", help="only this part, in full-resolution pixels")
    parser.add_argument("--mpp", type=float, metavar="UM", help="micrometres per pixel, if the file does not say")
    parser.add_argument("--threshold", type=float, metavar="P", help="least probability of a nucleus' pixel, 0 to 1")
    parser.add_argument("--min-area", type=float, metavar="UM2", help="smallest nucleus, square micrometres")
    parser.add_argument(
        "--thorough",
        action="store_true",
        help="look at every tile in eight positions: a little better, eight times as long",
    )
    parser.add_argument(
        "--ignore-brown",
        action="store_true",
        help="for immunostains of membranes or cytoplasm: look for nuclei in the counterstain only",
    )
    parser.add_argument("--no-tissue-mask", action="store_true", help="also compute where there is only glass")
    parser.add_argument(
        "--attention-level",
        choices=LEVELS,
        default=SLIDE_LEVEL,
        help="of models of attention: what is a nucleus is decided by each slide's own level, or by the model's "
        f"(default: {SLIDE_LEVEL})",
    )
    parser.add_argument("--device", default="auto", help="auto, cuda, mps or cpu (default: auto)")
    parser.add_argument("--batch-size", type=int, metavar="N", help="tiles computed together")
    parser.add_argument("--keep-maps", action="store_true", help="keep probability maps in the project")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")


def region_of(text: str) -> Region:
    """Read ``y,x,height,width`` of the command line."""
    try:
        y, x, height, width = (int(part) for part in text.split(","))
        return Region(y, x, height, width)
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{text} is no region; give four whole numbers y,x,height,width, such as 2000,1000,512,512"
        ) from error


def run(options: argparse.Namespace, console: Console) -> int:
    """Segment everything, say what happens, return the exit status."""
    from napari_nucleiseg.core.batch.job import SegmentJob
    from napari_nucleiseg.core.batch.segmentation import segment_slides

    job = SegmentJob(
        paths=tuple(options.paths),
        out=options.out,
        formats=tuple(dict.fromkeys(options.formats)),
        model=options.model,
        accept_licence=options.accept_licence,
        region=options.region,
        mpp_um=options.mpp,
        threshold=options.threshold,
        min_area_um2=options.min_area,
        tissue_mask=not options.no_tissue_mask,
        thorough=options.thorough,
        ignore_brown=options.ignore_brown,
        device=options.device,
        batch_size=options.batch_size,
        keep_maps=options.keep_maps,
        attention_level=options.attention_level,
    )
    outcome = _Outcome()
    with console.progress() as bars:
        for event in segment_slides(job):
            outcome.take(event, bars)
    console.result(outcome.document())
    return outcome.status()


class _Outcome:
    """Turns events into progress and, in the end, into a result."""

    def __init__(self) -> None:
        self._results: list[dict[str, Any]] = []
        self._failed = 0
        self._notes: list[str] = []

    def take(self, event: Event, bars: ProgressBars) -> None:
        from napari_nucleiseg.core.batch import job

        match event:
            case job.SlideStarted():
                self._notes = []
                bars.update("slides", event.number - 1, event.total, event.path)
            case job.SlideAdvanced():
                bars.update("tiles", event.done, event.total, _doing(event))
            case job.SlideNoted():
                self._notes.append(event.sentence)
                bars.say(f"{event.path}: {event.sentence}")
            case job.SlideFinished():
                self._results.append({"ok": True, **asdict(event), "notes": self._notes})
                bars.remove("tiles")
                bars.say(_told(event))
            case job.SlideFailed():
                self._failed += 1
                self._results.append({"ok": False, "path": event.path, "error": event.reason, "kind": event.kind})
                bars.remove("tiles")
                bars.say(failure_text(event.path, event.reason, event.kind))

    def document(self) -> dict[str, Any]:
        return {"slides": self._results, "done": len(self._results) - self._failed, "failed": self._failed}

    def status(self) -> int:
        return status_of_many(len(self._results) - self._failed, self._failed)


def _doing(event: Any) -> str:
    return f"{event.stage}, {event.nuclei:,} nuclei" if event.nuclei else str(event.stage)


def _told(event: Any) -> str:
    where = ", ".join(event.outputs)
    if event.from_before:
        return f"{event.path}: done before, {event.nuclei:,} nuclei in {where}"
    some = (
        "1 tile could not be read and is"
        if event.skipped_tiles == 1
        else f"{event.skipped_tiles} tiles could not be read and are"
    )
    left = f"; {some} tried again next time" * bool(event.skipped_tiles)
    return f"{event.path}: {event.nuclei:,} nuclei in {event.seconds:.0f} s, {where}{left}"

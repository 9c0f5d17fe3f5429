"""``napari-nucleiseg teach-head``: teach one head of attention with paint, and keep the new encoder as a file."""

from __future__ import annotations

import argparse
from contextlib import closing
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from napari_nucleiseg.cli.console import OK, PARTLY, Console, ProgressBars
from napari_nucleiseg.cli.flags import add_flags, read_flags
from napari_nucleiseg.core.errors import DataError
from napari_nucleiseg.core.teaching.heads.config import HeadTeachConfig
from napari_nucleiseg.core.training.fields import load_fields

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from napari_nucleiseg.core.models.encoders import LoadedEncoder
    from napari_nucleiseg.core.teaching.heads.measure import HeadScores
    from napari_nucleiseg.core.teaching.heads.painted import PaintedPatch
    from napari_nucleiseg.core.teaching.heads.teach import HeadStep
    from napari_nucleiseg.core.teaching.heads.verdict import HeadOutcome
    from napari_nucleiseg.core.teaching.versions import Version

_UNSAID = -1  # no head has this number


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments: its own, and one flag for each field of the configuration."""
    parser.epilog = (
        "Exit status 0: the new encoder is adopted (or taken anyway); 3: it was taught, but the guard refused it, and "
        "the former one stays. The new encoder is a file of its own in either case, and the former one is never "
        "changed: to go back, choose it again."
    )
    parser.add_argument(
        "projects", nargs="+", metavar="PROJECT", help="folder with the results of a slide (NAME.nucleiseg), or a slide"
    )
    parser.add_argument("--encoder", required=True, metavar="NAME", help="encoder of patches, by name or weight file")
    parser.add_argument(
        "--slide", action="append", default=[], metavar="PATH", help="slide that does not lie beside its project"
    )
    parser.add_argument("--accept-licence", action="store_true", help="accept a restrictive licence for this run")
    parser.add_argument("--name", default="", metavar="NAME", help="of the new encoder (default: numbered)")
    parser.add_argument("--title", default="", metavar="TEXT", help="one line about the new encoder")
    parser.add_argument("--take-anyway", action="store_true", help="use the new encoder even if the guard refuses it")
    parser.add_argument("--config", metavar="JSON", help="file with any of the fields below; flags override it")
    parser.add_argument("--json", action="store_true", help="print the outcome as JSON")
    add_flags(parser, HeadTeachConfig)


def run(options: argparse.Namespace, console: Console) -> int:
    """Teach, show how it goes, keep what came of it and say whether it is used."""
    base = HeadTeachConfig(head=_UNSAID)
    if options.config:
        base = load_fields(HeadTeachConfig, options.config, "a lesson for a head", base)
    config = read_flags(options, base)
    if config.head == _UNSAID:
        raise DataError("say which head is to learn: --head N, counted from 0")

    from napari_nucleiseg.core.models.encoders import load_encoder
    from napari_nucleiseg.core.teaching.heads.versions import check_encoder_name

    if options.name:
        check_encoder_name(options.name)
    encoder = load_encoder(options.encoder, accept_licence=options.accept_licence)
    if problem := config.validation_error(encoder.spec):
        raise DataError(problem)
    patches, others = _read_paint(options, encoder, config.seed, console)
    try:
        outcome, version = _teach(options, encoder, (patches, others), config, console)
    except KeyboardInterrupt:
        console.say(f"Stopped. Nothing is kept, and {encoder.card.name} stays as it was.")
        raise
    taken = options.take_anyway and not outcome.adopted
    _tell(outcome, version, taken, encoder, console)
    console.result({**_document(outcome, version), "taken_anyway": taken, "former": encoder.card.version})
    return OK if outcome.adopted or taken else PARTLY


def _read_paint(
    options: argparse.Namespace, encoder: LoadedEncoder, seed: int, console: Console
) -> tuple[list[PaintedPatch], NDArray[np.uint8]]:
    """Read what is painted in each project, and patches without paint; the projects are only looked at."""
    import numpy as np

    from napari_nucleiseg.cli.project import projects_with_slides
    from napari_nucleiseg.core.teaching.heads.painted import collect_painted, collect_unpainted

    patches: list[PaintedPatch] = []
    others: list[NDArray[np.uint8]] = []
    with closing(projects_with_slides(options.projects, options.slide, console)) as given:
        for path, project, slide, bars in given:
            found = collect_painted(project, slide, encoder.spec)
            if found:
                others.append(collect_unpainted(project, slide, encoder.spec, seed=seed))
            else:
                bars.say(f"{path} is left out: nothing is painted on it.")
            patches += found
    side = encoder.spec.input_px
    return patches, np.concatenate([np.zeros((0, side, side, 3), np.uint8), *others])


def _teach(
    options: argparse.Namespace,
    encoder: LoadedEncoder,
    paint: tuple[list[PaintedPatch], NDArray[np.uint8]],
    config: HeadTeachConfig,
    console: Console,
) -> tuple[HeadOutcome, Version]:
    """Go through all steps and keep what came of them."""
    from napari_nucleiseg.core.teaching.heads.teach import teach_head
    from napari_nucleiseg.core.teaching.heads.versions import keep_head, take_head_anyway

    with console.progress() as bars:
        for step in teach_head(encoder, *paint, config):
            _tell_step(step, bars)
            if step.outcome is not None:
                version = keep_head(step.outcome, name=options.name, title=options.title)
                if options.take_anyway and not step.outcome.adopted:
                    version = take_head_anyway(version)
                return step.outcome, version
    raise RuntimeError("the lesson ended without an outcome")


def _tell_step(step: HeadStep, bars: ProgressBars) -> None:
    if step.note:
        bars.say(step.note)
    if step.outcome is not None:
        return
    if not step.run:
        bars.say(f"before: {_scores(step.measured)}")
        return
    bars.update("teaching", step.step, step.total, f"{step.run}, loss {step.loss:.4f}")
    if step.measured is not None and step.drift is not None:
        bars.say(
            f"step {step.step:>4} of {step.total}, {step.run}: loss {step.loss:.4f}  held out "
            f"{_scores(step.measured)}  features changed by {step.drift.change:.1%}"
        )


def _scores(scores: HeadScores | None) -> str:
    return "" if scores is None else f"score {scores.score:.3f}  AUROC {scores.auroc:.3f}"


def _tell(outcome: HeadOutcome, version: Version, taken: bool, former: LoadedEncoder, console: Console) -> None:
    verdict = "Adopted" if outcome.adopted else "Refused"
    console.text(f"{verdict}. {outcome.reason}")
    drift = outcome.drift
    console.text(
        f"On {drift.patches} patches that nothing was learnt from, features turned by {drift.cosine:.4f} (1 less the "
        f"cosine) and changed by {drift.change:.1%} of what tells patches apart; other heads moved {drift.heads:.1%} "
        "of their attention."
    )
    if outcome.adopted or taken:
        how = "Taken anyway, as you asked: the" if taken else "The"
        console.text(f"{how} new encoder is {version.name}, {version.path}. To go back, use {former.card.name} again.")
    else:
        console.text(
            f"{former.card.name} stays. The new one is kept apart as {version.name}, {version.path}; it can be used by "
            "that path all the same."
        )


def _document(outcome: HeadOutcome, version: Version) -> dict[str, Any]:
    return {
        "adopted": outcome.adopted,
        "reason": outcome.reason,
        "judged": outcome.told,
        "before": outcome.before.as_dict(),
        "after": outcome.after.as_dict(),
        "gain": asdict(outcome.gain),
        "drift": outcome.drift.as_dict(),
        "steps": outcome.steps,
        "patches": outcome.patches,
        "places": outcome.places,
        "name": version.name,
        "title": version.title,
        "version": version.card.version,
        "licence": version.card.licence,
        "weights": str(version.path),
    }

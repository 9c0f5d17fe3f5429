"""``napari-nucleiseg finetune``: teach a model with what people corrected, and keep the new one beside the former."""

from __future__ import annotations

import argparse
from contextlib import closing, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_nucleiseg.cli.console import OK, PARTLY, Console, ProgressBars
from napari_nucleiseg.cli.flags import add_flags, read_flags
from napari_nucleiseg.cli.training_progress import RecentLoss
from napari_nucleiseg.core.errors import SlideError
from napari_nucleiseg.core.models.spec import LEVELS, SLIDE_LEVEL
from napari_nucleiseg.core.teaching.config import FinetuneConfig
from napari_nucleiseg.core.training.fields import load_fields

if TYPE_CHECKING:
    from napari_nucleiseg.core.models.weights import LoadedModel
    from napari_nucleiseg.core.teaching.collect import Lesson
    from napari_nucleiseg.core.teaching.finetune import Step
    from napari_nucleiseg.core.teaching.verdict import Outcome
    from napari_nucleiseg.core.teaching.versions import Version

_SMOOTHED_OVER = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments: its own, and one flag for each field of the configuration."""
    parser.epilog = (
        "Exit status 0: the new model is adopted (or taken anyway); 3: it was taught, but the guard refused it, and "
        "the former model stays. The new model is kept as a file of its own in either case; see 'napari-nucleiseg "
        "models tree'. Interrupted, the same command goes on from where it was."
    )
    parser.add_argument(
        "projects", nargs="+", metavar="PROJECT", help="folder with the results of a slide (NAME.nucleiseg), or a slide"
    )
    parser.add_argument("--model", default="nuclei", metavar="NAME", help="model or weight file (default: nuclei)")
    parser.add_argument(
        "--slide", action="append", default=[], metavar="PATH", help="slide that does not lie beside its project"
    )
    parser.add_argument("--accept-licence", action="store_true", help="accept a restrictive licence for this run")
    parser.add_argument(
        "--attention-level",
        choices=LEVELS,
        default=SLIDE_LEVEL,
        help=f"at which a model of attention is taught: that of the slides, or its own (default: {SLIDE_LEVEL})",
    )
    parser.add_argument("--name", default="", metavar="NAME", help="of the new model (default: numbered, as nuclei-2)")
    parser.add_argument("--title", default="", metavar="TEXT", help="one line about the new model")
    parser.add_argument("--take-anyway", action="store_true", help="use the new model even if the guard refuses it")
    parser.add_argument("--no-prefer", action="store_true", help="do not let the new model open by default")
    parser.add_argument("--config", metavar="JSON", help="file with any of the fields below; flags override it")
    parser.add_argument("--json", action="store_true", help="print the outcome as JSON")
    add_flags(parser, FinetuneConfig)


def run(options: argparse.Namespace, console: Console) -> int:
    """Teach, show how it goes, keep what came of it and say whether it is used."""
    base = load_fields(FinetuneConfig, options.config, "a fine-tune") if options.config else FinetuneConfig()
    config = read_flags(options, base)

    from napari_nucleiseg.core.models.weights import load_model
    from napari_nucleiseg.core.teaching.names import check_name

    if options.name:
        check_name(options.name)
    model = load_model(options.model, accept_licence=options.accept_licence)
    model, lesson = _read_lessons(options, model, config.seed, console)
    for sentence in lesson.left_out:
        console.say(sentence)
    try:
        outcome, version = _teach(options, model, lesson, config, console)
    except KeyboardInterrupt:
        console.say(f"Stopped. {model.card.name} stays as it was.")
        raise
    taken = options.take_anyway and not outcome.adopted
    in_use = outcome.adopted or taken
    _tell(outcome, version, taken, console)
    if in_use and not options.no_prefer:
        _prefer(version, model, console)
    console.result({**_document(outcome, version), "taken_anyway": taken, "former": model.card.version})
    return OK if in_use else PARTLY


def _read_lessons(
    options: argparse.Namespace, model: LoadedModel, seed: int, console: Console
) -> tuple[LoadedModel, Lesson]:
    """Read what each project holds to learn from; the projects are only looked at.

    A model of attention is taught at the level of the slides that teach it: so people have seen it.
    """
    from napari_nucleiseg.cli.project import projects_with_slides
    from napari_nucleiseg.core.teaching.collect import Lesson, lesson_of
    from napari_nucleiseg.core.training.scales.slide_level import level_of_slide, model_between

    lesson, taus, used = Lesson(()), list[float](), set[Path]()
    with closing(projects_with_slides(options.projects, options.slide, console)) as found:
        for _path, project, slide, _bars in found:
            used.add(Path(slide.path).absolute())
            one = lesson_of(project, slide, model.spec, seed)
            tau = level_of_slide(model, slide, options.attention_level, project) if one.examples else None
            taus += [] if tau is None else [tau]
            lesson += one
    if foreign := [path for path in options.slide if Path(path).absolute() not in used]:
        raise SlideError(f"{', '.join(foreign)} belongs to none of these projects. Check --slide.")
    return model_between(model, taus), lesson


def _teach(
    options: argparse.Namespace, model: LoadedModel, lesson: Lesson, config: FinetuneConfig, console: Console
) -> tuple[Outcome, Version]:
    """Go through all steps; keep the outcome before the notes about the way to it are dropped."""
    from napari_nucleiseg.core.teaching.finetune import finetune
    from napari_nucleiseg.core.teaching.notebook import notes_folder
    from napari_nucleiseg.core.teaching.versions import keep, take_anyway

    folder = notes_folder(model, lesson)
    recent = RecentLoss(_SMOOTHED_OVER)
    found: tuple[Outcome, Version] | None = None
    with console.progress() as bars:
        for step in finetune(model, lesson, config, folder):
            _tell_step(step, recent, bars)
            if step.outcome is not None:
                version = keep(step.outcome, name=options.name, title=options.title)
                if options.take_anyway and not step.outcome.adopted:
                    version = take_anyway(version)
                found = step.outcome, version
    with suppress(OSError):
        folder.rmdir()
    if found is None:
        raise RuntimeError("the fine-tune ended without an outcome")
    return found


def _tell_step(step: Step, recent: RecentLoss, bars: ProgressBars) -> None:
    if step.note:
        bars.say(step.note)
    if step.outcome is not None:
        return
    measured = step.measured
    scores = "" if measured is None else f"AJI {measured.aji:.3f}  PQ {measured.pq:.3f}"
    if not step.run:
        bars.say(f"before: {scores}" * bool(scores))
        return
    loss = recent.after(step.loss)
    bars.update("teaching", step.step, step.total, f"{step.run}, {loss}")
    if scores:
        bars.say(f"step {step.step:>4} of {step.total}, {step.run}: {loss}  held out {scores}")


def _tell(outcome: Outcome, version: Version, taken: bool, console: Console) -> None:
    verdict = "Adopted" if outcome.adopted else "Refused"
    console.text(f"{verdict}. {outcome.reason}")
    if taken:
        console.text(f"Taken anyway, as you asked: {version.name}, {version.path}")
    elif outcome.adopted:
        console.text(f"The new model is {version.name}, {version.path}")
    else:
        console.text(
            f"The former model stays. The new one is kept apart as {version.name}, {version.path}; to use it all the "
            f"same: napari-nucleiseg models take {version.name}"
        )


def _prefer(version: Version, former: LoadedModel, console: Console) -> None:
    from napari_nucleiseg.core.teaching.versions import all_versions, prefer

    prefer(version)
    names = [one.name for one in all_versions() if one.card.version == former.card.version]
    back = f" To go back: napari-nucleiseg models prefer {names[0]}" if names else ""
    console.say(f"{version.name} opens by default from now on.{back}")


def _document(outcome: Outcome, version: Version) -> dict[str, Any]:
    return {
        "adopted": outcome.adopted,
        "reason": outcome.reason,
        "judged": outcome.told,
        "before": outcome.before.as_dict(),
        "after": outcome.after.as_dict(),
        "gain": asdict(outcome.gain),
        "kept": outcome.kept,
        "steps": outcome.steps,
        "seconds": version.card.taught.get("seconds"),
        "left_out": list(outcome.left_out),
        "name": version.name,
        "title": version.title,
        "version": version.card.version,
        "licence": version.card.licence,
        "weights": str(version.path),
    }

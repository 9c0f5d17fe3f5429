"""``napari-nucleiseg finetune``: teach a model with what people corrected, and keep the new one beside the former."""

from __future__ import annotations

import argparse
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from napari_nucleiseg.cli.console import OK, PARTLY, Console
from napari_nucleiseg.cli.flags import add_flags, read_flags
from napari_nucleiseg.cli.teaching_progress import document_of, kept_outcome, open_by_default, tell_verdict
from napari_nucleiseg.core.errors import SlideError
from napari_nucleiseg.core.models.spec import LEVELS, SLIDE_LEVEL
from napari_nucleiseg.core.teaching.config import FinetuneConfig
from napari_nucleiseg.core.training.fields import load_fields

if TYPE_CHECKING:
    from napari_nucleiseg.core.models.weights import LoadedModel
    from napari_nucleiseg.core.teaching.collect import Lesson
    from napari_nucleiseg.core.teaching.verdict import Outcome
    from napari_nucleiseg.core.teaching.versions import Version


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
    tell_verdict(outcome, version, taken, console)
    if in_use and not options.no_prefer:
        open_by_default(version, model, console)
    console.result({**document_of(outcome, version), "taken_anyway": taken, "former": model.card.version})
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
    from napari_nucleiseg.core.teaching.finetune import finetune
    from napari_nucleiseg.core.teaching.notebook import notes_folder

    folder = notes_folder(model, lesson)
    steps = finetune(model, lesson, config, folder)
    found = kept_outcome(steps, console, name=options.name, title=options.title, anyway=options.take_anyway)
    with suppress(OSError):
        folder.rmdir()
    return found

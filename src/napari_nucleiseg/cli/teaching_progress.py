"""How teaching shows on the command line: each step, the verdict, and the document of what came of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from napari_nucleiseg.cli.training_progress import RecentLoss

if TYPE_CHECKING:
    from napari_nucleiseg.cli.console import Console, ProgressBars
    from napari_nucleiseg.core.models.weights import LoadedModel
    from napari_nucleiseg.core.teaching.finetune import Step
    from napari_nucleiseg.core.teaching.verdict import Outcome
    from napari_nucleiseg.core.teaching.versions import Version

_SMOOTHED_OVER = 10


def kept_outcome(
    steps: Iterable[Step], console: Console, *, name: str = "", title: str = "", anyway: bool = False
) -> tuple[Outcome, Version]:
    """Go through all steps and show them; keep the outcome before the notes about the way to it are dropped.

    Parameters
    ----------
    steps : iterable of Step
        Of a fine-tune.
    console : Console
        Shows them.
    name, title : str
        Of the new version.
    anyway : bool
        Whether it is taken also if the guard refuses it.
    """
    from napari_nucleiseg.core.teaching.versions import keep, take_anyway

    recent = RecentLoss(_SMOOTHED_OVER)
    found: tuple[Outcome, Version] | None = None
    with console.progress() as bars:
        for step in steps:
            _tell_step(step, recent, bars)
            if step.outcome is not None:
                version = keep(step.outcome, name=name, title=title)
                if anyway and not step.outcome.adopted:
                    version = take_anyway(version)
                found = step.outcome, version
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


def tell_verdict(outcome: Outcome, version: Version, taken: bool, console: Console) -> None:
    """Say whether the new model is used, why, and where it is."""
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


def open_by_default(version: Version, former: LoadedModel, console: Console) -> None:
    """Let a version open by default from now on, and say how to go back."""
    from napari_nucleiseg.core.teaching.versions import all_versions, prefer

    prefer(version)
    names = [one.name for one in all_versions() if one.card.version == former.card.version]
    back = f" To go back: napari-nucleiseg models prefer {names[0]}" if names else ""
    console.say(f"{version.name} opens by default from now on.{back}")


def document_of(outcome: Outcome, version: Version) -> dict[str, Any]:
    """Return what came of it, for ``--json``."""
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

"""What pretraining of encoders shows while it runs, and what it says at its end."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from napari_nucleiseg.cli.console import Console, ProgressBars
from napari_nucleiseg.cli.training_progress import RecentLoss, nothing_left

if TYPE_CHECKING:
    from napari_nucleiseg.core.training.view_config import ViewConfig


class Step(Protocol):
    """What a step of such a run reports."""

    @property
    def step(self) -> int:
        """Steps done."""

    @property
    def total(self) -> int:
        """Steps of the run."""

    @property
    def loss(self) -> float:
        """Of this step."""

    @property
    def parts(self) -> dict[str, float]:
        """What it is made of, and what else was measured."""

    @property
    def held_out(self) -> dict[str, float] | None:
        """The same on slides that were held out."""


def show_pretraining(
    steps: Iterable[Step], config: ViewConfig, console: Console, *, weights: Path, done: str, facts: dict[str, Any]
) -> None:
    """Run through the steps, show what they report, say where the weights are.

    Parameters
    ----------
    steps : iterable of Step
        The run.
    config : ViewConfig
        What was asked for.
    console : Console
        Where it is shown.
    weights : Path
        The weight file.
    done : str
        What to say at the end of a run.
    facts : dict
        Put into the result beside the weights, the steps and the last measurement.
    """
    recent = RecentLoss()
    step: Step | None = None
    with console.progress() as bars:
        for step in steps:
            bars.update("pretraining", step.step, step.total, recent.after(step.loss))
            if step.step % config.measure_every == 0 or step.step == step.total:
                _tell(step, bars)
    console.say(nothing_left(config.out, config.steps, weights) if step is None else done)
    measured = None if step is None else {"loss": step.loss, **step.parts, "held_out": step.held_out}
    console.result({"weights": str(weights), **facts, "steps": config.steps, "last": measured})


def _tell(step: Step, bars: ProgressBars) -> None:
    own = "  ".join(f"{name} {value:.3f}" for name, value in step.parts.items())
    held = "  ".join(f"{name} {value:.3f}" for name, value in (step.held_out or {}).items())
    bars.say(f"step {step.step:>6} of {step.total}  loss {step.loss:.4f}  {own}{'  held out: ' * bool(held)}{held}")

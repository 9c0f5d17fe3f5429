"""How a training is shown in a shell, with labels or without: losses, measurements, where the weights are."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_nucleiseg.cli.console import Console, ProgressBars

if TYPE_CHECKING:
    from napari_nucleiseg.core.training.config import TrainConfig
    from napari_nucleiseg.core.training.loop import TrainStep
    from napari_nucleiseg.core.training.scales.config import ScaleConfig
    from napari_nucleiseg.core.training.scales.loop import PretrainStep

_SMOOTHED_OVER = 50


def show_training(
    steps: Iterable[TrainStep | PretrainStep], config: TrainConfig | ScaleConfig, console: Console, doing: str
) -> None:
    """Run through the steps of a training, show what they report, and say where the weights are."""
    best: dict[str, Any] = {}
    step: TrainStep | PretrainStep | None = None
    losses: deque[float] = deque(maxlen=_SMOOTHED_OVER)
    with console.progress() as bars:
        for step in steps:
            losses.append(step.loss)
            if note := getattr(step, "note", ""):
                bars.say(note)
            bars.update(doing, step.step, step.total, f"loss {sum(losses) / len(losses):.4f}")
            if step.validation is not None:
                _tell_validation(step, bars)
            if step.is_best:
                best = {"step": step.step, "validation": step.validation}
    weights = Path(config.out) / "best.safetensors"
    if step is None:
        console.say(f"Nothing left to do: {config.out} holds all {config.steps} steps. Its weights are {weights}")
    else:
        console.say(f"Done. The best weights are {weights}")
    console.result({"weights": str(weights), "steps": config.steps, "best": best or None})


def _tell_validation(step: TrainStep | PretrainStep, bars: ProgressBars) -> None:
    scores = "  ".join(f"{name} {value:.3f}" for name, value in (step.validation or {}).items())
    bars.say(f"step {step.step:>6} of {step.total}  loss {step.loss:.4f}  {scores}{'  best so far' * step.is_best}")

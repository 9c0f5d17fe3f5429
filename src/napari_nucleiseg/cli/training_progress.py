"""How a training is shown in a shell, with labels or without: losses, measurements, where the weights are."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_nucleiseg.cli.console import Console, ProgressBars

if TYPE_CHECKING:
    from napari_nucleiseg.core.training.by_shape.config import ByShapeConfig
    from napari_nucleiseg.core.training.config import TrainConfig
    from napari_nucleiseg.core.training.loop import TrainStep
    from napari_nucleiseg.core.training.scales.config import ScaleConfig
    from napari_nucleiseg.core.training.scales.loop import PretrainStep


class RecentLoss:
    """The mean loss of the last steps: that of a single one says little.

    Parameters
    ----------
    most : int
        How many steps.
    """

    def __init__(self, most: int = 50) -> None:
        self._losses: deque[float] = deque(maxlen=most)

    def after(self, loss: float) -> str:
        """Return it in words, the loss of one more step included."""
        self._losses.append(loss)
        return f"loss {sum(self._losses) / len(self._losses):.4f}"


def show_training(
    steps: Iterable[TrainStep | PretrainStep],
    config: TrainConfig | ScaleConfig | ByShapeConfig,
    console: Console,
    doing: str,
) -> None:
    """Run through the steps of a training, show what they report, and say where the weights are."""
    best: dict[str, Any] = {}
    step: TrainStep | PretrainStep | None = None
    recent = RecentLoss()
    with console.progress() as bars:
        for step in steps:
            if note := getattr(step, "note", ""):
                bars.say(note)
            bars.update(doing, step.step, step.total, recent.after(step.loss))
            if step.validation is not None:
                _tell_validation(step, bars)
            if step.is_best:
                best = {"step": step.step, "validation": step.validation}
    weights = Path(config.out) / "best.safetensors"
    done = f"Done. The best weights are {weights}"
    console.say(nothing_left(config.out, config.steps, weights) if step is None else done)
    console.result({"weights": str(weights), "steps": config.steps, "best": best or None})


def nothing_left(out: str, steps: int, weights: Path) -> str:
    """Return what is said of a run that an earlier one has ended."""
    return f"Nothing left to do: {out} holds all {steps} steps. Its weights are {weights}"


def _tell_validation(step: TrainStep | PretrainStep, bars: ProgressBars) -> None:
    scores = "  ".join(f"{name} {value:.3f}" for name, value in (step.validation or {}).items())
    bars.say(f"step {step.step:>6} of {step.total}  loss {step.loss:.4f}  {scores}{'  best so far' * step.is_best}")

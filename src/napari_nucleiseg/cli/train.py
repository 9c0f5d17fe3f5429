"""``napari-nucleiseg train``: train a network on images with labels."""

from __future__ import annotations

import argparse
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_nucleiseg.cli.console import OK, Console, ProgressBars
from napari_nucleiseg.cli.flags import add_flags, read_flags
from napari_nucleiseg.core.training.config import TrainConfig, load_config

if TYPE_CHECKING:
    from napari_nucleiseg.core.training.loop import TrainStep

_SMOOTHED_OVER = 50


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments: one flag for each field of the configuration."""
    parser.epilog = (
        "A data set is a folder with images/ and labels/ that pair up by file name: "
        "--train /data/mine,mpp_um=0.25,licence=CC-BY-4.0. Interrupted, the same command goes on from the last "
        "checkpoint. The best weights are OUT/best.safetensors; use them with --model."
    )
    parser.add_argument("--config", metavar="JSON", help="file with any of these fields; flags override it")
    parser.add_argument("--json", action="store_true", help="print the outcome as JSON")
    add_flags(parser, TrainConfig)


def run(options: argparse.Namespace, console: Console) -> int:
    """Train, show losses and validations, say where the weights are."""
    base = load_config(options.config) if options.config else TrainConfig()
    config = read_flags(options, base)

    from napari_nucleiseg.core.training.loop import train

    best: dict[str, Any] = {}
    step: TrainStep | None = None
    losses: deque[float] = deque(maxlen=_SMOOTHED_OVER)
    with console.progress() as bars:
        for step in train(config):
            losses.append(step.loss)
            bars.update("training", step.step, step.total, f"loss {sum(losses) / len(losses):.4f}")
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
    return OK


def _tell_validation(step: TrainStep, bars: ProgressBars) -> None:
    scores = "  ".join(f"{name} {value:.3f}" for name, value in (step.validation or {}).items())
    bars.say(f"step {step.step:>6} of {step.total}  loss {step.loss:.4f}  {scores}{'  best so far' * step.is_best}")

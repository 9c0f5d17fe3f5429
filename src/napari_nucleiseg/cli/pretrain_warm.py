"""What the commands share that make warm starts: ``pretrain contrastive`` and ``pretrain masked``."""

from __future__ import annotations

import argparse
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from napari_nucleiseg.cli.console import OK, Console, ProgressBars
from napari_nucleiseg.cli.slide_sets import EXAMPLES, add_slide_arguments, with_slides
from napari_nucleiseg.core.training.warm.config import WarmConfig, load_warm_config

if TYPE_CHECKING:
    from collections.abc import Iterable

    from napari_nucleiseg.core.training.warm.loop import WarmStep

_SMOOTHED_OVER = 50


def add_warm_arguments(parser: argparse.ArgumentParser, example: str) -> None:
    """Declare the arguments of such a command: one flag for each field of the configuration."""
    parser.epilog = EXAMPLES + (
        f"{example} Then train --initial OUT/warm.safetensors with the same --network and --params. Interrupted, the "
        "same command goes on from the last checkpoint. With several GPUs: torchrun --no-python --nproc-per-node N "
        "napari-nucleiseg pretrain ..."
    )
    add_slide_arguments(parser, WarmConfig)


def run_warm(options: argparse.Namespace, console: Console, methods: tuple[str, ...]) -> int:
    """Make a warm start by one of some methods; show losses and measurements, say where the weights are."""
    config = load_warm_config(options.config) if options.config else WarmConfig()
    config = with_slides(options, config)
    if config.method not in methods and not hasattr(options, "method"):
        config = replace(config, method=methods[0])

    from napari_nucleiseg.core.errors import DataError
    from napari_nucleiseg.core.training.warm.loop import pretrain

    if config.method not in methods:
        raise DataError(f"method must be {' or '.join(methods)} here, not {config.method}")
    _show(pretrain(config), config, console)
    return OK


def _show(steps: Iterable[WarmStep], config: WarmConfig, console: Console) -> None:
    """Run through the steps, show what they report, say where the weights are."""
    losses: deque[float] = deque(maxlen=_SMOOTHED_OVER)
    step: WarmStep | None = None
    with console.progress() as bars:
        for step in steps:
            losses.append(step.loss)
            bars.update("pretraining", step.step, step.total, f"loss {sum(losses) / len(losses):.4f}")
            if step.step % config.measure_every == 0 or step.step == step.total:
                _tell(step, bars)
    weights = Path(config.out) / "warm.safetensors"
    if step is None:
        console.say(f"Nothing left to do: {config.out} holds all {config.steps} steps. Its weights are {weights}")
    else:
        console.say(f"Done. Start a training from it: --network {config.network} --initial {weights}")
    measured = None if step is None else {"loss": step.loss, **step.parts, "held_out": step.held_out}
    console.result({"weights": str(weights), "method": config.method, "steps": config.steps, "last": measured})


def _tell(step: WarmStep, bars: ProgressBars) -> None:
    own = "  ".join(f"{name} {value:.3f}" for name, value in step.parts.items())
    held = "  ".join(f"{name} {value:.3f}" for name, value in (step.held_out or {}).items())
    bars.say(f"step {step.step:>6} of {step.total}  loss {step.loss:.4f}  {own}{'  held out: ' * bool(held)}{held}")

"""``napari-nucleiseg pretrain dino``: an encoder of patches, then one of regions, from slides without labels."""

from __future__ import annotations

import argparse
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING

from napari_nucleiseg.cli.console import OK, Console, ProgressBars
from napari_nucleiseg.cli.slide_sets import EXAMPLES, add_slide_arguments, with_slides
from napari_nucleiseg.core.training.dino.config import DinoConfig, load_dino_config

if TYPE_CHECKING:
    from collections.abc import Iterable

    from napari_nucleiseg.core.training.dino.loop import DinoStep

_SMOOTHED_OVER = 50


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the recipe's arguments: one flag for each field of the configuration."""
    parser.epilog = EXAMPLES + (
        "First the patches, then the regions made of them: "
        "pretrain dino SLIDES --out runs/patches, then pretrain dino SLIDES --out runs/regions --stage 2 "
        "--patch-encoder runs/patches/encoder.safetensors. Interrupted, the same command goes on from the last "
        "checkpoint. With several GPUs: torchrun --no-python --nproc-per-node N napari-nucleiseg pretrain dino ..."
    )
    parser.add_argument("--accept-licence", action="store_true", help="accept a restrictive licence for this run")
    add_slide_arguments(parser, DinoConfig)


def run(options: argparse.Namespace, console: Console) -> int:
    """Pretrain, show losses and measurements, say where the weights are."""
    config = with_slides(options, load_dino_config(options.config) if options.config else DinoConfig())

    from napari_nucleiseg.core.errors import DataError
    from napari_nucleiseg.core.models.encoders import load_encoder
    from napari_nucleiseg.core.training.dino.loop import pretrain

    if problem := config.validation_error():
        raise DataError(problem)
    patches = load_encoder(config.patch_encoder, accept_licence=options.accept_licence) if config.stage == 2 else None
    _show(pretrain(config, patch_encoder=patches), config, console)
    return OK


def _show(steps: Iterable[DinoStep], config: DinoConfig, console: Console) -> None:
    """Run through the steps, show what they report, say where the weights are."""
    losses: deque[float] = deque(maxlen=_SMOOTHED_OVER)
    step: DinoStep | None = None
    with console.progress() as bars:
        for step in steps:
            losses.append(step.loss)
            bars.update("pretraining", step.step, step.total, f"loss {sum(losses) / len(losses):.4f}")
            if step.step % config.measure_every == 0 or step.step == step.total:
                _tell(step, bars)
    weights = Path(config.out) / "encoder.safetensors"
    if step is None:
        console.say(f"Nothing left to do: {config.out} holds all {config.steps} steps. Its weights are {weights}")
    else:
        console.say(f"Done. The encoder is {weights}")
    measured = None if step is None else {"loss": step.loss, **step.parts, "held_out": step.held_out}
    console.result({"weights": str(weights), "stage": config.stage, "steps": config.steps, "last": measured})


def _tell(step: DinoStep, bars: ProgressBars) -> None:
    own = "  ".join(f"{name} {value:.3f}" for name, value in step.parts.items())
    held = "  ".join(f"{name} {value:.3f}" for name, value in (step.held_out or {}).items())
    bars.say(f"step {step.step:>6} of {step.total}  loss {step.loss:.4f}  {own}{'  held out: ' * bool(held)}{held}")

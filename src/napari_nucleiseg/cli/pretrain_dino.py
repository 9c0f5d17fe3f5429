"""``napari-nucleiseg pretrain dino``: an encoder of patches, then one of regions, from slides without labels."""

from __future__ import annotations

import argparse
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from napari_nucleiseg.cli.console import OK, Console, ProgressBars
from napari_nucleiseg.cli.flags import add_flags, read_flags, read_record
from napari_nucleiseg.core.training.dino.config import DinoConfig, load_dino_config
from napari_nucleiseg.core.training.scales.config import SlideSet

if TYPE_CHECKING:
    from collections.abc import Iterable

    from napari_nucleiseg.core.training.dino.loop import DinoStep

_SMOOTHED_OVER = 50


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the recipe's arguments: one flag for each field of the configuration."""
    parser.epilog = (
        "Slides need no labels: /data/slides or a.svs,mpp_um=0.25,licence=CC0-1.0 or /data/tiles,include=a*|b* or "
        "a.svs,regions=2000:1000:4096:4096 (y, x, height, width). First the patches, then the regions made of them: "
        "pretrain dino SLIDES --out runs/patches, then pretrain dino SLIDES --out runs/regions --stage 2 "
        "--patch-encoder runs/patches/encoder.safetensors. Interrupted, the same command goes on from the last "
        "checkpoint. With several GPUs: torchrun --no-python --nproc-per-node N napari-nucleiseg pretrain dino ..."
    )
    parser.add_argument(
        "paths", nargs="*", type=_slide_set, metavar="SLIDE", help="slide, picture, or folder of them; as --slides"
    )
    parser.add_argument("--mpp", type=float, metavar="UM", help="micrometres per pixel, of files that do not say")
    parser.add_argument("--licence", default="", metavar="SPDX", help="licence of slides for which none is given")
    parser.add_argument("--config", metavar="JSON", help="file with any of these fields; flags override it")
    parser.add_argument("--accept-licence", action="store_true", help="accept a restrictive licence for this run")
    parser.add_argument("--json", action="store_true", help="print the outcome as JSON")
    add_flags(parser, DinoConfig)


def _slide_set(text: str) -> SlideSet:
    found: SlideSet = read_record(SlideSet, text)
    return found


def run(options: argparse.Namespace, console: Console) -> int:
    """Pretrain, show losses and measurements, say where the weights are."""
    config = _config(options)

    from napari_nucleiseg.core.errors import DataError
    from napari_nucleiseg.core.models.encoders import load_encoder
    from napari_nucleiseg.core.training.dino.loop import pretrain

    if problem := config.validation_error():
        raise DataError(problem)
    patches = load_encoder(config.patch_encoder, accept_licence=options.accept_licence) if config.stage == 2 else None
    _show(pretrain(config, patch_encoder=patches), config, console)
    return OK


def _config(options: argparse.Namespace) -> DinoConfig:
    """Return the configuration of the file, the flags and the slides that were named."""
    base = load_dino_config(options.config) if options.config else DinoConfig()
    config = read_flags(options, base)
    named = (*options.paths, *(config.slides if not options.paths or hasattr(options, "slides") else ()))
    return replace(
        config,
        slides=tuple(_completed(item, options) for item in named),
        validate=tuple(_completed(item, options) for item in config.validate),
    )


def _completed(item: SlideSet, options: argparse.Namespace) -> SlideSet:
    mpp_um = options.mpp if item.mpp_um is None else item.mpp_um
    return replace(item, mpp_um=mpp_um, licence=item.licence or options.licence)


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

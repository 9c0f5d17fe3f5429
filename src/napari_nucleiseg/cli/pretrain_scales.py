"""``napari-nucleiseg pretrain scale-attention``: attention on nuclei from magnification alone."""

from __future__ import annotations

import argparse
from collections import deque
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_nucleiseg.cli.console import OK, Console, ProgressBars
from napari_nucleiseg.cli.flags import add_flags, read_flags, read_record
from napari_nucleiseg.core.training.scales.config import ScaleConfig, SlideSet, load_scale_config

if TYPE_CHECKING:
    from napari_nucleiseg.core.training.scales.loop import PretrainStep

_SMOOTHED_OVER = 50


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the recipe's arguments: one flag for each field of the configuration."""
    parser.epilog = (
        "Slides need no labels: /data/slides or a.svs,mpp_um=0.25,licence=CC0-1.0 or /data/tiles,include=a*|b* or "
        "a.svs,regions=2000:1000:4096:4096 (y, x, height, width). "
        "Interrupted, the same command goes on from the last checkpoint. The weights are OUT/best.safetensors; use "
        "them with --model. OUT/attention shows what is looked at."
    )
    parser.add_argument(
        "paths", nargs="*", type=_slide_set, metavar="SLIDE", help="slide, picture, or folder of them; as --slides"
    )
    parser.add_argument("--mpp", type=float, metavar="UM", help="micrometres per pixel, of files that do not say")
    parser.add_argument("--licence", default="", metavar="SPDX", help="licence of slides for which none is given")
    parser.add_argument("--config", metavar="JSON", help="file with any of these fields; flags override it")
    parser.add_argument("--json", action="store_true", help="print the outcome as JSON")
    add_flags(parser, ScaleConfig)


def _slide_set(text: str) -> SlideSet:
    found: SlideSet = read_record(SlideSet, text)
    return found


def run(options: argparse.Namespace, console: Console) -> int:
    """Pretrain, show losses and measurements, say where the weights are."""
    config = _config(options)

    from napari_nucleiseg.core.training.scales.loop import pretrain

    best: dict[str, Any] = {}
    step: PretrainStep | None = None
    losses: deque[float] = deque(maxlen=_SMOOTHED_OVER)
    with console.progress() as bars:
        for step in pretrain(config):
            losses.append(step.loss)
            bars.update("pretraining", step.step, step.total, f"loss {sum(losses) / len(losses):.4f}")
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


def _config(options: argparse.Namespace) -> ScaleConfig:
    """Return the configuration of the file, the flags and the slides that were named."""
    base = load_scale_config(options.config) if options.config else ScaleConfig()
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


def _tell_validation(step: PretrainStep, bars: ProgressBars) -> None:
    scores = "  ".join(f"{name} {value:.3f}" for name, value in (step.validation or {}).items())
    bars.say(f"step {step.step:>6} of {step.total}  loss {step.loss:.4f}  {scores}{'  best so far' * step.is_best}")

"""``napari-nucleiseg pretrain scale-attention``: attention on nuclei from magnification alone."""

from __future__ import annotations

import argparse
from dataclasses import replace

from napari_nucleiseg.cli.console import OK, Console
from napari_nucleiseg.cli.flags import add_flags, read_flags, read_record
from napari_nucleiseg.cli.training_progress import show_training
from napari_nucleiseg.core.training.scales.config import ScaleConfig, SlideSet, load_scale_config


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

    show_training(pretrain(config), config, console, "pretraining")
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

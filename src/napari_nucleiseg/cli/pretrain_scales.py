"""``napari-nucleiseg pretrain scale-attention``: attention on nuclei from magnification alone."""

from __future__ import annotations

import argparse

from napari_nucleiseg.cli.console import OK, Console
from napari_nucleiseg.cli.slide_sets import EXAMPLES, add_slide_arguments, with_slides
from napari_nucleiseg.cli.training_progress import show_training
from napari_nucleiseg.core.training.scales.config import ScaleConfig, load_scale_config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the recipe's arguments: one flag for each field of the configuration."""
    parser.epilog = EXAMPLES + (
        "Interrupted, the same command goes on from the last checkpoint. The weights are OUT/best.safetensors; use "
        "them with --model. OUT/attention shows what is looked at."
    )
    add_slide_arguments(parser, ScaleConfig)


def run(options: argparse.Namespace, console: Console) -> int:
    """Pretrain, show losses and measurements, say where the weights are."""
    config = with_slides(options, load_scale_config(options.config) if options.config else ScaleConfig())

    from napari_nucleiseg.core.training.scales.loop import pretrain

    show_training(pretrain(config), config, console, "pretraining")
    return OK

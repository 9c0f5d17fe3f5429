"""``napari-nucleiseg train``: train a network on images with labels."""

from __future__ import annotations

import argparse

from napari_nucleiseg.cli.console import OK, Console
from napari_nucleiseg.cli.flags import add_flags, read_flags
from napari_nucleiseg.cli.training_progress import show_training
from napari_nucleiseg.core.training.config import TrainConfig, load_config


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

    show_training(train(config), config, console, "training")
    return OK

"""``napari-nucleiseg pretrain mae``: a transformer of patches learns to fill what it was not shown."""

from __future__ import annotations

import argparse
from pathlib import Path

from napari_nucleiseg.cli.console import OK, Console
from napari_nucleiseg.cli.pretraining_progress import show_pretraining
from napari_nucleiseg.cli.slide_sets import EXAMPLES, add_slide_arguments, with_slides
from napari_nucleiseg.core.training.mae.config import MaeConfig, load_mae_config


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the recipe's arguments: one flag for each field of the configuration."""
    parser.epilog = EXAMPLES + (
        "pretrain mae SLIDES --out runs/mae, then pretrain dino SLIDES --initial runs/mae/encoder.safetensors with the "
        "same --params, or teach-head. Interrupted, the same command goes on from the last checkpoint. With several "
        "GPUs: torchrun --no-python --nproc-per-node N napari-nucleiseg pretrain mae ..."
    )
    add_slide_arguments(parser, MaeConfig)


def run(options: argparse.Namespace, console: Console) -> int:
    """Pretrain, show losses and measurements, say where the weights are."""
    config = with_slides(options, load_mae_config(options.config) if options.config else MaeConfig())

    from napari_nucleiseg.core.training.mae.loop import pretrain

    weights = Path(config.out) / "encoder.safetensors"
    show_pretraining(
        pretrain(config),
        config,
        console,
        weights=weights,
        done=f"Done. The encoder is {weights}",
        facts={"network": config.network},
    )
    return OK

"""What the commands share that make warm starts: ``pretrain contrastive`` and ``pretrain masked``."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from napari_nucleiseg.cli.console import OK, Console
from napari_nucleiseg.cli.pretraining_progress import show_pretraining
from napari_nucleiseg.cli.slide_sets import EXAMPLES, add_slide_arguments, with_slides
from napari_nucleiseg.core.training.warm.config import WarmConfig, load_warm_config


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
    weights = Path(config.out) / "warm.safetensors"
    show_pretraining(
        pretrain(config),
        config,
        console,
        weights=weights,
        done=f"Done. Start a training from it: --network {config.network} --initial {weights}",
        facts={"method": config.method},
    )
    return OK

"""``napari-nucleiseg pretrain dino``: an encoder of patches, then one of regions, from slides without labels."""

from __future__ import annotations

import argparse
from pathlib import Path

from napari_nucleiseg.cli.console import OK, Console
from napari_nucleiseg.cli.pretraining_progress import show_pretraining
from napari_nucleiseg.cli.slide_sets import EXAMPLES, add_slide_arguments, with_slides
from napari_nucleiseg.core.training.dino.config import DinoConfig, load_dino_config


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
    weights = Path(config.out) / "encoder.safetensors"
    show_pretraining(
        pretrain(config, patch_encoder=patches),
        config,
        console,
        weights=weights,
        done=f"Done. The encoder is {weights}",
        facts={"stage": config.stage},
    )
    return OK

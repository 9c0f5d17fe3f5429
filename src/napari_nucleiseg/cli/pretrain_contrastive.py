"""``napari-nucleiseg pretrain contrastive``: a network's encoder learns to tell patches of tissue apart."""

from __future__ import annotations

import argparse

from napari_nucleiseg.cli.console import Console
from napari_nucleiseg.cli.pretrain_warm import add_warm_arguments, run_warm
from napari_nucleiseg.core.training.warm.config import CONTRASTIVE


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the recipe's arguments."""
    add_warm_arguments(parser, "pretrain contrastive SLIDES --method moco --network nuclei --out runs/warm.")


def run(options: argparse.Namespace, console: Console) -> int:
    """Make the warm start."""
    return run_warm(options, console, CONTRASTIVE)

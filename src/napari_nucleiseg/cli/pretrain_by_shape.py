"""``napari-nucleiseg pretrain by-shape``: a network of nuclei from slides that nobody labelled."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import closing
from itertools import chain
from typing import TYPE_CHECKING, cast

from napari_nucleiseg.cli.console import OK, Console
from napari_nucleiseg.cli.slide_sets import EXAMPLES, add_slide_arguments, with_slides
from napari_nucleiseg.cli.training_progress import show_training
from napari_nucleiseg.core.training.by_shape.config import ByShapeConfig, load_by_shape_config

if TYPE_CHECKING:
    from napari_nucleiseg.core.training.by_shape.labels import Labelling
    from napari_nucleiseg.core.training.scales.loop import PretrainStep


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the recipe's arguments: one flag for each field of the configuration."""
    parser.epilog = EXAMPLES + (
        "What is measured is how well shapes are met on windows that were held out, not how well people would agree. "
        "Interrupted, the same command goes on from the last checkpoint. The weights are OUT/best.safetensors; use "
        "them with --model. What it learned from lies in OUT/windows-*."
    )
    add_slide_arguments(parser, ByShapeConfig)


def run(options: argparse.Namespace, console: Console) -> int:
    """Label windows of the slides, train on them, say where the weights are."""
    config = with_slides(options, load_by_shape_config(options.config) if options.config else ByShapeConfig())

    from napari_nucleiseg.core.training.by_shape.loop import learn_by_shape

    with closing(learn_by_shape(config)) as steps:  # type: ignore[type-var]
        first = _after_labelling(steps, console)
        show_training(chain(first, cast("Iterator[PretrainStep]", steps)), config, console, "learning")
    return OK


def _after_labelling(steps: Iterator[Labelling | PretrainStep], console: Console) -> list[PretrainStep]:
    """Show how slides are labelled; return the first step of the training, if one is left to make."""
    from napari_nucleiseg.core.training.by_shape.labels import Labelling

    with console.progress() as bars:
        for step in steps:
            if not isinstance(step, Labelling):
                return [step]
            bars.update("labelling", step.done, step.total, f"{step.name}: {step.nuclei} nuclei")
            if step.note:
                bars.say(step.note)
    return []

"""``napari-nucleiseg pretrain RECIPE``: learn from slides without labels; one recipe a name."""

from __future__ import annotations

import argparse
import importlib

from napari_nucleiseg.cli.console import Console

# One module of this package a recipe, with `add_arguments` and `run` like a command's; imported when it is called.
RECIPES = {
    "scale-attention": ("pretrain_scales", "a classifier of magnification learns where nuclei are"),
    "by-shape": (
        "pretrain_by_shape",
        "a network of nuclei learns from what has their shape: the best there is without labels",
    ),
    "dino": ("pretrain_dino", "an encoder learns to describe tissue from its own views: patches, then regions"),
    "mae": ("pretrain_mae", "a warm start: a transformer of patches learns to fill tokens that were left out"),
    "contrastive": ("pretrain_contrastive", "a warm start: a network's encoder learns to tell patches apart"),
    "masked": ("pretrain_masked", "a warm start: a network learns to fill what was covered"),
    "shapes": ("pretrain_shapes", "what by-shape learns from, as a data set to look at or to train on"),
    "scale-attention-tau": ("pretrain_tau", "only the level of attention is fitted to slides, in seconds"),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the recipes; each declares its own arguments."""
    recipes = parser.add_subparsers(dest="recipe", required=True, metavar="RECIPE")
    for name, (module, summary) in RECIPES.items():
        recipe = recipes.add_parser(
            name, help=summary, description=summary[0].upper() + summary[1:] + ".", allow_abbrev=False
        )
        importlib.import_module(f"napari_nucleiseg.cli.{module}").add_arguments(recipe)


def run(options: argparse.Namespace, console: Console) -> int:
    """Run the recipe."""
    module, _ = RECIPES[options.recipe]
    return int(importlib.import_module(f"napari_nucleiseg.cli.{module}").run(options, console))

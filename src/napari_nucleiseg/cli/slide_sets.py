"""Slides to learn from without labels, as a command line names them; what recipes of pretraining share."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from napari_nucleiseg.cli.flags import add_flags, read_flags, read_record
from napari_nucleiseg.core.training.scales.config import SlideSet

if TYPE_CHECKING:
    from napari_nucleiseg.core.training.by_shape.config import ByShapeConfig
    from napari_nucleiseg.core.training.dino.config import DinoConfig
    from napari_nucleiseg.core.training.mae.config import MaeConfig
    from napari_nucleiseg.core.training.scales.config import ScaleConfig
    from napari_nucleiseg.core.training.warm.config import WarmConfig

Config = TypeVar("Config", "ByShapeConfig", "DinoConfig", "MaeConfig", "ScaleConfig", "WarmConfig")
EXAMPLES = (
    "Slides need no labels: /data/slides or a.svs,mpp_um=0.25,licence=CC0-1.0 or /data/tiles,include=a*|b* or "
    "a.svs,regions=2000:1000:4096:4096 (y, x, height, width). "
)


def add_slide_arguments(parser: argparse.ArgumentParser, config: type[Config]) -> None:
    """Declare slides, what is said of all of them, and one flag for each field of the configuration."""
    parser.add_argument(
        "paths", nargs="*", type=_slide_set, metavar="SLIDE", help="slide, picture, or folder of them; as --slides"
    )
    parser.add_argument("--mpp", type=float, metavar="UM", help="micrometres per pixel, of files that do not say")
    parser.add_argument("--licence", default="", metavar="SPDX", help="licence of slides for which none is given")
    parser.add_argument("--config", metavar="JSON", help="file with any of these fields; flags override it")
    parser.add_argument("--json", action="store_true", help="print the outcome as JSON")
    add_flags(parser, config)


def with_slides(options: argparse.Namespace, base: Config) -> Config:
    """Return a configuration with the flags and the slides that were named."""
    config: Config = read_flags(options, base)
    named = (*options.paths, *(config.slides if not options.paths or hasattr(options, "slides") else ()))
    return replace(
        config,
        slides=tuple(_completed(item, options) for item in named),
        validate=tuple(_completed(item, options) for item in config.validate),
    )


def _slide_set(text: str) -> SlideSet:
    found: SlideSet = read_record(SlideSet, text)
    return found


def _completed(item: SlideSet, options: argparse.Namespace) -> SlideSet:
    mpp_um = options.mpp if item.mpp_um is None else item.mpp_um
    return replace(item, mpp_um=mpp_um, licence=item.licence or options.licence)

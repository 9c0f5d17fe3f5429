"""A run that learns from shapes: slides are labelled, a network is trained on that, a fixed tile is looked at."""

from __future__ import annotations

import glob
import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import nn

from napari_nucleiseg.core.errors import DataError
from napari_nucleiseg.core.models.registry import network_spec
from napari_nucleiseg.core.models.spec import ModelSpec
from napari_nucleiseg.core.training.by_shape.config import ByShapeConfig
from napari_nucleiseg.core.training.by_shape.labels import (
    HELD_OUT,
    LEARNED,
    Labelling,
    Labels,
    label_slides,
    windows_folder,
)
from napari_nucleiseg.core.training.checkpoint import foreign_state, licence_of
from napari_nucleiseg.core.training.config import DataSet, TrainConfig
from napari_nucleiseg.core.training.loop import train
from napari_nucleiseg.core.training.samples import LabelledImage, load_data_set
from napari_nucleiseg.core.training.scales.examination import Glance
from napari_nucleiseg.core.training.scales.loop import PretrainStep
from napari_nucleiseg.core.training.scales.samples import ScaleSource
from napari_nucleiseg.core.training.scales.sources import opened
from napari_nucleiseg.core.training.validation import picture_maps

# Side of the tile that is looked at, pixels of the network.
GLANCE_PX = 192
WARMUP_STEPS = 100
_NAMED = 3


def learn_by_shape(
    config: ByShapeConfig, sources: Sequence[ScaleSource] | None = None
) -> Iterator[Labelling | PretrainStep]:
    """Teach a network of nuclei what has their shape; closing the generator stops after the current step.

    Parameters
    ----------
    config : ByShapeConfig
        The run. Weights end up in ``<out>/best.safetensors``; the same call goes on with an interrupted run.
    sources : sequence of ScaleSource, optional
        Slides that are open already, or regions of them, in place of those that the configuration names.

    Yields
    ------
    Labelling
        While slides are labelled.
    PretrainStep
        Then one a step. What was measured on windows that were held out is agreement with shapes, not with people:
        ``f1``, ``aji``, ``pq``, ``dice``, and ``choice``, their mean of AJI and PQ, by which weights are chosen.

    Raises
    ------
    DataError
        If the configuration makes no sense or the slides do not suffice.
    SlideError
        If a slide cannot be opened.
    ModelError
        If the network, the weights or the device are not there, or the run in the folder learned from other windows.
    """
    if problem := config.validation_error():
        raise DataError(problem)
    spec = network_spec(config.network, config.params)
    if spec.dimensions != 2:
        raise DataError(f"network {spec.name} is for stacks; nuclei are found by their shape in pictures")
    with opened(config, sources) as (learned, held_out, origins):
        _require_same_windows(config, windows_folder(config, spec, learned, held_out))
        labels = yield from label_slides(config, spec, learned, held_out)
        run = training_of(config, spec, labels, origins)
        tile = _Tile(spec, labels)
        with closing(train(run)) as steps:  # type: ignore[type-var]
            for step in steps:
                yield PretrainStep(
                    step.step,
                    step.total,
                    step.loss,
                    step.parts,
                    step.learning_rate,
                    step.seconds,
                    step.validation,
                    tile.glance(step.network) if step.network is not None else None,
                    step.is_best,
                )


def training_of(
    config: ByShapeConfig, spec: ModelSpec, labels: Labels, origins: Sequence[tuple[str, str]]
) -> TrainConfig:
    """Return the training on labelled windows; `origins` are name and licence of each slide."""
    licence, _ = licence_of(stated for _, stated in origins)
    names = [name for name, _ in origins]
    title = ", ".join(names) if len(names) <= _NAMED else f"{len(names)} slides"
    learned = DataSet(
        str(labels.folder / LEARNED),
        spec.mpp_um,
        licence="" if licence == "unknown" else licence,
        name=f"{title}, no labels: nuclei by their shape",
    )
    held_out = tuple(glob.escape(name) for name in labels.measured)
    return TrainConfig(
        out=config.out,
        network=config.network,
        params=config.params,
        train=(learned,),
        validate=(DataSet(str(labels.folder / HELD_OUT), spec.mpp_um, include=held_out),) if held_out else (),
        batch_size=config.batch_size,
        crop_px=config.crop_px,
        steps=config.steps,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        warmup=min(WARMUP_STEPS, config.steps // 5),
        validate_every=config.validate_every,
        seed=config.seed,
        device=config.device,
        mixed_precision=config.mixed_precision,
        threads=config.threads,
        initial=config.initial,
        resume=config.resume,
        augment=config.augment,
    )


def _require_same_windows(config: ByShapeConfig, windows: Path) -> None:
    """Refuse to go on with a run that learned from other windows than these."""
    state = Path(config.out) / "last.pt"
    if not (config.resume and state.exists()):
        return
    try:
        told = json.loads((state.parent / "config.json").read_text(encoding="utf-8"))
        former = Path(told["train"][0]["path"]).parent.name
    except (OSError, ValueError, LookupError, TypeError):
        return
    if former != windows.name:
        raise foreign_state(state, "it learned from other slides, pixel sizes or settings of windows")


class _Tile:
    """A fixed piece of a window with many nuclei, of what is held out if anything is."""

    def __init__(self, spec: ModelSpec, labels: Labels) -> None:
        part, name = (HELD_OUT, labels.measured[0]) if labels.measured else (LEARNED, labels.fullest)
        data = DataSet(str(labels.folder / part), spec.mpp_um, include=(glob.escape(name),))
        self.spec, self.picture = spec, _densest(load_data_set(data, 0.0, 1.0)[0])

    def glance(self, network: nn.Module) -> Glance:
        """Return the tile and how likely each of its pixels is one of a nucleus."""
        was_training = network.training
        network.eval()
        maps = picture_maps(network, self.spec, self.picture, next(network.parameters()).device)
        network.train(was_training)
        head = next(head.name for head in self.spec.heads if head.activation == "sigmoid")
        return Glance(self.picture, maps[head][0])


def _densest(picture: LabelledImage) -> NDArray[np.uint8]:
    """Cut the square of `GLANCE_PX` that holds the most of nuclei."""
    height, width = (min(GLANCE_PX, side) for side in picture.labels.shape)
    nuclei = np.pad((picture.labels > 0).astype(np.int64).cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    inside = nuclei[height:, width:] - nuclei[:-height, width:] - nuclei[height:, :-width] + nuclei[:-height, :-width]
    top, left = np.unravel_index(int(inside.argmax()), inside.shape)
    return np.ascontiguousarray(picture.image[top : top + height, left : left + width])

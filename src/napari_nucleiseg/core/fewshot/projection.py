"""A projection of frozen features that episodes have taught what is like what: training, use, and its file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from napari_nucleiseg.core.errors import DataError, WeightsError
from napari_nucleiseg.core.fewshot.episodes import EpisodeView, draw, loss_of
from napari_nucleiseg.core.fewshot.field import FeatureField, normalised
from napari_nucleiseg.core.models.files import write_over

_KEY, _TENSOR = "projection", "weight"
# So many draws without anything to be found end the training.
_MOST_EMPTY = 200


@dataclass(frozen=True, slots=True)
class ProjectionConfig:
    """Settings of `train_projection`.

    Parameters
    ----------
    steps : int
        Episodes.
    learning_rate, momentum, weight_decay : float
        Of SGD. The networks of the papers learn at 0.001; one layer may learn faster.
    side : int
        Of a crop, in steps of the field.
    window : int
        Side of the windows of local prototypes (ALPNet); 0 for PANet.
    alignment : float
        Weight of PANet's prototype alignment.
    seed : int
        Same seed, same projection.
    """

    steps: int = 500
    learning_rate: float = 0.01
    momentum: float = 0.9
    weight_decay: float = 5e-4
    side: int = 64
    window: int = 4
    alignment: float = 1.0
    seed: int = 0

    def validation_error(self) -> str | None:
        """Return what is wrong with the values as a sentence, or None."""
        if self.steps < 1 or self.side < 8 or self.window < 0:
            return "at least one step, crops of 8 steps of the field and windows of 0 or more are needed"
        if not self.learning_rate > 0 or self.alignment < 0:
            return "the learning rate must be above 0 and the weight of alignment not below 0"
        return None


@dataclass(frozen=True, slots=True, eq=False)
class Projection:
    """What was learned.

    Parameters
    ----------
    weight : ndarray of float32, shape (outputs, channels)
        A convolution of 1 x 1.
    layers : tuple of str
        Layers that it was trained on; empty if not said.
    """

    weight: NDArray[np.float32]
    layers: tuple[str, ...] = ()

    def apply(self, field: FeatureField) -> FeatureField:
        """Return the field as the projection sees it.

        Raises
        ------
        DataError
            If it was trained on other features.
        """
        if field.channels != self.weight.shape[1] or (self.layers and self.layers != field.layers):
            raise DataError(
                f"the projection was trained on {self.weight.shape[1]} features of {'+'.join(self.layers) or 'a field'}"
                f", not on {field.channels} of {'+'.join(field.layers)}; compute the field with those layers"
            )
        seen = np.tensordot(self.weight, field.features, axes=1).astype(np.float32)
        return replace(field, features=normalised([seen]))


@dataclass(frozen=True, slots=True, eq=False)
class ProjectionStep:
    """One episode is done.

    Parameters
    ----------
    step, total : int
        Episodes so far, and in all.
    loss, alignment : float
        On the query, and of prototype alignment.
    projection : Projection
        As it is now: whoever stops iterating keeps what was learned so far.
    """

    step: int
    total: int
    loss: float
    alignment: float
    projection: Projection


def train_projection(
    views: Sequence[EpisodeView], config: ProjectionConfig | None = None, layers: tuple[str, ...] = ()
) -> Iterator[ProjectionStep]:
    """Teach a projection, which starts as the identity, by episodes; whoever stops iterating has cancelled.

    Parameters
    ----------
    views : sequence of EpisodeView
        All of the same layers; superpixels or nuclei.
    config : ProjectionConfig, optional
        Settings.
    layers : tuple of str
        Layers of the fields, remembered.

    Yields
    ------
    ProjectionStep
        After each episode.

    Raises
    ------
    DataError
        If there is nothing to learn from, or the settings make no sense.
    """
    config = config or ProjectionConfig()
    if problem := config.validation_error():
        raise DataError(problem)
    channels = {view.features.shape[0] for view in views}
    if len(channels) != 1:
        raise DataError("views to learn from are missing, or their features are of different layers")
    (width,) = channels
    project = nn.Conv2d(width, width, 1, bias=False)
    with torch.no_grad():
        project.weight.copy_(torch.eye(width)[:, :, None, None])
    optimizer = torch.optim.SGD(
        project.parameters(), config.learning_rate, config.momentum, weight_decay=config.weight_decay
    )
    rng, empty, step = np.random.default_rng(config.seed), 0, 0
    while step < config.steps:
        episode = draw(views, config.side, rng)
        if episode is None:
            empty += 1
            if empty > _MOST_EMPTY:
                raise DataError("these views show nothing to learn from; give views with nuclei or tissue")
            continue
        empty, step = 0, step + 1
        loss, aligned = loss_of(episode, project, config.window, config.alignment)
        optimizer.zero_grad()
        (loss + aligned).backward()
        optimizer.step()
        weight = project.weight.detach()[:, :, 0, 0].numpy().copy()
        yield ProjectionStep(
            step, config.steps, float(loss.detach()), float(aligned.detach()), Projection(weight, layers)
        )


def save_projection(path: str | Path, projection: Projection, config: ProjectionConfig | None = None) -> None:
    """Write a projection as a safetensors file, whole or not at all.

    Raises
    ------
    WeightsError
        If it cannot be written.
    """
    from safetensors.numpy import save

    said = {"layers": projection.layers, "config": asdict(config or ProjectionConfig())}
    try:
        write_over(Path(path), save({_TENSOR: projection.weight}, {_KEY: json.dumps(said)}))
    except OSError as error:
        raise WeightsError(f"the projection cannot be written to {path}: {error}") from error


def load_projection(path: str | Path) -> Projection:
    """Read what `save_projection` wrote; nothing is unpickled.

    Raises
    ------
    WeightsError
        If it is missing, damaged or no projection.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), "np") as file:
            said = json.loads((file.metadata() or {})[_KEY])
            weight = np.asarray(file.get_tensor(_TENSOR), np.float32)
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise WeightsError(f"{path} is no projection, or it is damaged: {error}") from error
    return Projection(weight, tuple(said.get("layers", ())))

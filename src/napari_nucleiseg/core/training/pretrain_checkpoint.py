"""State of a run without labels on disk: what self-distillation, warm starts and masked autoencoders share."""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import nn

from napari_nucleiseg.core.models.files import write_over
from napari_nucleiseg.core.models.weights import ModelCard, NamedSpec, save_model
from napari_nucleiseg.core.training.checkpoint import (
    BROKEN_STATE,
    cut_log,
    foreign_state,
    learned_in_all,
    made_folder,
    origin_of,
    provenance,
    write_state,
)
from napari_nucleiseg.core.training.config import config_as_json
from napari_nucleiseg.core.training.dino.examination import Measured
from napari_nucleiseg.core.training.dino.processes import Processes
from napari_nucleiseg.core.training.dino.views import Batch
from napari_nucleiseg.core.training.view_config import ViewConfig


class PretrainLearner(Measured, Protocol):
    """What learns."""

    processes: Processes

    @property
    def spec(self) -> NamedSpec:
        """Of what is kept."""

    def step(self, batch: Batch, number: int) -> dict[str, float]:
        """Learn from a batch, the `number`-th from 1; return ``loss`` and what it is made of, by name."""


Config = TypeVar("Config", bound=ViewConfig)
Learner = TypeVar("Learner", bound=PretrainLearner)


class PretrainCheckpoint(ABC, Generic[Config, Learner]):
    """Writes ``last.pt`` (all of the run), ``log.jsonl`` and a weight file with its card.

    Parameters
    ----------
    config, learner
        The run.
    origins : iterable of (str, str)
        Name and licence of each set of slides.
    """

    weights = "encoder.safetensors"
    """Name of the weight file."""
    mark, told = "kind", "it is one of"
    """By what the state of another run is known whose tensors might fit, and how that is said."""

    def __init__(self, config: Config, learner: Learner, origins: Iterable[tuple[str, str]]) -> None:
        self.config, self.learner, self.writes = config, learner, learner.processes.is_first
        # Of what this session and those before it learned from.
        self.origins = tuple(dict.fromkeys(origins))
        self.folder = made_folder(config.out)
        self.scores: dict[str, float] = {}
        self._unwritten, self._written = 0, time.monotonic()

    # ------------------------------------------------------------------ what kinds of runs differ in

    @property
    @abstractmethod
    def _kept(self) -> nn.Module:
        """The network of the weight file."""

    @property
    @abstractmethod
    def _marked(self) -> str:
        """What the `mark` of this run is."""

    @property
    @abstractmethod
    def _parts(self) -> Mapping[str, nn.Module | torch.optim.Optimizer]:
        """What the state is made of, by its keys."""

    @abstractmethod
    def card(self, step: int) -> ModelCard:
        """Return the card of the weight file after `step`."""

    # ------------------------------------------------------------------ what they share

    def restore(self) -> int:
        """Load the last checkpoint; return the number of steps already done.

        Raises
        ------
        WeightsError
            If it does not belong to this configuration.
        """
        path, log = self.folder / "last.pt", self.folder / "log.jsonl"
        if self.config.resume and path.exists():
            step = self._read_state(path)
            if self.writes:
                cut_log(log, step)
            return step
        if self.writes:
            log.unlink(missing_ok=True)
            write_over(self.folder / "config.json", config_as_json(self.config).encode())
        return 0

    def _read_state(self, path: Path) -> int:
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            self._load(state)
            self.scores = dict(state["scores"])
            self.origins = learned_in_all(state.get("learned", ()), self.origins)
            return int(state["step"])
        except BROKEN_STATE as error:
            reason = str(error).splitlines()[-1].strip() if str(error) else type(error).__name__
            raise foreign_state(path, reason) from error

    def _load(self, state: Mapping[str, Any]) -> None:
        """Take a state up; raises ValueError with the reason where it is of another run."""
        if (found := state[self.mark]) != self._marked:
            raise ValueError(f"{self.told} {found}")
        for name, part in self._parts.items():
            part.load_state_dict(state[name])

    def save(self, step: int, parts: dict[str, float], scores: dict[str, float] | None) -> bool:
        """Write what is due after `step`; return whether that was a checkpoint."""
        if not self.writes:
            return False
        if scores is not None:
            self.scores = scores
        is_last = step >= self.config.steps
        if is_last or step % self.config.measure_every == 0:
            held_out = {f"held_out_{name}": value for name, value in (scores or {}).items()}
            with (self.folder / "log.jsonl").open("a") as log:
                log.write(json.dumps({"step": step, **parts, **held_out}) + "\n")
        due = is_last or time.monotonic() - self._written >= self.config.checkpoint_seconds
        if due:
            self._write(step)
        self._unwritten = 0 if due else step
        return due

    @contextmanager
    def left_whole(self) -> Iterator[None]:
        """Write the last step down if the generator in which this is used is closed within the block.

        Of a run that does not resume only the weights are kept.
        """
        try:
            yield
        except GeneratorExit:
            if self._unwritten and self.config.resume:
                self._write(self._unwritten)
            elif self._unwritten:
                self._write_weights(self._unwritten)
            raise

    def _write_weights(self, step: int) -> None:
        save_model(self.folder / self.weights, self._kept, self.learner.spec, self.card(step))

    def _write(self, step: int) -> None:
        self._write_weights(step)
        parts = {name: part.state_dict() for name, part in self._parts.items()}
        told = {"step": step, "scores": self.scores, "learned": self.origins, self.mark: self._marked}
        write_state(self.folder, {**told, **parts}, "pretraining")
        self._written = time.monotonic()

    def _card(self, title: str, notes: str, step: int, former: Mapping[str, ModelCard | None]) -> ModelCard:
        """Return a card with licence, data and scores of the run.

        What it was made of or begun from, by how (such as ``begun from``), passes its licence on.
        """
        data = [(f"{name}, no labels", licence) for name, licence in self.origins]
        began = [origin_of(card, f"{how} {{}}") for how, card in former.items() if card is not None]
        run, spec = self.config, self.learner.spec
        return ModelCard(
            name=self.folder.resolve().name,
            title=title,
            network=spec.name,
            params=dict(spec.params),
            **provenance(data, began),
            metrics={"held out": {name: round(value, 4) for name, value in self.scores.items()}} if self.scores else {},
            notes=f"{notes}step {step} of {run.steps}, batch {run.batch_size}, seed {run.seed}",
        )

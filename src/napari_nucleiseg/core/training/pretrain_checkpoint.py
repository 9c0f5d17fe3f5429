"""State of a run without labels on disk: what self-distillation and warm starts share."""

from __future__ import annotations

import json
import pickle
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from napari_nucleiseg.core.errors import WeightsError
from napari_nucleiseg.core.models.files import write_over
from napari_nucleiseg.core.models.weights import ModelCard, NamedSpec, read_card, save_model
from napari_nucleiseg.core.training.checkpoint import cut_log, licence_of, write_state
from napari_nucleiseg.core.training.config import config_as_json


class PretrainConfig(Protocol):
    """What a checkpoint reads of the configuration of a run; fields of the same names."""

    @property
    def out(self) -> str:
        """Folder of the run."""

    @property
    def steps(self) -> int:
        """Steps of the run."""

    @property
    def batch_size(self) -> int:
        """Patches or regions a step."""

    @property
    def measure_every(self) -> int:
        """Steps between measurements."""

    @property
    def checkpoint_seconds(self) -> float:
        """Least seconds between checkpoints."""

    @property
    def seed(self) -> int:
        """Of everything random."""

    @property
    def resume(self) -> bool:
        """Whether an interrupted run is gone on with."""


def card_to_start_from(path: Path, network: str) -> ModelCard:
    """Return the card of a weight file that a run begins with; one that states no licence where it has none.

    Parameters
    ----------
    path : Path
        The file.
    network : str
        What it holds.
    """
    try:
        return read_card(path)
    except WeightsError:
        return ModelCard(path.stem, network)


class PretrainCheckpoint(ABC):
    """Writes ``last.pt`` (all of the run), ``log.jsonl`` and a weight file with its card.

    Parameters
    ----------
    config : PretrainConfig
        The run.
    spec : NamedSpec
        Of what is kept.
    origins : iterable of (str, str)
        Name and licence of each set of slides.
    writes : bool
        Whether this is the process that writes.
    """

    weights = ""
    """Name of the weight file."""

    def __init__(
        self, config: PretrainConfig, spec: NamedSpec, origins: Iterable[tuple[str, str]], *, writes: bool
    ) -> None:
        self.run, self._spec, self.writes = config, spec, writes
        self.origins = tuple(dict.fromkeys(origins))
        self.folder = Path(config.out)
        self.scores: dict[str, float] = {}
        self._unwritten, self._written = 0, time.monotonic()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise WeightsError(f"the output folder {self.folder} cannot be made: {error}") from error

    # ------------------------------------------------------------------ what kinds of runs differ in

    @property
    @abstractmethod
    def _kept(self) -> nn.Module:
        """The network of the weight file."""

    @abstractmethod
    def _state(self) -> dict[str, Any]:
        """Return what `_load` needs, without step and scores."""

    @abstractmethod
    def _load(self, state: Mapping[str, Any]) -> None:
        """Take a state up; raises ValueError with the reason where it is of another run."""

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
        if self.run.resume and path.exists():
            step = self._read_state(path)
            if self.writes:
                cut_log(log, step)
            return step
        if self.writes:
            log.unlink(missing_ok=True)
            write_over(self.folder / "config.json", config_as_json(self.run).encode())
        return 0

    def _read_state(self, path: Path) -> int:
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            self._load(state)
            self.scores = dict(state["scores"])
            return int(state["step"])
        except (RuntimeError, KeyError, TypeError, ValueError, EOFError, pickle.UnpicklingError) as error:
            reason = str(error).splitlines()[-1].strip() if str(error) else type(error).__name__
            raise WeightsError(
                f"{path} is not a checkpoint of this configuration; choose another output folder or switch "
                f"resuming off ({reason})"
            ) from error

    def save(self, step: int, parts: dict[str, float], scores: dict[str, float] | None) -> bool:
        """Write what is due after `step`; return whether that was a checkpoint."""
        if not self.writes:
            return False
        if scores is not None:
            self.scores = scores
        is_last = step >= self.run.steps
        if is_last or step % self.run.measure_every == 0:
            held_out = {f"held_out_{name}": value for name, value in (scores or {}).items()}
            with (self.folder / "log.jsonl").open("a") as log:
                log.write(json.dumps({"step": step, **parts, **held_out}) + "\n")
        due = is_last or time.monotonic() - self._written >= self.run.checkpoint_seconds
        if due:
            self._write(step)
        self._unwritten = 0 if due else step
        return due

    @contextmanager
    def left_whole(self) -> Iterator[None]:
        """Write the last step down if the generator in which this is used is closed within the block."""
        try:
            yield
        except GeneratorExit:
            if self._unwritten and self.run.resume:
                self._write(self._unwritten)
            raise

    def _write(self, step: int) -> None:
        save_model(self.folder / self.weights, self._kept, self._spec, self.card(step))
        write_state(self.folder, {"step": step, "scores": self.scores, **self._state()}, "pretraining")
        self._written = time.monotonic()

    def _card(self, title: str, notes: str, step: int, former: Mapping[str, ModelCard | None]) -> ModelCard:
        """Return a card with licence, data and scores of the run.

        What it was made of or begun from, by how (such as ``begun from``), passes its licence on.
        """
        stated = [licence for _, licence in self.origins]
        data = [f"{name}, no labels ({licence or 'licence not stated'})" for name, licence in self.origins]
        cards = {how: card for how, card in former.items() if card is not None}
        for how, card in cards.items():
            stated.append("" if card.licence == "unknown" else card.licence)
            data.append(f"{how} {card.version} ({card.licence})")
        licence, commercial_use = licence_of(stated)
        run = self.run
        return ModelCard(
            name=self.folder.resolve().name,
            title=title,
            network=self._spec.name,
            params=dict(self._spec.params),
            licence=licence,
            commercial_use=commercial_use and all(card.commercial_use for card in cards.values()),
            training_data=tuple(data),
            metrics={"held out": {name: round(value, 4) for name, value in self.scores.items()}} if self.scores else {},
            notes=f"{notes}step {step} of {run.steps}, batch {run.batch_size}, seed {run.seed}",
        )

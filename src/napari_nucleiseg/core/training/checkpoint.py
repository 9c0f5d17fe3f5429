"""State of a run on disk: written whole or not at all, read back without unpickling."""

from __future__ import annotations

import json
import pickle
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import nn

from napari_nucleiseg.core.errors import WeightsError
from napari_nucleiseg.core.models.checkpoints import DAMAGE
from napari_nucleiseg.core.models.files import write_over
from napari_nucleiseg.core.models.spec import ModelSpec
from napari_nucleiseg.core.models.starts import Start, start_from
from napari_nucleiseg.core.models.weights import ModelCard, save_model
from napari_nucleiseg.core.training.config import TrainConfig, config_as_json

EVERY_SECONDS = 60.0
FORMER = "former-"
UNKNOWN_LICENCE = "unknown"


def made_folder(out: str) -> Path:
    """Return the folder of a run, made if it was not there, or raise a `WeightsError`."""
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WeightsError(f"the output folder {folder} cannot be made: {error}") from error
    return folder


BROKEN_STATE = (*DAMAGE, pickle.UnpicklingError)
"""What reading a file says that is no checkpoint, is cut off, or is one of another network."""


def foreign_state(path: Path, reason: object) -> WeightsError:
    """Return the error of a checkpoint that a run cannot go on from."""
    return WeightsError(
        f"{path} is not a checkpoint of this configuration; choose another output folder or switch resuming off "
        f"({reason})"
    )


def write_state(folder: Path, state: dict[str, Any], doing: str) -> None:
    """Write ``last.pt`` whole, or raise a `WeightsError` and leave the former one; `doing` is what goes on from it."""
    partial = folder / "last.pt.part"
    try:
        torch.save(state, partial)
        partial.replace(folder / "last.pt")
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        raise WeightsError(
            f"the checkpoint cannot be written to {folder} ({error}). Free some space and start again: "
            f"{doing} goes on from the last checkpoint."
        ) from error


def averaged_tensors(folder: Path) -> tuple[dict[str, torch.Tensor], int]:
    """Return the moving average of the last checkpoint of a run under the network's own names, and its step."""
    state = torch.load(folder / "last.pt", map_location="cpu", weights_only=True)
    average = state["average"].items()
    return {key.removeprefix("module."): value for key, value in average if key.startswith("module.")}, state["step"]


def cut_log(path: Path, step: int) -> None:
    """Forget what was logged after the checkpoint of `step`: it comes again."""
    if path.exists():
        lines = [line for line in path.read_text().splitlines() if line.endswith("}")]
        kept = [line for line in lines if json.loads(line)["step"] <= step]
        write_over(path, "".join(f"{line}\n" for line in kept).encode())


def set_aside(weights: Path, initial: str) -> str:
    """Give weights that another run left here another name, so that a file of theirs is one of this run; say so.

    Nothing is replaced: each run's stay, under the first name that is free.

    Parameters
    ----------
    weights : Path
        What this run is to write.
    initial : str
        File that it begins with, if any: that one stays where its configuration names it.

    Returns
    -------
    str
        A sentence for people; empty where there was nothing.
    """
    if not weights.exists() or (initial and Path(initial).resolve() == weights.resolve()):
        return ""
    endings = (f"-{number}" if number > 1 else "" for number in count(1))
    names = (weights.with_name(f"{FORMER}{weights.stem}{ending}{weights.suffix}") for ending in endings)
    former = next(name for name in names if not name.exists())
    weights.replace(former)
    return f"The weights that another run left in {weights.parent} are called {former.name} now."


def licence_of(stated: Iterable[str]) -> tuple[str, bool]:
    """Return the licence of what was learned from data with these, and whether it allows commercial use.

    Parameters
    ----------
    stated : iterable of str
        SPDX expression of each; empty or ``unknown`` where none is stated, which makes that of the whole unknown.
    """
    licences = sorted({licence for item in stated for licence in item.split(" AND ")})
    if not licences or {"", UNKNOWN_LICENCE} & {*licences}:
        return UNKNOWN_LICENCE, False
    return " AND ".join(licences), not any("-NC" in item for item in licences)


Origin = tuple[str, str, bool]
"""What something was made of: how people call it, its licence (empty: not stated), and if it allows commercial use."""


def origin_of(card: ModelCard, how: str = "begun from {}") -> Origin:
    """Return what weights are that a run began with; `how` is said with their version."""
    return how.format(card.version.removesuffix("@")), card.licence, card.commercial_use


def learned_in_all(before: Iterable[Sequence[str]], now: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """Return title and licence of what earlier sessions of a run and this one learn from, each once and in order."""
    pairs = dict.fromkeys((title, licence) for title, licence in (*before, *now))
    # A licence may be stated later.
    stated = {title for title, licence in pairs if licence}
    return tuple((title, licence) for title, licence in pairs if licence or title not in stated)


def provenance(data: Iterable[tuple[str, str]], former: Iterable[Origin | None] = ()) -> dict[str, Any]:
    """Return what a card says (``licence``, ``commercial_use``, ``training_data``) of what was learned.

    Parameters
    ----------
    data : iterable of (str, str)
        What people call each set, and its licence.
    former : iterable of Origin or None
        Weights that it was made of or began with; they pass their licence on.
    """
    origins: list[Origin] = [(title, licence, True) for title, licence in data]
    origins += [origin for origin in former if origin is not None]
    licence, is_open = licence_of(stated for _, stated, _ in origins)
    return {
        "licence": licence,
        "commercial_use": is_open and all(may_sell for _, _, may_sell in origins),
        "training_data": tuple(f"{title} ({stated or 'licence not stated'})" for title, stated, _ in origins),
    }


class LeftWhole(ABC):
    """What writes a run down, so that a run that is stopped keeps its last step."""

    best = -1.0
    """Of what was measured; below 0 nothing was."""
    resumes = True
    _unwritten = 0

    @contextmanager
    def left_whole(self) -> Iterator[None]:
        """Write the last step down if the generator in which this is used is closed within the block.

        Where nothing was measured yet, its weights are kept as the best, also of a run that does not resume.
        """
        try:
            yield
        except GeneratorExit:
            if self._unwritten and self.best < 0:
                self._write_best(self._unwritten, None)
            if self._unwritten and self.resumes:
                self._write_state(self._unwritten)
            raise

    @abstractmethod
    def _write_best(self, step: int, scores: dict[str, float] | None) -> None: ...

    @abstractmethod
    def _write_state(self, step: int) -> None: ...


class Checkpoint(LeftWhole):
    """Writes ``last.pt`` every minute and ``best.safetensors`` (with its card) whenever validation improves.

    Parameters
    ----------
    config, spec, network, average, optimiser
        The run.
    """

    def __init__(
        self,
        config: TrainConfig,
        spec: ModelSpec,
        network: nn.Module,
        average: nn.Module,
        optimiser: torch.optim.Optimizer,
    ) -> None:
        self.config, self.spec = config, spec
        self.network, self.average, self.optimiser = network, average, optimiser
        self.folder = made_folder(config.out)
        self.resumes = config.resume
        self.written = time.monotonic()
        self.start: Start | None = None
        # What became of the weights of another run.
        self.told = ""
        # What `origin_of` says of the weights that the run began with.
        self.began: Origin | None = None
        # Title and licence of what this session and those before it learned from.
        self.learned = tuple(dict.fromkeys((item.title, item.licence) for item in config.train))

    def restore(self) -> int:
        """Load the initial weights or the last checkpoint; return the number of steps already done.

        Raises
        ------
        WeightsError
            If the checkpoint does not belong to this configuration.
        """
        path = self.folder / "last.pt"
        if self.config.resume and path.exists():
            try:
                state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
                self.network.load_state_dict(state["network"])
                self.average.load_state_dict(state["average"])
                self.optimiser.load_state_dict(state["optimiser"])
                self.best = float(state["best"])
                self.began = state.get("began")
                self.learned = learned_in_all(state.get("learned", ()), self.learned)
                step = int(state["step"])
            except BROKEN_STATE as error:
                raise foreign_state(path, error) from error
            cut_log(self.folder / "log.jsonl", step)
            return step
        if self.config.initial:
            self._start_from(self.config.initial)
        # What another run left here is not of this one.
        path.unlink(missing_ok=True)
        (self.folder / "log.jsonl").unlink(missing_ok=True)
        self.told = set_aside(self.folder / "best.safetensors", self.config.initial)
        (self.folder / "config.json").write_text(config_as_json(self.config))
        return 0

    def _start_from(self, initial: str) -> None:
        """Load weights to begin with; parts of the network that they do not know keep their fresh values."""
        self.start = start_from(self.network, initial, self.spec.name)
        how = "warm start {}, no labels" if self.start.is_warm else "begun from {}"
        self.began = origin_of(self.start.card, how)
        self.average.module.load_state_dict(self.network.state_dict())  # type: ignore[union-attr]

    def note(self, step: int) -> str:
        """Return what is to be said of the initial weights, and of those of another run, at the first step."""
        sentences = (self.start.told if self.start is not None else "", self.told)
        return " ".join(filter(None, sentences)) if step == 1 else ""

    def save(self, step: int, scores: dict[str, float] | None) -> bool:
        """Write what is due after `step`; return whether these weights are the best so far."""
        is_last = step >= self.config.steps
        without_validation = is_last and not self.config.validate
        is_best = without_validation or (scores is not None and scores["choice"] > self.best)
        if scores is not None:
            self.best = max(self.best, scores["choice"])
            with (self.folder / "log.jsonl").open("a") as log:
                log.write(json.dumps({"step": step, **scores}) + "\n")
        if is_best:
            self._write_best(step, scores)
        self._unwritten = step
        if is_last or is_best or time.monotonic() - self.written > EVERY_SECONDS:
            self._write_state(step)
        return is_best

    def _write_best(self, step: int, scores: dict[str, float] | None) -> None:
        save_model(self.folder / "best.safetensors", self.average.module, self.spec, self._card(step, scores))  # type: ignore[arg-type]

    def _write_state(self, step: int) -> None:
        state = {
            "step": step,
            "best": self.best,
            "began": self.began,
            "learned": self.learned,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }
        write_state(self.folder, state, "training")
        self.written, self._unwritten = time.monotonic(), 0

    def _card(self, step: int, scores: dict[str, float] | None) -> ModelCard:
        return ModelCard(
            name=self.folder.resolve().name,
            title=self.spec.title,
            network=self.spec.name,
            params=dict(self.spec.params),
            decoder=self.config.decoder,
            mean=self.config.mean,
            std=self.config.std,
            threshold=self.config.threshold,
            min_area_um2=self.config.min_area_um2,
            **provenance(self.learned, [self.began]),
            metrics={"validation": {key: round(value, 4) for key, value in (scores or {}).items()}},
            notes=f"step {step} of {self.config.steps}, seed {self.config.seed}",
        )

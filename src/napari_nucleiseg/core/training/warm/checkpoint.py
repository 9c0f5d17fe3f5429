"""State of a run on disk, and the network with its taught part as a weight file."""

from __future__ import annotations

import json
import pickle
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from napari_nucleiseg.core.errors import WeightsError
from napari_nucleiseg.core.models.files import write_over
from napari_nucleiseg.core.models.starts import warm_start_note
from napari_nucleiseg.core.models.weights import ModelCard, save_model
from napari_nucleiseg.core.training.checkpoint import cut_log, licence_of, write_state
from napari_nucleiseg.core.training.config import config_as_json
from napari_nucleiseg.core.training.warm.config import MASKED, MOCO, SIMCLR, SWIN_UNETR, WarmConfig
from napari_nucleiseg.core.training.warm.learner import Learner

WEIGHTS = "warm.safetensors"
_SOURCES = {
    SIMCLR: "SimCLR (Chen et al., ICML 2020)",
    MOCO: "momentum contrast (He et al., CVPR 2020)",
    SWIN_UNETR: "rotation, contrast and inpainting (Tang et al., CVPR 2022)",
    MASKED: "masked image modelling (SimMIM: Xie et al., CVPR 2022)",
}


class WarmCheckpoint:
    """Writes ``last.pt`` (all of the run) and ``warm.safetensors`` (the network with its card).

    Parameters
    ----------
    config, learner
        The run.
    origins : iterable of (str, str)
        Name and licence of each set of slides.
    """

    def __init__(self, config: WarmConfig, learner: Learner, origins: Iterable[tuple[str, str]]) -> None:
        self.config, self.learner = config, learner
        self.origins = tuple(dict.fromkeys(origins))
        self.folder = Path(config.out)
        self.writes = learner.processes.is_first
        self.scores: dict[str, float] = {}
        self._unwritten, self._written = 0, time.monotonic()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise WeightsError(f"the output folder {self.folder} cannot be made: {error}") from error

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
            if (found := state["kind"]) != self._kind:
                raise ValueError(f"it is one of {found}")  # noqa: TRY301 - told below
            self.learner.method.load_state_dict(state["method"])
            self.learner.optimiser.load_state_dict(state["optimiser"])
            self.scores = dict(state["scores"])
            return int(state["step"])
        except (RuntimeError, KeyError, TypeError, ValueError, EOFError, pickle.UnpicklingError) as error:
            reason = str(error).splitlines()[-1].strip() if str(error) else type(error).__name__
            raise WeightsError(
                f"{path} is not a checkpoint of this configuration; choose another output folder or switch "
                f"resuming off ({reason})"
            ) from error

    @property
    def _kind(self) -> str:
        """What tells runs apart whose tensors might fit each other."""
        return f"{self.config.method} of the {self.config.part} of {self.learner.spec.name}"

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
        """Write the last step down if the generator in which this is used is closed within the block."""
        try:
            yield
        except GeneratorExit:
            if self._unwritten and self.config.resume:
                self._write(self._unwritten)
            raise

    def _write(self, step: int) -> None:
        learner = self.learner
        save_model(self.folder / WEIGHTS, learner.network, learner.spec, self.card(step))
        state = {
            "step": step,
            "kind": self._kind,
            "scores": self.scores,
            "method": learner.method.state_dict(),
            "optimiser": learner.optimiser.state_dict(),
        }
        write_state(self.folder, state, "pretraining")
        self._written = time.monotonic()

    def card(self, step: int) -> ModelCard:
        """Return the card of the network after `step`."""
        config, start = self.config, self.learner.start
        stated = [licence for _, licence in self.origins]
        data = [f"{name}, no labels ({licence or 'licence not stated'})" for name, licence in self.origins]
        if start is not None and start.card is not None:
            stated.append("" if start.card.licence == "unknown" else start.card.licence)
            data.append(f"begun from {start.card.version} ({start.card.licence})")
        licence, commercial_use = licence_of(stated)
        return ModelCard(
            name=self.folder.resolve().name,
            title=f"Warm start, not a model of nuclei: {config.part} taught without labels",
            network=self.learner.spec.name,
            params=dict(self.learner.spec.params),
            licence=licence,
            commercial_use=commercial_use,
            training_data=tuple(data),
            metrics={"held out": {name: round(value, 4) for name, value in self.scores.items()}} if self.scores else {},
            notes=f"{_SOURCES[config.method]}; step {step} of {config.steps}, batch {config.batch_size}, "
            f"seed {config.seed}",
            taught=warm_start_note(config.method, self.learner.taught),
        )

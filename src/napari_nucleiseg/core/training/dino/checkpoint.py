"""State of a run of self-distillation on disk, and the teacher's encoder as a weight file."""

from __future__ import annotations

import copy
import json
import pickle
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from napari_nucleiseg.core.errors import WeightsError
from napari_nucleiseg.core.models.encoders import LoadedEncoder
from napari_nucleiseg.core.models.files import write_over
from napari_nucleiseg.core.models.weights import ModelCard, encode_model, save_model
from napari_nucleiseg.core.training.checkpoint import cut_log, licence_of, write_state
from napari_nucleiseg.core.training.config import config_as_json
from napari_nucleiseg.core.training.dino.config import DinoConfig
from napari_nucleiseg.core.training.dino.learner import Learner

WEIGHTS = "encoder.safetensors"
_METHOD = "self-distillation without labels (DINO: Caron et al., ICCV 2021; HIPT: Chen et al., CVPR 2022)"


class DinoCheckpoint:
    """Writes ``last.pt`` (all of the run) and ``encoder.safetensors`` (the teacher's encoder with its card).

    Parameters
    ----------
    config, learner
        The run.
    origins : iterable of (str, str)
        Name and licence of each set of slides.
    patch_card : ModelCard or None
        Of the encoder of patches, in the second stage.
    """

    def __init__(
        self,
        config: DinoConfig,
        learner: Learner,
        origins: Iterable[tuple[str, str]],
        patch_card: ModelCard | None = None,
    ) -> None:
        self.config, self.learner, self.patch_card = config, learner, patch_card
        self.origins = tuple(dict.fromkeys(origins))
        self.folder = Path(config.out)
        self.writes = learner.processes.is_first
        self.scores: dict[str, float] = {}
        self._unwritten, self._written = 0, time.monotonic()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise WeightsError(f"the output folder {self.folder} cannot be made: {error}") from error

    @property
    def _features_of(self) -> str:
        return "" if self.patch_card is None else self.patch_card.version

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
        learner = self.learner
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            if state["features_of"] != self._features_of:
                raise ValueError(f"it was made from features of {state['features_of']}")  # noqa: TRY301 - told below
            learner.student.load_state_dict(state["student"])
            learner.teacher.load_state_dict(state["teacher"])
            learner.loss.load_state_dict(state["loss"])
            learner.optimiser.load_state_dict(state["optimiser"])
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
        save_model(self.folder / WEIGHTS, learner.teacher.backbone, learner.spec, self.card(step))
        state = {
            "step": step,
            "scores": self.scores,
            "features_of": self._features_of,
            "student": learner.student.state_dict(),
            "teacher": learner.teacher.state_dict(),
            "loss": learner.loss.state_dict(),
            "optimiser": learner.optimiser.state_dict(),
        }
        write_state(self.folder, state, "pretraining")
        self._written = time.monotonic()

    def card(self, step: int) -> ModelCard:
        """Return the card of the teacher's encoder after `step`."""
        config, patch_card = self.config, self.patch_card
        licence, commercial_use = licence_of(stated for _, stated in self.origins)
        data = [f"{name}, no labels ({stated or 'licence not stated'})" for name, stated in self.origins]
        if patch_card is not None:
            stated = "" if patch_card.licence == "unknown" else patch_card.licence
            licence, commercial_use = licence_of([*(stated for _, stated in self.origins), stated])
            commercial_use = commercial_use and patch_card.commercial_use
            data.append(f"features of {patch_card.version} ({patch_card.licence})")
        return ModelCard(
            name=self.folder.resolve().name,
            title=self.learner.spec.title,
            network=self.learner.spec.name,
            params=dict(self.learner.spec.params),
            licence=licence,
            commercial_use=commercial_use,
            training_data=tuple(data),
            metrics={"held out": {name: round(value, 4) for name, value in self.scores.items()}} if self.scores else {},
            notes=f"{_METHOD}; stage {config.stage}, step {step} of {config.steps}, batch {config.batch_size}, "
            f"seed {config.seed}",
            features_of=self._features_of,
        )

    def encoder(self, step: int) -> LoadedEncoder:
        """Return a copy of the teacher's encoder as it is now, with its card."""
        network = copy.deepcopy(self.learner.teacher.backbone).cpu().eval()
        _, card = encode_model(network, self.learner.spec, self.card(step))
        return LoadedEncoder(self.learner.spec, card, network)

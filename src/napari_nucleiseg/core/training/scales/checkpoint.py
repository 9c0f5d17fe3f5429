"""State of a run of pretraining on disk: written whole or not at all, and gone on with as if it had never stopped."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from napari_nucleiseg.core.errors import WeightsError
from napari_nucleiseg.core.models.files import write_over
from napari_nucleiseg.core.models.resnet34 import read_tensors
from napari_nucleiseg.core.models.scale_attention import load_published_state, published_state
from napari_nucleiseg.core.models.spec import ModelSpec
from napari_nucleiseg.core.models.starts import card_to_start_from
from napari_nucleiseg.core.models.weights import LoadedModel, ModelCard, encode_model, load_tensors, save_model
from napari_nucleiseg.core.training.checkpoint import (
    BROKEN_STATE,
    LeftWhole,
    Origin,
    cut_log,
    foreign_state,
    learned_in_all,
    made_folder,
    origin_of,
    provenance,
    write_state,
)
from napari_nucleiseg.core.training.config import config_as_json
from napari_nucleiseg.core.training.scales.config import ScaleConfig, judge
from napari_nucleiseg.core.training.scales.examination import Glance
from napari_nucleiseg.core.training.scales.learner import Learner

_METHOD = "self-supervised by scale classification (Sahasrabudhe et al., MICCAI 2020)"


class ScaleCheckpoint(LeftWhole):
    """Writes ``last.pt`` (all of the run) and ``best.safetensors`` (the network F with its card).

    Parameters
    ----------
    config, spec, learner
        The run.
    origins : iterable of (str, str)
        Name and licence of each set of slides.
    initial : LoadedModel, optional
        What the learner began with.
    """

    def __init__(
        self,
        config: ScaleConfig,
        spec: ModelSpec,
        learner: Learner,
        origins: Iterable[tuple[str, str]],
        initial: LoadedModel | None = None,
    ) -> None:
        self.config, self.spec, self.learner = config, spec, learner
        # Of what this session and those before it learned from.
        self.origins = tuple(dict.fromkeys(origins))
        self.folder = made_folder(config.out)
        self.resumes = config.resume
        # What `origin_of` says of the weights that the run began with.
        self.began: Origin | None = None if initial is None else origin_of(initial.card)

    def restore(self) -> int:
        """Load the last checkpoint or the initial weights; return the number of steps already done.

        Raises
        ------
        WeightsError
            If they do not belong to this configuration.
        """
        path = self.folder / "last.pt"
        if self.config.resume and path.exists():
            step = self._read_state(path)
            cut_log(self.folder / "log.jsonl", step)
            return step
        if self.config.initial and self.began is None:
            self._start_from(Path(self.config.initial))
        path.unlink(missing_ok=True)
        (self.folder / "log.jsonl").unlink(missing_ok=True)
        write_over(self.folder / "config.json", config_as_json(self.config).encode())
        return 0

    def _read_state(self, path: Path) -> int:
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            load_published_state(self.learner.network, self.learner.classifier, state)
            if self.learner.average is not None:
                self.learner.average.load_state_dict(state["average"])
            self.learner.optimiser.load_state_dict(state["optimiser"])
            self.best = float(state["best"])
            self.began = state.get("began", self.began)
            self.origins = learned_in_all(state.get("learned", ()), self.origins)
            return int(state["step"])
        except (*BROKEN_STATE, WeightsError) as error:
            raise foreign_state(path, error) from error

    def _start_from(self, path: Path) -> None:
        if path.suffix == ".safetensors":
            try:
                self.learner.network.load_state_dict(load_tensors(path))
            except RuntimeError as error:
                reason = str(error).splitlines()[-1].strip()
                raise WeightsError(f"{path} does not fit network {self.spec.name} as it is set up: {reason}") from error
        else:
            load_published_state(self.learner.network, self.learner.classifier, read_tensors(path))  # type: ignore[arg-type]
        self.began = origin_of(card_to_start_from(path, self.spec.name))
        if self.config.level_is_fixed:
            self.learner.network.level_to_zero()
        if self.learner.average is not None:
            self.learner.average.module.load_state_dict(self.learner.network.state_dict())

    def save(self, step: int, scores: dict[str, float] | None, glance: Glance | None) -> bool:
        """Write what is due after `step`; return whether these weights are the best so far."""
        is_last = step >= self.config.steps
        # Where nothing is held out the newest are kept. Of equals the later one has seen more.
        due = is_last or step % self.config.checkpoint_every == 0
        is_best = due and self.best < 0
        if scores is not None:
            judged = judge(scores)
            is_best = judged >= self.best or not (self.config.weight("scale") or self.config.level_is_fixed)
            self.best = max(self.best, judged)
            with (self.folder / "log.jsonl").open("a") as log:
                log.write(json.dumps({"step": step, **scores}) + "\n")
        if glance is not None:
            self._draw(step, glance)
        if is_best:
            self._write_best(step, scores)
        if due or is_best:
            self._write_state(step)
        self._unwritten = 0 if due or is_best else step
        return is_best

    def _write_best(self, step: int, scores: dict[str, float] | None) -> None:
        # Half precision would move tau by as much as a tenth of the sigmoid's width.
        save_model(self.folder / "best.safetensors", self.learner.kept, self.spec, self.card(step, scores), half=False)

    def _write_state(self, step: int) -> None:
        state: dict[str, Any] = {
            **published_state(self.learner.network, self.learner.classifier),
            "step": step,
            "best": self.best,
            "began": self.began,
            "learned": self.origins,
            "optimiser": self.learner.optimiser.state_dict(),
        }
        if self.learner.average is not None:
            state["average"] = self.learner.average.state_dict()
        write_state(self.folder, state, "pretraining")

    def _draw(self, step: int, glance: Glance) -> None:
        """Write the picture and its attention side by side as ``attention/<step>.png``."""
        shade = np.repeat(np.rint(glance.attention * 255).astype(np.uint8)[..., None], 3, axis=2)
        _, code = cv2.imencode(".png", np.concatenate([glance.picture[..., ::-1], shade], axis=1))
        (self.folder / "attention").mkdir(exist_ok=True)
        write_over(self.folder / "attention" / f"{step:06}.png", code.tobytes())

    def card(self, step: int, scores: dict[str, float] | None) -> ModelCard:
        """Return the card of the network after `step`."""
        notes = f"{_METHOD}; step {step} of {self.config.steps}, seed {self.config.seed}"
        if self.config.level_is_fixed:
            notes += "; told by the shape of nuclei in haematoxylin"
        if self.config.imagenet:
            notes += "; its classifier started from ImageNet weights"
        return ModelCard(
            name=self.folder.resolve().name,
            title=self.spec.title,
            network=self.spec.name,
            params=dict(self.spec.params),
            **provenance([(f"{name}, no labels", licence) for name, licence in self.origins], [self.began]),
            metrics={"validation": {key: round(value, 4) for key, value in (scores or {}).items()}},
            notes=notes,
            level_is_set=self.config.level_is_fixed,
        )

    def model(self, step: int, scores: dict[str, float] | None = None) -> LoadedModel:
        """Return a copy of the network as it is now, with its card, as a model."""
        network = copy.deepcopy(self.learner.kept).cpu().eval()
        _, card = encode_model(network, self.spec, self.card(step, scores), half=False)
        return LoadedModel(self.spec, card, network)

"""What a fine-tune has done so far, on disk: after a crash the same call goes on from there."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from napari_nucleiseg.core.errors import TeachingError
from napari_nucleiseg.core.models.weights import LoadedModel, user_folder
from napari_nucleiseg.core.teaching.collect import Lesson
from napari_nucleiseg.core.teaching.curve import Curve
from napari_nucleiseg.core.teaching.learner import Learner, Tensors
from napari_nucleiseg.core.training.checkpoint import BROKEN_STATE

EVERY_SECONDS = 20.0
FILE = "teaching.pt"


def notes_folder(model: LoadedModel, lesson: Lesson) -> Path:
    """Return where a fine-tune is noted: one folder for a model and a set of slides, whatever the settings."""
    slides = sorted({example.fingerprint or example.slide for example in lesson.examples})
    digest = hashlib.sha256(repr((model.version, slides)).encode()).hexdigest()
    return user_folder() / "teaching" / digest[:16]


@dataclass(frozen=True, slots=True, eq=False)
class Learnt:
    """The end of one run: its best weights, and the step they are of."""

    weights: Tensors
    step: int


class Notebook:
    """Notes of one fine-tune, in memory and, where a folder is given, on disk.

    Parameters
    ----------
    folder : path
        Empty notes in memory only.
    fingerprint : str
        Of model, examples and settings; notes of anything else are dropped.
    """

    def __init__(self, folder: str | Path, fingerprint: str) -> None:
        self.path = Path(folder) / FILE if folder else None
        self.fingerprint = fingerprint
        self._done: dict[str, Learnt] = {}
        self._open: dict[str, Any] = {}
        self._written = self._opened = time.monotonic()
        self._seconds_before = 0.0
        if self.path is not None:
            self._read(self.path)

    @property
    def seconds(self) -> float:
        """How long it has taken so far, with what was done before a crash."""
        return self._seconds_before + time.monotonic() - self._opened

    def _read(self, path: Path) -> None:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            state = torch.load(path, map_location="cpu", weights_only=True)
            if state["fingerprint"] == self.fingerprint:
                done = {name: Learnt(item["weights"], item["step"]) for name, item in state["done"].items()}
                now, seconds = dict(state["open"]), float(state.get("seconds", 0.0))
                self._done, self._open, self._seconds_before = done, now, seconds
        except BROKEN_STATE:
            return  # no notes, or damaged ones, which are worth no more

    def holds(self, run: str) -> bool:
        """Whether a run has ended."""
        return run in self._done

    def lessons(self) -> dict[str, Learnt]:
        """Return what each run has come to."""
        return dict(self._done)

    def restore(self, run: str, learner: Learner, curve: Curve) -> int:
        """Bring a run to where it was; return the steps already done."""
        if self._open.get("run") != run:
            return 0
        learner.network.load_state_dict(self._open["network"])
        learner.average.load_state_dict(self._open["average"])
        learner.optimiser.load_state_dict(self._open["optimiser"])
        curve.points = [(int(step), float(score)) for step, score in self._open["points"]]
        curve.best = self._open["best"]
        return int(self._open["step"])

    def note(self, run: str, step: int, learner: Learner, curve: Curve) -> None:
        """Note a step; written now and then."""
        if self.path is None or time.monotonic() - self._written < EVERY_SECONDS:
            return
        self._open = {
            "run": run,
            "step": step,
            "network": learner.network.state_dict(),
            "average": learner.average.state_dict(),
            "optimiser": learner.optimiser.state_dict(),
            "points": [list(point) for point in curve.points],
            "best": curve.best,
        }
        self._write()

    def finish(self, run: str, weights: Tensors, step: int) -> None:
        """Note the end of a run."""
        self._done[run] = Learnt(weights, step)
        self._open = {}
        if self.path is not None:
            self._write()

    def _write(self) -> None:
        if self.path is None:
            return
        partial = self.path.with_name(FILE + ".part")
        done = {name: {"weights": item.weights, "step": item.step} for name, item in self._done.items()}
        try:
            state = {"fingerprint": self.fingerprint, "done": done, "open": self._open, "seconds": self.seconds}
            torch.save(state, partial)
            partial.replace(self.path)
        except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
            partial.unlink(missing_ok=True)
            raise TeachingError(
                f"What was learnt so far cannot be noted in {self.path.parent} ({error}). Free some space and teach "
                "again; the former model is as it was."
            ) from error
        self._written = time.monotonic()

    def close(self) -> None:
        """Drop the notes: the fine-tune has ended."""
        if self.path is not None:
            self.path.unlink(missing_ok=True)

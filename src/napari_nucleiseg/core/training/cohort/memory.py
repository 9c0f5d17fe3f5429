"""What a comparison has found so far, so that one that was interrupted goes on with the next fold."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.errors import StoreError, WeightsError
from napari_nucleiseg.core.models.weights import read_card
from napari_nucleiseg.core.training.cohort.bags import read_bag_card
from napari_nucleiseg.core.training.cohort.config import CohortConfig
from napari_nucleiseg.core.training.cohort.labels import Cohort

NAME = "folds.jsonl"
# What changes neither networks nor what they say.
_NO_MATTER = ("out", "device", "aggregators")


@dataclass(frozen=True, slots=True, eq=False)
class FoldJudged:
    """What a network said of the slides of a fold.

    Parameters
    ----------
    scores : ndarray of float64, shape (m, columns)
        A row of `tasks.scores_of` for each slide held out.
    loss : float
        Mean of the last epoch of learning.
    """

    scores: NDArray[np.float64]
    loss: float


class Memory:
    """``folds.jsonl`` in the folder of a comparison; lines are only ever added.

    Parameters
    ----------
    folder : Path
        Is there.
    cohort : Cohort
        Slides, their labels and their features decide which lines count, and so do most settings.
    config : CohortConfig
        The settings.
    folds : ndarray of int64, shape (n,)
        Fold of each slide; other folds are judged anew.

    Raises
    ------
    StoreError
        If the file cannot be read.
    """

    def __init__(self, folder: Path, cohort: Cohort, config: CohortConfig, folds: NDArray[np.int64]) -> None:
        self._path, self.key = folder / NAME, key_of(cohort, config, folds)
        self._found: dict[tuple[str, int], FoldJudged] = {}
        try:
            text = self._path.read_text(encoding="utf-8", errors="replace") if self._path.exists() else ""
        except OSError as error:
            raise StoreError(f"{self._path} cannot be read: {error.strerror or error}; name another folder") from error
        # A line that a crash cut off must not swallow the next one.
        self._torn = bool(text) and not text.endswith("\n")
        for line in text.splitlines():
            try:
                said = json.loads(line)
                judged = FoldJudged(np.array(said["scores"], np.float64), float(said["loss"]))
                if said["key"] == self.key:
                    self._found[str(said["aggregator"]), int(said["fold"])] = judged
            except (ValueError, TypeError, KeyError):
                continue  # a line cut off by a crash: that fold is done again

    def find(self, aggregator: str, fold: int) -> FoldJudged | None:
        """Return what was found before, or None."""
        return self._found.get((aggregator, fold))

    def add(self, aggregator: str, fold: int, judged: FoldJudged) -> None:
        """Remember a fold.

        Raises
        ------
        StoreError
            If the line cannot be written.
        """
        said = {
            "key": self.key,
            "aggregator": aggregator,
            "fold": fold,
            "loss": judged.loss,
            "scores": judged.scores.tolist(),
        }
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write("\n" * self._torn + json.dumps(said) + "\n")
        except OSError as error:
            raise StoreError(f"{self._path} cannot be written: {error.strerror or error}; free some space") from error
        self._torn = False
        self._found[aggregator, fold] = judged

    def has_weights(self, path: Path) -> bool:
        """Whether a weight file was fitted to all slides by the same comparison."""
        try:
            return read_card(path).taught.get("key") == self.key
        except WeightsError:
            return False


def key_of(cohort: Cohort, config: CohortConfig, folds: NDArray[np.int64]) -> str:
    """Return 16 digits that change with slides, labels, features, folds and whatever setting decides what is learnt."""
    settings = {name: value for name, value in asdict(config).items() if name not in _NO_MATTER}
    slides = []
    for case in cohort.cases:
        time = None if math.isnan(case.time) else case.time
        card = asdict(read_bag_card(case.path)) if case.path is not None else {}
        slides.append([case.slide, case.patient, case.label, time, case.event, card])
    text = json.dumps([settings, cohort.task, slides, folds.tolist()], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]

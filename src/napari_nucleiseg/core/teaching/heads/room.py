"""What a lesson for a head needs and finds out: who is taught what, the measurements, and the judgement at the end."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from napari_nucleiseg.core.errors import DataError
from napari_nucleiseg.core.models.encoders import LoadedEncoder
from napari_nucleiseg.core.teaching.heads.cards import taught_card
from napari_nucleiseg.core.teaching.heads.config import HeadTeachConfig
from napari_nucleiseg.core.teaching.heads.curve import Choice, HeadCurve, choose
from napari_nucleiseg.core.teaching.heads.division import HeadRun, divide_painted
from napari_nucleiseg.core.teaching.heads.learner import HeadLearner, Stem, Tensors, look
from napari_nucleiseg.core.teaching.heads.measure import (
    Drift,
    HeadScores,
    Numbers,
    drift_of,
    gain_of,
    measured,
    scores_of,
)
from napari_nucleiseg.core.teaching.heads.painted import PaintedPatch
from napari_nucleiseg.core.teaching.heads.tail import Tail
from napari_nucleiseg.core.teaching.heads.verdict import HeadOutcome, head_verdict

# With fewer patches without paint, none is spared from learning for measuring alone.
_ENOUGH_OTHERS = 4
# How finely it is searched how far weights may go.
_HALVINGS = 5
_SHARE = "share"


class HeadRoom:
    """One lesson.

    Parameters
    ----------
    encoder, patches, others, config
        See `teach.teach_head`, also for what is raised.
    """

    def __init__(
        self,
        encoder: LoadedEncoder,
        patches: Sequence[PaintedPatch],
        others: NDArray[np.uint8] | None,
        config: HeadTeachConfig,
    ) -> None:
        if problem := config.validation_error(encoder.spec):
            raise DataError(problem)
        if config.threads:
            torch.set_num_threads(config.threads)
        self.encoder, self.patches, self.config = encoder, tuple(patches), config
        self.division = divide_painted(self.patches, config.hold_out, config.seed)
        side = encoder.spec.input_px
        others = np.zeros((0, side, side, 3), np.uint8) if others is None else others
        if {one.shape for one in (others[0:1], *(patch.pixels[None] for patch in patches)) if len(one)} != {
            (1, side, side, 3)
        }:
            raise DataError(f"{encoder.spec.name} looks at patches of {side} x {side} px; read them with its spec")
        self.stem = Stem(encoder, config)
        self._scratch = copy.deepcopy(self.stem.network)
        self.place = self.stem.layer - self.stem.first, config.head
        self._prepare_others(others)
        self.curves: dict[str, HeadCurve] = {}
        self._last: Tensors = {}
        self._choice: Choice | None = None

    def _prepare_others(self, others: NDArray[np.uint8]) -> None:
        """Part patches without paint into those that anchor and those that witness how far the encoder moves."""
        self.told = self.division.told
        enough = len(others) >= _ENOUGH_OTHERS
        self.anchors = self._stem_of(others[0::2] if enough else others)
        self.witnesses = self._stem_of(others[1::2] if enough else others)
        if not enough:
            painted = self._painted(range(len(self.patches)))
            self.witnesses = torch.cat((self.witnesses, painted))
            self.told += " There is hardly any tissue without paint: whether features stay was seen on painted patches."
        self.witnessed = self.stem.tail(self.witnesses)

    def _stem_of(self, pixels: NDArray[np.uint8]) -> torch.Tensor:
        spec = self.encoder.spec
        if not len(pixels):
            return torch.zeros((0, 1 + spec.side**2, spec.embed), device=self.stem.device)
        return self.stem.of(pixels)

    def _painted(self, places: Sequence[int]) -> torch.Tensor:
        return torch.stack([self.stem.turned(self.patches, place, 0) for place in places])

    @property
    def total(self) -> int:
        """Steps of all runs at most."""
        return self.config.steps * len(self.division.runs)

    def before(self) -> HeadScores:
        """Return how the former head looks at all that is held out."""
        held = self.division.held
        return scores_of(self._measured(self.stem.tail(self._painted(held)), held))

    def learner(self, run: HeadRun) -> HeadLearner:
        """Return the network of a run, ready for its first step, and begin its curve."""
        if run.held:
            before = self._measured(self.stem.tail(self._painted(run.held)), run.held)
            self.curves[run.name] = HeadCurve(self.config.patience, run.held, before)
        return HeadLearner(self.stem, self.patches, run.teach, self.anchors)

    def limit(self, run: HeadRun) -> int:
        """Return the steps of a run at most: where nothing is held out, those that were best where something was."""
        return self.config.steps if run.held else self.choice().step

    def is_over(self, run: HeadRun) -> bool:
        """Whether a run may stop."""
        return run.name in self.curves and self.curves[run.name].is_over

    def note(self, run: HeadRun, step: int, learner: HeadLearner) -> tuple[HeadScores | None, Drift]:
        """Measure a run, and keep its weights if they are the best so far (or all that it has).

        What is measured and kept goes only as far from the former weights as the features stay near enough.
        """
        learnt = learner.state()
        share, drift = self._allowed(learnt)
        kept = between(self.stem.network.state_dict(), learnt, share)
        kept_share = {_SHARE: torch.tensor(share)}
        if not run.held:
            self._last = kept | kept_share
            return None, drift
        rows = self._rows(kept, run.held)
        free = rows if share == 1 else self._rows(learnt, run.held)
        self.curves[run.name].note(step, rows, float(free[:, 0].mean()), kept | kept_share)
        return scores_of(rows), drift

    def _allowed(self, learnt: Tensors) -> tuple[float, Drift]:
        """Return how far weights may go on the way to new ones, 0..1, and how far features are moved by that."""
        low, high, found = 0.0, 1.0, Drift(patches=len(self.witnesses))
        former, share = self.stem.network.state_dict(), 1.0
        for _ in range(1 + _HALVINGS):
            drift = self._drift(between(former, learnt, share))
            if drift.is_within(self.config.most_drift, self.config.most_change):
                low, found = share, drift
            else:
                high = share
            if low == 1:
                break
            share = (low + high) / 2
        return low, found

    def choice(self) -> Choice:
        """Return which step is kept, and how good it is; for when all runs with held-out patches are over."""
        if self._choice is None:
            self._choice = choose(list(self.curves.values()), self.division.groups)
        return self._choice

    def judge(self) -> HeadOutcome:
        """Return the new encoder and whether it is adopted."""
        choice, config = self.choice(), self.config
        (*_, last) = self.division.runs
        weights = dict(self.curves[last.name].best if last.held else self._last)
        share = float(weights.pop(_SHARE, torch.tensor(0.0)))
        drift = self._drift(weights)
        before, after = scores_of(choice.before), scores_of(choice.after)
        gain = gain_of(choice.before, choice.after, config.seed)
        adopted, reason = head_verdict(before, after, gain, drift, config, strayed=choice.strayed)
        network = copy.deepcopy(self.encoder.network)
        network.load_state_dict(weights, strict=False)
        outcome = HeadOutcome(
            LoadedEncoder(self.encoder.spec, self.encoder.card, network.eval()),
            before, after, gain, drift, adopted, reason, self.told, choice.step, share,
            len(self.patches), len({patch.group for patch in self.patches}),
        )  # fmt: skip
        outcome.encoder.card = taught_card(self.encoder, outcome, self.patches, self.division, config)
        return outcome

    def _with(self, weights: Tensors) -> torch.nn.Module:
        """Return a network with some weights, until the next call."""
        self._scratch.load_state_dict(self.stem.network.state_dict() | weights)
        return self._scratch

    def _drift(self, weights: Tensors) -> Drift:
        return drift_of(look(self._with(weights), self.witnesses, self.stem.first), self.witnessed, self.place)

    def _rows(self, weights: Tensors, places: Sequence[int]) -> Numbers:
        return self._measured(look(self._with(weights), self._painted(places), self.stem.first), places)

    def _measured(self, tail: Tail, places: Sequence[int]) -> Numbers:
        attention = tail.attention[:, *self.place].double().numpy()
        return measured(attention, [self.patches[place] for place in places], self.config.unpainted)


def between(former: Tensors, learnt: Tensors, share: float) -> Tensors:
    """Return weights on the way from the former (share 0) to those that were learnt (1).

    The mean of a model and what was fine-tuned from it keeps more of the former's skill (WiSE-FT, Wortsman et al.,
    CVPR 2022).
    """
    return {name: torch.lerp(former[name], value, share) for name, value in learnt.items()}

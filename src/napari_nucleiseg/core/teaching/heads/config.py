"""Every parameter of teaching a head, declared once; the command line and the panel make their forms from these."""

from __future__ import annotations

import math
from dataclasses import dataclass

from napari_nucleiseg.core.models.encoders import PATCH, EncoderSpec
from napari_nucleiseg.core.models.kinship import MOST_CHANGE, MOST_DRIFT
from napari_nucleiseg.core.training.config import TrainConfig
from napari_nucleiseg.core.training.fields import settings_problem

_RANGES = {
    "head": (0, 10_000),
    "blocks": (0, 10_000),
    "steps": (1, 100_000),
    "learning_rate": (0.0, 1.0),
    "warmup": (0, math.inf),
    "batch_size": (1, 1024),
    "unpainted": (0.0, 1.0),
    "evenness": (0.0, 1000.0),
    "feature_anchor": (0.0, 1e6),
    "token_anchor": (0.0, 1e6),
    "head_anchor": (0.0, 1e6),
    "hold_out": (0.05, 0.9),
    "validate_every": (1, math.inf),
    "patience": (1, math.inf),
    "certainty": (0.5, 1.0),
    "most_drift": (0.0, 2.0),
    "most_change": (0.0, 10.0),
    "seed": (0, 2**63 - 1),
    "threads": (0, 4096),
}


@dataclass(frozen=True, slots=True)
class HeadTeachConfig:
    """One lesson for one head.

    Parameters
    ----------
    layer : int
        Layer of the head, from 0; -1 is the last.
    head : int
        Which head of that layer, from 0; the command wants to be told.
    blocks : int
        0 teaches only the weights of this head, so that no other head of its layer can change; n teaches all weights of
        n layers, of which the head's is the last.
    steps : int
        Optimisation steps at most; fewer where the curve stops rising.
    learning_rate : float
        Largest rate of Adam.
    warmup : int
        Steps until the rate is at its largest.
    batch_size : int
        Painted patches a step; half as many without paint come on top.
    unpainted : float
        How much attention on what nobody painted counts as if it lay on "do not look", 0 to 1: people paint some of
        what they mean, seldom all.
    evenness : float
        Weight of the loss that spreads attention over all that was painted "look here"; 0 lets it gather in one place.
    feature_anchor, token_anchor : float
        Weights of the losses that keep the features of patches, and of the tokens in them, as they were.
    head_anchor : float
        Weight of the loss that keeps what all other heads attend to.
    turns : bool
        Learn from each patch turned and mirrored, too.
    hold_out : float
        Share of the painted places that is kept aside where there are enough.
    validate_every : int
        Steps between measurements on what is held out.
    patience : int
        Measurements without a better one after which a run stops.
    certainty : float
        How sure it must be that the new head is not worse, 0.5 to 1: the share of resamplings of the held-out patches
        in which it is at least as good.
    most_drift : float
        How far features of patches that nobody painted may turn: mean of 1 less their cosine to the former ones.
    most_change : float
        How much of what tells patches apart may change: squared distance of new to former features, as a share of the
        former features' variance from patch to patch.
    seed : int
        Seeds the order of patches, their turns and the choice of what is held out.
    device : str
        ``auto``, ``cpu``, ``cuda`` or ``mps``.
    threads : int
        Threads of torch on the CPU; 0 leaves torch's choice.
    """

    layer: int = -1
    head: int = 0
    blocks: int = 0
    steps: int = 100
    learning_rate: float = 5e-3
    warmup: int = 5
    batch_size: int = 8
    unpainted: float = 0.25
    evenness: float = 0.25
    feature_anchor: float = 5.0
    token_anchor: float = 1.0
    head_anchor: float = 1.0
    turns: bool = True
    hold_out: float = 0.25
    validate_every: int = 10
    patience: int = 4
    certainty: float = 0.9
    most_drift: float = MOST_DRIFT
    most_change: float = MOST_CHANGE
    seed: int = 0
    device: str = "auto"
    threads: int = 0

    def validation_error(self, spec: EncoderSpec | None = None) -> str | None:
        """Return what is wrong as a sentence, or None.

        Parameters
        ----------
        spec : EncoderSpec, optional
            Of the encoder to be taught: then layer and head are looked up in it.
        """
        problem = settings_problem(self, _RANGES)
        if problem or spec is None:
            return problem
        if spec.kind != PATCH:
            return f"{spec.name} looks at features of patches, not at pixels; paint teaches encoders of patches"
        if not -spec.depth <= self.layer < spec.depth:
            return f"there is no layer {self.layer}: {spec.name} has layers 0 to {spec.depth - 1}; -1 is the last"
        if self.head >= spec.heads:
            return f"there is no head {self.head}: each layer of {spec.name} has heads 0 to {spec.heads - 1}"
        return None

    def place(self, spec: EncoderSpec) -> tuple[int, int]:
        """Return the layer of the head, from 0, and the first layer that is taught."""
        layer = self.layer % spec.depth
        return layer, max(0, layer - max(self.blocks, 1) + 1)

    def as_training(self) -> TrainConfig:
        """Return the same as a training run, for what both share: rates."""
        return TrainConfig(steps=self.steps, learning_rate=self.learning_rate, warmup=self.warmup)

"""Every parameter of a fine-tune, declared once; the command line and the panel make their forms from these fields."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from napari_nucleiseg.core.training.config import AugmentConfig, TrainConfig
from napari_nucleiseg.core.training.fields import settings_problem

_RANGES = {
    "steps": (1, 100_000),
    "learning_rate": (0.0, 1.0),
    "anchor": (0.0, 1000.0),
    "memory": (0.0, 1000.0),
    "attention": (0.0, 1000.0),
    "crop_px": (32, 4096),
    "batch_size": (1, 1024),
    "warmup": (0, math.inf),
    "ema": (0.0, 1.0),
    "validate_every": (1, math.inf),
    "patience": (1, math.inf),
    "folds": (2, 20),
    "certainty": (0.5, 1.0),
    "least_agreement": (0.0, 1.0),
    "seed": (0, 2**63 - 1),
    "threads": (0, 4096),
}
_AUGMENT = AugmentConfig(scale=1.2, elastic_um=0.75, stain=0.12, stain_transfer=0.0, colour=0.08, blur_px=0.8)


@dataclass(frozen=True, slots=True)
class FinetuneConfig:
    """One fine-tune.

    Parameters
    ----------
    steps : int
        Optimisation steps at most; fewer where the curve stops rising.
    learning_rate : float
        Largest rate of AdamW.
    anchor : float
        How hard each weight is pulled back to the model it started from: the rate at which the difference decays, in
        units of the learning rate (L2-SP, Li et al., ICML 2018).
    memory : float
        Weight of the loss on tissue that nobody annotated, where the model is to say what it said before; 0 switches
        it off (learning without forgetting, Li & Hoiem, ECCV 2016).
    attention : float
        Weight of the loss where a person painted how the model should look; only for models with that output.
    crop_px, batch_size : int
        Side of a crop in model pixels, crops with labels a step (half as many without come on top); halved where
        memory does not suffice.
    warmup : int
        Steps until the rate is at its largest.
    ema : float
        Decay of the moving average of the weights that is measured and kept.
    validate_every : int
        Steps between measurements on what is held out.
    patience : int
        Measurements without a better one after which a run stops.
    folds : int
        Parts into which few regions are divided when none is held out: each is measured by a model that did not see it.
    certainty : float
        How sure it must be that the new model is not worse, 0.5 to 1: the share of resamplings of the held-out nuclei
        in which it is at least as good.
    least_agreement : float
        Least panoptic quality between the new and the former model on tissue that nobody annotated, 0 to 1: below it
        the new model has forgotten too much.
    seed : int
        Seeds crops, augmentation and the choice of what is held out.
    device : str
        ``auto``, ``cpu``, ``cuda`` or ``mps``.
    mixed_precision : bool
        bfloat16 autocast where the hardware has it.
    threads : int
        Threads of torch on the CPU; 0 leaves torch's choice.
    trust_labels : bool
        Teach even with regions that look wrong (shifted, empty, in pieces).
    ignore_brown : bool
        Teach without the brown of immunostains (DAB), for a model that is used that way; see `core.models.looking`.
    augment : AugmentConfig
        How far crops are changed; gentler than in training from scratch, for the slide at hand is what counts.
    """

    steps: int = 60
    learning_rate: float = 5e-4
    anchor: float = 1.0
    memory: float = 1.0
    attention: float = 0.3
    crop_px: int = 192
    batch_size: int = 4
    warmup: int = 10
    ema: float = 0.97
    validate_every: int = 15
    patience: int = 3
    folds: int = 3
    certainty: float = 0.7
    least_agreement: float = 0.5
    seed: int = 0
    device: str = "auto"
    mixed_precision: bool = True
    threads: int = 0
    trust_labels: bool = False
    ignore_brown: bool = False
    augment: AugmentConfig = field(default=_AUGMENT)

    def validation_error(self) -> str | None:
        """Return what is wrong as a sentence, or None."""
        return settings_problem(self, _RANGES) or self.augment.validation_error()

    @property
    def quiet_size(self) -> int:
        """Crops without labels a step."""
        return max(1, self.batch_size // 2) if self.memory else 0

    def as_training(self, losses: dict[str, float]) -> TrainConfig:
        """Return the same as a training run, for what both share: crops, losses, rates."""
        return TrainConfig(
            losses=losses,
            crop_px=self.crop_px,
            batch_size=self.batch_size,
            steps=self.steps,
            learning_rate=self.learning_rate,
            weight_decay=0.0,
            warmup=self.warmup,
            ema=self.ema,
            validate_every=self.validate_every,
            seed=self.seed,
            device=self.device,
            mixed_precision=self.mixed_precision,
            threads=self.threads,
            augment=self.augment,
        )

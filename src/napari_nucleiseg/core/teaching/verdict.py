"""The guard: whether a new model takes the place of the former one, and why."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from napari_nucleiseg.core.models.weights import LoadedModel
from napari_nucleiseg.core.teaching.agreement import Agreement, Gain
from napari_nucleiseg.core.teaching.config import FinetuneConfig

# With fewer nuclei a difference between two models says nothing.
LEAST_NUCLEI = 15
Ruling = Literal["nothing to judge by", "too few nuclei", "forgotten", "not better", "chance", "better"]


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """What a fine-tune has come to.

    Parameters
    ----------
    model : LoadedModel
        The new model; its card says from which one it comes, what it learnt from and how good it is.
    before, after : Agreement
        Of the former and the new model on what is held out.
    gain : Gain
        The difference, with its interval.
    kept : float or None
        Panoptic quality between the nuclei of both models on tissue without labels; None if there was none.
    adopted : bool
        Whether the new model is to take the former one's place.
    reason : str
        Why, one or two sentences for people.
    told : str
        How it was judged, a sentence.
    steps : int
        Steps whose weights were kept.
    left_out : tuple of str
        Regions that were not used, each a sentence.
    """

    model: LoadedModel
    before: Agreement
    after: Agreement
    gain: Gain
    kept: float | None
    adopted: bool
    reason: str
    told: str
    steps: int
    left_out: tuple[str, ...] = field(default=())


def ruling(after: Agreement, gain: Gain, kept: float | None, config: FinetuneConfig) -> Ruling:
    """Return whether a new model is better, or why it is not adopted: the rules of the guard.

    It is better if it is on what it has not seen, surely enough (`FinetuneConfig.certainty`) and without forgetting
    what the former model knew (`FinetuneConfig.least_agreement`).
    """
    if not after.nuclei:
        return "nothing to judge by"
    if after.nuclei < LEAST_NUCLEI:
        return "too few nuclei"
    if kept is not None and kept < config.least_agreement:
        return "forgotten"
    if gain.choice <= 0:
        return "not better"
    return "better" if gain.not_worse >= config.certainty else "chance"


def scores_text(before: Agreement, after: Agreement) -> str:
    """Return how the scores changed, for people."""
    return f"AJI {before.aji:.3f} → {after.aji:.3f}, PQ {before.pq:.3f} → {after.pq:.3f}"


def interval_text(after: Agreement, gain: Gain) -> str:
    """Return how sure the change is, for people."""
    return f"90 % interval of the change {gain.low:+.3f} to {gain.high:+.3f}, {after.nuclei} nuclei"


def verdict(
    before: Agreement, after: Agreement, gain: Gain, kept: float | None, config: FinetuneConfig
) -> tuple[bool, str]:
    """Return whether to adopt the new model, and the reason; see `ruling`."""
    scores, interval, found = scores_text(before, after), interval_text(after, gain), ruling(after, gain, kept, config)
    if found == "nothing to judge by":
        return False, (
            "There are no corrected nuclei to judge by: painted attention says where to look, not whether nuclei come "
            f"out better. Correct a region with at least {LEAST_NUCLEI} nuclei, hold it out, and teach again."
        )
    if found == "too few nuclei":
        where = "one region" if after.regions == 1 else f"{after.regions} regions"
        return False, (
            f"Only {after.nuclei} nuclei in {where} to judge by: too few to tell a better model from a worse one. "
            f"Correct one or two more regions with at least {LEAST_NUCLEI} nuclei and teach again."
        )
    if found == "forgotten":
        return False, (
            f"On tissue that nobody annotated the new model agrees too little with the former one (PQ {kept:.2f}, at "
            f"least {config.least_agreement:.2f} is asked for): it has forgotten too much, or the labels are not "
            "right. Look through your regions, and correct some that show other tissue."
        )
    if found == "not better":
        return False, (
            f"The new model is not better where it was judged ({scores}). Correct regions that show what it gets wrong."
        )
    if found == "chance":
        return False, (
            f"The new model seems better ({scores}), but that may be chance ({interval}). Correct or hold out one or "
            "two more regions."
        )
    return True, f"Better where it was judged: {scores} ({interval})."

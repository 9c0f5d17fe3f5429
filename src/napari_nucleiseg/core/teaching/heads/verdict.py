"""The guard: whether a taught head takes the former one's place, and why."""

from __future__ import annotations

import math
from dataclasses import dataclass

from napari_nucleiseg.core.models.encoders import LoadedEncoder
from napari_nucleiseg.core.teaching.heads.config import HeadTeachConfig
from napari_nucleiseg.core.teaching.heads.curve import LEAST_GAIN
from napari_nucleiseg.core.teaching.heads.division import LEAST_PATCHES
from napari_nucleiseg.core.teaching.heads.measure import Drift, HeadGain, HeadScores

# AUROC may fall so much while attention gathers where it should.
_AUROC_SLACK = 0.02
# Near chance a head looks nowhere: it only became more even.
_LEAST_AUROC = 0.55


@dataclass(frozen=True, slots=True, eq=False)
class HeadOutcome:
    """What teaching a head has come to.

    Parameters
    ----------
    encoder : LoadedEncoder
        The new encoder; its card says from which one it comes, what it learnt from and how good it is.
    before, after : HeadScores
        Of the former and the new head on what is held out.
    gain : HeadGain
        The difference, with its interval.
    drift : Drift
        How far everything else has moved.
    adopted : bool
        Whether the new encoder is to take the former one's place.
    reason : str
        Why, one or two sentences for people.
    told : str
        How it was judged, a sentence.
    steps : int
        Steps whose weights were kept.
    share : float
        How far the kept weights are on the way from the former to those that were learnt, 0..1: below 1 where features
        would have moved too far.
    patches, places : int
        Painted patches, and places that they form.
    """

    encoder: LoadedEncoder
    before: HeadScores
    after: HeadScores
    gain: HeadGain
    drift: Drift
    adopted: bool
    reason: str
    told: str
    steps: int
    share: float
    patches: int
    places: int


def head_verdict(
    before: HeadScores, after: HeadScores, gain: HeadGain, drift: Drift, config: HeadTeachConfig, *, strayed: bool
) -> tuple[bool, str]:
    """Return whether to adopt the new head, and the reason.

    It is adopted if it looks better at paint that it has not seen, surely enough (`HeadTeachConfig.certainty`), and the
    features stay what they were (`HeadTeachConfig.most_drift`, `HeadTeachConfig.most_change`).

    Parameters
    ----------
    before, after, gain, drift, config
        See `HeadOutcome`.
    strayed : bool
        Whether heads that looked better were not taken because the encoder would have moved too far.
    """
    scores = _shown(before, after)
    interval = f"90 % interval of the change {gain.low:+.3f} to {gain.high:+.3f}, {after.patches} patches"
    if after.patches < LEAST_PATCHES:
        return False, (
            f"Only {after.patches} painted patches to judge by: too few to tell a better head from a worse one. Paint "
            f"in more places, so that at least {LEAST_PATCHES} patches can be held out, and teach again."
        )
    if not drift.is_within(config.most_drift, config.most_change) or (strayed and gain.score < LEAST_GAIN):
        return False, (
            f"To look as painted this head would have to change what the encoder says of patches (features may turn by "
            f"{config.most_drift:g} and change by {config.most_change:.0%}). Choose a head that looks nearly right "
            "already, or teach more gently: fewer steps or a larger feature anchor."
        )
    if worse := _looks_wrong(before, after, gain, scores):
        return False, worse
    if gain.not_worse < config.certainty:
        return False, (
            f"The new head seems to look better ({scores}), but that may be chance ({interval}). Paint in one or two "
            "more places."
        )
    return True, f"It looks better where it was judged: {scores} ({interval})."


def _looks_wrong(before: HeadScores, after: HeadScores, gain: HeadGain, scores: str) -> str:
    """Return why a head does not look better, a sentence; empty if it does."""
    if gain.score < LEAST_GAIN or after.look < before.look:
        return (
            f"The new head does not look better where it was judged ({scores}). See whether the paint says the same "
            "in every place, or choose another head."
        )
    if after.auroc < _LEAST_AUROC:
        return (
            f"Where it was judged the new head still does not tell what is painted from the rest ({scores}): the paint "
            "of one place says nothing about another. See whether it means the same everywhere, or choose another head."
        )
    if after.auroc < before.auroc - _AUROC_SLACK:
        return (
            f"The new head gathers attention in a few spots instead of finding what is painted ({scores}). Paint more "
            "places, or teach with more weight on evenness."
        )
    return ""


def _shown(before: HeadScores, after: HeadScores) -> str:
    said = []
    if not math.isnan(before.look):
        said.append(f"attention on “look here” {before.look:.0%} → {after.look:.0%}")
    if not math.isnan(before.avoid):
        said.append(f"on “do not look” {before.avoid:.0%} → {after.avoid:.0%}")
    if not math.isnan(before.auroc):
        said.append(f"AUROC {before.auroc:.2f} → {after.auroc:.2f}")
    return ", ".join(said)

"""Whether a network taught with planes of a stack is adopted, why, and what its card says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import napari_nucleiseg
from napari_nucleiseg.core.models.weights import LoadedModel, ModelCard
from napari_nucleiseg.core.teaching.agreement import Agreement, Gain, compare, together
from napari_nucleiseg.core.teaching.cards import family_of
from napari_nucleiseg.core.teaching.config import FinetuneConfig
from napari_nucleiseg.core.teaching.stacks.examiner import StackExaminer
from napari_nucleiseg.core.teaching.verdict import LEAST_NUCLEI, Outcome, interval_text, ruling, scores_text
from napari_nucleiseg.core.training.checkpoint import licence_of
from napari_nucleiseg.core.training.clustering.fitted import OWN

if TYPE_CHECKING:
    from napari_nucleiseg.core.teaching.learner import Tensors


def judged(
    examiner: StackExaminer,
    weights: Tensors,
    before: Agreement | None,
    config: FinetuneConfig,
    facts: Mapping[str, Any],
) -> Outcome:
    """Measure new weights on what is held out, and say whether they take the former ones' place.

    Parameters
    ----------
    examiner : StackExaminer
        Knows the former model and the planes.
    weights : dict of str to Tensor
        The new ones.
    before : Agreement or None
        How good the former model is; None where there is none: a first network takes nobody's place.
    config : FinetuneConfig
        Of the fine-tune.
    facts : mapping
        Step of the weights and how long it took, for the card.
    """
    after = examiner.measure(weights)
    if before is None:
        before, gain, kept = together(()), compare((), ()), None
        adopted, reason = True, _first(after)
    else:
        gain, kept = compare([before], [after], config.seed), examiner.kept_view(weights)
        adopted, reason = stack_verdict(before, after, gain, kept, config)
    model = examiner.with_weights(weights)
    told = examiner.division.told
    metrics: dict[str, Any] = {"held out": after.as_dict()}
    if before.nuclei:
        gains = {name: round(value, 4) for name, value in asdict(gain).items()}
        metrics |= {"before": before.as_dict(), "gain": gains}
    card = _card(examiner, metrics, {"settings": asdict(config), **facts, "judged": told})
    new = LoadedModel(model.spec, card, model.network)
    return Outcome(new, before, after, gain, kept, adopted, reason, told, int(facts["step"]))


def _first(after: Agreement) -> str:
    if not after.nuclei:
        return "A first model for stacks. There were no nuclei to judge it by: look at what it finds."
    few = "" if after.nuclei >= LEAST_NUCLEI else " So few say little: look at what it finds."
    return (
        f"A first model for stacks: AJI {after.aji:.3f}, PQ {after.pq:.3f} on {after.nuclei} nuclei that it has not "
        f"seen.{few}"
    )


def stack_verdict(
    before: Agreement, after: Agreement, gain: Gain, kept: float | None, config: FinetuneConfig
) -> tuple[bool, str]:
    """Return whether to adopt a network for stacks, and the reason; see `ruling`."""
    scores, interval, found = scores_text(before, after), interval_text(after, gain), ruling(after, gain, kept, config)
    if found in {"nothing to judge by", "too few nuclei"}:
        count = f"Only {after.nuclei} nuclei are" if after.nuclei else "No nucleus is"
        return False, (
            f"{count} held out: too few to tell a better model from a worse one ({LEAST_NUCLEI} are needed). Correct "
            "more planes and teach again."
        )
    if found == "forgotten":
        return False, (
            f"On planes that nobody corrected the new model agrees too little with the former one (PQ {kept:.2f}, at "
            f"least {config.least_agreement:.2f} is asked for): it has forgotten too much, or the labels are not "
            "right. Look through the planes, and correct some that lie elsewhere."
        )
    if found == "not better":
        return False, (
            f"The new model is not better where it was judged ({scores}). Correct planes that show what it gets wrong."
        )
    if found == "chance":
        return False, (
            f"The new model seems better ({scores}), but that may be chance ({interval}). Correct some more planes."
        )
    return True, f"Better where it was judged: {scores} ({interval})."


def _card(examiner: StackExaminer, metrics: Mapping[str, Any], facts: Mapping[str, Any]) -> ModelCard:
    parent, lesson, division = examiner.model.card, examiner.lesson, examiner.division
    is_first = not parent.sha256
    own = f"{division.learned_nuclei} corrected nuclei on {lesson.told} of {lesson.name} ({lesson.licence or OWN})"
    licence, commercial = licence_of((lesson.licence or OWN,)) if is_first else (parent.licence, parent.commercial_use)
    return replace(
        parent,
        parent="" if is_first else parent.version,
        title=examiner.model.spec.title if is_first else parent.title,
        licence=licence,
        commercial_use=commercial,
        training_data=(*parent.training_data, own),
        metrics=dict(metrics),
        created="",
        sha256="",
        notes="",
        taught={
            "family": family_of(parent),
            "slides": [{"name": lesson.name, "fingerprint": lesson.fingerprint}],
            "regions": [{"slide": lesson.name, "name": lesson.told, "role": "teach"}],
            "nuclei": division.learned_nuclei,
            "labels": lesson.digest,
            **facts,
            "made with": f"napari-nucleiseg {napari_nucleiseg.__version__}",
        },
    )

"""What becomes of a model that learned without labels: measured where there are labels, and kept as a version."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import napari_nucleiseg
from napari_nucleiseg.core.errors import ModelError, WeightsError
from napari_nucleiseg.core.models.weights import LoadedModel, ModelCard
from napari_nucleiseg.core.slides.pyramid import Slide
from napari_nucleiseg.core.store.project import Project
from napari_nucleiseg.core.teaching.agreement import Agreement, Gain, compare, measure, together
from napari_nucleiseg.core.teaching.cards import family_of
from napari_nucleiseg.core.teaching.collect import labelled_parts
from napari_nucleiseg.core.teaching.division import Division, Run
from napari_nucleiseg.core.teaching.examiner import Examiner
from napari_nucleiseg.core.teaching.examples import Example, count_nuclei
from napari_nucleiseg.core.teaching.names import check_name
from napari_nucleiseg.core.teaching.verdict import LEAST_NUCLEI, Outcome
from napari_nucleiseg.core.teaching.versions import Version, keep

FAMILY = "attention"
# Pieces of annotated regions that both models are measured on at most.
MOST_PIECES = 16
# F, G and what Adam remembers of both, in the old checkpoint and in the new one beside it.
ROOM_BYTES = 700_000_000
NOT_JUDGED = (
    "Not judged: there is no annotated region on the open slides to measure it on. Compare it with the former model in "
    "the view, or draw and correct a region."
)


@dataclass(frozen=True, slots=True)
class Origin:
    """What a model learned from without labels.

    Parameters
    ----------
    slides : tuple of (str, str)
        Name and fingerprint of each slide.
    licence : str
        SPDX identifier of all of them; empty is not stated.
    where : str
        Which part of the slides, for people; empty is all tissue.
    settings : mapping
        For the card.
    """

    slides: tuple[tuple[str, str], ...]
    licence: str = ""
    where: str = ""
    settings: Mapping[str, Any] | None = None

    @property
    def title(self) -> str:
        """The slides in a few words."""
        names = [name for name, _ in self.slides]
        return names[0] if len(names) == 1 else f"{len(names)} slides"


def require_room(folder: Path, need: int = ROOM_BYTES) -> None:
    """Raise a `WeightsError` if the disk of a folder, which need not be there yet, has no room for a run."""
    there = next((parent for parent in (folder, *folder.parents) if parent.exists()), folder)
    with suppress(OSError):
        free = shutil.disk_usage(there).free
        if free < need:
            raise WeightsError(
                f"The disk that holds {folder} has {free / 1e6:,.0f} MB left; a run needs {need / 1e6:,.0f} MB for its "
                "checkpoints. Make space, or choose another folder."
            )


def labelled_everywhere(projects: Sequence[tuple[Project, Slide]], model: LoadedModel) -> list[Example]:
    """Return pieces of all annotated regions, of any role: what learns without labels has seen none of them."""
    found = [part for project, slide in projects for part in labelled_parts(project, slide, model.spec, slide.region)]
    return found[:: max(1, -(-len(found) // MOST_PIECES))]


def judge(former: LoadedModel, new: LoadedModel, examples: Sequence[Example], origin: Origin, device: str) -> Outcome:
    """Measure a model and the one it was fitted from on the same nuclei; it is adopted unless it is worse.

    Parameters
    ----------
    former, new : LoadedModel
        Of one network.
    examples : sequence of Example
        See `labelled_everywhere`; without any nothing is measured, and that is said.
    origin : Origin
        What the new one learned from.
    device : str
        Where to run.
    """
    before, after, gain = together(()), together(()), compare((), ())
    told = NOT_JUDGED
    if count_nuclei(examples):
        regions = len({example.key for example in examples})
        told = (
            f"Judged on {'one region' if regions == 1 else f'{regions} regions'} that people corrected "
            f"({count_nuclei(examples)} nuclei); neither model has learned from the labels for this."
        )
        examiner = Examiner(former, Division((Run("", (), tuple(examples)),), told), device)
        seen = examiner.decoded(examiner.with_weights(new.network.state_dict()), examples, examiner.options)
        measured = [measure(*pair) for pair in zip(examples, seen, strict=True)]
        gain = compare(examiner.before, measured)
        before, after = together(examiner.before, regions), together(measured, regions)
    adopted, reason = not_worse(before, after, gain)
    metrics = {"before": before.as_dict(), "held out": after.as_dict(), "gain": asdict(gain)} if after.nuclei else {}
    fitted = replace(new, card=_card(former, new, origin, metrics, told))
    steps = int((origin.settings or {}).get("steps", 0))
    return Outcome(fitted, before, after, gain, None, adopted, reason, told, steps)


def not_worse(before: Agreement, after: Agreement, gain: Gain) -> tuple[bool, str]:
    """Return whether a fitted model may take the place of the former one, and the reason."""
    if not after.nuclei:
        return True, NOT_JUDGED
    scores = f"AJI {before.aji:.3f} → {after.aji:.3f}, PQ {before.pq:.3f} → {after.pq:.3f}, {after.nuclei} nuclei"
    few = "" if after.nuclei >= LEAST_NUCLEI else " So few nuclei say little: correct a larger region."
    if gain.choice < 0:
        return False, f"Worse on nuclei that people corrected: {scores}.{few}"
    return True, f"{'Better' if gain.choice > 0 else 'As good'} on nuclei that people corrected: {scores}.{few}"


def _card(former: LoadedModel, new: LoadedModel, origin: Origin, metrics: Mapping[str, Any], told: str) -> ModelCard:
    """Return the card of a model that began from another one: its parent, its slides, how good it is."""
    parent = former.card
    added = f"{origin.title}, no labels ({origin.licence or 'the own slide'})"
    return replace(
        new.card,
        name=parent.name,
        parent=parent.version,
        decoder=parent.decoder,
        threshold=parent.threshold,
        min_area_um2=parent.min_area_um2,
        licence=" AND ".join(dict.fromkeys(filter(None, (parent.licence, origin.licence)))),
        commercial_use=parent.commercial_use and "-NC" not in origin.licence,
        training_data=(*parent.training_data, added),
        metrics={**new.card.metrics, **metrics},
        created="",
        sha256="",
        taught={
            "family": family_of(parent),
            "slides": [{"name": name, "fingerprint": fingerprint} for name, fingerprint in origin.slides],
            "regions": [{"slide": origin.title, "name": origin.where or "All tissue", "role": "without labels"}],
            "settings": dict(origin.settings or {}),
            "judged": told,
            "made with": f"napari-nucleiseg {napari_nucleiseg.__version__}",
        },
    )


def keep_fitted(outcome: Outcome, title: str) -> Version:
    """Keep a fitted model; one that is worse is kept apart."""
    return keep(outcome, title=title)


def keep_trained(
    model: LoadedModel, origin: Origin, title: str, former: LoadedModel | None = None, family: str = FAMILY
) -> Version:
    """Keep what a run of pretraining has come to as a version of its own, a root unless it began from a model.

    Parameters
    ----------
    model : LoadedModel
        The best weights of the run.
    origin : Origin
        What it learned from.
    title : str
        One line for people.
    former : LoadedModel, optional
        The model it began from.
    family : str
        Name of the first of its kind; others get a number.
    """
    nothing, gain = together(()), compare((), ())
    reason = "Learned without labels; nobody has measured it against corrected nuclei."
    card, name = replace(model.card, name=family, parent="", created="", sha256=""), ""
    if former is not None:
        card = _card(former, model, origin, {}, reason)
    else:
        # The first one has the plain name, the others a number.
        with suppress(ModelError):
            check_name(family)
            name = family
    outcome = Outcome(replace(model, card=card), nothing, nothing, gain, None, True, reason, reason, 0)
    return keep(outcome, name=name, title=title)

"""What the card of a taught model says: from which one it comes, what it learnt from, and how good it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import napari_nucleiseg
from napari_nucleiseg.core.decoders.base import DecodeOptions
from napari_nucleiseg.core.models.starts import taught_tensors
from napari_nucleiseg.core.models.weights import ModelCard
from napari_nucleiseg.core.teaching.agreement import Agreement, Gain
from napari_nucleiseg.core.teaching.examples import by_role, count_nuclei, fingerprint_of

if TYPE_CHECKING:
    from napari_nucleiseg.core.teaching.classroom import Classroom


def taught_card(
    room: Classroom, after: Agreement, gain: Gain, options: DecodeOptions, kept: Mapping[str, float]
) -> ModelCard:
    """Return the card of a new model; its licence is that of the former one.

    Parameters
    ----------
    room : Classroom
        Former model, examples and settings.
    after : Agreement
        Of the new model on what is held out.
    gain : Gain
        Beyond the former model.
    options : DecodeOptions
        Threshold and smallest area that suit the new model.
    kept : mapping of str to float
        Step and share of the weights, and how long it took.
    """
    parent = room.model.card
    teach, _ = by_role(room.lesson.examples)
    slides = sorted({(example.slide, example.fingerprint) for example in room.lesson.examples})
    regions = sorted({(example.slide, example.region, example.role) for example in room.lesson.examples})
    painted = any(example.attention is not None for example in teach)
    what = " and painted attention" if painted else ""
    own = f"{count_nuclei(teach)} corrected nuclei{what} of {', '.join(slide for slide, _ in slides)}"
    return replace(
        parent,
        parent=parent.version,
        title=parent.title if taught_tensors(parent) is None else room.model.spec.title,
        threshold=options.threshold,
        min_area_um2=options.min_area_um2,
        training_data=(*parent.training_data, own),
        metrics={
            "before": room.before.as_dict(),
            "held out": after.as_dict(),
            "gain": {name: round(value, 4) for name, value in asdict(gain).items()},
        },
        created="",
        sha256="",
        notes="",
        taught={
            "family": family_of(parent),
            "slides": [{"name": name, "fingerprint": fingerprint} for name, fingerprint in slides],
            "regions": [{"slide": slide, "name": name, "role": role} for slide, name, role in regions],
            "nuclei": count_nuclei(teach),
            "labels": fingerprint_of(room.lesson.examples),
            "settings": asdict(room.config),
            **kept,
            "judged": room.told,
            "made with": f"napari-nucleiseg {napari_nucleiseg.__version__}",
        },
    )


def family_of(card: ModelCard) -> str:
    """Return the name of the model that a model and all its versions were first taught from."""
    return str(card.taught.get("family", card.name))

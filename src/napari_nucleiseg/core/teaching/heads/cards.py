"""What the card of an encoder says whose head was taught: from which one it comes, by what, and how it changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace

import napari_nucleiseg
from napari_nucleiseg.core.models.encoders import LoadedEncoder
from napari_nucleiseg.core.models.kinship import FEATURES, features_within
from napari_nucleiseg.core.models.weights import ModelCard
from napari_nucleiseg.core.teaching.cards import family_of
from napari_nucleiseg.core.teaching.heads.config import HeadTeachConfig
from napari_nucleiseg.core.teaching.heads.division import HeadDivision
from napari_nucleiseg.core.teaching.heads.painted import PaintedPatch, paint_fingerprint
from napari_nucleiseg.core.teaching.heads.verdict import HeadOutcome


def taught_card(
    former: LoadedEncoder,
    outcome: HeadOutcome,
    patches: Sequence[PaintedPatch],
    division: HeadDivision,
    config: HeadTeachConfig,
) -> ModelCard:
    """Return the card of a taught encoder; its licence is that of the former one.

    Parameters
    ----------
    former : LoadedEncoder
        It was taught from.
    outcome : HeadOutcome
        What came of it.
    patches : sequence of PaintedPatch
        All of the lesson.
    division : HeadDivision
        Which of them it learnt from.
    config : HeadTeachConfig
        Settings.
    """
    parent = former.card
    slides = sorted({(patch.slide, patch.fingerprint) for patch in patches})
    taught = set(division.runs[-1].teach)
    own = f"paint on {len(patches)} patches of {', '.join(name or 'pictures' for name, _ in slides)}"
    return replace(
        parent,
        parent=parent.version,
        training_data=(*parent.training_data, own),
        metrics={
            "before": outcome.before.as_dict(),
            "held out": outcome.after.as_dict(),
            "gain": {name: round(value, 4) for name, value in asdict(outcome.gain).items()},
            "drift": outcome.drift.as_dict(),
            "adopted": outcome.adopted,
            "reason": outcome.reason,
        },
        created="",
        sha256="",
        notes="",
        taught={
            "family": family_of(parent),
            "layer": config.place(former.spec)[0],
            "head": config.head,
            "slides": [{"name": name, "fingerprint": fingerprint} for name, fingerprint in slides],
            "patches": [
                {"slide": one.fingerprint, "row": one.row, "column": one.column, "taught": place in taught}
                for place, one in enumerate(patches)
            ],
            "places": outcome.places,
            "paint": paint_fingerprint(patches),
            "settings": asdict(config),
            "steps": outcome.steps,
            "share of the change kept": round(outcome.share, 4),
            FEATURES: features_within(parent, outcome.drift.cosine, outcome.drift.change),
            "judged": outcome.told,
            "made with": f"napari-nucleiseg {napari_nucleiseg.__version__}",
        },
    )

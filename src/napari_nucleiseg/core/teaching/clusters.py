"""A network fitted to one picture without labels, kept as a version like any other model."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import replace

from napari_nucleiseg.core.errors import ModelError
from napari_nucleiseg.core.models.weights import LoadedModel
from napari_nucleiseg.core.teaching.agreement import compare, together
from napari_nucleiseg.core.teaching.names import check_name
from napari_nucleiseg.core.teaching.verdict import Outcome
from napari_nucleiseg.core.teaching.versions import Version, keep

REASON = "Fitted without labels; nobody has measured it against corrected nuclei."
MOST_LETTERS = 80


def clusters_name(picture: str) -> str:
    """Return what a model of a picture's clusters is called, fit for a file."""
    stem = re.sub(r"[^\w.-]+", "-", picture).strip("-.")[:MOST_LETTERS]
    return f"{stem or 'picture'}-clusters"


def keep_clusters(model: LoadedModel) -> Version:
    """Keep a fitted model under the name of its card; a number is added where there is, or was, one of that name.

    Parameters
    ----------
    model : LoadedModel
        See `core.training.clustering.fitted.fitted_model`.

    Raises
    ------
    WeightsError
        If the file cannot be written.
    """
    name, title = "", model.card.title
    with suppress(ModelError):
        check_name(model.card.name)
        name = model.card.name
    nothing, gain = together(()), compare((), ())
    unnamed = replace(model, card=replace(model.card, sha256=""))
    return keep(Outcome(unnamed, nothing, nothing, gain, None, True, REASON, REASON, 0), name=name, title=title)

"""The card of a model that comes from a package: licence, authors, papers and what it was trained on."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from napari_nucleiseg.core.exchange.networks.package import Package
from napari_nucleiseg.core.models.licences import allows_commercial_use
from napari_nucleiseg.core.models.spec import ModelSpec
from napari_nucleiseg.core.models.weights import ModelCard

_MOST_LICENCE_LETTERS = 200
_MOST_LICENCE_BYTES = 1024**2


def card_of(package: Package, spec: ModelSpec, config: Mapping[str, Any]) -> ModelCard:
    """Return the card of a foreign model.

    Parameters
    ----------
    package : Package
        It.
    spec : ModelSpec
        What was made of it.
    config : mapping
        What the package says for this program; empty if it was made by another.
    """
    document, ours = package.document, config.get("card") or {}
    licence = _licence(package)
    default = ModelCard("", "")
    return ModelCard(
        name=_name(document),
        network=spec.name,
        params=spec.params,
        title=" ".join(str(document.get("name", "")).split()),
        decoder=spec.decoder,
        threshold=float(ours.get("threshold", default.threshold)),
        min_area_um2=float(ours.get("min_area_um2", default.min_area_um2)),
        licence=licence,
        commercial_use=allows_commercial_use(licence),
        training_data=_training_data(document, ours),
        notes=_notes(package),
    )


def _name(document: Mapping[str, Any]) -> str:
    """Return what a model is called by default."""
    return re.sub(r"\W+", "-", str(document.get("name", "")), flags=re.ASCII).strip("-").lower()[:60] or "imported"


def _licence(package: Package) -> str:
    stated = package.document.get("license")
    if isinstance(stated, Mapping):
        text = " ".join(package.read(str(stated["source"]), _MOST_LICENCE_BYTES).decode("utf-8", "replace").split())
        return text if len(text) <= _MOST_LICENCE_LETTERS else f"{text[:_MOST_LICENCE_LETTERS]}…"
    return str(stated or "unknown")


def _training_data(document: Mapping[str, Any], ours: Mapping[str, Any]) -> tuple[str, ...]:
    if ours.get("training_data"):
        return tuple(map(str, ours["training_data"]))
    stated = document.get("training_data")
    if not isinstance(stated, Mapping):
        return ()
    return (str(stated.get("name") or stated.get("id") or stated.get("source") or "stated by the package"),)


def _notes(package: Package) -> str:
    document = package.document
    authors = ", ".join(str(one.get("name", "")) for one in document.get("authors") or ())
    papers = [
        " ".join(filter(None, (str(one.get("text", "")), str(one.get("doi") or one.get("url") or ""))))
        for one in document.get("cite") or ()
    ]
    parts = [
        f"Imported from {package.path.name}, a bioimage.io package",
        f"Authors: {authors}" if authors else "",
        f"To be cited: {'; '.join(papers)}" if papers else "",
        str(document.get("description") or ""),
    ]
    return ". ".join(part.rstrip(".") for part in parts if part) + "."

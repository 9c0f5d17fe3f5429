"""What the cards of weights look like on the command line, be they of models or of encoders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from napari_nucleiseg.core.models.weights import ModelCard

COLUMNS = ("name", "title", "network", "licence", "may be used")


def rows_of(cards: Sequence[ModelCard]) -> list[tuple[str, ...]]:
    """Return a row of the table for each card, with `COLUMNS`."""
    return [(card.name, card.title, card.network, card.licence, usable(card)) for card in cards]


def document_of(card: ModelCard) -> dict[str, Any]:
    """Return a card as JSON has it, with whether its licence was accepted where that is needed."""
    return {**asdict(card), "version": card.version, "licence_accepted": _accepted(card)}


def usable(card: ModelCard) -> str:
    """Return whether weights may be used, or after what."""
    if card.commercial_use:
        return "yes"
    return "yes, not commercially" if _accepted(card) else f"after: napari-nucleiseg models accept {card.name}"


def _accepted(card: ModelCard) -> bool:
    from napari_nucleiseg.core.models.weights import licence_accepted

    return card.commercial_use or licence_accepted(card)

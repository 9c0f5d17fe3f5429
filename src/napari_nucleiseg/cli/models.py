"""``napari-nucleiseg models``: what models there are, what they were made of, and whether they may be used."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from napari_nucleiseg.cli.console import OK, Console
from napari_nucleiseg.core.errors import ModelError

if TYPE_CHECKING:
    from napari_nucleiseg.core.models.weights import ModelCard


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("action", nargs="?", default="list", choices=("list", "show", "accept"), help="default: list")
    parser.add_argument("name", nargs="?", help="of the model to show, or whose licence to accept")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace, console: Console) -> int:
    """List, show or accept."""
    from napari_nucleiseg.core.models.weights import available_models

    cards = available_models()
    if options.action == "list":
        return _list(cards, console)
    if options.name is None:
        raise ModelError(f"say which model to {options.action}; there are {_names(cards)}")
    card = next((card for card in cards if card.name == options.name), None)
    if card is None:
        raise ModelError(f"there is no model called {options.name}; there are {_names(cards)}")
    return _show(card, console) if options.action == "show" else _accept(card, console)


def _names(cards: tuple[ModelCard, ...]) -> str:
    return ", ".join(card.name for card in cards) or "none yet"


def _document(card: ModelCard) -> dict[str, Any]:
    from napari_nucleiseg.core.models.weights import licence_accepted

    usable = card.commercial_use or licence_accepted(card)
    return {**asdict(card), "version": card.version, "licence_accepted": usable}


def _list(cards: tuple[ModelCard, ...], console: Console) -> int:
    documents = [_document(card) for card in cards]
    console.table(
        "",
        ("name", "title", "network", "licence", "may be used"),
        [
            (card.name, card.title, card.network, card.licence, _usable(card, document["licence_accepted"]))
            for card, document in zip(cards, documents, strict=True)
        ],
    )
    if not cards:
        console.say("There is no model yet: train one (napari-nucleiseg train --help).")
    console.result({"models": documents})
    return OK


def _usable(card: ModelCard, accepted: bool) -> str:
    if card.commercial_use:
        return "yes"
    return "yes, not commercially" if accepted else f"after: napari-nucleiseg models accept {card.name}"


def _show(card: ModelCard, console: Console) -> int:
    document = _document(card)
    rows = [(key.replace("_", " "), _shown(value)) for key, value in document.items() if value not in ("", (), {})]
    console.table(card.name, ("", ""), rows)
    console.result(document)
    return OK


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "\n".join(f"{key}: {_shown(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return "\n".join(map(_shown, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _accept(card: ModelCard, console: Console) -> int:
    from napari_nucleiseg.core.models.weights import remember_acceptance

    if not card.commercial_use:
        remember_acceptance(card)
    console.say(f"{card.name} is under {card.licence}" + ("." if card.commercial_use else "; you have accepted that."))
    console.result(_document(card))
    return OK

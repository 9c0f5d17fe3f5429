"""``napari-nucleiseg models``: what models there are, what they were made of, and whether they may be used."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from napari_nucleiseg.cli.console import OK, Console
from napari_nucleiseg.core.errors import ModelError

if TYPE_CHECKING:
    from napari_nucleiseg.core.models.weights import ModelCard


# What is done to a version, and what its third word is.
_CHANGES = {"rename": "TITLE", "export": "FILE", "delete": "", "prefer": "", "take": ""}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = """actions:
  list                  models that can be used (default)
  tree                  all versions, each below the one it was taught from
  show NAME             the card of one
  accept NAME           accept its licence
  rename NAME TITLE     give it another title; its name stays
  export NAME FILE      copy it to a file or folder; nothing is overwritten
  delete NAME           delete it for good; what was taught from it stays
  prefer NAME           let it open by default; to go back, prefer its parent
  take NAME             use one that the guard refused"""
    actions = ("list", "tree", "show", "accept", *_CHANGES)
    parser.add_argument("action", nargs="?", default="list", choices=actions, metavar="ACTION", help="see below")
    parser.add_argument("name", nargs="?", metavar="NAME", help="of the model")
    parser.add_argument("to", nargs="?", metavar="TITLE_OR_FILE", help="of rename and export")
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace, console: Console) -> int:
    """List, show, accept or change."""
    from napari_nucleiseg.cli import versions
    from napari_nucleiseg.core.models.weights import available_models

    if options.action == "list":
        return _list(available_models(), console)
    if options.action == "tree":
        return versions.show_tree(console)
    if options.name is None:
        raise ModelError(f"say which model to {options.action}; there are {_names(available_models())}")
    if options.action in _CHANGES:
        word = _CHANGES[options.action]
        if bool(word) != bool(options.to):
            rest = f" {word}" * bool(word)
            raise ModelError(f"write: napari-nucleiseg models {options.action} {options.name}{rest}")
        return versions.change(options.action, options.name, options.to or "", console)
    card = versions.card_of(options.name)
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

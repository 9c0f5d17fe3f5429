"""``napari-nucleiseg models``: what models there are, what they were made of, and whether they may be used."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from napari_nucleiseg.cli import encoders, versions
from napari_nucleiseg.cli.cards import COLUMNS, document_of, rows_of
from napari_nucleiseg.cli.console import OK, Console
from napari_nucleiseg.core.errors import ModelError

if TYPE_CHECKING:
    from napari_nucleiseg.core.models.weights import ModelCard


# What is done to a version, and what its third word is.
_CHANGES = {"rename": "TITLE", "export": "FILE", "delete": "", "prefer": "", "take": ""}
_OF_ENCODERS = ("get", "convert-encoder")


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
  take NAME             use one that the guard refused
  encoders              transformers that look at tissue: those that are here, those that are published
  get NAME              download a published encoder, such as hipt-256
  convert-encoder FILE  make an encoder of a checkpoint: --as hipt-256"""
    actions = ("list", "tree", "show", "accept", *_CHANGES, "encoders", *_OF_ENCODERS)
    parser.add_argument("action", nargs="?", default="list", choices=actions, metavar="ACTION", help="see below")
    parser.add_argument("name", nargs="?", metavar="NAME", help="of the model; of convert-encoder, the file")
    parser.add_argument("to", nargs="?", metavar="TITLE_OR_FILE", help="of rename and export")
    parser.add_argument("--accept-licence", action="store_true", help="of get: accept its licence, once for all")
    encoders.add_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace, console: Console) -> int:
    """List, show, accept or change."""
    from napari_nucleiseg.core.models.weights import available_models

    if options.action == "list":
        return _list(available_models(), console)
    if options.action == "tree":
        return versions.show_tree(console)
    if options.action == "encoders":
        return encoders.show_list(console)
    if options.action in _OF_ENCODERS:
        return encoders.get(options, console) if options.action == "get" else encoders.convert(options, console)
    if options.name is None:
        raise ModelError(f"say which model to {options.action}; there are {_names(available_models())}")
    if options.action in _CHANGES:
        word = _CHANGES[options.action]
        if bool(word) != bool(options.to):
            rest = f" {word}" * bool(word)
            raise ModelError(f"write: napari-nucleiseg models {options.action} {options.name}{rest}")
        return versions.change(options.action, options.name, options.to or "", console)
    card = _card(options.name)
    return _show(card, console) if options.action == "show" else _accept(card, console)


def _names(cards: tuple[ModelCard, ...]) -> str:
    return ", ".join(card.name for card in cards) or "none yet"


def _list(cards: tuple[ModelCard, ...], console: Console) -> int:
    console.table("", COLUMNS, rows_of(cards))
    if not cards:
        console.say("There is no model yet: train one (napari-nucleiseg train --help).")
    console.result({"models": [document_of(card) for card in cards]})
    return OK


def _card(name: str) -> ModelCard:
    try:
        return versions.card_of(name)
    except ModelError:
        if (card := encoders.card_of(name)) is None:
            raise
        return card


def _show(card: ModelCard, console: Console) -> int:
    document = document_of(card)
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
    console.result(document_of(card))
    return OK

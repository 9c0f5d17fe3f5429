"""``napari-nucleiseg models``: what models there are, what they were made of, and whether they may be used."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from napari_nucleiseg.cli import encoders, models_exchange, networks, versions
from napari_nucleiseg.cli.cards import COLUMNS, document_of, rows_of
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
  list                  models that can be used, and networks that can be trained (default)
  networks [NAME]       all networks, or one: what it is good for, paper, licence, size, library, weights
  tree                  all versions, each below the one it was taught from
  show NAME             the card of one
  accept NAME           accept its licence
  rename NAME TITLE     give it another title; its name stays
  export NAME FILE      copy it to a file or folder; nothing is overwritten. --as bioimageio, torchscript or onnx
                        (or FILE's ending .zip, .pt, .onnx): for other programs
  import FILE           take one from a bioimage.io package: a zip, a folder, or the rdf.yaml in it
  delete NAME           delete it for good; what was taught from it stays
  prefer NAME           let it open by default; to go back, prefer its parent
  take NAME             use one that the guard refused
  encoders              transformers that look at tissue: those that are here, those that are published
  get NAME              download a published encoder, such as hipt-256
  convert-encoder FILE  make an encoder of a checkpoint: --as hipt-256"""
    actions = (*_OF_THEIR_OWN, "show", "accept", *_CHANGES)
    parser.add_argument("action", nargs="?", default="list", choices=actions, metavar="ACTION", help="see below")
    parser.add_argument("name", nargs="?", metavar="NAME", help="of the model; of import and convert-encoder, the file")
    parser.add_argument("to", nargs="?", metavar="TITLE_OR_FILE", help="of rename and export")
    parser.add_argument("--accept-licence", action="store_true", help="of get, export, import: once for all")
    encoders.add_arguments(parser)
    models_exchange.add_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(options: argparse.Namespace, console: Console) -> int:
    """List, show, accept or change."""
    if options.action in _OF_THEIR_OWN:
        return _OF_THEIR_OWN[options.action](options, console)
    if options.name is None:
        from napari_nucleiseg.core.models.weights import available_models

        raise ModelError(f"say which model to {options.action}; there are {_names(available_models())}")
    if options.action == "export":
        return _export(options, console)
    if options.action in _CHANGES:
        word = _CHANGES[options.action]
        if bool(word) != bool(options.to):
            rest = f" {word}" * bool(word)
            raise ModelError(f"write: napari-nucleiseg models {options.action} {options.name}{rest}")
        return versions.change(options.action, options.name, options.to or "", console)
    card = _card(options.name)
    return _show(card, console) if options.action == "show" else _accept(card, console)


def _export(options: argparse.Namespace, console: Console) -> int:
    if bool(options.to) == bool(options.out):
        raise ModelError(f"write: napari-nucleiseg models export {options.name} FILE")
    options.out = options.out or options.to
    if models_exchange.format_wanted(options) == models_exchange.WEIGHTS:
        return versions.change("export", options.name, options.out, console)
    return models_exchange.export(options, console)


def _names(cards: tuple[ModelCard, ...]) -> str:
    return ", ".join(card.name for card in cards) or "none yet"


def _list(_options: argparse.Namespace, console: Console) -> int:
    from napari_nucleiseg.core.models.weights import available_models

    cards = available_models()
    console.table("", COLUMNS, rows_of(cards))
    if not cards:
        console.say("There is no model yet: train one (napari-nucleiseg train --help).")
    names = networks.brief(console)
    console.result({"models": [document_of(card) for card in cards], "networks": names})
    return OK


def _card(name: str) -> ModelCard:
    try:
        return versions.card_of(name)
    except ModelError:
        if (card := encoders.card_of(name)) is not None:
            return card
        if (error := networks.must_be_trained(name)) is not None:
            raise error from None
        raise


def _show(card: ModelCard, console: Console) -> int:
    document = document_of(card)
    shown = {**document, "params": _without_description(card)}
    rows = [(key.replace("_", " "), _shown(value)) for key, value in shown.items() if value not in ("", (), {})]
    console.table(card.name, ("", ""), rows)
    console.result(document)
    return OK


def _without_description(card: ModelCard) -> dict[str, Any]:
    """Return build parameters as people read them: what describes the network of another program is for machines."""
    return {key: value for key, value in card.params.items() if key != "description"}


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


# Actions that need no name of a model.
_OF_THEIR_OWN: Mapping[str, Callable[[argparse.Namespace, Console], int]] = {
    "list": _list,
    "networks": networks.show,
    "tree": lambda _options, console: versions.show_tree(console),
    "import": models_exchange.import_,
    "encoders": lambda _options, console: encoders.show_list(console),
    "get": encoders.get,
    "convert-encoder": encoders.convert,
}

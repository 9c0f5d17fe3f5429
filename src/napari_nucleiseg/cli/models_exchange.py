"""What ``napari-nucleiseg models`` does to give models to other programs, and to take theirs."""

from __future__ import annotations

import argparse

from napari_nucleiseg.cli.cards import document_of, usable
from napari_nucleiseg.cli.console import OK, Console
from napari_nucleiseg.core.errors import ModelError
from napari_nucleiseg.core.exchange.networks.formats import NETWORK_FORMATS, network_format_of

WEIGHTS = "safetensors"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of exporting to and importing from other programs."""
    parser.add_argument("--out", default="", metavar="FILE", help="of export: the file or folder")
    parser.add_argument(
        "--author", action="append", default=[], metavar="NAME", help="of export to bioimage.io; may be repeated"
    )
    parser.add_argument("--with-onnx", action="store_true", help="of export to bioimage.io: weights as ONNX, too")
    parser.add_argument(
        "--foreground",
        default="",
        metavar="CHANNEL",
        help="of import: the channel that says where nuclei are, if the package does not",
    )
    parser.add_argument(
        "--boundary", default="", metavar="CHANNEL", help="of import: the channel that says where nuclei touch"
    )
    parser.add_argument("--mpp", type=float, metavar="UM", help="of import: micrometres per pixel of the network")


def format_wanted(options: argparse.Namespace) -> str:
    """Return the format that an export asks for, by ``--as`` or the file's name; `WEIGHTS` is our own.

    Raises
    ------
    ModelError
        If there is none of that name.
    """
    wanted = options.network or network_format_of(options.out or options.to or "") or WEIGHTS
    if wanted not in {*NETWORK_FORMATS, WEIGHTS}:
        raise ModelError(f"models are not exported as {wanted}; choose from {', '.join([*NETWORK_FORMATS, WEIGHTS])}")
    return str(wanted)


def export(options: argparse.Namespace, console: Console) -> int:
    """Write a model for other programs."""
    from napari_nucleiseg.core.exchange.networks.formats import export_model
    from napari_nucleiseg.core.models.spec import dimensions_of
    from napari_nucleiseg.core.models.weights import load_model, remember_acceptance
    from napari_nucleiseg.core.teaching.versions import find_version

    form, version = format_wanted(options), find_version(options.name)
    sides = dimensions_of(version.card.network)
    model = load_model(str(version.path), accept_licence=options.accept_licence, dimensions=sides)
    if options.accept_licence:
        remember_acceptance(model.card)
    console.say(f"Exporting {version.name} as {NETWORK_FORMATS[form].title}, and comparing what comes out.")
    path = export_model(model, options.out, form, authors=options.author, with_onnx=options.with_onnx)
    console.say(f"{version.name} is in {path}; it says the same as the model. It is under {model.card.licence}.")
    console.result({"name": version.name, "version": model.version, "format": form, "file": str(path)})
    return OK


def import_(options: argparse.Namespace, console: Console) -> int:
    """Take a model from a bioimage.io package."""
    from napari_nucleiseg.core.exchange.networks.mapping import Meaning
    from napari_nucleiseg.core.models.weights import remember_acceptance
    from napari_nucleiseg.core.teaching.arrivals import import_model

    if options.name is None:
        raise ModelError("say which package to import: napari-nucleiseg models import FILE.zip")
    meaning = Meaning(options.foreground, options.boundary, options.mpp)
    found = import_model(options.name, name=options.called, meaning=meaning)
    if options.accept_licence and not found.card.commercial_use:
        remember_acceptance(found.card)
    where = "was here already" if found.was_here else "is here"
    console.say(f"{found.card.name} {where}. {found.told} May it be used: {usable(found.card)}.")
    console.result({**document_of(found.card), "told": found.told, "was_here": found.was_here})
    return OK

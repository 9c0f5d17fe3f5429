"""What ``napari-nucleiseg models`` says of encoders, and how it gets them."""

from __future__ import annotations

import argparse
from functools import partial
from typing import TYPE_CHECKING

from napari_nucleiseg.cli.cards import COLUMNS, document_of, rows_of, usable
from napari_nucleiseg.cli.console import OK, Console
from napari_nucleiseg.cli.flags import read_mapping
from napari_nucleiseg.core.errors import ModelError

if TYPE_CHECKING:
    from napari_nucleiseg.core.models.weights import ModelCard


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of converting."""
    parser.add_argument(
        "--as",
        dest="network",
        default="",
        metavar="ENCODER",
        help="of convert-encoder: what it fits; of export: the format",
    )
    parser.add_argument(
        "--name", dest="called", default="", metavar="NAME", help="of convert-encoder and import: how to call it"
    )
    parser.add_argument(
        "--reads",
        default="",
        metavar="NAME",
        help="of convert-encoder, for an encoder of regions: the encoder whose features it was trained on",
    )
    parser.add_argument(
        "--sizes",
        type=partial(read_mapping, int | float | bool | str),
        default={},
        metavar="KEY=VALUE,...",
        help="of convert-encoder: what differs from the published sizes; of timm: model_name=..., img_size=...",
    )


def card_of(name: str) -> ModelCard | None:
    """Return the card of an encoder that is here; None if there is none of that name."""
    from napari_nucleiseg.core.models.encoders import available_encoders

    return next((card for card in available_encoders() if card.name == name), None)


def show_list(console: Console) -> int:
    """Show the encoders that are here, and those that are published and are not."""
    from napari_nucleiseg.core.models.encoders import available_encoders
    from napari_nucleiseg.core.models.published import PUBLISHED

    here = available_encoders()
    names = {card.name for card in here}
    absent = [published for name, published in PUBLISHED.items() if name not in names]
    rows = rows_of(here)
    for one in absent:
        how = f"after: napari-nucleiseg models get {one.name}"
        rows.append((one.name, one.title, one.name, one.licence, how))
    console.table("", COLUMNS, rows)
    published = [
        {"name": one.name, "licence": one.licence, "terms": one.terms, "url": one.source.url} for one in absent
    ]
    console.result({"encoders": [document_of(card) for card in here], "published": published})
    return OK


def get(options: argparse.Namespace, console: Console) -> int:
    """Download a published encoder."""
    from napari_nucleiseg.core.models.published import PUBLISHED, get_published

    if options.name is None:
        raise ModelError(f"say which encoder to get; there are {', '.join(PUBLISHED)}")
    published = PUBLISHED.get(options.name)
    if published is not None and options.accept_licence:  # else the refusal says so
        console.say(f"{published.name} is under {published.licence}. {published.terms}")
    with console.progress() as bars:
        card = get_published(
            options.name,
            accept_licence=options.accept_licence,
            progress=lambda done, total: bars.update("downloading, MB", done // 10**6, total // 10**6),
        )
    return _kept(card, console)


def convert(options: argparse.Namespace, console: Console) -> int:
    """Make an encoder of a checkpoint."""
    from napari_nucleiseg.core.models.encoders import encoder_names
    from napari_nucleiseg.core.models.published import PUBLISHED, convert

    if options.name is None or not options.network:
        raise ModelError(
            "write: napari-nucleiseg models convert-encoder FILE --as ENCODER; "
            f"ENCODER is one of {', '.join(encoder_names())}"
        )
    card = convert(options.name, options.network, name=options.called, reads=options.reads, params=options.sizes)
    if options.network in PUBLISHED and card.licence != PUBLISHED[options.network].licence:
        console.say(f"{options.name} is not the file that its authors published; its licence is not known.")
    return _kept(card, console)


def _kept(card: ModelCard, console: Console) -> int:
    from napari_nucleiseg.core.models.encoders import encoder_files

    console.say(f"{card.name} is here. May it be used: {usable(card)}.")
    console.result({**document_of(card), "weights": str(encoder_files()[card.name])})
    return OK

"""What ``napari-nucleiseg models`` says of networks: what each is good for, and what it takes."""

from __future__ import annotations

import argparse
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from napari_nucleiseg.cli.console import OK, Console
from napari_nucleiseg.core.errors import ModelError

if TYPE_CHECKING:
    from napari_nucleiseg.core.models.catalogue import Measured, NetworkEntry

COLUMNS = ("network", "what it is", "µm/px", "parameters", "sees", "stride", "for", "code", "library", "weights")


def show(options: argparse.Namespace, console: Console) -> int:
    """Show all networks that can be trained, or all there is to know of one."""
    from napari_nucleiseg.core.models.catalogue import network_entries, network_entry, parameters_of

    entries = network_entries() if options.name is None else (network_entry(options.name),)
    counts: dict[str, int | str] = {}
    with console.progress() as bars:
        for done, entry in enumerate(entries):
            bars.update("counting parameters", done, len(entries), entry.spec.name)
            counts[entry.spec.name] = parameters_of(entry)
    if options.name is None:
        console.table("", COLUMNS, [_row(entry, counts[entry.spec.name]) for entry in entries])
    else:
        console.table(options.name, ("", ""), _facts(entries[0], counts[options.name]))
    console.result({"networks": [_document(entry, counts[entry.spec.name]) for entry in entries]})
    return OK


def brief(console: Console) -> list[str]:
    """Name all networks in a table, and return their names."""
    from napari_nucleiseg.core.models.catalogue import network_entries

    entries = network_entries(())
    rows = [(entry.spec.name, entry.spec.title, _library(entry)) for entry in entries]
    console.table("networks to train", ("network", "title", "library"), rows)
    console.text("napari-nucleiseg models networks [NAME] says what each is good for, and how it is trained.")
    return [entry.spec.name for entry in entries]


def must_be_trained(name: str) -> ModelError | None:
    """Return what to say of a name that is no model's but a network's; None if it is neither."""
    from napari_nucleiseg.core.models.catalogue import network_entry

    with suppress(ModelError):
        entry = network_entry(name)
        return ModelError(
            f"{name} is a network without weights; napari-nucleiseg models networks {name} says more of it. "
            f"Train it: {entry.command}"
        )
    return None


def _row(entry: NetworkEntry, parameters: int | str) -> tuple[str, ...]:
    spec = entry.spec
    return (
        spec.name,
        f"{spec.title}\n{spec.good_for}\n{spec.paper}",
        f"{spec.mpp_um:g}",
        _millions(parameters),
        _seen(spec.receptive_field_px),
        str(spec.stride),
        _images(spec.dimensions),
        spec.licence,
        _library(entry),
        "\n".join(entry.weights) or "–",
    )


def _facts(entry: NetworkEntry, parameters: int | str) -> list[tuple[str, str]]:
    spec = entry.spec
    return [
        ("title", spec.title),
        ("good for", spec.good_for),
        ("paper", spec.paper),
        ("licence of its code", spec.licence),
        ("for", _images(spec.dimensions)),
        ("pixel size", f"{spec.mpp_um:g} µm"),
        ("parameters", f"{parameters:,}" if isinstance(parameters, int) else "not counted"),
        ("one pixel sees", _seen(spec.receptive_field_px)),
        ("coarsest step", f"{spec.stride} px"),
        ("outputs", "; ".join(head.title or head.name for head in spec.heads)),
        ("library", _lacking(entry, parameters) or _library(entry)),
        ("weights", ", ".join(entry.weights) or "none"),
        ("measured", _told(entry.measured)),
        ("train it", entry.command),
    ]


def _lacking(entry: NetworkEntry, parameters: int | str) -> str:
    """Return why it cannot be built here as a sentence; empty if it can, or if nobody tried."""
    return entry.missing or (parameters if isinstance(parameters, str) else "")


def _told(measured: Measured | None) -> str:
    if measured is None:
        return "not measured"
    return (
        f"{measured.mp_per_s:.2f} megapixels a second on one core; AJI {measured.aji:.3f}, PQ {measured.pq:.3f} "
        f"after {measured.training}"
    )


def _document(entry: NetworkEntry, parameters: int | str) -> dict[str, Any]:
    spec = entry.spec
    return {
        "name": spec.name,
        "title": spec.title,
        "good_for": spec.good_for,
        "paper": spec.paper,
        "licence": spec.licence,
        "allows_commercial_use": entry.allows_commercial_use,
        "mpp_um": spec.mpp_um,
        "parameters": parameters if isinstance(parameters, int) else None,
        "receptive_field_px": spec.receptive_field_px,
        "stride": spec.stride,
        "dimensions": spec.dimensions,
        "attends": spec.attends,
        "outputs": [head.name for head in spec.heads],
        "needs": spec.needs,
        "is_installed": entry.is_installed,
        "missing": _lacking(entry, parameters),
        "weights": list(entry.weights),
        "measured": None if entry.measured is None else asdict(entry.measured),
        "command": entry.command,
    }


def _library(entry: NetworkEntry) -> str:
    return f"{entry.spec.needs}{'' if entry.is_installed else ' (not installed)'}" or "–"


def _seen(pixels: int) -> str:
    return f"{pixels:,} px" if pixels else "all"


def _images(dimensions: int) -> str:
    return "stacks" if dimensions == 3 else "slides"


def _millions(count: int | str) -> str:
    return f"{count / 1e6:.1f} M" if isinstance(count, int) else "–"

"""What the channels of a foreign network mean: which one says where nuclei are, and which one where they touch."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from napari_nucleiseg.core.decoders.base import decoder
from napari_nucleiseg.core.errors import ModelError, UnclearPackageError, WeightsError
from napari_nucleiseg.core.exchange.networks.layout import OutputLayout
from napari_nucleiseg.core.models.imported import ImportedHead
from napari_nucleiseg.core.models.spec import ATTENTION

# What channels that mean these are called by their makers, in small letters and without anything but letters.
_FOREGROUND = frozenset({"foreground", "nucleus", "nuclei", "nucleusprobability", "nucleiprobability", "fg"})
_BOUNDARY = frozenset({"boundary", "boundaries", "border", "borders", "contour", "contours", "edge", "edges"})
# Names that mean something to decoders and windows: only what is known to be that has them.
_RESERVED = frozenset({"nuclei", "offsets", "distance", "separated", "hover", ATTENTION})
_ROUNDING = 1e-3


class Channel(NamedTuple):
    """One channel of one output.

    `title` is how people are told of it, such as ``output0:foreground``.
    """

    output: int
    number: int
    title: str


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a person says of a network whose package does not.

    Parameters
    ----------
    foreground : str
        Channel with the probability that a pixel belongs to a nucleus; empty: found by its name.
    boundary : str
        Channel with the probability that a pixel lies between nuclei, or on their border; empty: found by its name.
    mpp_um : float or None
        Micrometres per pixel of the input; None: as the package states.
    """

    foreground: str = ""
    boundary: str = ""
    mpp_um: float | None = None


@dataclass(frozen=True, slots=True)
class Mapped:
    """How outputs become nuclei.

    Parameters
    ----------
    heads : tuple of ImportedHead
        Those that the decoder needs, then the others.
    decoder : str
        Its name.
    told : str
        What was understood, as a sentence.
    """

    heads: tuple[ImportedHead, ...]
    decoder: str
    told: str


def map_heads(
    outputs: Sequence[OutputLayout], tests: Sequence[Tensor | None], meaning: Meaning, config: Mapping[str, Any]
) -> Mapped:
    """Find out what outputs mean.

    Parameters
    ----------
    outputs : sequence of OutputLayout
        All outputs.
    tests : sequence of Tensor or None, shape (batch, channels, y, x)
        What they say of the package's test picture; None for those that cannot be used.
    meaning : Meaning
        What the person says.
    config : mapping
        What the package says for this program; empty if it was made by another.

    Raises
    ------
    UnclearPackageError
        If it is not known which channel says where nuclei are.
    WeightsError
        If that one holds no probabilities.
    """
    if config and not meaning.foreground:
        return _as_configured(outputs, config)
    channels = [
        Channel(place, number, f"{output.name}:{name}")
        for place, output in enumerate(outputs)
        if not output.reason
        for number, name in enumerate(output.channels)
    ]
    foreground = _chosen(meaning.foreground, _FOREGROUND, channels, outputs)
    if foreground is None:
        raise _not_understood(channels, outputs)
    boundary = _chosen(meaning.boundary, _BOUNDARY, channels, outputs)
    for channel in filter(None, (foreground, boundary)):
        _must_be_probability(channel, tests)
    told = f"Nuclei are where {foreground.title} says so"
    told += "." if boundary is None else f", parted where {boundary.title} is."
    main = ImportedHead(
        "nuclei" if boundary is None else "separated",
        foreground.output,
        (foreground.number,),
        title=outputs[foreground.output].title or "Nucleus probability",
        less=() if boundary is None else (boundary.output, boundary.number),
    )
    others = _others(outputs, tests, main)
    return Mapped((main, *others), "watershed" if boundary is None else "border", told)


def _as_configured(outputs: Sequence[OutputLayout], config: Mapping[str, Any]) -> Mapped:
    """Map the outputs of a package of this program, whose network is not known here."""
    name, heads = str(config.get("decoder")), config.get("outputs") or ()
    try:
        needed = {head.name for head in decoder(name).heads}
    except ModelError as error:
        raise WeightsError(f"it was made by another version of this program ({error}); update this one") from error
    if len(heads) != len(outputs) or any(output.reason for output in outputs):
        raise WeightsError("it contradicts itself about its outputs; it is damaged and is not used")
    found = tuple(
        ImportedHead(
            str(head["name"]),
            place,
            tuple(range(len(outputs[place].channels))),
            probability=head.get("activation") == "sigmoid",
            title=str(head.get("title", "")),
            shown=bool(head.get("shown", True)),
        )
        for place, head in enumerate(heads)
    )
    if missing := needed - {head.name for head in found}:
        raise WeightsError(f"it says nothing of {min(missing)}, which its decoder {name} needs; it cannot be used")
    return Mapped(found, name, "The package is one of this program, so what its outputs mean is known.")


def _chosen(
    wanted: str, words: frozenset[str], channels: Sequence[Channel], outputs: Sequence[OutputLayout]
) -> Channel | None:
    """Return the channel that a person named; else the only one whose name says it; else None."""
    if wanted:
        found = [channel for channel in channels if wanted in _names_of(channel, channels, outputs)]
        if len(found) == 1:
            return found[0]
        which = "there is no channel" if not found else "there is more than one channel"
        raise UnclearPackageError(f"{which} {wanted}; its channels are {_listed(channels)}")
    named = [channel for channel in channels if _words_of(channel, outputs) & words]
    return named[0] if len(named) == 1 else None


def _names_of(channel: Channel, channels: Sequence[Channel], outputs: Sequence[OutputLayout]) -> set[str]:
    """Return what a person may call a channel."""
    output = outputs[channel.output]
    names = {output.channels[channel.number], channel.title, f"{output.name}:{channel.number}"}
    if len(output.channels) == 1:
        names.add(output.name)
    if len({one.output for one in channels}) == 1:
        names.add(str(channel.number))
    return names


def _words_of(channel: Channel, outputs: Sequence[OutputLayout]) -> set[str]:
    output = outputs[channel.output]
    names = [output.channels[channel.number], *([output.name] if len(output.channels) == 1 else [])]
    return {re.sub(r"[^a-z]", "", name.lower()) for name in names}


def _must_be_probability(channel: Channel, tests: Sequence[Tensor | None]) -> None:
    values = tests[channel.output]
    if values is None:
        return
    seen = values[:, channel.number]
    if float(seen.min()) < -_ROUNDING or float(seen.max()) > 1 + _ROUNDING:
        raise WeightsError(
            f"its channel {channel.title} holds values from {float(seen.min()):.3g} to {float(seen.max()):.3g} and no "
            "probabilities, 0 to 1; name a channel that does"
        )


def _others(
    outputs: Sequence[OutputLayout], tests: Sequence[Tensor | None], main: ImportedHead
) -> tuple[ImportedHead, ...]:
    """Return a head for each other output; one whose only channel is the foreground says nothing new."""
    found: list[ImportedHead] = []
    taken = {main.name}
    for place, output in enumerate(outputs):
        channels = tuple(range(len(output.channels)))
        values = tests[place]
        if output.reason or values is None or (place, channels, ()) == (main.output, main.channels, main.less):
            continue
        name = f"{output.name}-map" if output.name in _RESERVED | taken else output.name
        name = f"{name}-{place}" if name in taken else name
        taken.add(name)
        probability = float(values.min()) >= -_ROUNDING and float(values.max()) <= 1 + _ROUNDING
        title = output.title or output.name
        found.append(ImportedHead(name, place, channels, probability, title, shown=probability))
    return tuple(found)


def _listed(channels: Sequence[Channel]) -> str:
    return ", ".join(channel.title for channel in channels) or "none"


def _not_understood(channels: Sequence[Channel], outputs: Sequence[OutputLayout]) -> WeightsError:
    unusable = "".join(f" ({output.name} cannot be used: {output.reason})" for output in outputs if output.reason)
    if not channels:
        return WeightsError(f"none of its outputs is a map that nuclei could be made of{unusable}")
    return UnclearPackageError(
        f"it does not say which channel tells where nuclei are; its channels are {_listed(channels)}{unusable}. "
        "Say which one does, and which one tells where they touch, if one does"
    )

"""Versions of encoders on disk: each a file of its own that names its parent; going back is to choose another."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from napari_nucleiseg.core.errors import ModelError, WeightsError
from napari_nucleiseg.core.models.encoders import encoder_files, own_encoders_folder
from napari_nucleiseg.core.models.weights import (
    SHIPPED_FOLDER,
    ModelCard,
    read_card,
)
from napari_nucleiseg.core.teaching.cards import family_of
from napari_nucleiseg.core.teaching.heads.verdict import HeadOutcome
from napari_nucleiseg.core.teaching.keeping import inherit_acceptance, move_version, write_version
from napari_nucleiseg.core.teaching.names import ENDING, check_name, number_of
from napari_nucleiseg.core.teaching.versions import OWN, REFUSED, SHIPPED, TAUGHT, Version


def refused_encoders_folder() -> Path:
    """Folder of the encoders that the guard refused."""
    return own_encoders_folder() / "refused"


def encoder_versions() -> tuple[Version, ...]:
    """Return all encoders on this computer, refused ones included, parents before children; each names its parent.

    Unreadable files are left out. An encoder that was not refused is loaded by its name: to go back is to load the
    parent's.
    """
    found = []
    for path in (*encoder_files().values(), *sorted(refused_encoders_folder().glob(f"*{ENDING}"))):
        with suppress(WeightsError):
            found.append(_version(path))
    return tuple(sorted(found, key=lambda one: (one.family, one.card.created, *number_of(one.name), str(one.path))))


def check_encoder_name(name: str) -> None:
    """Raise a `ModelError` if a new encoder cannot have this name."""
    check_name(name)
    if name.casefold() in _taken():
        raise ModelError(f"there is an encoder called {name} already, and none is ever overwritten. Take another name.")


def keep_head(outcome: HeadOutcome, *, name: str = "", title: str = "") -> Version:
    """Keep a taught encoder as a new file, whole or not at all; nothing is overwritten.

    One that the guard refused is kept apart, so that nobody takes it by mistake; see `take_head_anyway`.

    Parameters
    ----------
    outcome : HeadOutcome
        Of the lesson.
    name : str
        Of the new encoder; empty numbers it, such as ``patches-2``.
    title : str
        One line for people; empty says what it was taught with.

    Raises
    ------
    ModelError
        If the name cannot be used.
    WeightsError
        If the file cannot be written; nothing is left of it then.
    """
    if name:
        check_encoder_name(name)
    encoder = outcome.encoder
    card = replace(encoder.card, title=" ".join(title.split()) or _title(encoder.card))
    folder = own_encoders_folder() if outcome.adopted else refused_encoders_folder()
    path = write_version(
        folder,
        encoder.network,
        encoder.spec,
        card,
        name=name,
        check=check_encoder_name,
        following=lambda: _next_name(family_of(card)),
        what="encoder",
        tells_size=False,
    )
    inherit_acceptance(replace(card, name=card.parent.partition("@")[0]), path)
    return _version(path)


def take_head_anyway(version: Version) -> Version:
    """Make an encoder usable that the guard refused; its card goes on saying so, and why.

    Raises
    ------
    ModelError
        If it was not refused.
    WeightsError
        If its file cannot be moved.
    """
    if version.kind != REFUSED:
        raise ModelError(f"{version.name} is in use already: the guard did not refuse it.")
    return _version(move_version(version.path, own_encoders_folder(), "Move it away first."))


def _version(path: Path) -> Version:
    card = read_card(path)
    if path.is_relative_to(SHIPPED_FOLDER):
        kind = SHIPPED
    elif path.parent == refused_encoders_folder():
        kind = REFUSED
    else:
        kind = TAUGHT if card.parent else OWN
    return Version(card, path, kind, card.title or path.stem)


def _next_name(family: str) -> str:
    """Return a family's next name; names of parents that are no longer there are not used again."""
    known = _taken() | {version.card.parent.partition("@")[0].casefold() for version in encoder_versions()}
    numbers = [number for base, number in map(number_of, known) if base == family.casefold()]
    return f"{family}-{1 + max([1, *numbers])}"


def _taken() -> set[str]:
    """Return all names, in small letters: not every disk tells large ones apart."""
    versions = encoder_versions()
    own = [path for folder in (own_encoders_folder(), refused_encoders_folder()) for path in folder.glob(f"*{ENDING}")]
    names = [*encoder_files(), *(path.stem for path in own), *(version.card.name for version in versions)]
    return {name.casefold() for name in names}


def _title(card: ModelCard) -> str:
    names = [str(slide.get("name", "")) for slide in card.taught.get("slides", ())]
    shown = ", ".join(names[:2]) + (f" and {len(names) - 2} more" if len(names) > 2 else "")
    where = f"head {card.taught.get('head')} of layer {card.taught.get('layer')}"
    return f"{family_of(card)}, {where} taught by paint on {shown or 'pictures'}"

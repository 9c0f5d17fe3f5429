"""How a taught network becomes a file that nothing else has been: written whole, under a name that nobody has taken."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from errno import ENOSPC
from pathlib import Path
from typing import TYPE_CHECKING

from napari_nucleiseg.core.errors import WeightsError
from napari_nucleiseg.core.models.files import move_new, sweep, write_new
from napari_nucleiseg.core.models.weights import (
    ModelCard,
    NamedSpec,
    encode_model,
    licence_accepted,
    read_card,
    remember_acceptance,
)
from napari_nucleiseg.core.teaching.names import ENDING

if TYPE_CHECKING:
    from torch import nn


def write_version(
    folder: Path,
    network: nn.Module,
    spec: NamedSpec,
    card: ModelCard,
    *,
    name: str,
    check: Callable[[str], None],
    following: Callable[[], str],
    what: str,
    tells_size: bool = True,
) -> Path:
    """Write a network as a new file, whole or not at all; nothing is overwritten.

    Parameters
    ----------
    folder : Path
        Made if need be.
    network, spec, card
        What is kept; the card gets its name here.
    name : str
        Of the new version; empty takes the `following` one.
    check : callable
        Raises if a name cannot be used.
    following : callable
        Returns the next name that is free.
    what : str
        A model or an encoder, for people.
    tells_size : bool
        Whether it is said how much room it needs on a full disk.

    Raises
    ------
    ModelError
        If the name cannot be used.
    WeightsError
        If the file cannot be written; nothing is left of it then.
    """
    while True:
        chosen = name or following()
        # What was judged is what is kept: not rounded to half the size.
        content, _ = encode_model(network, spec, replace(card, name=chosen), half=False)
        path = folder / f"{chosen}{ENDING}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            sweep(folder)
            write_new(path, content)
        except FileExistsError:
            if name:
                check(name)
            if not path.exists():
                raise WeightsError(
                    f"{folder} is no folder, so that no {what} can be kept there. Move it away."
                ) from None
        except OSError as error:
            raise WeightsError(cannot_write(folder, error, len(content) if tells_size else 0)) from error
        else:
            return path


def inherit_acceptance(former: ModelCard, path: Path) -> None:
    """Accept the licence of a new version where that of the former one is accepted: it is the same."""
    if licence_accepted(former):
        with suppress(OSError):
            remember_acceptance(read_card(path))


def move_version(path: Path, folder: Path, remedy: str) -> Path:
    """Move a version to another folder; nothing is overwritten there.

    Raises
    ------
    WeightsError
        If it is there already (the `remedy` says what to do), or cannot be moved.
    """
    target = folder / path.name
    try:
        move_new(path, target)
    except FileExistsError as error:
        raise WeightsError(f"{target} is there already, and none is ever overwritten. {remedy}") from error
    except OSError as error:
        raise WeightsError(cannot_write(folder, error)) from error
    return target


def cannot_write(folder: Path, error: OSError, size: int = 0) -> str:
    """Return why a folder cannot be written, and what to do, as a sentence; `size` are the bytes that are needed."""
    if error.errno == ENOSPC:
        need = f"; {size / 1e6:.0f} MB are needed" if size else ""
        return f"The disk that holds {folder} is full{need}. Make space and try again; all that was there is as it was."
    return f"{folder} cannot be used ({error.strerror or error}). All that was there is as it was."

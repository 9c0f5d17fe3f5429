"""Names of new versions: unique, fit for a file, and never one that something else was known by."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from napari_nucleiseg.core.errors import ModelError
from napari_nucleiseg.core.models.weights import user_folder, weight_files

ENDING = ".safetensors"
_NAME = re.compile(r"\w[\w .-]*(?<![ .])")
_NUMBERED = re.compile(r"(.*?)-(\d+)")
_MOST_LETTERS = 100


def models_folder() -> Path:
    """Folder of the versions that can be used by name."""
    return user_folder() / "models"


def refused_folder() -> Path:
    """Folder of the versions that the guard refused."""
    return models_folder() / "refused"


def check_name(name: str) -> None:
    """Raise a `ModelError` if a new version cannot have this name."""
    if len(name) > _MOST_LETTERS or not _NAME.fullmatch(name) or name.endswith(ENDING):
        raise ModelError(f"{name!r} cannot be the name of a model. Take letters, digits, - and _, such as liver-2.")
    if name.casefold() in _taken():
        raise ModelError(f"there is a model called {name} already, and none is ever overwritten. Take another name.")


def next_name(family: str, parents: Iterable[str]) -> str:
    """Return a family's next name, such as ``nuclei-2``.

    Parameters
    ----------
    family : str
        Name of the model that the family comes from.
    parents : iterable of str
        Names that something was taught from: they are not used again, also if they are no longer there.
    """
    base = re.sub(r"[^\w.-]+", "-", family).strip("-.") or "model"
    found = (_NUMBERED.fullmatch(name) for name in _taken() | {parent.casefold() for parent in parents})
    return f"{base}-{1 + max([1, *(int(one[2]) for one in found if one and one[1] == base.casefold())])}"


def number_of(name: str) -> tuple[str, int]:
    """Return a name without its number, and the number; 0 if there is none."""
    numbered = _NUMBERED.fullmatch(name)
    return (numbered[1], int(numbered[2])) if numbered else (name, 0)


def _taken() -> set[str]:
    """Return all names, in small letters: not every disk tells large ones apart."""
    own = [path for folder in (models_folder(), refused_folder()) for path in folder.glob(f"*{ENDING}")]
    return {name.casefold() for name in (*weight_files(), *(path.stem for path in own))}

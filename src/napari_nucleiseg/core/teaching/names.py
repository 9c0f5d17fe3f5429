"""Names of new versions: unique, fit for a file, and never one that something else was known by."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path

from napari_nucleiseg.core.errors import ModelError
from napari_nucleiseg.core.models.files import write_over
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
    if name.casefold() in _retired():
        raise ModelError(f"there was a model called {name}, and results may still name it. Take another name.")


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
    found = (_NUMBERED.fullmatch(name) for name in _taken() | _retired() | {parent.casefold() for parent in parents})
    return f"{base}-{1 + max([1, *(int(one[2]) for one in found if one and one[1] == base.casefold())])}"


def number_of(name: str) -> tuple[str, int]:
    """Return a name without its number, and the number; 0 if there is none."""
    numbered = _NUMBERED.fullmatch(name)
    return (numbered[1], int(numbered[2])) if numbered else (name, 0)


def retire(name: str) -> None:
    """Remember a name that is given up, so that no other model gets it: results on slides may still name it.

    Raises
    ------
    OSError
        If that cannot be noted.
    """
    models_folder().mkdir(parents=True, exist_ok=True)
    write_over(_retired_file(), json.dumps(sorted(_retired() | {name.casefold()}), indent=1).encode())


def _retired() -> set[str]:
    """Return the names of deleted models, in small letters; a damaged file says nothing."""
    try:
        found = json.loads(_retired_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return set()
    return {str(name) for name in found} if isinstance(found, list) else set()


def _retired_file() -> Path:
    return models_folder() / "retired.json"


def _taken() -> set[str]:
    """Return all names, in small letters: not every disk tells large ones apart."""
    own = [path for folder in (models_folder(), refused_folder()) for path in folder.glob(f"*{ENDING}")]
    return {name.casefold() for name in (*weight_files(), *(path.stem for path in own))}

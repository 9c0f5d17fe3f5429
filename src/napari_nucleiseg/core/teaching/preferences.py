"""Which version of each family opens by default: a small file of the user's."""

from __future__ import annotations

import json
from pathlib import Path

from napari_nucleiseg.core.models.files import write_over
from napari_nucleiseg.core.models.weights import user_folder


def read_preferences() -> dict[str, str]:
    """Return the preferred version of each family; a damaged file says nothing."""
    try:
        found = json.loads(_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else {}


def write_preferences(preferences: dict[str, str]) -> None:
    """Note the preferred version of each family.

    Raises
    ------
    OSError
        If the file cannot be written; it is as it was then.
    """
    _file().parent.mkdir(parents=True, exist_ok=True)
    write_over(_file(), json.dumps(preferences, indent=1).encode())


def _file() -> Path:
    return user_folder() / "preferred.json"

"""What was kept of a stack, found again on disk."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.errors import StoreError
from napari_nucleiseg.core.store import kept_stack
from napari_nucleiseg.core.store.kept_stack import KeptInUseError, KeptStack


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """What was kept of a stack: file and labels of each version, and whether another window holds some."""

    versions: tuple[tuple[KeptStack, NDArray[np.int32]], ...] = ()
    is_in_use: bool = False


def find_kept(volume: Any) -> Found:
    """Return what was kept of a stack: the last version, and any other that somebody painted on.

    Raises
    ------
    StoreError
        If none of it can be read.
    """
    versions: list[tuple[KeptStack, NDArray[np.int32]]] = []
    is_in_use, damage = False, None
    for path in reversed(kept_stack.kept_versions(kept_stack.stack_key(volume))):
        try:
            version = opened(path, painted=bool(versions))
        except KeptInUseError:
            is_in_use = True
        except StoreError as error:
            damage = error
        else:
            versions.extend(version)
    if damage is not None and not versions:
        raise damage
    return Found(tuple(reversed(versions)), is_in_use)


def opened(path: Path, *, painted: bool = False) -> list[tuple[KeptStack, NDArray[np.int32]]]:
    """Return file and labels; nothing if only painted ones are wanted and nobody painted on these."""
    file = KeptStack.open(path)
    try:
        if not painted or file.facts.get("painted", False):
            return [(file, file.read())]
    except StoreError:
        file.close()
        raise
    file.close()
    return []


def told(name: str, file: KeptStack) -> str:
    """Return that labels are back, and from when, as a sentence."""
    when = time.strftime("%d %B %Y, %H:%M", time.localtime(file.facts.get("at", 0)))
    part = "" if file.facts.get("complete", True) else " The search had not ended: nuclei of the rest are missing."
    return f"“{name}” is back as it was on {when}.{part} What you paint is kept by itself."

"""Imports of several threads: packages whose parts import each other are imported by one thread, and the others wait.

Where two threads begin with such a package at once, Python breaks the deadlock by giving one of them a module that is
not ready: "cannot import name 'euclidean' from partially initialized module 'scipy.spatial.distance'".
"""

from __future__ import annotations

import threading
from importlib import import_module

# What listing models and a first segmentation import beside each other: all that they take from scipy and scikit-image.
SHARED = tuple(
    f"napari_nucleiseg.core.{name}"
    for name in ("evaluation", "decoders.component_tree", "models.without_brown", "training.scales.slide_level")
)

_importing = threading.Lock()


def import_shared() -> None:
    """Import `SHARED`, or wait for the thread that does; costs nothing once they are there."""
    with _importing:
        for name in SHARED:
            import_module(name)

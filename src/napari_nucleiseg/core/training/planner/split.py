"""Holds pictures out of data sets, to choose the best weights by, where nobody named a set for that."""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Sequence
from dataclasses import replace

from napari_nucleiseg.core.training.config import DataSet
from napari_nucleiseg.core.training.samples import picture_files

_EVERY = 5


def hold_out(data: Sequence[DataSet]) -> tuple[tuple[DataSet, ...], tuple[DataSet, ...]]:
    """Part each data set into a fifth to validate and the rest to train on; a single picture is trained on.

    Which pictures are held out is decided by the hash of their names alone, so that adding some moves no other.

    Parameters
    ----------
    data : sequence of DataSet
        Folders with ``images/`` and ``labels/``.

    Returns
    -------
    train, validate : tuple of DataSet
        The same folders, their pictures named one by one.

    Raises
    ------
    DataError
        If a folder is not a data set.
    """
    train, validate = [], []
    for item in data:
        stems = sorted((path.stem for path in picture_files(item)), key=_place)
        # Those that hash below a fifth; at least one, and never all.
        held = [stem for stem in stems if _place(stem) < 1 / _EVERY] or stems[:1]
        held = held[: len(stems) - 1]
        taught = [stem for stem in stems if stem not in held]
        train.append(replace(item, include=_patterns(taught)))
        if held:
            validate.append(replace(item, include=_patterns(held)))
    return tuple(train), tuple(validate)


def _place(stem: str) -> float:
    """Return a number in 0..1 that depends on the name alone."""
    return int.from_bytes(hashlib.sha256(stem.encode()).digest()[:8]) / 2**64


def _patterns(stems: Sequence[str]) -> tuple[str, ...]:
    return tuple(glob.escape(stem) for stem in sorted(stems))

"""Files of features: all that is known of one slide, where it lies, and which encoders said it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.errors import DataError, StoreError
from napari_nucleiseg.core.models.files import write_over

ENDING = ".features.safetensors"
_KEY = "bag"


@dataclass(frozen=True, slots=True)
class BagCard:
    """What a file of features says of itself.

    Parameters
    ----------
    slide : str
        Name of the slide's file.
    fingerprint : str
        Of the slide's content.
    encoders : tuple of str
        Versions of the encoders: of patches, then of regions if there is one.
    settings : str
        All else that decides what comes out: pixel size, size of regions, shares of tissue.
    licence : str
        SPDX expression of the encoders' weights.
    commercial_use : bool
        Whether they are free for commercial use.
    """

    slide: str
    fingerprint: str
    encoders: tuple[str, ...]
    settings: str
    licence: str = "unknown"
    commercial_use: bool = False

    @property
    def encoder(self) -> str:
        """Version of the encoder whose features these are."""
        return self.encoders[-1]


@dataclass(frozen=True, slots=True, eq=False)
class Bag:
    """Features of one slide.

    Parameters
    ----------
    card : BagCard
        Where they come from.
    features : ndarray of float32, shape (n, width)
        Of regions or patches.
    boxes : ndarray of int64, shape (n, 4)
        Where these lie: ``(y0, x0, y1, x1)``, half-open, level-0 pixels.
    """

    card: BagCard
    features: NDArray[np.float32]
    boxes: NDArray[np.int64]


def write_bag(path: str | os.PathLike[str], bag: Bag) -> None:
    """Write a bag, whole or not at all, over a former one.

    Raises
    ------
    StoreError
        If it cannot be written.
    """
    from safetensors.numpy import save

    arrays: dict[str, NDArray[Any]] = {
        "features": np.ascontiguousarray(bag.features),
        "boxes": np.ascontiguousarray(bag.boxes),
    }
    try:
        write_over(Path(path), save(arrays, {_KEY: json.dumps(asdict(bag.card))}))
    except OSError as error:
        raise StoreError(f"{path} cannot be written ({error.strerror or error}); free some space") from error


def read_bag(path: str | os.PathLike[str]) -> Bag:
    """Read a bag.

    Raises
    ------
    DataError
        If it is missing, damaged or no file of features.
    """
    card, arrays = _read(path, ("features", "boxes"))
    features, boxes = arrays["features"], arrays["boxes"]
    if features.ndim != 2 or boxes.shape != (len(features), 4) or not len(features):
        raise DataError(f"{path} holds no features with a box for each; {_REMEDY}")
    return Bag(card, features.astype(np.float32, copy=False), boxes.astype(np.int64, copy=False))


def read_bag_card(path: str | os.PathLike[str]) -> BagCard:
    """Read what a file of features says of itself, without the features.

    Raises
    ------
    DataError
        If it is missing, damaged or no file of features.
    """
    return _read(path, ())[0]


_REMEDY = "make it with `napari-nucleiseg features`"


def read_bag_width(path: str | os.PathLike[str]) -> int:
    """Read how many numbers a file of features has for each region or patch, without the features.

    Raises
    ------
    DataError
        If it is missing, damaged or no file of features.
    """
    with _opened(path) as file:
        return int(file.get_slice("features").get_shape()[-1])


def _read(path: str | os.PathLike[str], names: Sequence[str]) -> tuple[BagCard, dict[str, NDArray[Any]]]:
    with _opened(path) as file:
        card = _card((file.metadata() or {}).get(_KEY, ""))
        return card, {name: file.get_tensor(name) for name in names}


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[Any]:
    """Open a file of features; what goes wrong while it is read is said in a sentence."""
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise DataError(f"there is no file of features {path}; {_REMEDY}")
    try:
        with safe_open(str(path), framework="numpy") as file:
            yield file
    except (OSError, SafetensorError, ValueError, TypeError, KeyError) as error:
        raise DataError(f"{path} is no readable file of features; {_REMEDY} ({error})") from error


def _card(text: str) -> BagCard:
    known = {item.name for item in fields(BagCard)}
    raw: dict[str, Any] = {key: value for key, value in json.loads(text).items() if key in known}
    return BagCard(**{**raw, "encoders": tuple(raw["encoders"])})


def name_of_bag(path: str | os.PathLike[str]) -> str:
    """Return the slide's name without ending, which its file of features goes by."""
    return Path(path).name.removesuffix(ENDING)


def find_bags(paths: Sequence[str | os.PathLike[str]]) -> tuple[Path, ...]:
    """Return files of features; of folders those in them, sorted by name.

    Raises
    ------
    DataError
        If a folder holds none, or two are of the same name.
    """
    found: list[Path] = []
    for given in map(Path, paths):
        inside = sorted(given.glob(f"*{ENDING}")) if given.is_dir() else [given]
        if not inside:
            raise DataError(f"{given} holds no files of features (*{ENDING}); {_REMEDY}")
        found += inside
    found = list(dict.fromkeys(found))
    names = [name_of_bag(path) for path in found]
    if twice := [name for name in names if names.count(name) > 1]:
        raise DataError(f"there are two files of features for {twice[0]}; give one of them")
    return tuple(found)


class Shelf:
    """Features of many slides by number; read at first use, and kept as long as they fit.

    Parameters
    ----------
    paths : sequence of Path
        Files of features.
    most_bytes : int
        What is kept in memory at most; the rest is read anew each time.
    """

    def __init__(self, paths: Sequence[Path], most_bytes: int = 2**31) -> None:
        self._paths, self._free = paths, most_bytes
        self._kept: dict[int, NDArray[np.float32]] = {}

    def __getitem__(self, place: int) -> NDArray[np.float32]:
        """Return the features ``(n, width)`` of a slide."""
        if place in self._kept:
            return self._kept[place]
        features = read_bag(self._paths[place]).features
        if features.nbytes <= self._free:
            self._free -= features.nbytes
            self._kept[place] = features
        return features

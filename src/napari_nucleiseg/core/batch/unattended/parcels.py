"""Nuclei on their way from a worker to the one writer: a file a task, whole or not there."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.errors import StoreError
from napari_nucleiseg.core.geometry import Region
from napari_nucleiseg.core.models.files import ENDING as UNFINISHED
from napari_nucleiseg.core.models.files import write_over
from napari_nucleiseg.core.store.failure import explained
from napari_nucleiseg.core.store.nuclei import TileNuclei

FOLDER = "parcels"
ENDING = ".parcel"
_LEVEL = 1
_KEY, _TILES = "key", "tiles"
_COLUMNS = ("centroids", "areas_um2", "boxes", "scores")


@dataclass(frozen=True, slots=True, eq=False)
class Parcel:
    """What a worker found in some tiles.

    Parameters
    ----------
    key : str
        Names the weights, the decoding and the slide: what is joined must have one key.
    tiles : tuple of TileNuclei
        The tiles that were done; those without nuclei too.
    """

    key: str
    tiles: tuple[TileNuclei, ...]


def write_parcel(folder: Path, parcel: Parcel) -> Path:
    """Write a parcel under a name of its own.

    Parameters
    ----------
    folder : Path
        Made if need be.
    parcel : Parcel
        What was found.

    Raises
    ------
    StoreError
        If the disk is full or the folder cannot be written.
    """
    from safetensors.numpy import save

    tensors: dict[str, NDArray[Any]] = {}
    facts = []
    for number, tile in enumerate(parcel.tiles):
        labels = np.ascontiguousarray(tile.labels)
        packed = imagecodecs.zstd_encode(labels.tobytes(), _LEVEL)
        tensors[f"{number}.labels"] = np.frombuffer(packed, np.uint8)
        tensors |= {f"{number}.{name}": np.ascontiguousarray(getattr(tile, name)) for name in _COLUMNS}
        facts.append([tile.tile_index, _bounds(tile.core), _bounds(tile.box), labels.dtype.str])
    content = save(tensors, {_KEY: parcel.key, _TILES: json.dumps(facts)})
    name = f"{parcel.tiles[0].tile_index if parcel.tiles else 0:06d}-{uuid.uuid4().hex}{ENDING}"
    path = folder / name
    with explained(folder.parent):
        folder.mkdir(parents=True, exist_ok=True)
        write_over(path, content)
    return path


def read_parcel(path: Path) -> Parcel | None:
    """Read a parcel; None if it is gone or damaged, so that its tiles are done again."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="numpy") as file:
            said = file.metadata() or {}
            facts = json.loads(said[_TILES])
            tiles = tuple(_tile(file, number, entry) for number, entry in enumerate(facts))
            return Parcel(said[_KEY], tiles)
    except (OSError, SafetensorError, KeyError, ValueError, TypeError, imagecodecs.ZstdError, RuntimeError):
        return None


def left_parcels(folder: Path, key: str) -> Iterator[Path]:
    """Yield the parcels of a folder that are still to be joined, and remove those of other keys and torn ones."""
    with suppress(OSError):
        for path in sorted(folder.iterdir()):
            if path.name.endswith(UNFINISHED) or (path.suffix == ENDING and _key_of(path) != key):
                discard(path)
            elif path.suffix == ENDING:
                yield path


def discard(path: Path) -> None:
    """Remove a parcel that was joined; where that cannot be done it does no harm."""
    with suppress(OSError):
        path.unlink(missing_ok=True)


def remove_folder(folder: Path) -> None:
    """Remove the folder of parcels if it is empty."""
    with suppress(OSError):
        folder.rmdir()


def _key_of(path: Path) -> str | None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="numpy") as file:
            return (file.metadata() or {}).get(_KEY)
    except (OSError, SafetensorError, ValueError):
        return None


def _tile(file: Any, number: int, facts: Sequence[Any]) -> TileNuclei:
    index, core, box, kind = facts
    where = Region.from_bounds(*box)
    packed = file.get_tensor(f"{number}.labels").tobytes()
    labels = np.frombuffer(imagecodecs.zstd_decode(packed), np.dtype(kind)).reshape(where.height, where.width)
    columns = {name: file.get_tensor(f"{number}.{name}") for name in _COLUMNS}
    return TileNuclei(tile_index=index, core=Region.from_bounds(*core), box=where, labels=labels, **columns)


def _bounds(region: Region) -> list[int]:
    return [int(region.y), int(region.x), int(region.y1), int(region.x1)]


def require_shared(folder: Path) -> None:
    """Make sure that a worker sees the folder that the writer has made.

    Raises
    ------
    StoreError
        If it does not.
    """
    if not folder.is_dir():
        raise StoreError(
            f"the worker does not see {folder}; every worker needs the slides and the output folder under the same "
            "path as where the run was started (a shared drive)"
        )

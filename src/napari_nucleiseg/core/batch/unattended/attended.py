"""Attention as columns of a table of nuclei: what each head looks at, on the nuclei of the part it looked at."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_nucleiseg.core.attention.grid import TokenGrid
from napari_nucleiseg.core.attention.per_nucleus import cover_of_table
from napari_nucleiseg.core.errors import DataError
from napari_nucleiseg.core.exchange.source import Column, Measures
from napari_nucleiseg.core.geometry import YX
from napari_nucleiseg.core.store.nuclei import NucleiTable

_ABOUT = (
    "Mean rank of the attention on the nucleus among the places of its patch, 0 to 1; empty for nuclei outside of the "
    "part that was looked at."
)


class AttentionMeasures:
    """Attention of nuclei, for exporters; see `exchange.source.Measures`.

    Parameters
    ----------
    path : Path
        Maps of heads, as `write_heads` writes them to ``.npz``.

    Raises
    ------
    DataError
        If it is not such a file.
    """

    def __init__(self, path: Path) -> None:
        try:
            with np.load(path, allow_pickle=False) as file:
                maps, names = file["maps"], [str(name) for name in file["names"]]
                origin, token = file["origin_px"].tolist(), file["token_px"].tolist()
        except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
            raise DataError(f"{path} holds no maps of attention heads ({error}); remove it and run again") from error
        self._grid = TokenGrid(maps.shape[1], maps.shape[2], YX(*token), YX(*origin))
        self._maps: dict[str, NDArray[np.float32]] = dict(zip(map(_column_name, names), maps, strict=True))
        titles = dict(zip(self._maps, names, strict=True))
        self.columns = tuple(Column(name, _title(titles[name]), _ABOUT) for name in self._maps)
        """One a map."""

    def of(self, table: NucleiTable) -> Mapping[str, NDArray[np.float32]]:
        """Return the attention of nuclei, ``(n,)`` by column, 0..1; NaN where nothing was looked at."""
        cover = cover_of_table(table.ids, table.centroids, table.boxes, self._grid)
        return {name: cover.measure(values).means for name, values in self._maps.items()}


class JoinedMeasures:
    """What several measure, side by side.

    Parameters
    ----------
    parts : Measures
        With columns of different names.
    """

    def __init__(self, *parts: Measures) -> None:
        self._parts = parts

    @property
    def columns(self) -> tuple[Column, ...]:
        """Of all parts."""
        return tuple(column for part in self._parts for column in part.columns)

    def of(self, table: NucleiTable) -> Mapping[str, NDArray[np.float32]]:
        """Return the columns of all parts."""
        return {name: values for part in self._parts for name, values in part.of(table).items()}


def _column_name(name: str) -> str:
    return f"attention_head_{int(name) + 1}" if name.isdecimal() else f"attention_{name}"


def _title(name: str) -> str:
    return f"Attention, head {int(name) + 1}" if name.isdecimal() else f"Attention, {name} of heads"
